/** Geometry of the flame graph: one row a span in call order, left edge = start, width = duration. */

import type { Span, TraceService } from '../api';
import { observationPointName, spanKind, type SpanKind } from '../enums';
import { duration } from '../format';

export interface FlameRow {
  span: Span;
  kind: SpanKind;
  depth: number;
  /** Fractions of the trace's time, 0…1. */
  left: number;
  width: number;
  /** The words start at the bar's left edge, or end at its right edge when they would leave the picture. */
  anchor: 'left' | 'right';
  hasChildren: boolean;
}

export interface FlameGraph {
  rows: FlameRow[];
  startUs: number;
  endUs: number;
}

/**
 * Depth first from the roots, siblings by start time. Spans with a parent that is not there, or in a circle, are shown as roots:
 * nothing the server sent is hidden.
 */
export function flameGraph(spans: readonly Span[]): FlameGraph {
  if (spans.length === 0) return { rows: [], startUs: 0, endUs: 0 };
  const startUs = Math.min(...spans.map((span) => span.start_time_us));
  const endUs = Math.max(...spans.map((span) => span.end_time_us), startUs + 1);
  const whole = endUs - startUs;
  const present = new Set(spans.map((span) => span.id));
  const children = new Map<number, Span[]>();
  const roots: Span[] = [];
  for (const span of spans) {
    if (span.parent_id !== span.id && present.has(span.parent_id)) {
      children.set(span.parent_id, [...(children.get(span.parent_id) ?? []), span]);
    } else {
      roots.push(span);
    }
  }
  const rows: FlameRow[] = [];
  const seen = new Set<number>();
  const byStart = (a: Span, b: Span): number => a.start_time_us - b.start_time_us || a.id - b.id;
  const walk = (top: Span): void => {
    const stack: [Span, number][] = [[top, 0]];
    for (let entry = stack.pop(); entry; entry = stack.pop()) {
      const [span, depth] = entry;
      if (seen.has(span.id)) continue;
      seen.add(span.id);
      const below = [...(children.get(span.id) ?? [])].sort(byStart);
      const left = (span.start_time_us - startUs) / whole;
      rows.push({
        span,
        kind: spanKind(span.signal_source, span.tap_side),
        depth,
        left,
        width: Math.max(0, span.end_time_us - span.start_time_us) / whole,
        anchor: left > 0.55 ? 'right' : 'left',
        hasChildren: below.length > 0,
      });
      for (const child of below.reverse()) stack.push([child, depth + 1]);
    }
  };
  roots.sort(byStart).forEach(walk);
  for (const span of spans) if (!seen.has(span.id)) walk(span);
  return { rows, startUs, endUs };
}

/** A network span is named by where it was seen, all others by what was called. */
export function callInfo(span: Span, kind: SpanKind): string {
  if (kind === 'N') return observationPointName(span.tap_side);
  return [span.l7_protocol_str, called(span)].filter((word) => word).join(' ') || 'call';
}

/** Verb and resource; the resource of Redis and SQL may be the whole command, then its verb is not said twice. */
export function called(span: Span): string {
  const verb = span.request_resource.startsWith(`${span.request_type} `) ? '' : span.request_type;
  return [verb, span.request_resource || span.endpoint].filter((word) => word).join(' ');
}

/** Whether a span is one of several sightings of one call, so that there is a path to look at. */
export function hasPath(row: FlameRow, rows: readonly FlameRow[]): boolean {
  const joined = (span: Span): boolean => (span.set_parent_info ?? '').startsWith('network:');
  return joined(row.span) || rows.some((other) => other.span.parent_id === row.span.id && joined(other.span));
}

/** Rows that stay when the spans of `folded` hide what is below them. */
export function visibleRows(rows: readonly FlameRow[], folded: ReadonlySet<number>): FlameRow[] {
  const shown: FlameRow[] = [];
  let below = Number.POSITIVE_INFINITY;
  for (const row of rows) {
    if (row.depth > below) continue;
    below = folded.has(row.span.id) ? row.depth : Number.POSITIVE_INFINITY;
    shown.push(row);
  }
  return shown;
}

export interface Tick {
  at: number;
  label: string;
}

/** Marks of the time axis at 1, 2 or 5 times a power of ten, at most `most` of them. */
export function ticks(spanUs: number, most = 8): Tick[] {
  if (spanUs <= 0) return [];
  const rough = spanUs / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power);
  const marks: Tick[] = [];
  for (let us = 0; us <= spanUs; us += step) marks.push({ at: us / spanUs, label: duration(us) });
  return marks;
}

/** Hues far from each other and from the red of errors; a colour belongs to a service for the whole trace. */
const HUES = [258, 150, 300, 200, 75, 330, 225, 120, 280, 175, 50, 240];

export const GREY = 'var(--network)';

export function serviceColours(services: readonly TraceService[], spans: readonly Span[]): Map<string, string> {
  const ids = [...new Set([...services.map((s) => s.service_uid), ...spans.map((s) => s.service_uid)])]
    .filter((uid) => uid)
    .sort();
  return new Map(
    ids.map((uid, i) => {
      const hue = ((HUES[i % HUES.length] ?? 0) + 13 * Math.floor(i / HUES.length)) % 360;
      return [uid, `oklch(var(--service-l) var(--service-c) ${hue})`];
    }),
  );
}

/** Network spans belong to no service and are grey. */
export function spanColour(row: FlameRow, colours: ReadonlyMap<string, string>): string {
  return row.kind === 'N' ? GREY : (colours.get(row.span.service_uid) ?? GREY);
}

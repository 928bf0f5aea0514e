/** The map of calls: what a call means, its health, its words, the kind of a service. */

import type { MapEdge, MapNode, ServiceMap } from '../api';
import { protocolName } from '../enums';
import { count, duration, rate, share } from '../format';
import {
  type Column,
  type DrawnEdge,
  type Drawing,
  edgeWidth,
  type Health,
  KIND_TITLE,
  type NodeKind,
  type Thresholds,
} from './drawing';

/** Share of requests that failed, 0…1, from the counts: the same whatever unit error_ratio has. */
export function errorShare(edge: MapEdge): number {
  return edge.request > 0 ? edge.error / edge.request : 0;
}

export function health(edge: MapEdge, thresholds: Thresholds): Health {
  if (edge.error > 0 && errorShare(edge) >= thresholds.failing) return 'failing';
  const slowest = Math.max(edge.rrt_avg_us ?? 0, edge.rrt_p95_us ?? 0);
  return slowest >= thresholds.slowUs ? 'slow' : 'good';
}

export function edgeId(edge: MapEdge): string {
  return [edge.source, edge.target, edge.protocol].join('\u0000');
}

/** Two short lines: what and how often; how long and how bad. */
export function edgeLabel(edge: MapEdge): string {
  const errors = edge.error > 0 ? `  ${share(errorShare(edge))} err` : '';
  return `${edge.protocol}  ${rate(edge.rate)}${errors}\n⌀ ${duration(edge.rrt_avg_us)}  ≤ ${duration(edge.rrt_max_us)}`;
}

const BY_PROTOCOL: Record<string, NodeKind> = {
  mysql: 'database',
  postgresql: 'database',
  oracle: 'database',
  mongodb: 'database',
  redis: 'cache',
  memcached: 'cache',
  dns: 'dns',
};

/** What a service serves says what it is; else whether a process is known behind it. */
export function nodeKind(node: MapNode): NodeKind {
  const served = BY_PROTOCOL[protocolName(node.protocol).toLowerCase()];
  if (served) return served;
  const type = String(node.type).toLowerCase();
  if (['database', 'cache', 'dns'].includes(type)) return type as NodeKind;
  return ['0', '255', 'ip', 'internet ip', 'external', 'address'].includes(type) ? 'external' : 'process';
}

const COLUMNS: Column[] = [
  { key: 'rate', label: 'Rate' },
  { key: 'errors', label: 'Errors' },
  { key: 'average', label: 'Average' },
  { key: 'p95', label: 'p95' },
  { key: 'max', label: 'Longest' },
];

/** A call is failing when its share of errors reaches the threshold, slow when its average or 95th percentile does. */
export function applicationDrawing(map: ServiceMap, thresholds: Thresholds): Drawing {
  const names = new Map(map.nodes.map((node) => [node.id, node.name]));
  const busiest = Math.max(0, ...map.edges.map((edge) => edge.rate));
  const summary = summarise(map.nodes, map.edges);
  const callers = (id: string): number => new Set(map.edges.filter((e) => e.target === id).map((e) => e.source)).size;
  const called = (id: string): number => new Set(map.edges.filter((e) => e.source === id).map((e) => e.target)).size;
  return {
    nodes: map.nodes.map((node) => ({
      id: node.id,
      name: node.name,
      kind: nodeKind(node),
      amount: count(node.requests),
      lines: [
        ['Kind', KIND_TITLE[nodeKind(node)]],
        ['Requests', count(node.requests)],
        ['Called by', String(callers(node.id))],
        ['Calls', String(called(node.id))],
      ],
    })),
    edges: map.edges.map((edge) => drawn(edge, names, busiest, thresholds)),
    columns: COLUMNS,
    tiles: [
      { label: 'Services', text: count(summary.services) },
      { label: 'Calls', text: rate(summary.rate) },
      {
        label: 'Errors',
        text: share(summary.errorShare),
        bad: summary.errorShare >= thresholds.failing && summary.errorShare > 0,
      },
      { label: 'Average delay', text: duration(summary.averageUs) },
      { label: 'Longest delay', text: duration(summary.maxUs) },
    ],
  };
}

function drawn(edge: MapEdge, names: ReadonlyMap<string, string>, busiest: number, thresholds: Thresholds): DrawnEdge {
  const state = health(edge, thresholds);
  const slow = (us: number | null) => (us !== null && us >= thresholds.slowUs ? 'warn-text' : undefined);
  return {
    id: edgeId(edge),
    source: edge.source,
    target: edge.target,
    client: names.get(edge.source) ?? edge.source,
    server: names.get(edge.target) ?? edge.target,
    protocol: edge.protocol,
    health: state,
    label: edgeLabel(edge),
    width: edgeWidth(edge.rate, busiest),
    lines: [
      ['Protocol', edge.protocol],
      ['Requests', `${count(edge.request)}  (${rate(edge.rate)})`],
      ['Errors', `${count(edge.error)}  (${share(errorShare(edge))})`],
      ['Average delay', duration(edge.rrt_avg_us)],
      ['p95', duration(edge.rrt_p95_us)],
      ['Longest', duration(edge.rrt_max_us)],
    ],
    cells: {
      rate: { sort: edge.rate, text: rate(edge.rate) },
      errors: {
        sort: errorShare(edge),
        text: share(errorShare(edge)),
        note: edge.error > 0 ? `(${edge.error})` : '',
        tone: state === 'failing' ? 'bad-text' : undefined,
      },
      average: { sort: edge.rrt_avg_us ?? -1, text: duration(edge.rrt_avg_us), tone: slow(edge.rrt_avg_us) },
      p95: { sort: edge.rrt_p95_us ?? -1, text: duration(edge.rrt_p95_us), tone: slow(edge.rrt_p95_us) },
      max: { sort: edge.rrt_max_us ?? -1, text: duration(edge.rrt_max_us) },
    },
    requests: edge.request,
    errors: edge.error,
  };
}

export interface Summary {
  services: number;
  rate: number;
  errorShare: number;
  averageUs: number | null;
  maxUs: number | null;
}

/** The whole map in five numbers; the average is weighted by requests. */
export function summarise(nodes: readonly MapNode[], edges: readonly MapEdge[]): Summary {
  let requests = 0;
  let errors = 0;
  let perSecond = 0;
  let timed = 0;
  let total = 0;
  let maxUs: number | null = null;
  for (const edge of edges) {
    requests += edge.request;
    errors += edge.error;
    perSecond += edge.rate;
    if (edge.rrt_avg_us !== null) {
      timed += edge.request;
      total += edge.rrt_avg_us * edge.request;
    }
    if (edge.rrt_max_us !== null) maxUs = Math.max(maxUs ?? 0, edge.rrt_max_us);
  }
  return {
    services: nodes.length,
    rate: perSecond,
    errorShare: requests > 0 ? errors / requests : 0,
    averageUs: timed > 0 ? total / timed : null,
    maxUs,
  };
}

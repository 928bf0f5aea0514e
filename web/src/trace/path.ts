/** The lines of a path: bars of each point and of each hop, on one scale. */

import type { CallPath, PathPoint } from '../api';

export interface PathLine {
  point: PathPoint;
  /** Fractions of the whole, 0…1: from the request to the response as seen here. */
  left: number;
  width: number;
  /** The hop to the next point stands out: it takes the most, and not a trifle of it. */
  loud: boolean;
  /** The last one whose time is known: what is left belongs to the server, or to what nobody saw. */
  last: boolean;
}

/** A hop stands out from this share on. */
const LOUD = 0.25;

export function pathLines(path: CallPath): PathLine[] {
  const whole = Math.max(1, ...path.points.map((point) => point.response_us ?? 0));
  const inside = (us: number): number => Math.min(1, Math.max(0, us / whole));
  const timed = path.points.filter((point) => point.delay_us !== null);
  return path.points.map((point, number) => {
    const left = inside(point.request_us ?? point.response_us ?? 0);
    const right = inside(point.response_us ?? point.request_us ?? 0);
    return {
      point,
      left,
      width: Math.max(0, right - left),
      loud: number === path.slowest && (point.share ?? 0) >= LOUD,
      last: point === timed.at(-1),
    };
  });
}

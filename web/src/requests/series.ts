/** Requests of one page of the list, summed over equal steps of time. */

import type { RequestRow } from '../api';
import { statusTone } from '../enums';

export interface Series {
  /** Start of each step, seconds. */
  time: number[];
  good: number[];
  failed: number[];
  /** Longest duration in a step, ms; null where nothing happened. */
  longestMs: (number | null)[];
  stepS: number;
}

const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400];

/** At most `most` steps, of a round length, from the first request to the last. Client errors and worse count as failed. */
export function series(rows: readonly RequestRow[], most = 90): Series {
  if (rows.length === 0) return { time: [], good: [], failed: [], longestMs: [], stepS: 1 };
  const starts = rows.map((row) => row.start_time_us / 1e6);
  const first = Math.min(...starts);
  const last = Math.max(...starts);
  const stepS = STEPS_S.find((step) => (last - first) / step < most - 1) ?? (last - first) / (most - 1);
  const base = Math.floor(first / stepS);
  const steps = Math.floor(last / stepS) - base + 1;
  const good = new Array<number>(steps).fill(0);
  const failed = new Array<number>(steps).fill(0);
  const longestMs = new Array<number | null>(steps).fill(null);
  for (const row of rows) {
    const i = Math.floor(row.start_time_us / 1e6 / stepS) - base;
    const tone = statusTone(row.status);
    const counts = tone === 'bad' || tone === 'warn' ? failed : good;
    counts[i] = (counts[i] ?? 0) + 1;
    longestMs[i] = Math.max(longestMs[i] ?? 0, row.duration_us / 1000);
  }
  return { time: good.map((_, i) => (base + i) * stepS), good, failed, longestMs, stepS };
}

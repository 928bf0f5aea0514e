/** Counters of a pipeline, grouped by stage, so that what went in, came out and was lost stand side by side. */

import type { Counters } from '../api';

export interface Stage {
  name: string;
  in: number | null;
  out: number | null;
  lost: number | null;
}

export interface Grouped {
  stages: Stage[];
  /** Losses under names that fit no stage. */
  losses: [string, number][];
  others: [string, number][];
  lost: number;
}

const WORD: Record<string, 'in' | 'out' | 'lost'> = {
  in: 'in',
  received: 'in',
  out: 'out',
  sent: 'out',
  dropped: 'lost',
  lost: 'lost',
};

const LOSS = /(^|[._])(drop(ped|s)?|lost|loss|discard(ed)?|overflow(ed)?|evicted)([._]|$)/;

/** `ring.dropped`, `ring_dropped` and `dropped_ring` are the loss of stage `ring`. A measurement before a `/` or `:` stays in the name. */
export function groupCounters(counters: Counters): Grouped {
  const stages = new Map<string, Stage>();
  const losses: [string, number][] = [];
  const others: [string, number][] = [];
  let lost = 0;
  for (const name of Object.keys(counters).sort()) {
    const value = counters[name] ?? 0;
    const isLoss = LOSS.test(name);
    if (isLoss) lost += value;
    const match = /^(.+)[._](in|received|out|sent|dropped|lost)$/.exec(name);
    const column = match ? WORD[match[2] as string] : undefined;
    if (match && column) {
      const key = match[1] as string;
      const stage = stages.get(key) ?? { name: key, in: null, out: null, lost: null };
      stage[column] = (stage[column] ?? 0) + value;
      stages.set(key, stage);
    } else (isLoss ? losses : others).push([name, value]);
  }
  return { stages: [...stages.values()], losses, others, lost };
}

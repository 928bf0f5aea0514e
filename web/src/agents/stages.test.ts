import { expect, test } from 'vitest';
import { groupCounters } from './stages';

test('in, out and lost of a stage stand side by side', () => {
  const grouped = groupCounters({
    'ring.in': 10,
    'ring.out': 8,
    'ring.dropped': 2,
    rows_in: 5,
    rows_sent: 4,
    rows_lost: 1,
    sessions: 3,
    sessions_evicted: 6,
  });
  expect(grouped.stages).toEqual([
    { name: 'ring', in: 10, out: 8, lost: 2 },
    { name: 'rows', in: 5, out: 4, lost: 1 },
  ]);
  expect(grouped.losses).toEqual([['sessions_evicted', 6]]);
  expect(grouped.others).toEqual([['sessions', 3]]);
  expect(grouped.lost).toBe(9);
});

test('nothing lost is nothing lost', () => {
  expect(groupCounters({ rows_lost: 0, uptime: 5, dropper: 3 })).toMatchObject({ lost: 0 });
});

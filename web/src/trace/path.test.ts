import { expect, test } from 'vitest';
import type { CallPath, PathPoint } from '../api';
import { pathLines } from './path';

const point = (change: Partial<PathPoint>): PathPoint => ({
  _id: '1',
  observation_point: 'c',
  agent: 'node1',
  where: '…0a:01 on node1',
  ends: '10.1.0.5:40000 → 10.2.0.7:80',
  signal_source: 0,
  type: 2,
  request_us: 0,
  response_us: 100,
  duration_us: 100,
  delay_us: 10,
  share: 0.1,
  retransmissions: null,
  ...change,
});
const path = (points: PathPoint[], slowest: number | null): CallPath => ({
  points,
  slowest,
  whole_us: 100,
  sentence: '',
});

test('bars stand where the request came and the response went', () => {
  const lines = pathLines(
    path(
      [
        point({ observation_point: 'c-p' }),
        point({ request_us: 10, response_us: 90, delay_us: 60, share: 0.6 }),
        point({ request_us: 40, response_us: null, delay_us: null, share: null, type: 0 }),
        point({ observation_point: 's-p', request_us: 40, response_us: 60, delay_us: 20, share: 0.2 }),
      ],
      1,
    ),
  );
  expect(lines.map((line) => [line.left, line.width])).toEqual([
    [0, 1],
    [0.1, 0.8],
    [0.4, 0],
    [0.4, 0.19999999999999996],
  ]);
  expect(lines.map((line) => line.loud)).toEqual([false, true, false, false]);
  expect(lines.map((line) => line.last)).toEqual([false, false, false, true]);
});

test('a hop that takes a trifle more than the others does not stand out', () => {
  const lines = pathLines(path([point({ share: 0.2 }), point({ share: 0.1 })], 0));
  expect(lines.some((line) => line.loud)).toBe(false);
});

test('nothing is nothing', () => {
  expect(pathLines(path([], null))).toEqual([]);
  expect(pathLines(path([point({ request_us: null, response_us: null, delay_us: null })], null))[0]?.width).toBe(0);
});

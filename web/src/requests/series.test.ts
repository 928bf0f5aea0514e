import { expect, test } from 'vitest';
import type { RequestRow } from '../api';
import { series } from './series';

const row = (startS: number, durationMs: number, status: string | number): RequestRow => ({
  _id: '1',
  start_time_us: startS * 1e6,
  duration_us: durationMs * 1000,
  client: 'a',
  server: 'b',
  protocol: 'HTTP',
  l7_protocol: 20,
  request_type: 'GET',
  request_resource: '/',
  endpoint: '/',
  status,
  code: null,
  observation_point: 's-p',
});

test('every request is in one step, errors apart', () => {
  const { time, good, failed, longestMs, stepS } = series([
    row(100.5, 10, 'Success'),
    row(101.2, 30, 0),
    row(160.1, 20, 'Server Error'),
    row(160.2, 50, 2),
  ]);
  expect(stepS).toBe(1);
  expect(time[0]).toBe(100);
  expect(time).toHaveLength(61);
  expect(good.reduce((a, b) => a + b)).toBe(2);
  expect(failed.at(-1)).toBe(2);
  expect(longestMs[0]).toBe(10);
  expect(longestMs[1]).toBe(30);
  expect(longestMs[2]).toBeNull();
  expect(longestMs.at(-1)).toBe(50);
});

test('one request, no request, a year of requests', () => {
  expect(series([row(5, 1, 0)]).good).toEqual([1]);
  expect(series([]).time).toEqual([]);
  expect(series([row(0, 1, 0), row(31_536_000, 1, 0)]).time.length).toBeLessThanOrEqual(91);
});

import { expect, test } from 'vitest';
import type { MapEdge, MapNode } from '../api';
import { DEFAULT_THRESHOLDS, edgeWidth, sortRows } from './drawing';
import { applicationDrawing, edgeLabel, health, nodeKind, summarise } from './edges';

const edge = (change: Partial<MapEdge> = {}): MapEdge => ({
  source: 'a',
  target: 'b',
  protocol: 'HTTP',
  l7_protocol: 20,
  request: 100,
  rate: 2,
  error: 0,
  error_ratio: 0,
  rrt_avg_us: 5000,
  rrt_max_us: 20_000,
  rrt_p95_us: null,
  ...change,
});
const node = (change: Partial<MapNode>): MapNode => ({
  id: 'a',
  name: 'a',
  type: 'process',
  protocol: 'HTTP',
  requests: 1,
  ...change,
});

test('failing outranks slow, slow is average or p95', () => {
  expect(health(edge(), DEFAULT_THRESHOLDS)).toBe('good');
  expect(health(edge({ rrt_avg_us: 100_000 }), DEFAULT_THRESHOLDS)).toBe('slow');
  expect(health(edge({ rrt_p95_us: 300_000 }), DEFAULT_THRESHOLDS)).toBe('slow');
  expect(health(edge({ rrt_max_us: 9e9 }), DEFAULT_THRESHOLDS)).toBe('good');
  expect(health(edge({ error: 5, rrt_avg_us: 1e6 }), DEFAULT_THRESHOLDS)).toBe('failing');
  expect(health(edge({ error: 5, request: 10_000 }), DEFAULT_THRESHOLDS)).toBe('good');
  expect(health(edge(), { slowUs: 5000, failing: 0.01 })).toBe('slow');
  // A threshold of nought per cent asks for any failure, not for all edges.
  expect(health(edge(), { slowUs: 1e9, failing: 0 })).toBe('good');
});

test('the label names rate, errors and delays', () => {
  expect(edgeLabel(edge())).toBe('HTTP  2/s\n⌀ 5 ms  ≤ 20 ms');
  expect(edgeLabel(edge({ protocol: 'MySQL', error: 5, rrt_avg_us: null, rrt_max_us: null }))).toBe(
    'MySQL  2/s  5 % err\n⌀ –  ≤ –',
  );
});

test('width grows with the rate within bounds', () => {
  expect(edgeWidth(0, 100)).toBe(1.5);
  expect(edgeWidth(100, 100)).toBe(5);
  expect(edgeWidth(10, 100)).toBeGreaterThan(edgeWidth(1, 100));
});

test('what it serves says what it is', () => {
  expect(nodeKind(node({ protocol: 60 }))).toBe('database');
  expect(nodeKind(node({ protocol: 'Redis' }))).toBe('cache');
  expect(nodeKind(node({ protocol: 'DNS', type: 255 }))).toBe('dns');
  expect(nodeKind(node({ type: 'IP' }))).toBe('external');
  expect(nodeKind(node({ protocol: null }))).toBe('process');
  expect(nodeKind(node({ type: 120 }))).toBe('process');
});

test('rows sort by what is shown and stay put when equal', () => {
  const nodes = [node({ id: 'a', name: 'nginx' }), node({ id: 'b', name: 'api' })];
  const edges = [
    edge({ rate: 1 }),
    edge({ protocol: 'Redis', rate: 3, rrt_avg_us: null }),
    edge({ protocol: 'DNS', rate: 1, error: 3 }),
  ];
  const rows = applicationDrawing({ nodes, edges }, DEFAULT_THRESHOLDS).edges;
  expect(rows[0]).toMatchObject({ client: 'nginx', server: 'api', protocol: 'HTTP', health: 'good' });
  expect(rows[2]?.cells['errors']).toEqual({ sort: 0.03, text: '3 %', note: '(3)', tone: 'bad-text' });
  const protocols = (key: 'rate' | 'average', down: boolean): string[] =>
    sortRows(rows, key, down).map((r) => r.protocol);
  expect(protocols('rate', true)).toEqual(['Redis', 'DNS', 'HTTP']);
  expect(protocols('average', false)).toEqual(['Redis', 'DNS', 'HTTP']);
});

test('the summary weighs the average by requests', () => {
  const map = [edge({ request: 300, rrt_avg_us: 1000 }), edge({ request: 100, error: 4, rrt_avg_us: 5000 })];
  expect(summarise([node({})], map)).toEqual({
    services: 1,
    rate: 4,
    errorShare: 0.01,
    averageUs: 2000,
    maxUs: 20_000,
  });
  expect(summarise([], [])).toMatchObject({ averageUs: null, maxUs: null, errorShare: 0 });
});

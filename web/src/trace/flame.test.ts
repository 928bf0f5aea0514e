import { expect, test } from 'vitest';
import type { Span } from '../api';
import { callInfo, flameGraph, GREY, hasPath, serviceColours, spanColour, ticks, visibleRows } from './flame';

const span = (id: number, parent: number, start: number, end: number, change: Partial<Span> = {}): Span => ({
  _ids: [String(id)],
  deepflow_span_id: String(id),
  deepflow_parent_span_id: parent < 0 ? '' : String(parent),
  id,
  parent_id: parent,
  childs: [],
  start_time_us: 1_000_000 + start,
  end_time_us: 1_000_000 + end,
  duration: end - start,
  selftime: end - start,
  tap_side: 'c-p',
  l7_protocol: 20,
  l7_protocol_str: 'HTTP',
  endpoint: '/a',
  request_type: 'GET',
  request_resource: '/a?x=1',
  response_status: 0,
  response_code: 200,
  response_exception: '',
  process_id: 1,
  process_kname: 'nginx',
  auto_instance: 'nginx:1',
  auto_service: 'nginx',
  service_uid: 'nginx',
  service_uname: 'nginx',
  set_parent_info: '',
  signal_source: 3,
  ...change,
});

const trace = [
  span(0, -1, 0, 100),
  span(1, 0, 10, 90, { tap_side: 's-p' }),
  span(2, 1, 60, 80),
  span(3, 1, 20, 40, { service_uid: 'redis' }),
  span(4, 3, 25, 35, { tap_side: 's', signal_source: 0 }),
];

test('rows come in call order, depth by depth', () => {
  const { rows } = flameGraph(trace);
  expect(rows.map((row) => [row.span.id, row.depth])).toEqual([
    [0, 0],
    [1, 1],
    [3, 2],
    [4, 3],
    [2, 2],
  ]);
});

test('left is the start, width the duration', () => {
  const { rows, startUs, endUs } = flameGraph(trace);
  expect([startUs, endUs]).toEqual([1_000_000, 1_000_100]);
  expect(rows.map((row) => [row.left, row.width])).toEqual([
    [0, 1],
    [0.1, 0.8],
    [0.2, 0.2],
    [0.25, 0.1],
    [0.6, 0.2],
  ]);
  expect(rows.at(-1)?.anchor).toBe('right');
  expect(rows[0]?.anchor).toBe('left');
});

test('orphans, circles and empty traces hide nothing', () => {
  expect(flameGraph([])).toEqual({ rows: [], startUs: 0, endUs: 0 });
  const odd = [span(0, 7, 0, 10), span(1, 2, 1, 2), span(2, 1, 1, 2), span(3, 3, 5, 5)];
  expect(
    flameGraph(odd)
      .rows.map((row) => row.span.id)
      .sort(),
  ).toEqual([0, 1, 2, 3]);
});

test('network spans are named by the observation point and grey', () => {
  const { rows } = flameGraph(trace);
  const colours = serviceColours([], trace);
  const network = rows.find((row) => row.span.id === 4);
  if (!network) throw new Error('no row');
  expect(network.kind).toBe('N');
  expect(callInfo(network.span, network.kind)).toBe('Server NIC');
  expect(spanColour(network, colours)).toBe(GREY);
  expect(callInfo(trace[0] as Span, 'S')).toBe('HTTP GET /a?x=1');
  expect(callInfo(span(9, -1, 0, 1, { l7_protocol_str: 'Redis', request_resource: 'GET cart:1' }), 'S')).toBe(
    'Redis GET cart:1',
  );
});

test('a call seen at more than one point has a path', () => {
  const { rows } = flameGraph([
    span(0, -1, 0, 100, { set_parent_info: null as unknown as string }),
    span(1, 0, 10, 90, { tap_side: 'c', signal_source: 0, set_parent_info: 'network: same TCP request sequence 7' }),
    span(2, 1, 20, 80, { tap_side: 's-p', set_parent_info: 'network: same TCP request sequence 7' }),
    span(3, 2, 30, 40, { set_parent_info: 'syscall: same causal context 9' }),
  ]);
  expect(rows.map((row) => hasPath(row, rows))).toEqual([true, true, true, false]);
});

test('every service has its own colour, the same for any order of the services', () => {
  const uids = Array.from({ length: 30 }, (_, i) => ({
    service_uid: `s${i}`,
    service_uname: '',
    duration: 1,
    duration_ratio: '',
  }));
  const colours = serviceColours(uids, []);
  expect(new Set(colours.values()).size).toBe(30);
  expect(serviceColours([...uids].reverse(), [])).toEqual(colours);
});

test('folding hides what is below, and only that', () => {
  const { rows } = flameGraph(trace);
  expect(visibleRows(rows, new Set([3])).map((row) => row.span.id)).toEqual([0, 1, 3, 2]);
  expect(visibleRows(rows, new Set([0])).map((row) => row.span.id)).toEqual([0]);
});

test('ticks are round and few', () => {
  expect(ticks(100, 5).map((tick) => tick.label)).toEqual(['0 µs', '20 µs', '40 µs', '60 µs', '80 µs', '100 µs']);
  expect(
    ticks(7_300, 8)
      .map((tick) => tick.at * 7_300)
      .every((us) => us % 1000 < 1e-6),
  ).toBe(true);
  expect(ticks(0)).toEqual([]);
});

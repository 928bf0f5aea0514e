import { expect, test } from 'vitest';
import type { NetworkEdge } from '../api';
import { DEFAULT_THRESHOLDS, sortRows } from './drawing';
import { networkDetails, networkDrawing, networkHealth } from './network';

const edge = (change: Partial<NetworkEdge> = {}): NetworkEdge => ({
  source: 'a',
  target: 'b',
  protocol: 'TCP',
  observation_point: 'c',
  byte: 60_000,
  byte_tx: 10_000,
  byte_rx: 50_000,
  packet: 1000,
  packet_tx: 400,
  packet_rx: 600,
  byte_rate: 6000,
  packet_rate: 100,
  new_flow: 10,
  closed_flow: 10,
  active_flow: 3,
  retrans: 0,
  retrans_tx: 0,
  retrans_rx: 0,
  retrans_ratio: 0,
  syn_count: 10,
  retrans_syn: 0,
  retrans_synack: 0,
  zero_win: 0,
  zero_win_tx: 0,
  zero_win_rx: 0,
  ooo: 0,
  client_establish_fail: 0,
  server_establish_fail: 0,
  tcp_establish_fail: 0,
  tcp_transfer_fail: 0,
  connection_error: 0,
  connection_error_ratio: 0,
  rtt_avg_us: 300,
  rtt_max_us: 500,
  rtt_client_avg_us: 100,
  rtt_server_avg_us: 200,
  srt_avg_us: 20,
  srt_max_us: 30,
  art_avg_us: null,
  art_max_us: null,
  cit_avg_us: null,
  ...change,
});

test('failed connections are failing; delay, repeats and closed windows are slow', () => {
  const health = (change: Partial<NetworkEdge>) => networkHealth(edge(change), DEFAULT_THRESHOLDS);
  expect(health({})).toBe('good');
  expect(health({ connection_error: 1, connection_error_ratio: 0.1, zero_win: 1 })).toBe('failing');
  expect(health({ connection_error: 1, connection_error_ratio: 0.001 })).toBe('good');
  expect(health({ retrans: 20, retrans_ratio: 0.02 })).toBe('slow');
  expect(health({ retrans: 1, retrans_ratio: 0.001 })).toBe('good');
  expect(health({ zero_win: 1 })).toBe('slow');
  expect(health({ rtt_avg_us: 100_000 })).toBe('slow');
  expect(health({ rtt_avg_us: null, protocol: 'UDP' })).toBe('good');
});

test('words of an edge, sums of the map', () => {
  const nodes = [
    { id: 'a', name: 'nginx', type: 'Process', byte: 60_000 },
    { id: 'b', name: '10.0.0.2', type: 'IP', byte: 60_000 },
  ];
  const bad = edge({ protocol: 'SCTP', retrans: 100, retrans_ratio: 0.1, connection_error: 2, byte_rate: 1 });
  const map = networkDrawing({ nodes, edges: [edge(), bad] }, DEFAULT_THRESHOLDS);
  expect(map.edges.map((one) => one.label)).toEqual([
    'TCP  6 kB/s\nrtt 300 µs',
    'SCTP  1 B/s\nrtt 300 µs  10 % again  2 failed',
  ]);
  expect(map.nodes.map((one) => [one.kind, one.amount])).toEqual([
    ['process', '60 kB'],
    ['external', '60 kB'],
  ]);
  expect(map.tiles.map((tile) => [tile.text, tile.bad ?? false])).toEqual([
    ['2', false],
    ['6 kB/s', false],
    ['200/s', false],
    ['5 %', true],
    ['10 %', true],
  ]);
  expect(sortRows(map.edges, 'bytes', true).map((one) => one.protocol)).toEqual(['TCP', 'SCTP']);
  expect(sortRows(map.edges, 'retrans', true).map((one) => one.protocol)).toEqual(['SCTP', 'TCP']);
});

test('the card of an edge has both directions', () => {
  const cards = networkDetails(edge({ retrans_tx: 3, retrans_rx: 4 }));
  expect(cards.map((card) => card.title)).toEqual(['Traffic', 'Delay', 'Trouble']);
  expect(cards[0]?.lines[0]).toEqual(['Bytes', '10 kB → · ← 50 kB']);
  expect(cards[2]?.lines[0]).toEqual(['Data sent again', '3 → · ← 4']);
});

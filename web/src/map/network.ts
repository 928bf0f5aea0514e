/** The map of packets: who exchanges how much with whom, and how healthy the connections are. */

import type { NetworkEdge, NetworkMap, NetworkNode } from '../api';
import { observationPointName } from '../enums';
import { bytes, count, duration, rate, share } from '../format';
import {
  type Column,
  type DrawnEdge,
  type Drawing,
  edgeWidth,
  type Health,
  KIND_TITLE,
  type Lines,
  type Thresholds,
} from './drawing';

/** Connections that failed to begin or broke, 0…1 of those that ended. */
export function failedShare(edge: NetworkEdge): number {
  return edge.connection_error_ratio ?? 0;
}

/**
 * Failing when the share of failed connections reaches the threshold; slow when the handshake takes as long as the other
 * threshold, when as large a share of the packets had to be sent again, or when a receiver closed its window.
 */
export function networkHealth(edge: NetworkEdge, thresholds: Thresholds): Health {
  if (edge.connection_error > 0 && failedShare(edge) >= thresholds.failing) return 'failing';
  const repeats = edge.retrans > 0 && (edge.retrans_ratio ?? 0) >= thresholds.failing;
  return repeats || edge.zero_win > 0 || (edge.rtt_avg_us ?? 0) >= thresholds.slowUs ? 'slow' : 'good';
}

export function networkId(edge: NetworkEdge): string {
  return [edge.source, edge.target, edge.protocol].join('\u0000');
}

function label(edge: NetworkEdge): string {
  const rtt = edge.rtt_avg_us === null ? '' : `rtt ${duration(edge.rtt_avg_us)}`;
  const repeats = edge.retrans > 0 ? `${share(edge.retrans_ratio ?? 0)} again` : '';
  const failed = edge.connection_error > 0 ? `${count(edge.connection_error)} failed` : '';
  const below = [rtt, repeats, failed].filter((word) => word).join('  ');
  return `${edge.protocol}  ${bytes(edge.byte_rate)}/s${below ? `\n${below}` : ''}`;
}

const COLUMNS: Column[] = [
  { key: 'bytes', label: 'Bytes/s', title: 'Both directions, link layer included' },
  { key: 'packets', label: 'Packets/s' },
  { key: 'flows', label: 'Flows', title: 'Most that were open in one second' },
  { key: 'rtt', label: 'RTT', title: 'Handshake: SYN to ACK, average' },
  { key: 'srt', label: 'System', title: 'Data to first bare ACK, average' },
  { key: 'art', label: 'Answer', title: 'Request data to first response data, average' },
  { key: 'retrans', label: 'Sent again', title: 'Data packets sent again, share of all packets' },
  { key: 'zero', label: 'Zero windows', title: 'Packets in which a receiver closed its window' },
  { key: 'failed', label: 'Failed', title: 'Connections that did not begin or broke, share of those that ended' },
];

function drawn(
  edge: NetworkEdge,
  names: ReadonlyMap<string, string>,
  busiest: number,
  thresholds: Thresholds,
): DrawnEdge {
  const state = networkHealth(edge, thresholds);
  const repeats = edge.retrans_ratio ?? 0;
  const warn = (is: boolean) => (is ? 'warn-text' : undefined);
  const delay = (us: number | null) => ({ sort: us ?? -1, text: duration(us) });
  return {
    id: networkId(edge),
    source: edge.source,
    target: edge.target,
    client: names.get(edge.source) ?? edge.source,
    server: names.get(edge.target) ?? edge.target,
    protocol: edge.protocol,
    health: state,
    label: label(edge),
    width: edgeWidth(edge.byte_rate, busiest),
    lines: [
      ['Protocol', edge.protocol],
      ['Bytes', `${bytes(edge.byte)}  (${bytes(edge.byte_rate)}/s)`],
      ['Packets', `${count(edge.packet)}  (${rate(edge.packet_rate)})`],
      ['Round trip', duration(edge.rtt_avg_us)],
      ['Sent again', `${count(edge.retrans)}  (${share(repeats)})`],
      ['Zero windows', count(edge.zero_win)],
      ['Failed connections', count(edge.connection_error)],
    ],
    cells: {
      bytes: { sort: edge.byte_rate, text: `${bytes(edge.byte_rate)}/s` },
      packets: { sort: edge.packet_rate, text: rate(edge.packet_rate) },
      flows: { sort: edge.active_flow, text: count(edge.active_flow) },
      rtt: { ...delay(edge.rtt_avg_us), tone: warn((edge.rtt_avg_us ?? 0) >= thresholds.slowUs) },
      srt: delay(edge.srt_avg_us),
      art: delay(edge.art_avg_us),
      retrans: {
        sort: repeats,
        text: share(repeats),
        note: edge.retrans > 0 ? `(${count(edge.retrans)})` : '',
        tone: warn(edge.retrans > 0 && repeats >= thresholds.failing),
      },
      zero: { sort: edge.zero_win, text: count(edge.zero_win), tone: warn(edge.zero_win > 0) },
      failed: {
        sort: failedShare(edge),
        text: share(failedShare(edge)),
        note: edge.connection_error > 0 ? `(${count(edge.connection_error)})` : '',
        tone: state === 'failing' ? 'bad-text' : undefined,
      },
    },
    requests: edge.packet,
    errors: edge.connection_error,
  };
}

export function networkDrawing(map: NetworkMap, thresholds: Thresholds): Drawing {
  const names = new Map(map.nodes.map((node) => [node.id, node.name]));
  const busiest = Math.max(0, ...map.edges.map((edge) => edge.byte_rate));
  const sum = (value: (edge: NetworkEdge) => number): number => map.edges.reduce((all, edge) => all + value(edge), 0);
  const packets = sum((edge) => edge.packet);
  const ended = sum((edge) => Math.max(edge.closed_flow, edge.connection_error));
  const failed = sum((edge) => edge.connection_error);
  const repeats = packets > 0 ? sum((edge) => edge.retrans) / packets : 0;
  return {
    nodes: map.nodes.map((node) => ({
      id: node.id,
      name: node.name,
      kind: kind(node),
      amount: bytes(node.byte),
      lines: [
        ['Kind', KIND_TITLE[kind(node)]],
        ['Bytes', bytes(node.byte)],
        ['Peers', String(peers(node.id, map.edges))],
      ],
    })),
    edges: map.edges.map((edge) => drawn(edge, names, busiest, thresholds)),
    columns: COLUMNS,
    tiles: [
      { label: 'Ends', text: count(map.nodes.length) },
      { label: 'Bytes', text: `${bytes(sum((edge) => edge.byte_rate))}/s` },
      { label: 'Packets', text: rate(sum((edge) => edge.packet_rate)) },
      { label: 'Sent again', text: share(repeats), bad: repeats > 0 && repeats >= thresholds.failing },
      {
        label: 'Failed connections',
        text: share(ended > 0 ? failed / ended : 0),
        bad: failed > 0 && failed / ended >= thresholds.failing,
      },
    ],
  };
}

const kind = (node: NetworkNode) => (node.type === 'IP' ? 'external' : 'process');

function peers(id: string, edges: readonly NetworkEdge[]): number {
  const others = edges.flatMap((edge) =>
    edge.source === id ? [edge.target] : edge.target === id ? [edge.source] : [],
  );
  return new Set(others).size;
}

/** Everything that is known of one edge, for its card. */
export function networkDetails(edge: NetworkEdge): { title: string; lines: Lines }[] {
  const both = (tx: number, rx: number, text: (value: number) => string): string => `${text(tx)} → · ← ${text(rx)}`;
  return [
    {
      title: 'Traffic',
      lines: [
        ['Bytes', both(edge.byte_tx, edge.byte_rx, bytes)],
        ['Packets', both(edge.packet_tx, edge.packet_rx, count)],
        ['Flows opened', count(edge.new_flow)],
        ['Flows ended', count(edge.closed_flow)],
        ['Most open at once', count(edge.active_flow)],
        ['Counted at', observationPointName(edge.observation_point) || 'several places'],
      ],
    },
    {
      title: 'Delay',
      lines: [
        ['Round trip', `${duration(edge.rtt_avg_us)}, longest ${duration(edge.rtt_max_us)}`],
        ['… client side', duration(edge.rtt_client_avg_us)],
        ['… server side', duration(edge.rtt_server_avg_us)],
        ['System', `${duration(edge.srt_avg_us)}, longest ${duration(edge.srt_max_us)}`],
        ['Answer', `${duration(edge.art_avg_us)}, longest ${duration(edge.art_max_us)}`],
        ['Client idle', duration(edge.cit_avg_us)],
      ],
    },
    {
      title: 'Trouble',
      lines: [
        ['Data sent again', both(edge.retrans_tx, edge.retrans_rx, count)],
        ['SYN sent again', both(edge.retrans_syn, edge.retrans_synack, count)],
        ['Zero windows', both(edge.zero_win_tx, edge.zero_win_rx, count)],
        ['Out of order', count(edge.ooo)],
        [
          'Did not begin',
          `${count(edge.client_establish_fail)} by the client, ${count(edge.server_establish_fail)} by the server`,
        ],
        ['Broke', count(edge.tcp_transfer_fail)],
      ],
    },
  ];
}

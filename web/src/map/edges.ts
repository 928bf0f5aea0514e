/** What a call on the map means: its health, its words, the kind of a service. */

import type { MapEdge, MapNode } from '../api';
import { protocolName } from '../enums';
import { duration, rate, share } from '../format';

export interface Thresholds {
  /** A call is slow when its average or 95th percentile reaches this, µs. */
  slowUs: number;
  /** A call is failing when this share of its requests fails (and at least one does). */
  failing: number;
}

export const DEFAULT_THRESHOLDS: Thresholds = { slowUs: 100_000, failing: 0.01 };

export type Health = 'failing' | 'slow' | 'good';

/** Share of requests that failed, 0…1, from the counts: the same whatever unit error_ratio has. */
export function errorShare(edge: MapEdge): number {
  return edge.request > 0 ? edge.error / edge.request : 0;
}

export function health(edge: MapEdge, thresholds: Thresholds): Health {
  if (edge.error > 0 && errorShare(edge) >= thresholds.failing) return 'failing';
  const slowest = Math.max(edge.rrt_avg_us ?? 0, edge.rrt_p95_us ?? 0);
  return slowest >= thresholds.slowUs ? 'slow' : 'good';
}

export function edgeId(edge: MapEdge): string {
  return [edge.source, edge.target, edge.protocol].join('\u0000');
}

/** Two short lines: what and how often; how long and how bad. */
export function edgeLabel(edge: MapEdge): string {
  const errors = edge.error > 0 ? `  ${share(errorShare(edge))} err` : '';
  return `${edge.protocol}  ${rate(edge.rate)}${errors}\n⌀ ${duration(edge.rrt_avg_us)}  ≤ ${duration(edge.rrt_max_us)}`;
}

/** Line width in px: 1.5 for the quietest, 5 for the busiest, by the logarithm of the rate. */
export function edgeWidth(edge: MapEdge, busiest: number): number {
  if (busiest <= 0 || edge.rate <= 0) return 1.5;
  return 1.5 + 3.5 * Math.min(1, Math.log1p(edge.rate) / Math.log1p(busiest));
}

export type NodeKind = 'process' | 'database' | 'cache' | 'dns' | 'external';

const BY_PROTOCOL: Record<string, NodeKind> = {
  mysql: 'database',
  postgresql: 'database',
  oracle: 'database',
  mongodb: 'database',
  redis: 'cache',
  memcached: 'cache',
  dns: 'dns',
};

export const KIND_TITLE: Record<NodeKind, string> = {
  process: 'Process',
  database: 'Database',
  cache: 'Cache',
  dns: 'DNS',
  external: 'Address outside',
};

/** What a service serves says what it is; else whether a process is known behind it. */
export function nodeKind(node: MapNode): NodeKind {
  const served = BY_PROTOCOL[protocolName(node.protocol).toLowerCase()];
  if (served) return served;
  const type = String(node.type).toLowerCase();
  if (['database', 'cache', 'dns'].includes(type)) return type as NodeKind;
  return ['0', '255', 'ip', 'internet ip', 'external', 'address'].includes(type) ? 'external' : 'process';
}

export type SortKey = 'client' | 'server' | 'protocol' | 'rate' | 'errors' | 'average' | 'p95' | 'max';

export interface EdgeRow {
  edge: MapEdge;
  id: string;
  client: string;
  server: string;
  protocol: string;
  health: Health;
}

export function edgeRows(edges: readonly MapEdge[], nodes: readonly MapNode[], thresholds: Thresholds): EdgeRow[] {
  const names = new Map(nodes.map((node) => [node.id, node.name]));
  return edges.map((edge) => ({
    edge,
    id: edgeId(edge),
    client: names.get(edge.source) ?? edge.source,
    server: names.get(edge.target) ?? edge.target,
    protocol: edge.protocol,
    health: health(edge, thresholds),
  }));
}

const VALUE: Record<SortKey, (row: EdgeRow) => string | number> = {
  client: (row) => row.client,
  server: (row) => row.server,
  protocol: (row) => row.protocol,
  rate: (row) => row.edge.rate,
  errors: (row) => errorShare(row.edge),
  average: (row) => row.edge.rrt_avg_us ?? -1,
  p95: (row) => row.edge.rrt_p95_us ?? -1,
  max: (row) => row.edge.rrt_max_us ?? -1,
};

/** Sorted copy; rows that are equal keep a fixed order, so that a refresh does not shuffle them. */
export function sortRows(rows: readonly EdgeRow[], key: SortKey, descending: boolean): EdgeRow[] {
  const value = VALUE[key];
  const sign = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const left = value(a);
    const right = value(b);
    if (left !== right) return (left < right ? -1 : 1) * sign;
    return a.id < b.id ? -1 : 1;
  });
}

export interface Summary {
  services: number;
  rate: number;
  errorShare: number;
  averageUs: number | null;
  maxUs: number | null;
}

/** The whole map in five numbers; the average is weighted by requests. */
export function summarise(nodes: readonly MapNode[], edges: readonly MapEdge[]): Summary {
  let requests = 0;
  let errors = 0;
  let perSecond = 0;
  let timed = 0;
  let total = 0;
  let maxUs: number | null = null;
  for (const edge of edges) {
    requests += edge.request;
    errors += edge.error;
    perSecond += edge.rate;
    if (edge.rrt_avg_us !== null) {
      timed += edge.request;
      total += edge.rrt_avg_us * edge.request;
    }
    if (edge.rrt_max_us !== null) maxUs = Math.max(maxUs ?? 0, edge.rrt_max_us);
  }
  return {
    services: nodes.length,
    rate: perSecond,
    errorShare: requests > 0 ? errors / requests : 0,
    averageUs: timed > 0 ? total / timed : null,
    maxUs,
  };
}

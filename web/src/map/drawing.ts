/** What both maps are drawn and listed from: the words and colours are chosen where the numbers are known. */

export type Health = 'failing' | 'slow' | 'good';
export type NodeKind = 'process' | 'database' | 'cache' | 'dns' | 'external';

export const KIND_TITLE: Record<NodeKind, string> = {
  process: 'Process',
  database: 'Database',
  cache: 'Cache',
  dns: 'DNS',
  external: 'Address outside',
};

export interface Thresholds {
  /** Slow from this delay on, µs. */
  slowUs: number;
  /** Failing from this share on, 0…1 (and at least one must have failed). */
  failing: number;
}

export const DEFAULT_THRESHOLDS: Thresholds = { slowUs: 100_000, failing: 0.01 };

export type Lines = [name: string, value: string][];

export interface DrawnNode {
  id: string;
  name: string;
  kind: NodeKind;
  /** How much it does, for the list of nodes. */
  amount: string;
  lines: Lines;
}

export interface Cell {
  sort: string | number;
  text: string;
  /** Said more softly behind the text. */
  note?: string;
  tone?: 'bad-text' | 'warn-text' | undefined;
}

export interface DrawnEdge {
  id: string;
  source: string;
  target: string;
  client: string;
  server: string;
  protocol: string;
  health: Health;
  /** Two short lines. */
  label: string;
  /** px */
  width: number;
  lines: Lines;
  /** By the key of their column. */
  cells: Record<string, Cell>;
  requests: number;
  errors: number;
}

export interface Column {
  key: string;
  label: string;
  title?: string;
}

export interface Tile {
  label: string;
  text: string;
  bad?: boolean;
}

export interface Drawing {
  nodes: DrawnNode[];
  edges: DrawnEdge[];
  /** Behind client, server and protocol. */
  columns: Column[];
  tiles: Tile[];
}

export const NO_DRAWING: Drawing = { nodes: [], edges: [], columns: [], tiles: [] };

/** Line width in px: 1.5 for the quietest, 5 for the busiest, by the logarithm of the rate. */
export function edgeWidth(rate: number, busiest: number): number {
  if (busiest <= 0 || rate <= 0) return 1.5;
  return 1.5 + 3.5 * Math.min(1, Math.log1p(rate) / Math.log1p(busiest));
}

export const TEXT_KEYS = ['client', 'server', 'protocol'] as const;

function value(edge: DrawnEdge, key: string): string | number {
  if (key === 'client' || key === 'server' || key === 'protocol') return edge[key];
  return edge.cells[key]?.sort ?? -1;
}

/** Sorted copy; rows that are equal keep a fixed order, so that a refresh does not shuffle them. */
export function sortRows(rows: readonly DrawnEdge[], key: string, descending: boolean): DrawnEdge[] {
  const sign = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const left = value(a, key);
    const right = value(b, key);
    if (left !== right) return (left < right ? -1 : 1) * sign;
    return a.id < b.id ? -1 : 1;
  });
}

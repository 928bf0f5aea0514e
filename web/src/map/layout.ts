/** Places of the services on the map: layers from left (callers) to right, and no service moves because another appears. */

import { Graph, layout } from '@dagrejs/dagre';

export interface Point {
  x: number;
  y: number;
}

export type Places = Map<string, Point>;

interface Ends {
  source: string;
  target: string;
}

const WIDTH = 150;
const HEIGHT = 64;
const GAP_ROW = 26;
const GAP_LAYER = 130;
/** Services one above the other at the least before a layer is wrapped. */
const ROWS = 14;
/** Width to height of all services packed; the gaps between layers make the picture about twice as wide as high. */
const ASPECT = 1.2;

/** Layered layout of the whole graph, centres of nodes in pixels. Ids are sorted first, so that the same graph always looks the same. */
export function layered(ids: readonly string[], edges: readonly Ends[]): Places {
  const graph = new Graph();
  graph.setGraph({ rankdir: 'LR', nodesep: GAP_ROW, ranksep: GAP_LAYER, marginx: 20, marginy: 20 });
  graph.setDefaultEdgeLabel(() => ({}));
  const sorted = [...ids].sort();
  const known = new Set(sorted);
  for (const id of sorted) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  const ends = edges
    .filter((edge) => edge.source !== edge.target && known.has(edge.source) && known.has(edge.target))
    .sort((a, b) => (a.source === b.source ? order(a.target, b.target) : order(a.source, b.source)));
  for (const { source, target } of ends) graph.setEdge(source, target);
  layout(graph);
  return wrapped(
    new Map(
      sorted.map((id) => {
        const { x, y } = graph.node(id) as Point;
        return [id, { x, y }];
      }),
    ),
  );
}

/**
 * A layer too tall for the picture becomes a block of several columns, filled row by row so that neighbours stay near each
 * other. Places with no such layer are returned as they are.
 */
function wrapped(places: Places): Places {
  const layers = new Map<number, string[]>();
  for (const [id, { x }] of places) layers.set(x, [...(layers.get(x) ?? []), id]);
  const rows = Math.max(ROWS, Math.ceil(Math.sqrt((places.size * WIDTH) / HEIGHT / ASPECT)));
  if ([...layers.values()].every((ids) => ids.length <= rows)) return places;
  const spots: Places = new Map();
  let left = 0;
  for (const [, ids] of [...layers].sort(([a], [b]) => a - b)) {
    ids.sort((a, b) => (places.get(a) as Point).y - (places.get(b) as Point).y);
    const columns = Math.ceil(ids.length / rows);
    const high = Math.ceil(ids.length / columns);
    const step = Math.max(HEIGHT, Math.min(HEIGHT + GAP_ROW, (rows * HEIGHT) / high));
    ids.forEach((id, i) =>
      spots.set(id, {
        x: left + (i % columns) * WIDTH,
        y: (Math.floor(i / columns) - (high - 1) / 2) * step,
      }),
    );
    left += columns * WIDTH + GAP_LAYER;
  }
  return spots;
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Places for `ids` that keep those of `kept`. A new node goes where the layered layout has it relative to a neighbour that is
 * already placed, then down to the first free spot. Laid out anew when most of the graph is new: then there is little to keep.
 */
export function place(ids: readonly string[], edges: readonly Ends[], kept: Places): Places {
  const fresh = ids.filter((id) => !kept.has(id));
  if (fresh.length === 0) return new Map(ids.map((id) => [id, kept.get(id) as Point]));
  const whole = layered(ids, edges);
  if (fresh.length * 2 > ids.length) return whole;

  const places: Places = new Map(ids.flatMap((id) => (kept.has(id) ? [[id, kept.get(id) as Point]] : [])));
  const neighbours = new Map<string, string[]>();
  for (const { source, target } of edges) {
    neighbours.set(source, [...(neighbours.get(source) ?? []), target]);
    neighbours.set(target, [...(neighbours.get(target) ?? []), source]);
  }
  // From left to right, so that a chain of new nodes finds its first member placed.
  const waiting = fresh.sort((a, b) => (whole.get(a) as Point).x - (whole.get(b) as Point).x || order(a, b));
  while (waiting.length > 0) {
    const next = waiting.findIndex((id) => (neighbours.get(id) ?? []).some((other) => places.has(other)));
    const id = waiting.splice(Math.max(next, 0), 1)[0] as string;
    const wished = whole.get(id) as Point;
    const anchor = (neighbours.get(id) ?? []).find((other) => places.has(other));
    let spot = wished;
    if (anchor !== undefined) {
      const was = whole.get(anchor) as Point;
      const is = places.get(anchor) as Point;
      spot = { x: is.x + wished.x - was.x, y: is.y + wished.y - was.y };
    }
    places.set(id, free(spot, places));
  }
  return places;
}

function free(wished: Point, places: Places): Point {
  const spot = { ...wished };
  const taken = [...places.values()].filter((point) => Math.abs(point.x - spot.x) < WIDTH).sort((a, b) => a.y - b.y);
  for (const point of taken) {
    if (Math.abs(point.y - spot.y) < HEIGHT) spot.y = point.y + HEIGHT + GAP_ROW;
  }
  return spot;
}

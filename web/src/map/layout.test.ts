import { expect, test } from 'vitest';
import { layered, place, type Places, type Point } from './layout';

const shop = [
  { source: 'nginx', target: 'api' },
  { source: 'api', target: 'redis' },
  { source: 'api', target: 'mariadb' },
];
const ids = ['api', 'mariadb', 'nginx', 'redis'];

const at = (places: Places, id: string): Point => places.get(id) as Point;

function overlaps(places: Places): string[] {
  const all = [...places];
  return all.flatMap(([a, p], i) =>
    all
      .slice(i + 1)
      .filter(([, q]) => Math.abs(p.x - q.x) < 100 && Math.abs(p.y - q.y) < 60)
      .map(([b]) => `${a}/${b}`),
  );
}

test('callers stand left of what they call', () => {
  const places = layered(ids, shop);
  for (const { source, target } of shop) expect(at(places, source).x).toBeLessThan(at(places, target).x);
  expect(overlaps(places)).toEqual([]);
});

test('a wide layer is wrapped into a picture that fits a screen, callers still left', () => {
  const leaves = Array.from({ length: 120 }, (_, i) => `leaf${i}`);
  const calls = leaves.map((target) => ({ source: 'gate', target }));
  const places = layered(['gate', ...leaves], calls);
  for (const { source, target } of calls) expect(at(places, source).x).toBeLessThan(at(places, target).x);
  expect(overlaps(places)).toEqual([]);
  const high = Math.max(...leaves.map((id) => at(places, id).y)) - Math.min(...leaves.map((id) => at(places, id).y));
  const wide = Math.max(...leaves.map((id) => at(places, id).x)) - at(places, 'gate').x;
  expect(wide / high).toBeGreaterThan(1);
  expect(wide / high).toBeLessThan(4);
});

test('the order of the answer does not change the picture', () => {
  expect(layered([...ids].reverse(), [...shop].reverse())).toEqual(layered(ids, shop));
});

test('loops, unknown ends and calls to oneself are laid out too', () => {
  const places = layered(ids, [
    ...shop,
    { source: 'redis', target: 'nginx' },
    { source: 'api', target: 'api' },
    { source: 'api', target: 'nowhere' },
  ]);
  expect([...places.keys()]).toEqual(ids);
});

test('a refresh moves nothing; a new service finds a free place in its layer', () => {
  const first = place(ids, shop, new Map());
  first.set('redis', { x: 900, y: 40 }); // dragged by hand
  expect(place(ids, shop, first)).toEqual(first);
  const grown = place([...ids, 'node'], [...shop, { source: 'api', target: 'node' }], first);
  for (const id of ids) expect(at(grown, id)).toEqual(at(first, id));
  expect(at(grown, 'node').x).toBeGreaterThan(at(grown, 'api').x);
  expect(overlaps(grown)).toEqual([]);
});

test('a chain of new services is placed one after the other', () => {
  const first = place(ids, shop, new Map());
  const grown = place(
    [...ids, 'node', 'dns'],
    [...shop, { source: 'redis', target: 'node' }, { source: 'node', target: 'dns' }],
    first,
  );
  expect(at(grown, 'dns').x).toBeGreaterThan(at(grown, 'node').x);
  expect(at(grown, 'node').x).toBeGreaterThan(at(grown, 'redis').x);
});

test('mostly new means laid out anew', () => {
  const odd = new Map([['api', { x: 5000, y: 5000 }]]);
  expect(place(ids, shop, odd)).toEqual(layered(ids, shop));
});

test('three hundred services', () => {
  const many = Array.from({ length: 300 }, (_, i) => `s${i}`);
  const calls = many.slice(1).map((target, i) => ({ source: `s${Math.floor(i / 3)}`, target }));
  const places = layered(many, calls);
  expect(places.size).toBe(300);
  expect(overlaps(places)).toEqual([]);
});

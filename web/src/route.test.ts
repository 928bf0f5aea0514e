import { expect, test } from 'vitest';
import {
  bounds,
  filterQuery,
  filterRequest,
  hashOf,
  NO_FILTER,
  parseFilter,
  parseRoute,
  parseTime,
  type Route,
  secondOfRow,
} from './route';

test('a filter survives the way through the address', () => {
  const filter = {
    ...NO_FILTER,
    client: 'nginx',
    server: 'shop api',
    path: '/a?b=c&d#e',
    status: 'Server Error',
    min: '1,5 ms',
  };
  const hash = hashOf({ page: 'requests', filter }, { last: 300 });
  expect(parseRoute(hash)).toEqual({ page: 'requests', filter });
  expect(parseTime(hash)).toEqual({ last: 300 });
  expect(parseFilter(filterQuery(filter))).toEqual(filter);
});

test('the server is asked in its own units and only for what is set', () => {
  expect(filterRequest({ ...NO_FILTER, service: ' api ', min: '2 ms', max: '1s' })).toEqual({
    service: 'api',
    min_us: 2000,
    max_us: 1_000_000,
  });
  expect(filterRequest({ ...NO_FILTER, min: 'soon' })).toEqual({});
});

test.each<Route>([
  { page: 'map' },
  { page: 'map', view: 'network' },
  { page: 'agents' },
  { page: 'requests', filter: NO_FILTER },
  { page: 'trace', key: { _id: '7672613834218930177' } },
  { page: 'trace', key: { trace_id: 'a/b c' } },
])('route %o comes back', (route) => {
  expect(parseRoute(hashOf(route, { from: 10, to: 20 }))).toEqual(route);
  expect(parseTime(hashOf(route, { from: 10, to: 20 }))).toEqual({ from: 10, to: 20 });
});

test('what is no route is the map, what is no time is none', () => {
  expect(parseRoute('')).toEqual({ page: 'map' });
  expect(parseRoute('#/map/nothing')).toEqual({ page: 'map' });
  expect(parseRoute('#/nothing')).toEqual({ page: 'map' });
  expect(parseRoute('#/trace')).toEqual({ page: 'map' });
  expect(parseTime('#/map')).toBeUndefined();
  expect(parseTime('#/map?from=20&to=10')).toBeUndefined();
  expect(parseTime('#/map?last=-5')).toBeUndefined();
});

test('the default time leaves no mark in the address', () => {
  expect(hashOf({ page: 'map' }, { last: 900 })).toBe('#/map');
});

test('the second of a row is in its id', () => {
  const id = ((1_700_000_000n << 32n) | (5n << 22n) | 77n).toString();
  expect(secondOfRow(id)).toBe(1_700_000_000);
  expect(secondOfRow('not a row')).toBeNull();
});

test('bounds are whole seconds', () => {
  expect(bounds({ last: 60 }, 1000.2)).toEqual({ from: 941, to: 1001 });
  expect(bounds({ from: 5, to: 6 }, 1000)).toEqual({ from: 5, to: 6 });
});

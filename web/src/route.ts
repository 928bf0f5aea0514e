/** The address after # says which page, which filters and which time; a link shows another person the same thing. */

import { parseDuration } from './format';

export interface Filter {
  client: string;
  server: string;
  service: string;
  path: string;
  status: string;
  protocol: string;
  /** As typed, for example "100 ms"; `parseDuration` reads it. */
  min: string;
  max: string;
}

export const NO_FILTER: Filter = {
  client: '',
  server: '',
  service: '',
  path: '',
  status: '',
  protocol: '',
  min: '',
  max: '',
};

export type TimeSpan = { last: number } | { from: number; to: number };

export type Route =
  | { page: 'map'; view?: 'network' }
  | { page: 'requests'; filter: Filter }
  | { page: 'trace'; key: { _id: string } | { trace_id: string } }
  | { page: 'agents' };

export const DEFAULT_LAST = 900;

/** A row id holds the second its row ended in (docs/architecture.md, section 6). */
export function secondOfRow(id: string): number | null {
  return /^\d{1,20}$/.test(id) ? Number(BigInt(id) >> 32n) : null;
}

export function parseFilter(query: URLSearchParams): Filter {
  const filter = { ...NO_FILTER };
  for (const key of Object.keys(filter) as (keyof Filter)[]) filter[key] = query.get(key) ?? '';
  return filter;
}

export function filterQuery(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  for (const key of Object.keys(NO_FILTER) as (keyof Filter)[]) {
    const value = filter[key].trim();
    if (value !== '') query.set(key, value);
  }
  return query;
}

/** What the server is asked for: words as they are, durations in µs; durations that cannot be read are left out. */
export function filterRequest(filter: Filter): Record<string, string | number> {
  const asked: Record<string, string | number> = {};
  for (const key of ['client', 'server', 'service', 'path', 'status', 'protocol'] as const) {
    if (filter[key].trim() !== '') asked[key] = filter[key].trim();
  }
  for (const [key, name] of [
    ['min', 'min_us'],
    ['max', 'max_us'],
  ] as const) {
    const us = parseDuration(filter[key]);
    if (us !== undefined && !Number.isNaN(us)) asked[name] = us;
  }
  return asked;
}

export function parseRoute(hash: string): Route {
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const query = new URLSearchParams(search);
  const [page, rest = ''] = path.split('/', 2);
  if (page === 'requests') return { page, filter: parseFilter(query) };
  if (page === 'agents') return { page };
  if (page === 'map' && rest === 'network') return { page, view: 'network' };
  if (page === 'trace') {
    const traceId = query.get('trace_id');
    if (traceId) return { page, key: { trace_id: traceId } };
    if (rest !== '') return { page, key: { _id: decodeURIComponent(rest) } };
  }
  return { page: 'map' };
}

/** undefined where the address names no time. */
export function parseTime(hash: string): TimeSpan | undefined {
  const query = new URLSearchParams(hash.split('?', 2)[1] ?? '');
  const number = (key: string): number => {
    const text = query.get(key);
    return text !== null && /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  };
  const from = number('from');
  const to = number('to');
  if (to > from) return { from, to };
  const last = number('last');
  return last > 0 ? { last } : undefined;
}

export function hashOf(route: Route, time: TimeSpan): string {
  const query = route.page === 'requests' ? filterQuery(route.filter) : new URLSearchParams();
  let path: string = route.page;
  if (route.page === 'map' && route.view) path += `/${route.view}`;
  if (route.page === 'trace') {
    if ('_id' in route.key) path += `/${encodeURIComponent(route.key._id)}`;
    else query.set('trace_id', route.key.trace_id);
  }
  if ('last' in time) {
    if (time.last !== DEFAULT_LAST) query.set('last', String(time.last));
  } else {
    query.set('from', String(time.from));
    query.set('to', String(time.to));
  }
  const text = query.toString();
  return `#/${path}${text === '' ? '' : `?${text}`}`;
}

/** Whole seconds [from, to] of a time span, at `nowS`. */
export function bounds(time: TimeSpan, nowS: number): { from: number; to: number } {
  if ('from' in time) return { from: time.from, to: time.to };
  const to = Math.ceil(nowS);
  return { from: to - time.last, to };
}

/** The server's JSON, as docs/architecture.md section 5 names it. Times ending in _us are microseconds. */

import { token } from './token.svelte';

export interface MapNode {
  id: string;
  name: string;
  type: string | number;
  protocol: string | number | null;
  requests: number;
}

export interface MapEdge {
  source: string;
  target: string;
  /** Name of the application protocol; `l7_protocol` is its number. */
  protocol: string;
  l7_protocol: number;
  request: number;
  /** Calls a second over the asked range. */
  rate: number;
  error: number;
  error_ratio: number | null;
  rrt_avg_us: number | null;
  rrt_max_us: number | null;
  rrt_p95_us: number | null;
}

export interface ServiceMap {
  nodes: MapNode[];
  edges: MapEdge[];
}

export interface NetworkNode {
  id: string;
  name: string;
  type: string | number;
  /** Sent and received. */
  byte: number;
}

/** Counters are sums over the asked range; tx is what the client sent, rx what the server sent. */
export interface NetworkEdge {
  source: string;
  target: string;
  /** Name of the IP protocol. */
  protocol: string;
  /** Where it was counted; '' when at several kinds of places. */
  observation_point: string;
  byte: number;
  byte_tx: number;
  byte_rx: number;
  packet: number;
  packet_tx: number;
  packet_rx: number;
  byte_rate: number;
  packet_rate: number;
  new_flow: number;
  closed_flow: number;
  active_flow: number;
  retrans: number;
  retrans_tx: number;
  retrans_rx: number;
  retrans_ratio: number | null;
  syn_count: number;
  retrans_syn: number;
  retrans_synack: number;
  zero_win: number;
  zero_win_tx: number;
  zero_win_rx: number;
  ooo: number;
  client_establish_fail: number;
  server_establish_fail: number;
  tcp_establish_fail: number;
  tcp_transfer_fail: number;
  connection_error: number;
  connection_error_ratio: number | null;
  rtt_avg_us: number | null;
  rtt_max_us: number | null;
  rtt_client_avg_us: number | null;
  rtt_server_avg_us: number | null;
  srt_avg_us: number | null;
  srt_max_us: number | null;
  art_avg_us: number | null;
  art_max_us: number | null;
  cit_avg_us: number | null;
}

export interface NetworkMap {
  nodes: NetworkNode[];
  edges: NetworkEdge[];
}

export interface RequestRow {
  _id: string;
  start_time_us: number;
  duration_us: number;
  client: string;
  server: string;
  protocol: string;
  l7_protocol: number;
  request_type: string;
  request_resource: string;
  endpoint: string;
  status: string | number;
  code: number | null;
  observation_point: string;
}

export interface RequestPage {
  rows: RequestRow[];
  next: string | number | null;
}

export interface Span {
  _ids: string[];
  deepflow_span_id: string;
  deepflow_parent_span_id: string;
  id: number;
  parent_id: number;
  childs: number[];
  start_time_us: number;
  end_time_us: number;
  duration: number;
  selftime: number;
  tap_side: string;
  l7_protocol: number | string;
  l7_protocol_str: string;
  endpoint: string;
  request_type: string;
  request_resource: string;
  response_status: number | string;
  response_code: number | null;
  response_exception: string;
  process_id: number | null;
  process_kname: string;
  auto_instance: string;
  auto_service: string;
  service_uid: string;
  service_uname: string;
  set_parent_info: string;
  signal_source: number | string;
  [field: string]: unknown;
}

export interface TraceService {
  service_uid: string;
  service_uname: string;
  duration: number;
  /** Share of the trace's self time: "12.50%", "12.50" or a number of per cent. */
  duration_ratio: string | number;
}

export interface Trace {
  tracing: Span[];
  services: TraceService[];
}

export interface PathPoint {
  _id: string;
  observation_point: string;
  agent: string;
  /** The process, or the end of the interface's Ethernet address, and the host. */
  where: string;
  /** Client and server as they stand at this point: address translation shows. */
  ends: string;
  signal_source: number;
  type: number;
  /** Since the first point saw the request; null where the half was not seen. */
  request_us: number | null;
  response_us: number | null;
  duration_us: number | null;
  /** To the next point, there and back; at the last point all that is left. */
  delay_us: number | null;
  /** Of the whole, 0…1. */
  share: number | null;
  /** Packets that the flow sent again as seen here; null unknown. */
  retransmissions: number | null;
}

export interface CallPath {
  points: PathPoint[];
  whole_us: number;
  /** Index of the point behind which most of the time goes. */
  slowest: number | null;
  sentence: string;
}

export type Counters = Record<string, number>;

export interface AgentState {
  agent_id: number;
  name: string;
  version: string;
  kernel: string;
  /** Seconds since the epoch of the last word from the agent. */
  last_seen_s: number | null;
  counters: Counters;
}

export interface AgentList {
  agents: AgentState[];
  server: Counters;
}

/** An answer that is not a success, with the sentence the server gave. */
export class ApiError extends Error {}

function sentence(status: number, body: unknown): string {
  if (body !== null && typeof body === 'object') {
    const words = body as Record<string, unknown>;
    for (const key of ['DESCRIPTION', 'error', 'detail']) {
      if (typeof words[key] === 'string' && words[key] !== '') return words[key];
    }
  }
  return `The server answered ${status} without a reason.`;
}

async function ask(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<unknown> {
  const sent = token.headers();
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, headers: { ...init.headers, ...sent } });
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === 'AbortError') throw failure;
    throw new ApiError('The server cannot be reached: is `deepflow server` running?');
  }
  let body: unknown = null;
  try {
    body = await answer.json();
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === 'AbortError') throw failure;
    if (answer.ok) throw new ApiError('The server sent something that is not JSON.');
  }
  if (answer.status === 401) token.ask(sent);
  if (!answer.ok) throw new ApiError(sentence(answer.status, body));
  return body;
}

function address(path: string, parameters: Record<string, string | number | undefined | null>): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== '') query.set(key, String(value));
  }
  const text = query.toString();
  return text === '' ? path : `${path}?${text}`;
}

export function fetchMap(from: number, to: number, signal: AbortSignal): Promise<ServiceMap> {
  return ask(address('v1/web/map', { from, to }), { signal }) as Promise<ServiceMap>;
}

export function fetchNetworkMap(from: number, to: number, signal: AbortSignal): Promise<NetworkMap> {
  return ask(address('v1/web/network-map', { from, to }), { signal }) as Promise<NetworkMap>;
}

export interface RequestQuery {
  from: number;
  to: number;
  client?: string;
  server?: string;
  service?: string;
  path?: string;
  status?: string;
  protocol?: string;
  min_us?: number;
  max_us?: number;
  limit?: number;
  before?: string;
}

export function fetchRequests(query: RequestQuery, signal: AbortSignal): Promise<RequestPage> {
  return ask(address('v1/web/requests', { ...query }), { signal }) as Promise<RequestPage>;
}

export function fetchAgents(signal: AbortSignal): Promise<AgentList> {
  return ask('v1/web/agents', { signal }) as Promise<AgentList>;
}

export function fetchPath(id: string, signal: AbortSignal): Promise<CallPath> {
  return ask(address('v1/web/path', { _id: id }), { signal }) as Promise<CallPath>;
}

/** `key` is a row id (decimal) or a trace id; from and to bound the search in seconds. */
export async function fetchTrace(
  key: { _id: string } | { trace_id: string },
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<Trace> {
  const body = (await ask('v1/stats/querier/L7FlowTracing', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...key, TIME_START: from, TIME_END: to }),
    signal,
  })) as { OPT_STATUS: string; DESCRIPTION: string; DATA?: Partial<Trace> | null };
  if (body.OPT_STATUS !== 'SUCCESS') throw new ApiError(body.DESCRIPTION || body.OPT_STATUS);
  return { tracing: body.DATA?.tracing ?? [], services: body.DATA?.services ?? [] };
}

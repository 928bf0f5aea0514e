// A server for work on the page alone: the built page and answers in the shape of docs/architecture.md, section 5. Not shipped.
//   node dev/fake-api.js [--port 5199] [--nodes 300] [--empty] [--broken]
import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '5199' },
    nodes: { type: 'string', default: '0' },
    empty: { type: 'boolean', default: false },
    broken: { type: 'boolean', default: false },
  },
});
const dist = fileURLToPath(new URL('../../deepflow/web/dist', import.meta.url));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

let seed = 7;
const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;

const SHOP = [
  ['wrk', 'nginx', 'HTTP', 42, 0.05, 38_000, 412_000],
  ['nginx', 'shop-api', 'HTTP', 42, 0.05, 36_500, 409_000],
  ['shop-api', 'node-catalog', 'HTTP', 31, 0, 9_200, 44_000],
  ['shop-api', 'redis-server', 'Redis', 84, 0, 240, 3_100],
  ['shop-api', 'stock', 'HTTP', 12, 0, 148_000, 402_000],
  ['node-catalog', 'mariadbd', 'MySQL', 62, 0, 1_900, 21_000],
  ['stock', 'mariadbd', 'MySQL', 12, 0, 2_400, 9_000],
  ['shop-api', '10.0.0.2', 'DNS', 0.4, 0, 800, 4_000],
];
const NUMBERS = { HTTP: 20, MySQL: 60, Redis: 80, DNS: 120 };
const SERVES = { 'redis-server': 'Redis', mariadbd: 'MySQL', '10.0.0.2': 'DNS' };

function map({ from, to }) {
  const seconds = Number(to) - Number(from);
  const calls = [...SHOP];
  for (let i = 1; i < Number(options.nodes); i++) {
    const name = (n) => `service-${n}`;
    calls.push([
      name(Math.floor(i / 3)),
      name(i),
      'HTTP',
      random() * 90,
      random() < 0.03 ? 0.1 : 0,
      random() * 60_000,
      90_000,
    ]);
  }
  const edges = calls.map(([source, target, protocol, rate, errors, average, max]) => ({
    source: `120-${source}`,
    target: `120-${target}`,
    protocol,
    l7_protocol: NUMBERS[protocol],
    request: Math.round(rate * seconds),
    rate: rate * (0.9 + 0.2 * random()),
    error: Math.round(rate * seconds * errors),
    error_ratio: errors,
    rrt_avg_us: average,
    rrt_max_us: max,
    rrt_p95_us: null,
  }));
  const nodes = [...new Set(calls.flat().filter((word) => typeof word === 'string'))]
    .filter((word) => !['HTTP', 'Redis', 'MySQL', 'DNS'].includes(word))
    .map((name) => ({
      id: `120-${name}`,
      name,
      type: name === 'wrk' ? 'IP' : 'Process',
      protocol: SERVES[name] ?? 'HTTP',
      requests: edges.filter((edge) => edge.target === `120-${name}`).reduce((sum, edge) => sum + edge.request, 0),
    }));
  return { nodes, edges };
}

function networkMap(query) {
  const { nodes, edges } = map(query);
  const seconds = Number(query.to) - Number(query.from);
  const delays = Object.fromEntries(
    ['rtt', 'rtt_client', 'rtt_server', 'srt', 'art', 'cit'].flatMap((name, i) => [
      [`${name}_avg_us`, 120 * (i + 1)],
      [`${name}_max_us`, 900 * (i + 1)],
    ]),
  );
  return {
    nodes: nodes.map(({ id, name, type }) => ({ id, name, type, byte: 4_000_000 })),
    edges: edges.map((edge) => {
      const packets = edge.request * 9;
      const again = edge.error > 0 ? Math.round(packets * 0.02) : 0;
      return {
        ...{ source: edge.source, target: edge.target, protocol: 'TCP', observation_point: 'c' },
        ...{ byte: packets * 400, byte_tx: packets * 90, byte_rx: packets * 310, byte_rate: (packets * 400) / seconds },
        ...{ packet: packets, packet_tx: packets / 2, packet_rx: packets / 2, packet_rate: packets / seconds },
        ...{ new_flow: 12, closed_flow: 12, active_flow: 7, syn_count: 12, ooo: 0 },
        ...{ retrans: again, retrans_tx: again, retrans_rx: 0, retrans_ratio: packets ? again / packets : null },
        ...{ retrans_syn: 0, retrans_synack: 0, zero_win: 0, zero_win_tx: 0, zero_win_rx: 0 },
        ...{ client_establish_fail: 0, server_establish_fail: 0, tcp_establish_fail: 0, tcp_transfer_fail: 0 },
        ...{ connection_error: 0, connection_error_ratio: 0 },
        ...delays,
      };
    }),
  };
}

function callPath(id) {
  const way = [
    ['c-p', 'wrk:4003 on shop-host', 3, 0, 402_000],
    ['s', '…0a:01:00:05 on shop-host', 0, 800, 401_200],
    ['s-p', 'nginx:4005 on shop-host', 3, 1_000, 401_000],
  ];
  const points = way.map(([point, where, source, start, end], i) => ({
    ...{ _id: i === 2 ? id : String(i), observation_point: point, agent: 'shop-host', where, type: 2 },
    ...{ ends: '10.0.0.9:40000 → 10.0.0.5:80', signal_source: source, request_us: start, response_us: end },
    ...{ duration_us: end - start, delay_us: i < 2 ? end - start - (way[i + 1][4] - way[i + 1][3]) : end - start },
    retransmissions: source ? null : 1,
  }));
  return {
    points: points.map((point) => ({ ...point, share: point.delay_us / 402_000 })),
    ...{ whole_us: 402_000, slowest: 2, sentence: 'the client says 402.00 ms, the server says 400.00 ms.' },
  };
}

const PATHS = [
  '/',
  '/products/17',
  '/cart?user=8812',
  '/checkout',
  '/products/search?q=a+rather+long+query+that+will+not+fit&sort=price',
];
const SQL = 'SELECT id, name, price FROM product WHERE category = ? ORDER BY price LIMIT 20';

function requests(query) {
  const rows = [];
  const start = Number(query.before ?? Number(query.to) * 1e6);
  for (let i = 0; rows.length < Number(query.limit ?? 100) && i < 2000; i++) {
    const [client, server, protocol, , errors, average] = SHOP[(i * 5) % SHOP.length];
    const failed = errors > 0 && i % 17 === 0;
    const row = {
      start_time_us: Math.round(start - 5000 - i * 190_000),
      duration_us: Math.round(average * (0.4 + 1.8 * random() ** 3)),
      client,
      server,
      protocol,
      l7_protocol: NUMBERS[protocol],
      request_type: { HTTP: 'GET', Redis: 'GET', MySQL: 'COM_QUERY', DNS: 'A' }[protocol],
      request_resource: { HTTP: PATHS[i % PATHS.length], Redis: `GET cart:${i}`, MySQL: SQL, DNS: 'catalog.local' }[
        protocol
      ],
      status: failed ? (i % 2 ? 'Client Error' : 'Server Error') : 'Success',
      code: protocol === 'HTTP' ? (failed ? (i % 2 ? 404 : 500) : 200) : null,
      observation_point: i % 2 ? 's-p' : 'c-p',
    };
    row.endpoint = row.request_resource;
    row._id = ((BigInt(Math.floor(row.start_time_us / 1e6)) << 32n) | BigInt(i + 1)).toString();
    const fits =
      (!query.client || row.client === query.client) &&
      (!query.server || row.server === query.server) &&
      (!query.service || [row.client, row.server].includes(query.service)) &&
      (!query.path || row.request_resource.includes(query.path)) &&
      (!query.status || row.status === query.status) &&
      (!query.protocol || row.protocol === query.protocol) &&
      row.duration_us >= Number(query.min_us ?? 0) &&
      row.duration_us <= Number(query.max_us ?? Infinity);
    if (fits) rows.push(row);
  }
  return { rows, next: rows.length > 50 ? String(rows.at(-1).start_time_us) : null };
}

// [service, observation point, parent, start, end, type, resource, protocol, rule, signal source]
const SPANS = [
  ['wrk', 'c-p', -1, 0, 402_000, 'GET', '/checkout', 'HTTP', ''],
  ['', 's', 0, 800, 401_200, 'GET', '/checkout', 'HTTP', 'network: same TCP request sequence 1001', 0],
  ['nginx', 's-p', 1, 1_000, 401_000, 'GET', '/checkout', 'HTTP', 'network: same TCP request sequence 1001'],
  ['nginx', 'c-p', 2, 2_000, 400_100, 'GET', '/checkout', 'HTTP', 'syscall trace id'],
  ['shop-api', 's-p', 3, 2_600, 399_700, 'GET', '/checkout', 'HTTP', 'network: same TCP request sequence 1001'],
  ['shop-api', 'c-p', 4, 6_000, 6_420, 'GET', 'GET cart:8812', 'Redis', 'syscall trace id'],
  ['redis-server', 's-p', 5, 6_100, 6_330, 'GET', 'GET cart:8812', 'Redis', 'network: same TCP request sequence 1001'],
  ['shop-api', 'c-p', 4, 20_000, 61_000, 'GET', '/products/17', 'HTTP', 'syscall trace id'],
  ['node-catalog', 's-p', 7, 20_400, 60_700, 'GET', '/products/17', 'HTTP', 'network: same TCP request sequence 1001'],
  ['node-catalog', 'c-p', 8, 24_000, 47_000, 'COM_QUERY', SQL, 'MySQL', 'syscall trace id'],
  ['mariadbd', 's-p', 9, 24_200, 46_600, 'COM_QUERY', SQL, 'MySQL', 'network: same TCP request sequence 1001'],
  ['shop-api', 'c-p', 4, 72_000, 381_000, 'POST', '/reserve', 'HTTP', 'syscall trace id'],
  ['stock', 's-p', 11, 72_300, 380_400, 'POST', '/reserve', 'HTTP', 'network: same TCP request sequence 1001'],
  [
    'stock',
    'c-p',
    12,
    371_000,
    376_500,
    'COM_QUERY',
    'UPDATE stock SET n = n - ? WHERE id = ?',
    'MySQL',
    'syscall trace id',
  ],
  [
    'mariadbd',
    's-p',
    13,
    371_200,
    376_300,
    'COM_QUERY',
    'UPDATE stock SET n = n - ? WHERE id = ?',
    'MySQL',
    'network: same TCP request sequence 1001',
  ],
];

function trace(id) {
  const base = /^\d+$/.test(id ?? '') ? Number(BigInt(id) >> 32n) * 1e6 : Date.now() * 1000;
  const children = SPANS.map((_, i) => SPANS.flatMap((span, j) => (span[2] === i ? [j] : [])));
  const spans = SPANS.map(([service, side, parent, start, end, type, resource, protocol, rule, source = 3], i) => ({
    _ids: [i === 4 ? id : `${i}`],
    deepflow_span_id: `span-${i}`,
    deepflow_parent_span_id: parent < 0 ? '' : `span-${parent}`,
    id: i,
    parent_id: parent,
    childs: children[i],
    start_time_us: base + start,
    end_time_us: base + end,
    duration: end - start,
    selftime: children[i].reduce((left, j) => left - (SPANS[j][4] - SPANS[j][3]), end - start),
    tap_side: side,
    l7_protocol: { HTTP: 20, MySQL: 60, Redis: 80 }[protocol],
    l7_protocol_str: protocol,
    endpoint: resource,
    request_type: type,
    request_resource: resource,
    response_status: i === 12 || i === 11 ? 3 : 0,
    response_code: protocol === 'HTTP' ? (i === 12 || i === 11 ? 500 : 200) : null,
    response_exception: i === 12 ? 'stock of item 17 is locked by another reservation' : '',
    flow_id: `${9_000_000_000 + i}`,
    req_tcp_seq: 1000 + i,
    resp_tcp_seq: 2000 + i,
    syscall_trace_id_request: `${77_000 + i}`,
    syscall_trace_id_response: `${77_000 + i}`,
    x_request_id_0: '',
    x_request_id_1: '',
    trace_id: '',
    span_id: '',
    process_id: 4000 + service.length,
    process_kname: service,
    auto_instance: service ? `${service}:${4000 + service.length}` : '10.0.0.9',
    auto_service: service,
    service_uid: service ? `120-${service}` : '',
    service_uname: service,
    agent_id: 1,
    set_parent_info: rule,
    signal_source: source,
  }));
  const own = {};
  for (const span of spans)
    if (span.service_uid) own[span.service_uname] = (own[span.service_uname] ?? 0) + span.selftime;
  const total = Object.values(own).reduce((a, b) => a + b, 0);
  const services = Object.entries(own)
    .sort((a, b) => b[1] - a[1])
    .map(([name, duration]) => ({
      service_uid: `120-${name}`,
      service_uname: name,
      duration,
      duration_ratio: `${((100 * duration) / total).toFixed(2)}%`,
    }));
  return { OPT_STATUS: 'SUCCESS', DESCRIPTION: '', DATA: { tracing: spans, services } };
}

const agents = () => ({
  agents: [
    {
      agent_id: 1,
      name: 'shop-host',
      version: '0.1.0',
      kernel: '6.18.5',
      last_seen_s: Date.now() / 1000 - 4,
      counters: {
        ring_in: 812_331,
        ring_out: 812_319,
        ring_lost: 12,
        messages_in: 812_319,
        sessions_out: 402_118,
        rows_in: 402_118,
        rows_sent: 402_118,
        rows_lost: 0,
        retries: 2,
        memory_bytes: 84_213_760,
        timeouts: 4,
      },
    },
    {
      agent_id: 2,
      name: 'db-host',
      version: '0.1.0',
      kernel: '5.15.0',
      last_seen_s: Date.now() / 1000 - 420,
      counters: { ring_in: 1200, ring_out: 1200, ring_lost: 0 },
    },
  ],
  server: {
    rows_in: 402_118,
    rows_out: 402_118,
    rows_dropped: 0,
    batches_in: 712,
    batches_repeated: 1,
    query_count: 83,
  },
});

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://fake');
  const query = Object.fromEntries(url.searchParams);
  const json = (body, status = 200) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(body));
  };
  if (url.pathname.startsWith('/v1/') && options.broken)
    return json({ error: 'The store does not answer: is chDB in use by another process?' }, 503);
  if (url.pathname === '/v1/web/map') return json(options.empty ? { nodes: [], edges: [] } : map(query));
  if (url.pathname === '/v1/web/network-map') return json(options.empty ? { nodes: [], edges: [] } : networkMap(query));
  if (url.pathname === '/v1/web/path') return json(callPath(query._id));
  if (url.pathname === '/v1/web/requests') return json(options.empty ? { rows: [], next: null } : requests(query));
  if (url.pathname === '/v1/web/agents') return json(options.empty ? { agents: [], server: {} } : agents());
  if (url.pathname === '/v1/stats/querier/L7FlowTracing') {
    let body = '';
    request.on('data', (part) => (body += part));
    request.on('end', () => json(trace(JSON.parse(body)._id)));
    return;
  }
  const path = normalize(url.pathname === '/' ? '/index.html' : url.pathname);
  const file = join(dist, path);
  if (!file.startsWith(dist) || !existsSync(file)) return json({ error: `There is no ${path}.` }, 404);
  // As strict as any server may be: the page must work under it.
  response.writeHead(200, {
    'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
    'Content-Security-Policy': "default-src 'self'; frame-ancestors 'none'",
  });
  createReadStream(file).pipe(response);
});
server.listen(Number(options.port), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));

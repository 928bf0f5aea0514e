//! Messages a second through the whole engine on one core, from segment to Arrow IPC. Prints JSON.
//!
//! `cargo run --release --no-default-features --example engine_rate [rounds] [web | paths | server]`: a mixed load of
//! clients, each exchange a row, none of whose HTTP heads comes twice; or `web`: 140,000 HTTP messages a second of which
//! both ends are seen, as by bench/nginx.py, with the default bound of rows; `paths`: the same, each request with another
//! path; `server`: as `web`, with the clients on other machines.

use std::time::Instant;

use _core::engine::{Engine, EngineConfig};
use _core::event::{Direction, Endpoint, EventSink, Segment, Source, Task};

const CONNECTIONS: u64 = 64;

/// Where a number goes that each exchange has of its own.
const NUMBER: &[u8] = b"00000000";

struct Exchange {
    transport: u8,
    port: u16,
    request: &'static [u8],
    response: &'static [u8],
}

const MIXED: [Exchange; 4] = [
    Exchange {
        transport: 6,
        port: 80,
        request: b"GET /api/v1/items/17?page=2 HTTP/1.1\r\nHost: shop.local\r\nUser-Agent: bench/1\r\nAccept: */*\r\nX-Request-ID: 00000000\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: 00000000\r\nContent-Length: 15\r\n\r\n{\"id\": 17, ...}",
    },
    Exchange { transport: 6, port: 6379, request: b"*2\r\n$3\r\nGET\r\n$7\r\nitem:17\r\n", response: b"$5\r\nvalue\r\n" },
    Exchange { transport: 6, port: 3306, request: b"\x19\0\0\0\x03SELECT * FROM items t 17", response: b"\x07\0\0\x01\0\0\0\x02\0\0\0" },
    Exchange {
        transport: 17,
        port: 53,
        request: b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop\x05local\0\0\x01\0\x01",
        response: b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x04shop\x05local\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
    },
];

const WEB: [Exchange; 1] = [Exchange {
    transport: 6,
    port: 80,
    request: b"GET /item/1?x=2 HTTP/1.1\r\nHost: 127.0.0.1:34567\r\n\r\n",
    response: b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 17:44:20 GMT\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nok\n",
}];

const PATHS: [Exchange; 1] =
    [Exchange { request: b"GET /item/00000000 HTTP/1.1\r\nHost: 127.0.0.1:34567\r\n\r\n", ..WEB[0] }];

/// A payload with a number of its own, where it has a place for one.
struct Numbered {
    payload: Vec<u8>,
    place: Option<usize>,
}

impl Numbered {
    fn new(payload: &[u8]) -> Self {
        let place = payload.windows(NUMBER.len()).position(|window| window == NUMBER);
        Self { payload: payload.to_vec(), place }
    }

    fn with(&mut self, mut number: u64) -> &[u8] {
        if let Some(place) = self.place {
            for digit in self.payload[place..place + NUMBER.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        &self.payload
    }
}

fn main() {
    let rounds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let name = std::env::args().nth(2).unwrap_or_default();
    let loads: &[Exchange] = match name.as_str() {
        "" => &MIXED,
        "web" | "server" => &WEB,
        "paths" => &PATHS,
        other => panic!("there is no load {other}: web, paths, server, or none"),
    };
    let web = !name.is_empty();
    let step_us = if web { 7 } else { 1 };
    let mut payloads: Vec<_> = loads.iter().map(|load| [load.request, load.response].map(Numbered::new)).collect();
    let throttle = if web { 10_000 } else { 0 };
    let mut engine = Engine::new(&EngineConfig { l7_throttle: throttle, ..EngineConfig::default() });
    let (mut now_us, mut bytes_out, mut rows_out) = (1_700_000_000_000_000_u64, 0, 0);
    // Both ends of a connection count alike, each connection from somewhere else.
    let ends = if web && name != "server" { 2 } else { 1 };
    let mut sequences: [[u32; 2]; CONNECTIONS as usize] = std::array::from_fn(|socket| {
        [0x0391_8f43, 0x0711_0e21].map(|step: u32| step.wrapping_mul(socket as u32 / ends))
    });
    let started = Instant::now();
    for round in 0..rounds {
        for socket in 0..CONNECTIONS {
            let place = (socket % loads.len() as u64) as usize;
            let load = &loads[place];
            // Where both ends are seen, every other socket is the server's end of the one before it.
            let pair = web && name != "server" && socket % 2 == 1;
            let server = pair || name == "server";
            let client = Endpoint { ip: [10, 0, 0, 1].into(), port: 40_000 + (socket - u64::from(pair)) as u16 };
            let far = Endpoint { ip: [10, 0, 0, 2].into(), port: load.port };
            let (local, remote) = if server { (far, client) } else { (client, far) };
            let task = Task {
                pid: 100 + u32::from(server),
                tid: 100 + (socket % 8) as u32,
                comm: *b"bench\0\0\0\0\0\0\0\0\0\0\0",
            };
            let exchange = round * CONNECTIONS + socket - u64::from(pair);
            for (side, payload) in payloads[place].iter_mut().enumerate() {
                let payload = payload.with(exchange);
                now_us += step_us;
                let sequence = &mut sequences[socket as usize][side];
                engine.segment(&Segment {
                    time_us: now_us,
                    source: Source::Socket,
                    socket: socket + 1,
                    direction: if (side == 0) != server { Direction::Egress } else { Direction::Ingress },
                    protocol: load.transport,
                    local,
                    remote,
                    netns: 1,
                    task,
                    cgroup: 0,
                    tcp_seq: sequence.wrapping_add(1),
                    length: payload.len() as u32,
                    payload,
                });
                *sequence = sequence.wrapping_add(payload.len() as u32);
            }
        }
        if round % 500 == 499 {
            engine.tick(now_us);
            for (_, rows, bytes) in engine.drain(now_us, false) {
                rows_out += rows;
                bytes_out += bytes.len();
            }
        }
    }
    for (_, rows, bytes) in engine.drain(now_us, true) {
        rows_out += rows;
        bytes_out += bytes.len();
    }
    let seconds = started.elapsed().as_secs_f64();
    let counters: std::collections::BTreeMap<_, _> = engine.counters().into_iter().collect();
    let messages: u64 = counters.iter().filter(|(name, _)| name.starts_with("messages_")).map(|(_, count)| count).sum();
    let report = serde_json::json!({
        "messages": messages, "sessions": counters["sessions_paired"], "invalid": counters["invalid"],
        "rows": rows_out, "ipc_bytes": bytes_out, "seconds": seconds,
        "messages_per_second": (messages as f64 / seconds).round(),
    });
    println!("{report}");
}

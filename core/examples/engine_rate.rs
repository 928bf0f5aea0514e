//! Messages a second through the whole engine on one core, from segment to Arrow IPC, for a mixed load. Prints JSON.
//!
//! `cargo run --release --no-default-features --example engine_rate [rounds]`

use std::time::Instant;

use _core::engine::{Engine, EngineConfig};
use _core::event::{Direction, Endpoint, EventSink, Segment, Source, Task};

const CONNECTIONS: u64 = 64;

struct Exchange {
    transport: u8,
    port: u16,
    request: &'static [u8],
    response: &'static [u8],
}

const LOAD: [Exchange; 4] = [
    Exchange {
        transport: 6,
        port: 80,
        request: b"GET /api/v1/items/17?page=2 HTTP/1.1\r\nHost: shop.local\r\nUser-Agent: bench/1\r\nAccept: */*\r\nX-Request-ID: 7f1c\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"id\": 17, ...}",
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

fn main() {
    let rounds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut engine = Engine::new(&EngineConfig::default());
    let (mut now_us, mut bytes_out, mut rows_out) = (1_700_000_000_000_000_u64, 0, 0);
    let mut sequences = [[0_u32; 2]; CONNECTIONS as usize];
    let started = Instant::now();
    for round in 0..rounds {
        for socket in 0..CONNECTIONS {
            let load = &LOAD[(socket % 4) as usize];
            let task = Task { pid: 100, tid: 100 + (socket % 8) as u32, comm: *b"bench\0\0\0\0\0\0\0\0\0\0\0" };
            for (side, payload) in [load.request, load.response].into_iter().enumerate() {
                now_us += 1;
                let sequence = &mut sequences[socket as usize][side];
                engine.segment(&Segment {
                    time_us: now_us,
                    source: Source::Socket,
                    socket: socket + 1,
                    direction: if side == 0 { Direction::Egress } else { Direction::Ingress },
                    protocol: load.transport,
                    local: Endpoint { ip: [10, 0, 0, 1].into(), port: 40_000 + socket as u16 },
                    remote: Endpoint { ip: [10, 0, 0, 2].into(), port: load.port },
                    netns: 1,
                    task,
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

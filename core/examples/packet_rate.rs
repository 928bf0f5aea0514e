//! Packets a second on one core, from the Ethernet frame to Arrow IPC (decode, flows, protocols, pairing, meters), for
//! a mixed load of HTTP, Redis, MySQL and DNS with the handshakes and pure acknowledgements of TCP. Prints JSON.
//!
//! `cargo run --release --no-default-features --example packet_rate [rounds]`

use std::time::Instant;

use _core::engine::{EngineConfig, Shared};
use _core::flow::seen::Nowhere;
use _core::packet::Frame;
use _core::packets::Packets;

const ETHERNET: u16 = 1;
const CONNECTIONS: u16 = 1000;

const LOAD: [(u8, u16, &[u8], &[u8]); 4] = [
    (
        6,
        80,
        b"GET /api/v1/items/17?page=2 HTTP/1.1\r\nHost: shop.local\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"id\": 17, ...}",
    ),
    (6, 6379, b"*2\r\n$3\r\nGET\r\n$7\r\nitem:17\r\n", b"$5\r\nvalue\r\n"),
    (6, 3306, b"\x19\0\0\0\x03SELECT * FROM items t 17", b"\x07\0\0\x01\0\0\0\x02\0\0\0"),
    (
        17,
        53,
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop\x05local\0\0\x01\0\x01",
        b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x04shop\x05local\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
    ),
];

/// One connection: its next sequence numbers.
struct Open {
    port: u16,
    next: [u32; 2],
}

/// An Ethernet frame; `side` 0 is the client's.
fn frame(load: (u8, u16), open: &Open, side: usize, flags: u8, payload: &[u8], to: &mut Vec<u8>) {
    let (transport, server) = load;
    let header: usize = if transport == 6 { 20 } else { 8 };
    let ends = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let ports = [open.port, server];
    to.clear();
    to.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let total = (20 + header + payload.len()) as u16;
    to.extend([0x45, 0]);
    to.extend(total.to_be_bytes());
    to.extend([0, 0, 0x40, 0, 64, transport, 0, 0]);
    to.extend(ends[side]);
    to.extend(ends[1 - side]);
    to.extend(ports[side].to_be_bytes());
    to.extend(ports[1 - side].to_be_bytes());
    if transport == 6 {
        to.extend(open.next[side].to_be_bytes());
        to.extend(open.next[1 - side].to_be_bytes());
        to.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        to.extend(((header + payload.len()) as u16).to_be_bytes());
        to.extend([0, 0]);
    }
    to.extend(payload);
}

fn main() {
    let rounds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(300);
    // The frames of a round are made once, so that only the product's work is timed; sequence numbers are written in.
    let mut opens: Vec<Open> = (0..CONNECTIONS).map(|at| Open { port: 20_000 + at, next: [1, 1] }).collect();
    let mut product = Packets::new(&EngineConfig::default(), &Shared::default(), 0);
    let mut now_us = 1_700_000_000_000_000_u64;
    let (mut packets, mut bytes, mut rows, mut seconds) = (0_u64, 0_u64, 0, 0.0);
    let mut round = |number: u64, product: &mut Packets, opens: &mut Vec<Open>| {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut one = Vec::new();
        for (at, open) in opens.iter_mut().enumerate() {
            let (transport, server, request, response) = LOAD[at % LOAD.len()];
            let load = (transport, server);
            if number == 0 && transport == 6 {
                for (side, flags) in [(0, 2), (1, 18), (0, 16)] {
                    frame(load, open, side, flags, &[], &mut one);
                    frames.push(one.clone());
                    open.next[side] += u32::from(flags & 2 != 0);
                }
            }
            for (side, payload) in [(0, request), (1, response)] {
                frame(load, open, side, 24, payload, &mut one);
                frames.push(one.clone());
                open.next[side] = open.next[side].wrapping_add(payload.len() as u32);
                if transport == 6 {
                    frame(load, open, 1 - side, 16, &[], &mut one);
                    frames.push(one.clone());
                }
            }
        }
        let started = Instant::now();
        for data in &frames {
            now_us += 1;
            let wire = data.len() as u32;
            let (time_us, link_type) = (now_us, ETHERNET);
            let frame = Frame { time_us, link_type, nic: 0, wire, data, vlan: None, outgoing: false };
            product.frame(&frame, &Nowhere);
            bytes += data.len() as u64;
        }
        packets += frames.len() as u64;
        if number % 10 == 9 {
            product.tick(now_us);
            rows += product.drain(now_us).iter().map(|batch| batch.1).sum::<usize>();
        }
        seconds += started.elapsed().as_secs_f64();
    };
    for number in 0..rounds {
        round(number, &mut product, &mut opens);
    }
    rows += product.finish(now_us, false).iter().map(|batch| batch.1).sum::<usize>();
    let counters: std::collections::BTreeMap<_, _> = product.counters().into_iter().collect();
    let report = serde_json::json!({
        "packets": packets, "mean_frame_bytes": bytes / packets, "connections": CONNECTIONS, "rows": rows,
        "sessions": counters["sessions_paired"], "invalid": counters["invalid"], "seconds": seconds,
        "packets_per_second": (packets as f64 / seconds).round(),
    });
    println!("{report}");
}

//! Memory and time of very many flows, as packets of a capture that is made while it runs.
//!
//! `cargo run --release --no-default-features --example many_flows [concurrent FLOWS] [flood TUPLES] [limit FLOWS]`
//!
//! `concurrent`: that many connections are opened and stay open, then each says something once more. `flood`: that many
//! tuples send one SYN each, a million a second of capture time. Prints JSON; both parts when none is
//! named. `limit`: most flows at one time; the default of the agent for a flood, all of them for `concurrent`.

use std::collections::BTreeMap;
use std::time::Instant;

use _core::engine::{EngineConfig, Shared};
use _core::flow::seen::Nowhere;
use _core::packet::Frame;
use _core::packets::Packets;
use serde_json::{Value, json};

const ETHERNET: u16 = 1;
const BEGIN_US: u64 = 1_700_000_000_000_000;
const SYN: u8 = 2;
const ACK: u8 = 16;
const PSH: u8 = 8;
const REQUEST: &[u8] = b"GET /item/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Capture time between two packets of a flood, µs.
const FLOOD_US: u64 = 1;

/// A value of /proc/self/status in MiB.
fn memory_mib(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default();
    (kib / 1024.0).round()
}

/// An Ethernet frame with a TCP segment of client `number`; `side` 0 is the client's.
fn frame(number: u32, side: usize, flags: u8, seq: u32, ack: u32, payload: &[u8], to: &mut Vec<u8>) {
    // 2^15 ports of each of very many addresses: no two clients have the same tuple.
    let [_, a, b, c] = (number >> 15).to_be_bytes();
    let ends = [[10, a, b, c], [192, 0, 2, 1]];
    let ports = [32_768 + (number & 0x7fff) as u16, 80];
    to.clear();
    to.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    to.extend(((40 + payload.len()) as u16).to_be_bytes());
    to.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    to.extend(ends[side]);
    to.extend(ends[1 - side]);
    to.extend(ports[side].to_be_bytes());
    to.extend(ports[1 - side].to_be_bytes());
    to.extend(seq.to_be_bytes());
    to.extend(ack.to_be_bytes());
    to.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    to.extend(payload);
}

/// The packets of the product, with the clock of the capture.
struct Run {
    packets: Packets,
    buffer: Vec<u8>,
    now_us: u64,
    ticked_us: u64,
    drained_us: u64,
    sent: u64,
    rows: BTreeMap<&'static str, usize>,
    most_flows: usize,
    started: Instant,
}

impl Run {
    fn new(limit: Option<usize>) -> Self {
        let mut config = EngineConfig::default();
        config.concurrent_flow_limit = limit.unwrap_or(config.concurrent_flow_limit);
        config.l4_throttle = 10_000;
        config.l7_throttle = 10_000;
        let packets = Packets::new(&config, &Shared::default(), 0);
        Self {
            packets,
            buffer: Vec::new(),
            now_us: BEGIN_US,
            ticked_us: BEGIN_US,
            drained_us: BEGIN_US,
            sent: 0,
            rows: BTreeMap::new(),
            most_flows: 0,
            started: Instant::now(),
        }
    }

    fn send(&mut self, after_us: u64, number: u32, side: usize, flags: u8, at: (u32, u32), payload: &[u8]) {
        self.now_us += after_us;
        self.sent += 1;
        frame(number, side, flags, at.0, at.1, payload, &mut self.buffer);
        let wire = self.buffer.len() as u32;
        let (link_type, data) = (ETHERNET, &self.buffer[..]);
        let one = Frame { time_us: self.now_us, link_type, nic: 1, wire, data, vlan: None, outgoing: false };
        self.packets.frame(&one, &Nowhere);
        // As the agent does: time passes ten times a second, rows are taken once a second.
        if self.now_us >= self.ticked_us + 100_000 {
            self.ticked_us = self.now_us;
            self.packets.tick(self.now_us);
            self.most_flows = self.most_flows.max(self.packets.flow_numbers().1);
        }
        if self.now_us >= self.drained_us + 1_000_000 {
            self.drained_us = self.now_us;
            let batches = self.packets.drain(self.now_us);
            for (table, rows, _) in batches {
                *self.rows.entry(table).or_default() += rows;
            }
        }
    }

    fn report(self, limit: Option<usize>) -> Value {
        let seconds = self.started.elapsed().as_secs_f64();
        let counters: BTreeMap<_, _> = self.packets.counters().into_iter().collect();
        let of = |name: &str| counters.get(name).copied().unwrap_or_default();
        json!({
            "packets": self.sent, "capture_seconds": (self.now_us - BEGIN_US) / 1_000_000,
            "flow_limit": limit.unwrap_or(EngineConfig::default().concurrent_flow_limit),
            "flows": of("flows"), "flows_now": of("flows_now"), "most_flows": self.most_flows,
            "flows_evicted": of("flows_evicted"), "flow_rows_throttled": of("flow_rows_throttled"),
            "connections_now": of("connections_now"), "connections_evicted": of("connections_evicted"),
            "sessions": of("sessions_paired"), "rows": self.rows,
            "resident_mib": memory_mib("VmRSS"), "peak_mib": memory_mib("VmHWM"),
            "packets_per_second": (self.sent as f64 / seconds).round(),
        })
    }
}

/// Opens `flows` connections, each with one call, and then has a second call on each of them.
fn concurrent(flows: u32, limit: Option<usize>) -> Value {
    let before = memory_mib("VmRSS");
    let mut run = Run::new(limit);
    let (request, response) = (REQUEST.len() as u32, RESPONSE.len() as u32);
    // All connections fit into the time after which an open one without packets ends.
    let pace = 10;
    for number in 0..flows {
        run.send(pace, number, 0, SYN, (1000, 0), &[]);
        run.send(pace, number, 1, SYN | ACK, (5000, 1001), &[]);
        run.send(pace, number, 0, ACK, (1001, 5001), &[]);
        run.send(pace, number, 0, PSH | ACK, (1001, 5001), REQUEST);
        run.send(pace, number, 1, PSH | ACK, (5001, 1001 + request), RESPONSE);
    }
    let opened = memory_mib("VmRSS");
    for number in 0..flows {
        run.send(pace, number, 0, PSH | ACK, (1001 + request, 5001 + response), REQUEST);
        run.send(pace, number, 1, PSH | ACK, (5001 + response, 1001 + 2 * request), RESPONSE);
    }
    let mut report = run.report(limit);
    report["bytes_per_flow"] = json!(((opened - before) * 1_048_576.0 / f64::from(flows)).round());
    report
}

/// One SYN of each of `tuples` clients.
fn flood(tuples: u32, limit: Option<usize>) -> Value {
    let mut run = Run::new(limit);
    let mut halfway = 0.0;
    for number in 0..tuples {
        run.send(FLOOD_US, number, 0, SYN, (number, 0), &[]);
        if number == tuples / 2 {
            halfway = memory_mib("VmRSS");
        }
    }
    let mut report = run.report(limit);
    report["resident_mib_halfway"] = json!(halfway);
    report
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given: BTreeMap<&str, u32> =
        words.chunks(2).filter_map(|pair| Some((pair.first()?.as_str(), pair.get(1)?.parse().ok()?))).collect();
    let limit = given.get("limit").map(|limit| *limit as usize);
    let both = !given.contains_key("concurrent") && !given.contains_key("flood");
    let mut report = BTreeMap::new();
    // The flood first: the peak of memory is one of the process.
    if let Some(tuples) = given.get("flood").copied().or(both.then_some(10_000_000)) {
        report.insert("flood", flood(tuples, limit));
    }
    if let Some(flows) = given.get("concurrent").copied().or(both.then_some(1_000_000)) {
        report.insert("concurrent", concurrent(flows, limit.or(Some(flows as usize))));
    }
    println!("{}", json!(report));
}

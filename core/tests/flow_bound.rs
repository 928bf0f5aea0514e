//! However many tuples there are, the flow table keeps as many as it may, and counts those it let go.

use std::collections::BTreeMap;

use _core::engine::{EngineConfig, Shared};
use _core::flow::seen::Nowhere;
use _core::packet::Frame;
use _core::packets::Packets;

const BEGIN_US: u64 = 1_700_000_000_000_000;
const LIMIT: usize = 4_000;
const THROTTLE: u32 = 1_000;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

/// A frame with a TCP segment without payload of client `number`; `side` 0 is the client's.
fn frame(number: u32, side: usize, flags: u8) -> Vec<u8> {
    let [_, a, b, c] = (number >> 15).to_be_bytes();
    let ends = [[10, a, b, c], [192, 0, 2, 1]];
    let ports = [32_768 + (number & 0x7fff) as u16, 80];
    let mut to = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    to.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    to.extend(ends[side]);
    to.extend(ends[1 - side]);
    to.extend(ports[side].to_be_bytes());
    to.extend(ports[1 - side].to_be_bytes());
    let (seq, ack): (u32, u32) = if flags == SYN { (1000, 0) } else { (1001, 5001) };
    to.extend(seq.to_be_bytes());
    to.extend(ack.to_be_bytes());
    to.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    to
}

struct Run {
    packets: Packets,
    now_us: u64,
    sent: u64,
    rows: BTreeMap<&'static str, usize>,
    most: usize,
    most_waiting: usize,
}

impl Run {
    fn new() -> Self {
        let config = EngineConfig { concurrent_flow_limit: LIMIT, l4_throttle: THROTTLE, ..EngineConfig::default() };
        let packets = Packets::new(&config, &Shared::default(), 0);
        Self { packets, now_us: BEGIN_US, sent: 0, rows: BTreeMap::new(), most: 0, most_waiting: 0 }
    }

    fn send(&mut self, after_us: u64, frame: &[u8]) {
        self.now_us += after_us;
        self.sent += 1;
        let wire = frame.len() as u32;
        let (time_us, data) = (self.now_us, frame);
        let one = Frame { time_us, link_type: 1, nic: 1, wire, data, vlan: None, outgoing: false };
        self.packets.frame(&one, &Nowhere);
        self.most = self.most.max(self.packets.flow_numbers().1);
        if self.sent.is_multiple_of(1000) {
            self.packets.tick(self.now_us);
            self.most_waiting = self.most_waiting.max(self.packets.backlog().0);
        }
        if self.sent.is_multiple_of(10_000) {
            let batches = self.packets.drain(self.now_us);
            self.count(batches);
        }
    }

    fn count(&mut self, batches: Vec<_core::batch::Batch>) {
        for (table, rows, _) in batches {
            *self.rows.entry(table).or_default() += rows;
        }
    }

    fn end(mut self) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, usize>, usize, usize) {
        let batches = self.packets.finish(self.now_us, true);
        self.count(batches);
        (self.packets.counters().into_iter().collect(), self.rows, self.most, self.most_waiting)
    }
}

#[test]
fn a_flood_of_tuples_does_not_grow_the_table() {
    let tuples = 100_000;
    let mut run = Run::new();
    for number in 0..tuples {
        run.send(10, &frame(number, 0, SYN));
    }
    let (counters, rows, most, most_waiting) = run.end();
    assert_eq!(most, LIMIT);
    assert_eq!(counters["flows"], u64::from(tuples));
    // All of them within a second of capture: none ends before it has to give way.
    assert_eq!(counters["flows_evicted"], u64::from(tuples) - LIMIT as u64);
    assert_eq!(counters["flows_now"], 0);
    // Each flow has its last row, or is counted as thinned out.
    assert_eq!(rows["l4_flow_log"] as u64 + counters["flow_rows_throttled"], u64::from(tuples));
    assert!(counters["flow_rows_throttled"] > 0);
    assert!(most_waiting <= 20_000, "{most_waiting} rows waited for one drain");
}

#[test]
fn the_longest_silent_goes_first() {
    let mut run = Run::new();
    // An eighth of the table speaks again and again; a flood has to pass by it.
    let speaking = LIMIT as u32 / 8;
    for number in 0..speaking {
        for (side, flags) in [(0, SYN), (1, SYN_ACK), (0, ACK)] {
            run.send(10, &frame(number, side, flags));
        }
    }
    for round in 0..20 {
        for number in 0..LIMIT as u32 {
            run.send(5, &frame(1_000_000 + round * 10_000 + number, 0, SYN));
            run.send(5, &frame(number % speaking, 0, ACK));
        }
    }
    let (counters, _, most, _) = run.end();
    assert_eq!(most, LIMIT);
    let opened = u64::from(speaking) + 20 * LIMIT as u64;
    // A speaking flow that was let go comes back as another flow: few may.
    assert!(counters["flows"] <= opened + opened / 100, "{} flows of {opened}", counters["flows"]);
    assert!(counters["flows_evicted"] > 0);
}

#[test]
fn nothing_is_let_go_below_the_limit() {
    let mut run = Run::new();
    for number in 0..LIMIT as u32 {
        for (side, flags) in [(0, SYN), (1, SYN_ACK), (0, ACK)] {
            run.send(20, &frame(number, side, flags));
        }
    }
    for number in 0..LIMIT as u32 {
        run.send(20, &frame(number, 1, ACK));
    }
    let (counters, _, most, _) = run.end();
    assert_eq!((most, counters["flows"], counters["flows_evicted"]), (LIMIT, LIMIT as u64, 0));
    assert_eq!(counters["frames"], 4 * LIMIT as u64);
}

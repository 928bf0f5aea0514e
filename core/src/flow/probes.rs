//! Connections that carried nothing, as health checks make them: those of a minute that are alike make one row.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;

use super::record::{Flow, Outer};
use super::state::CloseType;
use crate::event::Endpoint;
use crate::packet::decode::TCP;
use crate::peers::Process;

/// Kinds of probes of one minute; what is beyond has rows of its own.
const MAX_KINDS: usize = 4096;
/// Connections of one row.
const MAX_MERGED: usize = 256;

/// What is alike: who asked whom, where it was seen, how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    client: IpAddr,
    server: Endpoint,
    nic: u32,
    tunnel: Option<(u8, u32)>,
    pids: [u32; 2],
    close_type: CloseType,
}

/// Flows that are one row: the first with the counts of all.
#[derive(Debug)]
pub struct Merged {
    pub flow: Box<Flow>,
    pub close_type: CloseType,
    pub alike: Alike,
}

/// What the row says of all of them.
#[derive(Debug)]
pub struct Alike {
    /// Client and server: their sockets are gone by the end of the minute.
    pub processes: [Process; 2],
    /// Of the longest, µs.
    pub duration_us: u64,
    flow_ids: Vec<u64>,
}

impl Merged {
    pub fn new(flow: Box<Flow>, processes: [Process; 2], close_type: CloseType) -> Self {
        let alike = Alike { processes, duration_us: lasted_us(&flow), flow_ids: vec![flow.id] };
        Self { flow, close_type, alike }
    }

    fn add(&mut self, other: &Flow) {
        let flow = &mut self.flow;
        flow.period.add(&other.period);
        for side in 0..2 {
            flow.flags[side] |= other.flags[side];
            flow.total_packets[side] += other.total_packets[side];
            flow.total_bytes[side] += other.total_bytes[side];
        }
        flow.period_start_us = flow.period_start_us.min(other.period_start_us);
        flow.last_us = flow.last_us.max(other.last_us);
        self.alike.duration_us = self.alike.duration_us.max(lasted_us(other));
        self.alike.flow_ids.push(other.id);
    }
}

impl Alike {
    /// The numbers of the flows with commas between, empty when it is one alone.
    pub fn ids(&self) -> String {
        let mut text = String::new();
        if self.flow_ids.len() > 1 {
            for id in &self.flow_ids {
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}{id}");
            }
        }
        text
    }
}

/// From a flow's first packet to its last, µs.
pub fn lasted_us(flow: &Flow) -> u64 {
    flow.last_us.saturating_sub(flow.start_us)
}

fn kind_of(Merged { flow, close_type, alike }: &Merged) -> Kind {
    let outer: Outer = flow.outer[0].or(flow.outer[1]);
    Kind {
        client: flow.ends[0].ip,
        server: flow.ends[1],
        nic: flow.place.nic,
        tunnel: outer.map(|tunnel| (tunnel.kind as u8, tunnel.id)),
        pids: alike.processes.map(|process| process.pid),
        close_type: *close_type,
    }
}

/// Opened, answered, without a byte of payload, and over before its first row.
pub fn is_probe(flow: &Flow) -> bool {
    let counts = &flow.period;
    flow.protocol == TCP && flow.unreported && counts.traffic.l4_bytes == [0; 2] && counts.tcp.synack_count > 0
}

/// The probes of the minute under way.
#[derive(Debug, Default)]
pub struct Probes {
    minute: u64,
    held: HashMap<Kind, Merged>,
}

impl Probes {
    /// Keeps a probe that is over for the row of its minute, or gives back what has a row now.
    pub fn take(&mut self, closed: Merged) -> Option<Merged> {
        let kind = kind_of(&closed);
        if let Some(merged) = self.held.get_mut(&kind) {
            merged.add(&closed.flow);
            return if merged.alike.flow_ids.len() < MAX_MERGED { None } else { self.held.remove(&kind) };
        }
        if self.held.len() >= MAX_KINDS {
            return Some(closed);
        }
        self.held.insert(kind, closed);
        None
    }

    /// The rows of minutes that are over at `now_us`, or of `all`, in the order of their first flows.
    pub fn over(&mut self, now_us: u64, all: bool) -> Vec<Merged> {
        let minute = now_us / 60_000_000;
        let before = std::mem::replace(&mut self.minute, minute);
        if minute <= before && !all {
            return Vec::new();
        }
        let mut over: Vec<Merged> = self.held.drain().map(|(_, merged)| merged).collect();
        over.sort_unstable_by_key(|merged| merged.flow.id);
        over
    }
}

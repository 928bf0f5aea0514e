//! Network metrics by the second: flows fold into rows of `network` (one end) and `network_map` (both ends).

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::record::{Counts, Flow};
use super::state::CloseType;
use crate::engine::processes_of;
use crate::event::Source;
use crate::meter::counted;
use crate::packet::decode::TCP;
use crate::peers::{Peers, Process, SharedPeers, locked};
use crate::protocols::Role;

/// Most pairs of one second and of all, and most seconds that are open.
const MAX_PAIRS: usize = 65_536;
const MAX_ALL_PAIRS: usize = 262_144;
const MAX_SECONDS: usize = 1024;
/// Numbers of close types are smaller.
const CLOSE_TYPES: usize = 21;

/// What rows of one pair have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    pub pid: [u32; 2],
    pub ip: [std::net::IpAddr; 2],
    pub protocol: u8,
    pub server_port: u16,
    pub tunnel_type: u8,
    pub nat_source: u8,
    pub source: Source,
}

/// What rows of one end have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndKey {
    pub pid: u32,
    pub ip: std::net::IpAddr,
    /// 0 client, 1 server.
    pub role: u8,
    pub protocol: u8,
    pub server_port: u16,
    pub source: Source,
}

/// The counters of one row; index 0 from the client, 1 from the server.
#[derive(Clone, Debug, Default)]
pub struct NetworkTally {
    pub counts: Counts,
    pub new_flow: u64,
    pub closed_flow: u64,
    pub flow_load: u64,
    /// Closed flows by close type (its number), and those of TCP that timed out.
    pub closed: [u32; CLOSE_TYPES],
    pub tcp_timeout: u64,
    pub direction_score: u8,
}

impl NetworkTally {
    /// The same with tx and rx exchanged; client and server keep their delays and errors.
    fn mirrored(&self) -> Self {
        let mut other = self.clone();
        other.counts.traffic.swap();
        let tcp = &mut other.counts.tcp;
        tcp.retrans.swap(0, 1);
        tcp.zero_win.swap(0, 1);
        tcp.ooo.swap(0, 1);
        other
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.new_flow += other.new_flow;
        self.closed_flow += other.closed_flow;
        self.flow_load += other.flow_load;
        self.tcp_timeout += other.tcp_timeout;
        for (mine, theirs) in self.closed.iter_mut().zip(&other.closed) {
            *mine += theirs;
        }
        self.direction_score = self.direction_score.max(other.direction_score);
    }
}

type Pairs = FxHashMap<PairKey, Box<NetworkTally>>;

/// The rows of one second.
#[derive(Debug)]
pub struct Second {
    pub second: u32,
    pub pairs: Pairs,
    pub ends: FxHashMap<EndKey, Box<NetworkTally>>,
}

/// All open seconds.
#[derive(Debug, Default)]
pub struct NetworkMeter {
    seconds: BTreeMap<u32, Pairs>,
    open_pairs: usize,
    /// Flows that share a row with others, because a second had too many pairs.
    pub overflow: u64,
}

/// Client and server of a flow, as far as sockets, the application engine or the senders themselves name them.
pub fn processes(flow: &Flow, peers: &Peers) -> [Process; 2] {
    let mut found = match &flow.spoken {
        Some(spoken) => processes_of(spoken, Process::default(), None, peers),
        None => {
            let [client, server] = flow.ends;
            let owner = |near, far| peers.owner(flow.protocol, flow.place.netns, near, far);
            let listener = || peers.server_at(&flow.place, server).filter(|_| flow.protocol == 6);
            [owner(client, server).unwrap_or_default(), owner(server, client).or_else(listener).unwrap_or_default()]
        }
    };
    for (process, pid) in found.iter_mut().zip(flow.traced_pid) {
        if process.pid == 0 {
            process.pid = pid;
        }
    }
    found
}

impl NetworkMeter {
    /// Adds what was counted on a flow in its second, which is over.
    pub fn add(&mut self, flow: &mut Flow, peers: &SharedPeers) {
        let counts = flow.take_second();
        let tally = NetworkTally {
            // A late count of the application engine is no packet.
            flow_load: u64::from(counts.traffic.packets != [0; 2]),
            counts,
            new_flow: u64::from(std::mem::take(&mut flow.unmetered)),
            direction_score: flow.direction_score,
            ..NetworkTally::default()
        };
        self.enter(flow, flow.second, &tally, peers);
    }

    /// The flow ended at `now_us`.
    pub fn close(&mut self, flow: &mut Flow, close_type: CloseType, now_us: u64, peers: &SharedPeers) {
        if flow.active {
            self.add(flow, peers);
        }
        let mut tally =
            NetworkTally { closed_flow: 1, direction_score: flow.direction_score, ..NetworkTally::default() };
        tally.closed[close_type as usize] = 1;
        tally.tcp_timeout = u64::from(flow.protocol == TCP && close_type == CloseType::TimedOut);
        self.enter(flow, (now_us / 1_000_000) as u32, &tally, peers);
    }

    fn enter(&mut self, flow: &Flow, second: u32, tally: &NetworkTally, peers: &SharedPeers) {
        let pid = processes(flow, &locked(peers)).map(|process| process.pid);
        let outer = flow.outer[0].or(flow.outer[1]);
        let mut key = PairKey {
            pid,
            ip: flow.ends.map(|end| end.ip),
            protocol: flow.protocol,
            server_port: flow.ends[1].port,
            tunnel_type: outer.map_or(0, |tunnel| tunnel.kind as u8),
            nat_source: flow.nat_source(),
            source: Source::Packet(flow.place),
        };
        let mut second = second;
        if self.seconds.len() >= MAX_SECONDS && !self.seconds.contains_key(&second) {
            // Too many are open: it counts in the last one.
            self.overflow += 1;
            second = self.seconds.last_key_value().map_or(second, |(last, _)| *last);
        }
        let pairs = self.seconds.entry(second).or_default();
        let crowded = pairs.len() >= MAX_PAIRS || self.open_pairs >= MAX_ALL_PAIRS;
        if crowded && !pairs.contains_key(&key) {
            // No room for another pair: it joins the others of its kind under no address, so that sums hold.
            self.overflow += 1;
            let nobody = if key.ip[0].is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
            key = PairKey { pid: [0; 2], ip: [nobody; 2], server_port: 0, ..key };
        }
        let before = pairs.len();
        pairs.entry(key).or_default().add(tally);
        self.open_pairs += pairs.len() - before;
    }

    pub fn open_seconds(&self) -> usize {
        self.seconds.len()
    }

    /// Takes the seconds before `bound_s`.
    pub fn take(&mut self, bound_s: u64) -> Vec<Second> {
        let bound = u32::try_from(bound_s).unwrap_or(u32::MAX);
        let later = self.seconds.split_off(&bound);
        let due = std::mem::replace(&mut self.seconds, later);
        self.open_pairs -= due.values().map(FxHashMap::len).sum::<usize>();
        due.into_iter().map(|(second, pairs)| Second { second, ends: ends(&pairs), pairs }).collect()
    }
}

fn ends(pairs: &Pairs) -> FxHashMap<EndKey, Box<NetworkTally>> {
    let mut ends: FxHashMap<EndKey, Box<NetworkTally>> = FxHashMap::default();
    for (key, tally) in pairs {
        let here = counted(key.source, Role::Client);
        for side in (0..2).filter(|side| here[*side]) {
            let end = EndKey {
                pid: key.pid[side],
                ip: key.ip[side],
                role: side as u8,
                protocol: key.protocol,
                server_port: key.server_port,
                source: key.source,
            };
            let seen = ends.entry(end).or_default();
            // What an end sends is its tx.
            match side {
                0 => seen.add(tally),
                _ => seen.add(&tally.mirrored()),
            }
        }
    }
    ends
}

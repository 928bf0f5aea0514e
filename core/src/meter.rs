//! Application metrics by the second (requests, errors, delays).
//!
//! While a second is open it is kept per connection and endpoint; when it is closed the other end's process is known,
//! and connections fold into the rows of `application` (one end) and `application_map` (both ends).

use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::connection::{Flow, is_client};
use crate::event::{Endpoint, Point, Source};
use crate::peers::Process;
use crate::protocols::{Message, Role, Status};

/// Most connection and endpoint pairs of one second, and most seconds that are open.
pub const MAX_CELLS: usize = 65_536;
const MAX_SECONDS: usize = 1024;
/// Connections of which it is remembered where they were counted last (a power of two).
const RECENT: usize = 1024;
/// Seconds that a second stays open after it ended.
const SETTLE_S: u64 = 2;

/// The counters of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub request: u32,
    pub response: u32,
    pub rrt_sum: f64,
    pub rrt_count: u64,
    pub rrt_max: u32,
    pub client_error: u64,
    pub server_error: u64,
    pub timeout: u64,
    pub direction_score: u8,
}

impl Tally {
    pub fn request() -> Self {
        Self { request: 1, ..Self::default() }
    }

    /// A request that nothing answers.
    pub fn one_way(status: Status) -> Self {
        Self {
            client_error: u64::from(status == Status::ClientError),
            server_error: u64::from(status == Status::ServerError),
            ..Self::request()
        }
    }

    /// `rrt_us`: delay, when the request was seen.
    pub fn response(status: Status, rrt_us: Option<u64>) -> Self {
        Self {
            response: 1,
            rrt_sum: rrt_us.unwrap_or(0) as f64,
            rrt_count: u64::from(rrt_us.is_some()),
            rrt_max: u32::try_from(rrt_us.unwrap_or(0)).unwrap_or(u32::MAX),
            client_error: u64::from(status == Status::ClientError),
            server_error: u64::from(status == Status::ServerError),
            ..Self::default()
        }
    }

    pub fn timeout() -> Self {
        Self { timeout: 1, ..Self::default() }
    }

    #[inline(always)]
    pub fn add(&mut self, other: &Self) {
        self.request += other.request;
        self.response += other.response;
        self.rrt_sum += other.rrt_sum;
        self.rrt_count += other.rrt_count;
        self.rrt_max = self.rrt_max.max(other.rrt_max);
        self.client_error += other.client_error;
        self.server_error += other.server_error;
        self.timeout += other.timeout;
        self.direction_score = self.direction_score.max(other.direction_score);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CellKey {
    flow: u64,
    pid: u32,
    endpoint: u32,
    l7_protocol: u8,
}

#[derive(Debug)]
struct Cell {
    flow: Rc<Flow>,
    local: Process,
    tally: Tally,
}

/// One second while it is open.
#[derive(Debug, Default)]
struct Second {
    endpoints: FxHashMap<Rc<str>, u32>,
    places: FxHashMap<CellKey, u32>,
    cells: Vec<(CellKey, Cell)>,
    /// Where events go for which there was no room: one cell a process and server.
    shared: FxHashMap<(u32, bool, Endpoint), CellKey>,
}

/// Where an event was counted: the next one of its connection mostly belongs there too.
#[derive(Debug)]
struct Recent {
    second: u64,
    key: CellKey,
    endpoint: Rc<str>,
    cell: u32,
}

/// What rows of one end have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndKey {
    pub pid: u32,
    pub ip: std::net::IpAddr,
    pub role: u8,
    pub protocol: u8,
    pub server_port: u16,
    pub l7_protocol: u8,
    pub endpoint: Rc<str>,
    pub source: Source,
}

/// What rows of one pair have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    pub pid: [u32; 2],
    pub ip: [std::net::IpAddr; 2],
    pub local_role: u8,
    pub protocol: u8,
    pub server_port: u16,
    pub l7_protocol: u8,
    pub endpoint: Rc<str>,
    pub source: Source,
}

/// The rows of one second.
#[derive(Debug)]
pub struct Closed {
    pub second: u32,
    pub ends: Vec<(EndKey, Tally)>,
    pub pairs: Vec<(PairKey, Tally)>,
}

/// The second, when it is open; it is mostly the last one.
#[inline]
fn at(seconds: &mut [(u64, Second)], time_s: u64) -> Option<&mut Second> {
    let last = seconds.len().checked_sub(1)?;
    let place = match seconds[last].0 == time_s {
        true => last,
        false => seconds.binary_search_by_key(&time_s, |(second, _)| *second).ok()?,
    };
    Some(&mut seconds[place].1)
}

/// All open seconds.
#[derive(Debug, Default)]
pub struct Meter {
    /// In their order; the last is mostly the one that is asked for.
    seconds: Vec<(u64, Second)>,
    recent: Vec<Option<Recent>>,
    /// Events that share a row with others, because a second had too many keys.
    pub overflow: u64,
}

impl Meter {
    pub fn open_seconds(&self) -> usize {
        self.seconds.len()
    }

    pub fn crowded(&self) -> bool {
        self.seconds.len() > MAX_SECONDS
    }

    /// Adds an event of a connection at `time_us`; `message` says what it is about.
    #[inline(always)]
    pub fn add(&mut self, flow: &Rc<Flow>, local: Process, message: &Message, time_us: u64, tally: &Tally) {
        let (time_s, l7_protocol) = (time_us / 1_000_000, flow.l7_protocol(message));
        if let Some(Some(Recent { second, key, endpoint, cell })) = self.recent.get(flow.id as usize % RECENT)
            && (*second, key.flow, key.pid, key.l7_protocol) == (time_s, flow.id, local.pid, l7_protocol)
            && **endpoint == *message.endpoint
            && let Some(open) = at(&mut self.seconds, time_s)
            && let Some((found, cell)) = open.cells.get_mut(*cell as usize)
            && found == key
        {
            cell.tally.add(tally);
            return;
        }
        self.add_elsewhere(flow, local, message, time_us, tally);
    }

    /// Where the connection was not counted a moment ago.
    #[inline(never)]
    fn add_elsewhere(&mut self, flow: &Rc<Flow>, local: Process, message: &Message, time_us: u64, tally: &Tally) {
        let endpoint = message.endpoint.as_str();
        let (time_s, l7_protocol) = (time_us / 1_000_000, flow.l7_protocol(message));
        if self.recent.is_empty() {
            self.recent.resize_with(RECENT, || None);
        }
        let recent = &mut self.recent[flow.id as usize % RECENT];
        let place = self.seconds.partition_point(|(second, _)| *second < time_s);
        if self.seconds.get(place).is_none_or(|(second, _)| *second != time_s) {
            self.seconds.insert(place, (time_s, Second::default()));
        }
        let second = &mut self.seconds[place].1;
        let crowded = second.cells.len() >= MAX_CELLS;
        let endpoint = if crowded && !second.endpoints.contains_key(endpoint) { "" } else { endpoint };
        let known = second.endpoints.len() as u32;
        let (endpoint, number) = match second.endpoints.get_key_value(endpoint) {
            Some((endpoint, number)) => (Rc::clone(endpoint), *number),
            None => {
                let endpoint: Rc<str> = Rc::from(endpoint);
                second.endpoints.insert(Rc::clone(&endpoint), known);
                (endpoint, known)
            }
        };
        let mut key = CellKey { flow: flow.id, pid: local.pid, endpoint: number, l7_protocol };
        if crowded && !second.places.contains_key(&key) {
            // No room for another connection: its events join others of the same server, so that sums hold.
            self.overflow += 1;
            if second.shared.len() < MAX_CELLS {
                key = *second.shared.entry((local.pid, is_client(flow.local_role), flow.server)).or_insert(key);
            } else if let Some(any) = second.shared.values().next() {
                key = *any;
            }
        }
        let cell = *second.places.entry(key).or_insert_with(|| {
            let tally = Tally { direction_score: flow.direction_score, ..Tally::default() };
            second.cells.push((key, Cell { flow: Rc::clone(flow), local, tally }));
            (second.cells.len() - 1) as u32
        });
        second.cells[cell as usize].1.tally.add(tally);
        if !crowded {
            *recent = Some(Recent { second: time_s, key, endpoint, cell });
        }
    }

    /// Closes the seconds that ended at least two seconds ago (`all`: every second). `names` gives the processes of
    /// client and server of a connection that this process used.
    pub fn close(&mut self, now_us: u64, all: bool, names: &mut dyn FnMut(&Flow, Process) -> Pair) -> Vec<Closed> {
        let bound = if all { u64::MAX } else { (now_us / 1_000_000).saturating_sub(SETTLE_S) };
        let later = self.seconds.split_off(self.seconds.partition_point(|(second, _)| *second < bound));
        let due = std::mem::replace(&mut self.seconds, later);
        if !due.is_empty() {
            // A second that is opened again counts its cells anew.
            self.recent.clear();
        }
        due.into_iter().map(|(second, open)| fold(second as u32, &open, names)).collect()
    }
}

/// Client and server.
pub type Pair = [Process; 2];

/// Which ends a sighting counts for: those that are here; of a capture file, where nobody knows, both.
pub fn counted(source: Source, local_role: Role) -> [bool; 2] {
    match source {
        Source::Socket => [is_client(local_role), !is_client(local_role)],
        Source::Packet(place) if place.point == Point::Rest => [true; 2],
        Source::Packet(place) => place.l3_end,
    }
}

fn fold(second: u32, open: &Second, names: &mut dyn FnMut(&Flow, Process) -> Pair) -> Closed {
    let mut labels: Vec<Rc<str>> = vec![Rc::from(""); open.endpoints.len()];
    for (name, number) in &open.endpoints {
        labels[*number as usize] = Rc::clone(name);
    }
    let mut ends: FxHashMap<EndKey, Tally> = FxHashMap::default();
    let mut pairs: FxHashMap<PairKey, Tally> = FxHashMap::default();
    for (key, cell) in &open.cells {
        let flow = &cell.flow;
        let endpoint = &labels[key.endpoint as usize];
        let processes = names(flow, cell.local);
        let pid = processes.map(|process| process.pid);
        let here = counted(flow.source, flow.local_role);
        for (side, at) in [&flow.client, &flow.server].into_iter().enumerate().filter(|(side, _)| here[*side]) {
            let key = EndKey {
                pid: pid[side],
                ip: at.ip,
                role: side as u8,
                protocol: flow.protocol,
                server_port: flow.server.port,
                l7_protocol: key.l7_protocol,
                endpoint: Rc::clone(endpoint),
                source: flow.source,
            };
            ends.entry(key).or_default().add(&cell.tally);
        }
        let pair = PairKey {
            pid,
            ip: [flow.client.ip, flow.server.ip],
            local_role: u8::from(!is_client(flow.local_role)),
            protocol: flow.protocol,
            server_port: flow.server.port,
            l7_protocol: key.l7_protocol,
            endpoint: Rc::clone(endpoint),
            source: flow.source,
        };
        pairs.entry(pair).or_default().add(&cell.tally);
    }
    Closed { second, ends: ends.into_iter().collect(), pairs: pairs.into_iter().collect() }
}

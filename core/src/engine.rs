//! The engine: takes what a source reports and gives batches of rows. One thread owns it.
//!
//! A segment goes to its connection (`connection`), which orders its bytes and walks the parser along them
//! (`stream`); messages go to the ledger, which pairs them (`session`), finds their causes (`causality`), counts
//! them (`meter`) and keeps the rows until `drain` names the processes of both ends (`peers`).

mod counters;
mod ledger;
mod output;
mod settings;
mod shared;
mod sink;

use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

pub use crate::batch::Batch;
pub use counters::Counters;
pub use ledger::Counted;
pub use output::{TABLES, VIRTUAL_NETWORK, processes as processes_of};
pub use settings::EngineConfig;
pub use shared::{KnownSocket, Listener, Shared};

use crate::connection::{Connection, Flow, Key, Recognition, State, Verdict};
use crate::endpoints::Endpoints;
use crate::event::{Direction, Endpoint, ProcessChange, Task};
use crate::peers::{SharedPeers, locked};
use crate::protocols::{Late, ParserSettings};
use crate::stream::{Report, Seen, Switched};
use ledger::{Ledger, Unanswered};
use output::Output;

/// Most connections that are followed.
const MAX_CONNECTIONS: usize = 131_072;
/// How long packets wait for an earlier one, µs of capture time.
const REORDER_US: u64 = 1_000_000;
/// How long a session waits for the names of its ends, µs: longer than sockets go unread (`agent::READ_INTERVAL`). How
/// many are turned into rows at a tick.
const SETTLE_US: u64 = 400_000;
const SETTLE_ROWS: usize = 2048;
/// Between two sweeps of idle connections, µs; idle UDP ones go after as much.
const SWEEP_US: u64 = 30_000_000;
/// TCP connections without any byte go after, µs. Their close may have been lost.
const IDLE_US: u64 = 3_600_000_000;
const MAX_PROCESS_CHANGES: usize = 65_536;
const MAX_QUIET: usize = 65_536;

pub struct Engine {
    settings: Rc<ParserSettings>,
    connections: FxHashMap<Key, Box<Connection>>,
    endpoints: Endpoints,
    peers: SharedPeers,
    ledger: Ledger,
    output: Output,
    /// Connections with packets that wait for an earlier one.
    delayed: FxHashSet<Key>,
    /// UDP sockets of which at least one exchange is understood.
    understood: FxHashSet<u64>,
    quiet: Vec<u64>,
    process_changes: Vec<ProcessChange>,
    swept_us: u64,
    /// Kept between segments so that nothing is allocated for them.
    seen: Vec<Seen>,
}

fn canonical(end: Endpoint) -> Endpoint {
    Endpoint { ip: end.ip.to_canonical(), ..end }
}

impl Engine {
    /// An engine that observes this host alone.
    pub fn new(config: &EngineConfig) -> Self {
        Self::beside(config, &Shared::default())
    }

    /// An engine beside others of the same agent.
    pub fn beside(config: &EngineConfig, shared: &Shared) -> Self {
        let Shared { peers, numbers } = shared.clone();
        Self {
            settings: Rc::new(config.parser_settings()),
            connections: FxHashMap::default(),
            endpoints: Endpoints::default(),
            ledger: Ledger::new(config, SharedPeers::clone(&peers)),
            peers,
            output: Output::new(config.agent_id, numbers),
            delayed: FxHashSet::default(),
            understood: FxHashSet::default(),
            quiet: Vec::new(),
            process_changes: Vec::new(),
            swept_us: 0,
            seen: Vec::new(),
        }
    }

    pub fn set_agent_id(&mut self, agent_id: u16) {
        self.output.agent_id = agent_id;
    }

    /// Rows a second that are kept from now on, 0 no bound.
    pub fn set_l7_throttle(&mut self, rows_per_second: u32) {
        self.ledger.throttle = rows_per_second;
    }

    /// Replaces what is known of listening sockets.
    pub fn seed_listeners(&mut self, listeners: &[Listener]) {
        let entries = listeners.iter().map(|listener| (listener.netns, listener.ip, listener.port, listener.pid));
        locked(&self.peers).seed_listeners(entries);
    }

    /// Adds sockets that existed before.
    pub fn seed_sockets(&mut self, sockets: &[KnownSocket]) {
        let mut peers = locked(&self.peers);
        for socket in sockets {
            peers.name(socket.process.pid, socket.process.comm);
            let (local, remote) = (canonical(socket.local), canonical(socket.remote));
            let now_us = self.ledger.now_us;
            peers.own(socket.protocol, socket.netns, local, remote, socket.process, now_us);
        }
    }

    /// What was counted on flows of packets since the last call; `counted` is empty before.
    pub fn take_counted(&mut self, counted: &mut Vec<Counted>) {
        if !self.ledger.counted.is_empty() {
            std::mem::swap(&mut self.ledger.counted, counted);
        }
    }

    /// Somebody on this host listens on this end.
    pub fn listens(&self, netns: u32, end: Endpoint) -> bool {
        locked(&self.peers).listens(netns, canonical(end))
    }

    /// Sockets whose protocol nobody knows, since the last call.
    pub fn take_quiet(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.quiet)
    }

    /// What happened to processes since the last call.
    pub fn take_process_changes(&mut self) -> Vec<ProcessChange> {
        std::mem::take(&mut self.process_changes)
    }

    /// Rows that wait for `drain`, and seconds that are open.
    pub fn backlog(&self) -> (usize, usize) {
        (self.ledger.rows.len() + self.output.open_rows(), self.ledger.meter.open_seconds())
    }

    /// Totals since the start, and a few present sizes (`*_now`).
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut list = self.ledger.counters.list();
        let (threads, contexts) = self.ledger.causality.sizes();
        let (sockets, listeners, names) = locked(&self.peers).sizes();
        let undecided = self.connections.values().filter(|one| matches!(one.state, State::Undecided { .. })).count();
        list.extend([
            ("contexts_ambiguous", self.ledger.causality.ambiguous),
            ("contexts_evicted", self.ledger.causality.evicted),
            ("meter_keys_overflowed", self.ledger.meter.overflow),
            ("peers_evicted", locked(&self.peers).evicted),
            ("connections_now", self.connections.len() as u64),
            ("connections_undecided_now", undecided as u64),
            ("requests_waiting_now", self.ledger.order.live as u64),
            ("contexts_open_now", contexts as u64),
            ("threads_in_context_now", threads as u64),
            ("peer_sockets_now", sockets as u64),
            ("listeners_now", listeners as u64),
            ("process_names_now", names as u64),
        ]);
        list
    }

    /// Time passes: requests time out, packets stop waiting, idle connections go. Call a few times a second.
    pub fn tick(&mut self, now_us: u64) {
        self.ledger.now_us = self.ledger.now_us.max(now_us);
        self.release_delayed(now_us.saturating_sub(REORDER_US));
        self.settle_rows(now_us.saturating_sub(SETTLE_US), SETTLE_ROWS);
        while let Some(ticket) = self.ledger.order.expired(now_us) {
            let Some(connection) = self.connections.get_mut(&ticket.key) else { continue };
            let Some(flow) = connection.redeem(&ticket) else { continue };
            // From the last on: each that goes on waiting becomes the first again.
            for request in self.ledger.due(connection, &flow, now_us).into_iter().rev() {
                match connection.late(&request.message) {
                    Late::Unanswered => self.ledger.unanswered(&flow, request, Unanswered::TimedOut),
                    // A response that takes its time is none that does not come.
                    Late::Begun => self.ledger.await_again(connection, &flow, request, now_us),
                    Late::Ended(message) => self.ledger.ended(connection, &flow, request, message),
                }
            }
        }
        let connections = &mut self.connections;
        self.ledger.order.compact(|ticket| {
            connections.get_mut(&ticket.key).is_some_and(|connection| connection.waiting.keeps(ticket))
        });
        if now_us.saturating_sub(self.swept_us) >= SWEEP_US {
            self.swept_us = now_us;
            self.sweep(now_us);
        }
    }

    fn sweep(&mut self, now_us: u64) {
        self.settings.recent_heads.forget();
        let idle = |connection: &Connection| {
            let idle_us = now_us.saturating_sub(connection.last_us);
            let bound_us = if connection.protocol != 6 { SWEEP_US } else { IDLE_US };
            idle_us > bound_us && connection.waiting.is_empty()
        };
        let gone: Vec<Key> = self.connections.values().filter(|one| idle(one)).map(|one| one.key).collect();
        self.evict(&gone, now_us);
        if self.understood.len() > MAX_CONNECTIONS {
            self.understood.clear();
        }
    }

    fn evict(&mut self, gone: &[Key], now_us: u64) {
        self.ledger.counters.connections_evicted += gone.len() as u64;
        for key in gone {
            self.close(*key, now_us, Unanswered::Closed);
        }
    }

    fn make_room(&mut self) {
        let mut ages: Vec<(u64, Key)> = self.connections.values().map(|one| (one.last_us, one.key)).collect();
        let eighth = ages.len() / 8;
        ages.select_nth_unstable_by_key(eighth, |(last_us, _)| *last_us);
        let gone: Vec<Key> = ages[..eighth].iter().map(|(_, key)| *key).collect();
        let now_us = self.ledger.now_us;
        self.evict(&gone, now_us);
    }

    /// Turns at most `most` sessions into rows that were finished before `before_us`: by then the processes of both
    /// ends are known. Done a little at a time, so that a drain is no long stretch of work.
    fn settle_rows(&mut self, before_us: u64, most: usize) {
        self.ledger.tell_parts();
        for _ in 0..most {
            if self.ledger.rows.front().is_none_or(|session| session.ended_us >= before_us) {
                return;
            }
            let Some(session) = self.ledger.rows.pop_front() else {
                return;
            };
            self.ledger.counters.rows_out += 1;
            self.output.session(&session, &locked(&self.peers));
        }
    }

    /// Rows since the last call. `flush_all`: also requests that still wait and seconds that are not over.
    pub fn drain(&mut self, now_us: u64, flush_all: bool) -> Vec<Batch> {
        self.ledger.now_us = self.ledger.now_us.max(now_us);
        if flush_all {
            self.release_delayed(u64::MAX);
            self.tick(now_us);
            let keys: Vec<Key> =
                self.connections.values().filter(|one| one.flow.is_some()).map(|one| one.key).collect();
            for key in keys {
                self.let_all_go(key, Unanswered::Flushed);
            }
        }
        self.settle_rows(u64::MAX, usize::MAX);
        self.output.finish_sessions();
        let all = flush_all || self.ledger.meter.crowded();
        let mut peers = locked(&self.peers);
        let names = &mut |flow: &Flow, local| output::processes(flow, local, None, &peers);
        let seconds = self.ledger.meter.close(now_us, all, names);
        self.ledger.counters.meter_rows_out +=
            seconds.iter().map(|closed| (closed.ends.len() + closed.pairs.len()) as u64).sum::<u64>();
        self.output.meters(&seconds);
        self.ledger.counters.rows_unencodable = self.output.unencodable;
        peers.sweep(now_us);
        drop(peers);
        self.output.take()
    }

    fn let_all_go(&mut self, key: Key, why: Unanswered) {
        self.finish(key);
        if let Some(connection) = self.connections.get_mut(&key)
            && let Some(flow) = connection.flow.clone()
        {
            while let Some(request) = connection.waiting.take_oldest() {
                self.ledger.unanswered(&flow, request, why);
            }
        }
    }

    /// Gives out the responses that a parser holds back.
    fn finish(&mut self, key: Key) {
        let Self { connections, ledger, seen, .. } = self;
        if let Some(connection) = connections.get_mut(&key)
            && let Some(direction) = connection.finish(seen)
        {
            ledger.settle(connection, direction, &Task::default(), seen, &Report::default());
        }
    }

    fn close(&mut self, key: Key, now_us: u64, why: Unanswered) {
        if self.delayed.remove(&key) {
            self.release(key);
        }
        self.let_all_go(key, why);
        if let Some(connection) = self.connections.remove(&key) {
            let Connection { protocol, netns, local, remote, owner, .. } = *connection;
            locked(&self.peers).close(protocol, netns, local, remote, owner, now_us);
        }
    }

    fn release_delayed(&mut self, before_us: u64) {
        if self.delayed.is_empty() {
            return;
        }
        let connections = &self.connections;
        let due = |key: &&Key| {
            connections.get(key).and_then(|one| one.waits_since()).is_none_or(|since_us| since_us <= before_us)
        };
        let keys: Vec<Key> = self.delayed.iter().filter(due).copied().collect();
        for key in keys {
            self.delayed.remove(&key);
            self.release(key);
        }
    }

    fn release(&mut self, key: Key) {
        let Self { connections, endpoints, settings, peers, ledger, seen, .. } = self;
        let Some(connection) = connections.get_mut(&key) else {
            return;
        };
        let listens = !connection.connected && locked(peers).listens(connection.netns, connection.local);
        let mut recognition = Recognition { endpoints, settings, listens };
        let mut report = Report::default();
        connection.release(&mut recognition, seen, &mut report);
        ledger.counters.add(&report);
        ledger.settle(connection, Direction::Egress, &Task::default(), seen, &report);
        if let Some(switched) = report.switched {
            self.switch(key, switched, &Task::default());
        }
    }

    /// Another protocol begins on this connection: what waits for the old one will not be answered.
    fn switch(&mut self, key: Key, switched: Switched, task: &Task) -> Verdict {
        self.let_all_go(key, Unanswered::Closed);
        let Self { connections, endpoints, settings, ledger, seen, .. } = self;
        let Some(connection) = connections.get_mut(&key) else {
            return Verdict::Goes;
        };
        let mut recognition = Recognition { endpoints, settings, listens: false };
        let mut report = Report::default();
        let verdict = connection.switch(switched, &mut recognition, seen, &mut report);
        ledger.counters.add(&report);
        ledger.settle(connection, switched.direction, task, seen, &report);
        verdict
    }

    /// Lets the requests go that would time out first, until there is room.
    fn shrink_waiting(&mut self) {
        while self.ledger.order.full() {
            let Some(ticket) = self.ledger.order.first() else {
                return;
            };
            if let Some(connection) = self.connections.get_mut(&ticket.key)
                && let Some(flow) = connection.redeem(&ticket)
                && self.ledger.is_first(&ticket, connection, &flow)
                && let Some(request) = connection.waiting.let_go(flow.l7.pairing)
            {
                self.ledger.unanswered(&flow, request, Unanswered::Evicted);
                self.ledger.stand_again(connection, &flow);
            }
        }
    }
}

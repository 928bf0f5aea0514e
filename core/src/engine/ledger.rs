//! What messages become: pairs, causes, meters, rows.

use std::collections::VecDeque;
use std::rc::Rc;

use super::counters::Counters;
use super::settings::EngineConfig;
use crate::causality::{Brought, Causality, NONE};
use crate::connection::{Connection, Flow, is_client, other};
use crate::event::{Direction, Source, Task};
use crate::joined::Part;
use crate::meter::{Meter, Tally};
use crate::peers::{Process, SharedPeers, locked};
use crate::protocols::{Kind, Message, Pairing, Role, Status, Told};
use crate::session::{Half, MAX_WAITING, Order, RowType, Session, Ticket, exchange};
use crate::stream::{Report, Seen};

/// Most rows that wait for a drain.
const MAX_ROWS: usize = 262_144;
/// Parts of exchanges that are told at once.
const MAX_PARTS: usize = 64;

/// Why a request gets no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    TimedOut,
    /// The connection closed first.
    Closed,
    /// Bytes of the response's direction were lost.
    Unsure,
    /// No room.
    Evicted,
    /// The capture or the agent ended.
    Flushed,
    /// The server answered it by saying nothing.
    Silent,
}

/// An error that a request tells of itself (a close with its reason); no response takes it back.
fn own_error(request: &Message) -> Option<Status> {
    let status = request.status;
    matches!(status, Status::ClientError | Status::ServerError).then_some(status)
}

impl Unanswered {
    fn reason(self) -> &'static str {
        match self {
            Self::TimedOut => "timed out",
            Self::Closed => "connection ended",
            Self::Unsure => "bytes lost",
            Self::Evicted => "no room",
            Self::Silent => "the server kept silent",
            Self::Flushed => "observation ended",
        }
    }
}

/// The part of the engine that connections share.
pub struct Ledger {
    pub order: Order,
    pub causality: Causality,
    pub meter: Meter,
    /// In the order in which they were finished.
    pub rows: VecDeque<Session>,
    pub counters: Counters,
    pub now_us: u64,
    tcp_timeout_us: u64,
    udp_timeout_us: u64,
    pub throttle: u32,
    throttle_second: u64,
    rows_this_second: u32,
    /// What was counted on flows of packets since the flow table asked.
    pub counted: Vec<Counted>,
    peers: SharedPeers,
    /// Who took part in exchanges, not told yet: one lock for many.
    parts: Vec<Part>,
}

/// Something that was counted on a flow of packets.
#[derive(Debug)]
pub struct Counted {
    pub flow: Rc<Flow>,
    pub tally: Tally,
    /// Messages that made no sense.
    pub parse_failed: u32,
}

impl Ledger {
    pub fn new(config: &EngineConfig, peers: SharedPeers) -> Self {
        Self {
            order: Order::new(config.session_aggregate_max_entries),
            causality: Causality::new(!config.syscall_trace_id_disabled),
            meter: Meter::default(),
            rows: VecDeque::new(),
            counters: Counters::new(),
            now_us: 0,
            tcp_timeout_us: u64::from(config.tcp_request_timeout_s) * 1_000_000,
            udp_timeout_us: u64::from(config.udp_request_timeout_s) * 1_000_000,
            throttle: config.l7_throttle,
            throttle_second: 0,
            rows_this_second: 0,
            counted: Vec::new(),
            peers,
            parts: Vec::new(),
        }
    }

    /// How long a request of this connection waits: the transport's time or the protocol's, whichever is shorter.
    pub fn timeout_us(&self, flow: &Flow) -> u64 {
        let transport = if flow.protocol != 6 { self.udp_timeout_us } else { self.tcp_timeout_us };
        match flow.l7.timeout_s {
            0 => transport,
            own => transport.min(u64::from(own) * 1_000_000),
        }
    }

    /// Bytes passed on a connection whose protocol is not known.
    pub fn unknown(&mut self, connection: &mut Connection, direction: Direction, task: &Task) {
        if connection.source == Source::Socket {
            match direction {
                Direction::Egress => self.causality.unknown_written(task, &mut connection.memory),
                Direction::Ingress => self.causality.unknown_read(task, &mut connection.memory),
            }
        }
    }

    /// Works the messages of one segment off. `task` made the call, `direction` is that of the segment.
    pub fn settle(
        &mut self,
        connection: &mut Connection,
        direction: Direction,
        task: &Task,
        seen: &mut Vec<Seen>,
        report: &Report,
    ) {
        // Taken out rather than cloned: counting references of the same flow for each message is not free.
        let Some(flow) = connection.flow.take() else {
            seen.clear();
            return;
        };
        let sockets = flow.source == Source::Socket;
        if !sockets && report.invalid > 0 {
            let parse_failed = u32::try_from(report.invalid).unwrap_or(u32::MAX);
            self.counted.push(Counted { flow: Rc::clone(&flow), tally: Tally::default(), parse_failed });
        }
        let mut brought = Brought::Nothing;
        if sockets && report.continued && direction == Direction::Ingress {
            match flow.local_role {
                Role::Server => {
                    if let Some(id) = connection.waiting.newest_id() {
                        brought.add(id);
                    }
                }
                Role::Client => {
                    let waiting = connection.waiting.oldest_id();
                    Causality::response_continues(&connection.memory, waiting, &mut brought);
                }
            }
        }
        let count = seen.len();
        for (place, message) in seen.drain(..).enumerate() {
            if report.lost == Some(place) {
                self.lost(connection, &flow, direction);
            }
            self.message(connection, &flow, task, message, &mut brought);
        }
        if report.lost.is_some_and(|place| place >= count) {
            self.lost(connection, &flow, direction);
        }
        if sockets {
            self.causality.resume(task, brought);
        }
        connection.flow = Some(flow);
    }

    /// The direction lost bytes. When it was the server's, nobody knows which requests were answered in them.
    fn lost(&mut self, connection: &mut Connection, flow: &Rc<Flow>, direction: Direction) {
        let writer = if direction == Direction::Egress { flow.local_role } else { other(flow.local_role) };
        if writer == Role::Server && flow.l7.pairing != Pairing::Id {
            connection.waiting.forget_owed();
            while let Some(request) = connection.waiting.take_oldest() {
                self.unanswered(flow, request, Unanswered::Unsure);
            }
        }
    }

    // Inlined, and what is kept is put together where it is kept: a copy of what was written a moment ago is slow.
    #[inline(always)]
    fn message(
        &mut self,
        connection: &mut Connection,
        flow: &Rc<Flow>,
        task: &Task,
        seen: Seen,
        brought: &mut Brought,
    ) {
        self.counters.messages[flow.l7_index] += 1;
        connection.messages += 1;
        let Seen { message, direction, origin, captured } = seen;
        let cap_seq = connection.messages;
        let sockets = flow.source == Source::Socket;
        match message.kind {
            Kind::Request => {
                let syscall_trace_id = match (flow.local_role, direction) {
                    (Role::Server, Direction::Ingress) if sockets => {
                        let id = self.causality.open(task);
                        brought.add(id);
                        id
                    }
                    (Role::Client, Direction::Egress) if sockets => {
                        self.causality.request_written(task, &mut connection.memory)
                    }
                    _ => NONE,
                };
                self.measure(flow, task, &message, origin.time_us, Tally::request());
                connection.waiting.push(Half { message, origin, task: *task, cap_seq, captured, syscall_trace_id });
                self.awaited(connection, flow);
                if connection.waiting.len() > MAX_WAITING
                    && let Some(request) = connection.waiting.let_go(flow.l7.pairing)
                {
                    self.unanswered(flow, request, Unanswered::Evicted);
                }
            }
            Kind::Session => {
                let syscall_trace_id = match (flow.local_role, direction) {
                    (Role::Server, Direction::Ingress) if sockets => {
                        brought.add(NONE);
                        NONE
                    }
                    (Role::Client, Direction::Egress) if sockets => {
                        self.causality.request_written(task, &mut connection.memory)
                    }
                    _ => NONE,
                };
                self.counters.sessions_one_way += 1;
                let status = own_error(&message).unwrap_or(Status::Success);
                self.measure(flow, task, &message, origin.time_us, Tally::one_way(status));
                let half = Half { message, origin, task: *task, cap_seq, captured, syscall_trace_id };
                self.emit(flow, RowType::Session, status, (Some(half), None), "");
            }
            Kind::Response => {
                let half = Half { message, origin, task: *task, cap_seq, captured, syscall_trace_id: NONE };
                self.response(connection, flow, half, direction, brought);
            }
        }
    }

    #[inline(always)]
    fn response(
        &mut self,
        connection: &mut Connection,
        flow: &Rc<Flow>,
        mut half: Half,
        direction: Direction,
        brought: &mut Brought,
    ) {
        // Datagrams come in any order.
        let pairing = match flow.l7.pairing {
            Pairing::Ordered if flow.protocol == 17 => Pairing::Id,
            pairing => pairing,
        };
        if let (Pairing::Ordered, Some(key)) = (pairing, half.message.pairing_key()) {
            while let Some(silent) = connection.waiting.passed_over(key) {
                self.unanswered(flow, silent, Unanswered::Silent);
            }
        }
        let request = connection.waiting.answer(pairing, half.message.pairing_key());
        let id = request.as_ref().map_or(NONE, |request| request.syscall_trace_id);
        half.syscall_trace_id = id;
        if flow.source == Source::Socket {
            match (flow.local_role, direction) {
                (Role::Server, Direction::Egress) => self.causality.response_written(&half.task, id),
                (Role::Client, Direction::Ingress) => {
                    Causality::response_read(&mut connection.memory, id, brought);
                }
                // The client gave the request up.
                (Role::Server, Direction::Ingress) => self.causality.close(id),
                _ => {}
            }
        }
        let status = match (half.message.status, request.as_ref().and_then(|request| own_error(&request.message))) {
            (Status::Success, Some(error)) => error,
            (status, _) => status,
        };
        let Some(request) = request else {
            self.counters.responses_orphaned += 1;
            self.measure(flow, &half.task, &half.message, half.origin.time_us, Tally::response(status, None));
            self.emit(flow, RowType::Response, status, (None, Some(half)), "request not seen");
            return;
        };
        self.order.live -= 1;
        self.counters.sessions_paired += 1;
        let delay_us = half.origin.time_us.saturating_sub(request.origin.time_us);
        let tally = Tally::response(status, Some(delay_us));
        self.measure(flow, &request.task, &request.message, half.origin.time_us, tally);
        self.join(flow, &request, half.origin.seq);
        self.emit(flow, RowType::Session, status, (Some(request), Some(half)), "");
    }

    /// Adds to the meters of the second; `task` and `message` say what it is about.
    #[inline(always)]
    fn measure(&mut self, flow: &Rc<Flow>, task: &Task, message: &Message, time_us: u64, tally: Tally) {
        self.meter.add(flow, Process::from(task), message, time_us, &tally);
        if flow.source.is_packet() {
            if !message.request_domain.is_empty() {
                flow.domain.get_or_init(|| message.request_domain.as_str().into());
            }
            self.counted.push(Counted { flow: Rc::clone(flow), tally, parse_failed: 0 });
        }
    }

    /// Leaves the name of this end where sightings behind an address translation find it, with `tell_parts`.
    fn join(&mut self, flow: &Flow, request: &Half, response_seq: u32) {
        let side = usize::from(!is_client(flow.local_role));
        let known = flow.processes[1 - side].get().is_some();
        if flow.source == Source::Socket
            && !known
            && let Some(exchange) = exchange(request, response_seq)
        {
            self.parts.push(Part { exchange, side, process: Process::from(&request.task) });
            if self.parts.len() >= MAX_PARTS {
                self.tell_parts();
            }
        }
    }

    /// Tells all engines who took part in what, since the last call.
    pub fn tell_parts(&mut self) {
        if !self.parts.is_empty() {
            locked(&self.peers).joined.note(&self.parts, self.now_us);
            self.parts.clear();
        }
    }

    /// A request that was taken out of the waiting ones without a response.
    pub fn unanswered(&mut self, flow: &Rc<Flow>, request: Half, why: Unanswered) {
        self.order.live -= 1;
        if !is_client(flow.local_role) {
            self.causality.close(request.syscall_trace_id);
        }
        if request.message.may_be_silent && why != Unanswered::Unsure {
            self.counters.sessions_one_way += 1;
            self.emit(flow, RowType::Session, Status::Success, (Some(request), None), "");
            return;
        }
        let total = match why {
            Unanswered::TimedOut => &mut self.counters.requests_timed_out,
            Unanswered::Closed => &mut self.counters.requests_closed,
            Unanswered::Unsure => &mut self.counters.requests_unsure,
            Unanswered::Evicted => &mut self.counters.requests_evicted,
            Unanswered::Flushed | Unanswered::Silent => &mut self.counters.requests_flushed,
        };
        *total += 1;
        let mut status = own_error(&request.message).unwrap_or(Status::Unknown);
        if why == Unanswered::TimedOut {
            status = Status::Timeout;
            let now_us = self.now_us;
            self.measure(flow, &request.task, &request.message, now_us, Tally::timeout());
        }
        self.emit(flow, RowType::Request, status, (Some(request), None), why.reason());
    }

    /// A request whose time is over while its response is under way.
    pub fn await_again(&mut self, connection: &mut Connection, flow: &Flow, request: Half, now_us: u64) {
        self.order.live -= 1;
        connection.waiting.push_again(now_us, request);
        self.awaited(connection, flow);
    }

    /// One more request waits on this connection.
    fn awaited(&mut self, connection: &mut Connection, flow: &Flow) {
        self.order.live += 1;
        self.stand_again(connection, flow);
    }

    /// A ticket came up: is the connection's longest-waiting request as old as the ticket says? If not, it stands in line
    /// again, for what waits now.
    pub fn is_first(&mut self, ticket: &Ticket, connection: &mut Connection, flow: &Flow) -> bool {
        let due_us = connection.waiting.since_us().map(|since_us| since_us.saturating_add(self.timeout_us(flow)));
        let first = due_us.is_some_and(|due_us| due_us <= ticket.due_us);
        if !first {
            self.stand_again(connection, flow);
        }
        first
    }

    /// The connection stands in the order of time for what waits on it now.
    pub fn stand_again(&mut self, connection: &mut Connection, flow: &Flow) {
        self.order.enter(connection.key, &mut connection.waiting, self.timeout_us(flow));
    }

    /// The requests whose time is over on the connection of a ticket that came up.
    pub fn due(&mut self, connection: &mut Connection, flow: &Flow, now_us: u64) -> Vec<Half> {
        let due = match now_us.checked_sub(self.timeout_us(flow)) {
            Some(since_us) => connection.waiting.take_due(since_us),
            None => Vec::new(),
        };
        self.stand_again(connection, flow);
        due
    }

    /// A request whose time is over, and how it ended.
    pub fn ended(&mut self, connection: &mut Connection, flow: &Rc<Flow>, request: Half, message: Box<Message>) {
        let now_us = self.now_us;
        self.await_again(connection, flow, request, now_us);
        let direction = if is_client(flow.local_role) { Direction::Ingress } else { Direction::Egress };
        let origin = message.began.unwrap_or_default();
        let seen = Seen { message: Told::Own(message), direction, origin, captured: 0 };
        self.message(connection, flow, &Task::default(), seen, &mut Brought::Nothing);
    }

    /// Is one more row kept? If not, it is counted.
    fn keeps_row(&mut self) -> bool {
        if self.rows.len() >= MAX_ROWS {
            self.counters.rows_overflowed += 1;
            return false;
        }
        if self.throttle > 0 {
            let second = self.now_us / 1_000_000;
            if second != self.throttle_second {
                self.throttle_second = second;
                self.rows_this_second = 0;
            }
            if self.rows_this_second >= self.throttle {
                self.counters.rows_throttled += 1;
                return false;
            }
            self.rows_this_second += 1;
        }
        true
    }

    #[inline]
    fn emit(
        &mut self,
        flow: &Rc<Flow>,
        row_type: RowType,
        status: Status,
        (request, response): (Option<Half>, Option<Half>),
        alone: &'static str,
    ) {
        if self.keeps_row() {
            let (flow, ended_us) = (Rc::clone(flow), self.now_us);
            self.rows.push_back(Session { flow, row_type, status, request, response, alone, ended_us });
        }
    }
}

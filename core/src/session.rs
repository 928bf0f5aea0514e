//! Requests that wait for their responses, and the sessions that come of them.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use rustc_hash::FxHasher;

use crate::connection::{Flow, Key};
use crate::event::{Origin, Task};
use crate::joined::Exchange;
use crate::protocols::{Pairing, Status, Told};

/// Most requests of one connection that wait.
pub const MAX_WAITING: usize = 4096;

/// `type` of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowType {
    Request = 0,
    Response = 1,
    Session = 2,
}

/// A request or a response as it was seen.
#[derive(Debug)]
pub struct Half {
    pub message: Told,
    pub origin: Origin,
    pub task: Task,
    /// Number of the message on its socket, from 1.
    pub cap_seq: u32,
    pub captured: u32,
    pub syscall_trace_id: u64,
}

/// What becomes one row.
#[derive(Debug)]
pub struct Session {
    pub flow: Rc<Flow>,
    pub row_type: RowType,
    pub status: Status,
    pub request: Option<Half>,
    pub response: Option<Half>,
    /// Why one half is missing; empty when none is.
    pub alone: &'static str,
    /// When it was finished, µs: the engine's clock.
    pub ended_us: u64,
}

impl Session {
    /// What all sightings of this call share, when both halves are known.
    pub fn exchange(&self) -> Option<Exchange> {
        exchange(self.request.as_ref()?, self.response.as_ref()?.origin.seq)
    }

    /// Start and end, µs: first segment of the request, first segment of the response.
    pub fn times(&self) -> (u64, u64) {
        let start = self.request.as_ref().or(self.response.as_ref()).map_or(0, |half| half.origin.time_us);
        let end = self.response.as_ref().map_or(start, |half| half.origin.time_us);
        (start, end.max(start))
    }
}

/// Over TCP the sequence numbers of both halves (`response_seq`: 0 unknown); over UDP the id and the subject that the
/// protocol itself gives.
pub fn exchange(request: &Half, response_seq: u32) -> Option<Exchange> {
    let numbers = (request.origin.seq, response_seq);
    if numbers != (0, 0) {
        return (numbers.0 != 0 && numbers.1 != 0).then_some(numbers);
    }
    let asked = &request.message;
    let mut hash = FxHasher::default();
    (asked.request_id?, &asked.request_type, &asked.request_resource).hash(&mut hash);
    let hash = hash.finish();
    Some(((hash >> 32) as u32, hash as u32))
}

#[derive(Debug)]
struct Pending {
    since_us: u64,
    half: Half,
}

/// Requests of one connection that wait, in their order.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: VecDeque<Pending>,
    /// Responses that will come to requests that were let go.
    owed: usize,
    /// The ticket under which this connection stands in the order of time (0 none), and when it comes up, µs.
    ticket: u64,
    due_us: u64,
    /// The first is not the one that waits longest: it began to wait again.
    again: bool,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push(&mut self, half: Half) {
        self.again &= !self.queue.is_empty();
        self.queue.push_back(Pending { since_us: half.origin.time_us, half });
    }

    /// Goes on waiting as the first, which it was, and from now on.
    pub fn push_again(&mut self, since_us: u64, half: Half) {
        self.again = true;
        self.queue.push_front(Pending { since_us, half });
    }

    /// Is this the ticket of this connection? It has none afterwards.
    pub fn redeem(&mut self, ticket: &Ticket) -> bool {
        let valid = self.ticket == ticket.serial;
        if valid {
            self.ticket = 0;
        }
        valid
    }

    /// Is this the ticket of this connection, and does anything wait here? If nothing does, it has none afterwards.
    pub fn keeps(&mut self, ticket: &Ticket) -> bool {
        if self.is_empty() {
            self.redeem(ticket);
        }
        self.ticket == ticket.serial
    }

    /// Since when the one waits that waits longest, µs.
    pub fn since_us(&self) -> Option<u64> {
        if self.again {
            return self.queue.iter().map(|pending| pending.since_us).min();
        }
        self.queue.front().map(|pending| pending.since_us)
    }

    /// The request that a response answers.
    pub fn answer(&mut self, pairing: Pairing, key: Option<u64>) -> Option<Half> {
        let place = match pairing {
            Pairing::Fifo if self.owed > 0 => {
                self.owed -= 1;
                return None;
            }
            Pairing::Fifo => 0,
            Pairing::Ordered if self.is_past(key) => 0,
            Pairing::Id | Pairing::Ordered => {
                self.queue.iter().position(|pending| pending.half.message.pairing_key() == key)?
            }
        };
        let pending = if place == 0 { self.queue.pop_front() } else { self.queue.remove(place) };
        pending.map(|pending| pending.half)
    }

    /// The parser speaks of no request that waits, or of one that was let go: only the order is left to pair by.
    fn is_past(&self, key: Option<u64>) -> bool {
        let first = self.queue.front().map(|pending| &pending.half.message);
        first.is_some_and(|first| !first.may_be_silent && key.is_none_or(|key| first.pairing_key() > Some(key)))
    }

    /// Takes out the first request, when it went unanswered in silence before the one with this key.
    pub fn passed_over(&mut self, key: u64) -> Option<Half> {
        let first = self.queue.front().map(|pending| &pending.half.message)?;
        let passed = first.may_be_silent && first.pairing_key().is_some_and(|own| own < key);
        if passed { self.take_oldest() } else { None }
    }

    /// Takes out the requests whose time is over: those that wait since then or longer.
    pub fn take_due(&mut self, since_us: u64) -> Vec<Half> {
        let (due, queue) =
            std::mem::take(&mut self.queue).into_iter().partition(|pending| pending.since_us <= since_us);
        self.queue = queue;
        VecDeque::into_iter(due).map(|pending: Pending| pending.half).collect()
    }

    /// Takes the first request out for want of room: its response will still come and must not answer the next one.
    pub fn let_go(&mut self, pairing: Pairing) -> Option<Half> {
        let half = self.take_oldest()?;
        self.owed += usize::from(pairing == Pairing::Fifo);
        Some(half)
    }

    /// Responses were lost: nobody knows which request the next one answers.
    pub fn forget_owed(&mut self) {
        self.owed = 0;
    }

    pub fn take_oldest(&mut self) -> Option<Half> {
        self.queue.pop_front().map(|pending| pending.half)
    }

    /// Causal id of the request that waits longest, and of the one that came last.
    pub fn oldest_id(&self) -> Option<u64> {
        self.queue.front().map(|pending| pending.half.syscall_trace_id)
    }

    pub fn newest_id(&self) -> Option<u64> {
        self.queue.back().map(|pending| pending.half.syscall_trace_id)
    }
}

/// A connection on which requests wait, for the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub key: Key,
    /// When it is to be looked at: not after the first of its requests times out, µs.
    pub due_us: u64,
    serial: u64,
}

impl Ord for Ticket {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due_us, self.serial).cmp(&(other.due_us, other.serial))
    }
}

impl PartialOrd for Ticket {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All waiting requests in the order of their time-outs. A connection has one ticket for all its requests, which stays
/// when they are answered; when it comes up and others wait by then, the connection gets another one. One that times out
/// before its connection's ticket comes up (another protocol has begun) gets an earlier one, and that is no longer valid.
#[derive(Debug)]
pub struct Order {
    tickets: BinaryHeap<Reverse<Ticket>>,
    last_serial: u64,
    /// Requests that wait now.
    pub live: usize,
    max: usize,
}

impl Order {
    pub fn new(max: usize) -> Self {
        Self { tickets: BinaryHeap::new(), last_serial: 0, live: 0, max: max.max(1) }
    }

    /// Sees to it that a connection with waiting requests has a ticket.
    pub fn enter(&mut self, key: Key, waiting: &mut Waiting, timeout_us: u64) {
        let Some(due_us) = waiting.since_us().map(|since_us| since_us.saturating_add(timeout_us)) else {
            return;
        };
        if waiting.ticket == 0 || due_us < waiting.due_us {
            self.last_serial += 1;
            (waiting.ticket, waiting.due_us) = (self.last_serial, due_us);
            self.tickets.push(Reverse(Ticket { key, due_us, serial: self.last_serial }));
        }
    }

    pub fn full(&self) -> bool {
        self.live > self.max
    }

    /// The ticket that comes up next.
    pub fn first(&mut self) -> Option<Ticket> {
        self.tickets.pop().map(|Reverse(ticket)| ticket)
    }

    /// A ticket whose time is over, if any.
    pub fn expired(&mut self, now_us: u64) -> Option<Ticket> {
        let due = self.tickets.peek().is_some_and(|Reverse(ticket)| ticket.due_us <= now_us);
        if due { self.first() } else { None }
    }

    /// Tickets of connections on which nothing waits take room; `keeps` tells the others ([`Waiting::keeps`]).
    pub fn compact(&mut self, mut keeps: impl FnMut(&Ticket) -> bool) {
        if self.tickets.len() > 4 * self.max.max(self.live) {
            self.tickets.retain(|Reverse(ticket)| keeps(ticket));
        }
    }
}

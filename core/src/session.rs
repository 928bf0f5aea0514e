//! Requests that wait for their responses, and the sessions that come of them.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::connection::{Flow, Key};
use crate::event::{Origin, Task};
use crate::joined::Exchange;
use crate::protocols::{Message, Pairing, Status};

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
    pub message: Box<Message>,
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
    pub flow: Arc<Flow>,
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
        exchange(self.request.as_ref()?, self.response.as_ref()?)
    }

    /// Start and end, µs: first segment of the request, first segment of the response.
    pub fn times(&self) -> (u64, u64) {
        let start = self.request.as_ref().or(self.response.as_ref()).map_or(0, |half| half.origin.time_us);
        let end = self.response.as_ref().map_or(start, |half| half.origin.time_us);
        (start, end.max(start))
    }
}

/// Over TCP the sequence numbers of both halves; over UDP the id and the subject that the protocol itself gives.
pub fn exchange(request: &Half, response: &Half) -> Option<Exchange> {
    let numbers = (request.origin.seq, response.origin.seq);
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
    serial: u64,
    half: Half,
}

/// Requests of one connection that wait, in their order.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: VecDeque<Pending>,
    /// Responses that will come to requests that were let go.
    owed: usize,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push(&mut self, serial: u64, half: Half) {
        self.queue.push_back(Pending { serial, half });
    }

    /// Goes on waiting as the first, which it was.
    pub fn push_again(&mut self, serial: u64, half: Half) {
        self.queue.push_front(Pending { serial, half });
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
        self.queue.remove(place).map(|pending| pending.half)
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

    /// Takes a request out because its time is over.
    pub fn take(&mut self, serial: u64) -> Option<Half> {
        let place = self.queue.iter().position(|pending| pending.serial == serial)?;
        self.queue.remove(place).map(|pending| pending.half)
    }

    /// Takes a request out for want of room: its response will still come and must not answer the next one.
    pub fn let_go(&mut self, serial: u64, pairing: Pairing) -> Option<Half> {
        let half = self.take(serial)?;
        self.owed += usize::from(pairing == Pairing::Fifo);
        Some(half)
    }

    /// Responses were lost: nobody knows which request the next one answers.
    pub fn forget_owed(&mut self) {
        self.owed = 0;
    }

    pub fn oldest_serial(&self) -> Option<u64> {
        self.queue.front().map(|pending| pending.serial)
    }

    pub fn take_oldest(&mut self) -> Option<Half> {
        self.queue.pop_front().map(|pending| pending.half)
    }

    pub fn holds(&self, serial: u64) -> bool {
        self.queue.iter().any(|pending| pending.serial == serial)
    }

    /// Causal id of the request that waits longest, and of the one that came last.
    pub fn oldest_id(&self) -> Option<u64> {
        self.queue.front().map(|pending| pending.half.syscall_trace_id)
    }

    pub fn newest_id(&self) -> Option<u64> {
        self.queue.back().map(|pending| pending.half.syscall_trace_id)
    }
}

/// A waiting request, for the order of time.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub key: Key,
    pub serial: u64,
    since_us: u64,
}

/// All waiting requests in the order of time, by time-out. Tickets of answered requests stay until they come up.
#[derive(Debug)]
pub struct Order {
    classes: Vec<(u64, VecDeque<Ticket>)>,
    next_serial: u64,
    /// Requests that wait now.
    pub live: usize,
    max: usize,
}

impl Order {
    pub fn new(max: usize) -> Self {
        Self { classes: Vec::new(), next_serial: 0, live: 0, max: max.max(1) }
    }

    pub fn enter(&mut self, key: Key, since_us: u64, timeout_us: u64) -> u64 {
        self.next_serial += 1;
        self.live += 1;
        let ticket = Ticket { key, serial: self.next_serial, since_us };
        match self.classes.iter_mut().find(|(timeout, _)| *timeout == timeout_us) {
            Some((_, tickets)) => tickets.push_back(ticket),
            None => self.classes.push((timeout_us, VecDeque::from([ticket]))),
        }
        self.next_serial
    }

    pub fn full(&self) -> bool {
        self.live > self.max
    }

    /// The ticket of the request that entered longest ago.
    pub fn oldest(&mut self) -> Option<Ticket> {
        let (_, tickets) = self
            .classes
            .iter_mut()
            .filter(|(_, tickets)| !tickets.is_empty())
            .min_by_key(|(_, tickets)| tickets.front().map(|ticket| ticket.serial))?;
        tickets.pop_front()
    }

    /// A ticket whose time is over, if any.
    pub fn expired(&mut self, now_us: u64) -> Option<Ticket> {
        self.classes.iter_mut().find_map(|(timeout, tickets)| {
            let due = tickets.front()?.since_us.saturating_add(*timeout) <= now_us;
            if due { tickets.pop_front() } else { None }
        })
    }

    /// Tickets of requests that were answered take room; `waits` tells the others.
    pub fn compact(&mut self, waits: impl Fn(&Ticket) -> bool) {
        let tickets: usize = self.classes.iter().map(|(_, tickets)| tickets.len()).sum();
        if tickets > 4 * self.max.max(self.live) {
            for (_, tickets) in &mut self.classes {
                tickets.retain(&waits);
            }
        }
    }
}

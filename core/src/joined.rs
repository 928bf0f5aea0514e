//! Processes of one exchange that saw it under different addresses.
//!
//! Address translation rewrites addresses and ports, not sequence numbers: the numbers of the first byte of a request
//! and of its response are 64 bits that all sightings of the exchange share. Datagrams have none; there it is a hash of
//! the id and the subject of the request. A process that sent or received it leaves its name under them; sightings whose
//! address says nothing find it there.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::peers::Process;

/// How long an exchange is remembered, µs, and how many at most.
const KEEP_US: u64 = 5_000_000;
const MAX_EXCHANGES: usize = 65_536;

/// Sequence numbers of the first byte of request and response, or a hash (`session::exchange`).
pub type Exchange = (u32, u32);

/// Who was seen at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nobody,
    One(Process),
    /// Two exchanges with the same numbers: neither is told.
    Many,
}

/// Exchanges of the last seconds and who took part in them.
#[derive(Debug, Default)]
pub struct Joined {
    ends: FxHashMap<Exchange, [Seen; 2]>,
    order: VecDeque<(u64, Exchange)>,
}

impl Joined {
    /// `process` is the client (side 0) or the server (side 1) of the exchange.
    pub fn note(&mut self, exchange: Exchange, side: usize, process: Process, now_us: u64) {
        while let Some((since_us, oldest)) = self.order.front()
            && (self.order.len() >= MAX_EXCHANGES || now_us > since_us.saturating_add(KEEP_US))
        {
            self.ends.remove(oldest);
            self.order.pop_front();
        }
        let ends = self.ends.entry(exchange).or_insert_with(|| {
            self.order.push_back((now_us, exchange));
            Default::default()
        });
        let Some(seen) = ends.get_mut(side) else {
            return;
        };
        *seen = match *seen {
            Seen::Nobody => Seen::One(process),
            Seen::One(before) if before.pid == process.pid => Seen::One(process),
            _ => Seen::Many,
        };
    }

    /// Who was the client (side 0) or the server (side 1).
    pub fn find(&self, exchange: Exchange, side: usize) -> Option<Process> {
        match self.ends.get(&exchange)?.get(side)? {
            Seen::One(process) => Some(*process),
            Seen::Nobody | Seen::Many => None,
        }
    }
}

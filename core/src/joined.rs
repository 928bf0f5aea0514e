//! Processes of one exchange that saw it under different addresses.
//!
//! Address translation rewrites addresses and ports, not sequence numbers: the numbers of the first byte of a request
//! and of its response are 64 bits that all sightings of the exchange share. Datagrams have none; there it is a hash of
//! the id and the subject of the request. A process that sent or received it leaves its name under them; sightings whose
//! address says nothing find it there.

use rustc_hash::FxHashMap;

use crate::peers::Process;

/// How long an exchange is remembered, ms.
const KEEP_MS: u32 = 5_000;
/// An exchange has a place in one set (log2 of their number), where the first that came of so many makes room for it.
const SETS_LOG2: u32 = 14;
const WAYS: usize = 8;
/// Who an end may be: nobody known, several, or one of `processes`, counted from here.
const NOBODY: u16 = 0;
const MANY: u16 = 1;
const FIRST: u16 = 2;

/// Sequence numbers of the first byte of request and response, or a hash (`session::exchange`).
pub type Exchange = (u32, u32);

/// What is remembered of an exchange; an empty place has nobody at both ends.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    exchange: Exchange,
    since_ms: u32,
    ends: [u16; 2],
}

/// Two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

/// A process that was the client (side 0) or the server (side 1) of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub exchange: Exchange,
    pub side: usize,
    pub process: Process,
}

/// Exchanges of the last seconds and who took part in them.
///
/// Every call whose other end is not known is noted, and few are asked for: so there is no order of age over all.
#[derive(Debug, Default)]
pub struct Joined {
    /// Empty until something is noted.
    sets: Vec<Set>,
    /// Which place of each set is taken next.
    next: Vec<u8>,
    processes: Vec<Process>,
    numbers: FxHashMap<Process, u16>,
    now_us: u64,
}

/// Whether the two times, which begin anew after seven weeks, are close.
fn fresh(now_ms: u32, since_ms: u32) -> bool {
    (now_ms.wrapping_sub(since_ms) as i32).unsigned_abs() <= KEEP_MS
}

fn set_of((request, response): Exchange) -> usize {
    let key = (u64::from(request) << 32) | u64::from(response);
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SETS_LOG2)) as usize
}

impl Joined {
    /// Remembers who took part.
    pub fn note(&mut self, parts: &[Part], now_us: u64) {
        if self.sets.is_empty() {
            self.sets = vec![Set::default(); 1 << SETS_LOG2];
            self.next = vec![0; 1 << SETS_LOG2];
        }
        // Each engine of an agent has a time of its own.
        self.now_us = self.now_us.max(now_us);
        // Where they belong is hardly ever in a cache: all are asked for before the first is waited for.
        let touched = parts.iter().fold(0, |all, part| {
            let set = set_of(part.exchange);
            all ^ self.sets[set].0[0].since_ms ^ self.sets[set].0[WAYS / 2].since_ms ^ u32::from(self.next[set])
        });
        std::hint::black_box(touched);
        for part in parts {
            self.note_one(part, (now_us / 1000) as u32);
        }
    }

    fn note_one(&mut self, &Part { exchange, side, process }: &Part, since_ms: u32) {
        let number = self.number(process);
        let set = set_of(exchange);
        let known = self.sets[set].0.iter().position(|entry| entry.exchange == exchange && entry.ends != [NOBODY; 2]);
        let place = known.unwrap_or_else(|| {
            let next = usize::from(self.next[set]) % WAYS;
            self.next[set] = (next + 1) as u8;
            next
        });
        let entry = &mut self.sets[set].0[place];
        if known.is_none() || !fresh(since_ms, entry.since_ms) {
            *entry = Entry { exchange, since_ms, ends: [NOBODY; 2] };
        }
        let Some(seen) = entry.ends.get_mut(side) else {
            return;
        };
        let same =
            |before: u16| self.processes.get(usize::from(before - FIRST)).is_some_and(|it| it.pid == process.pid);
        *seen = match *seen {
            NOBODY => number,
            MANY => MANY,
            before if same(before) => number,
            _ => MANY,
        };
    }

    /// Who was the client (side 0) or the server (side 1).
    pub fn find(&self, exchange: Exchange, side: usize) -> Option<Process> {
        let now_ms = (self.now_us / 1000) as u32;
        let this = |entry: &&Entry| entry.exchange == exchange && fresh(now_ms, entry.since_ms);
        let seen = *self.sets.get(set_of(exchange))?.0.iter().find(this)?.ends.get(side)?;
        self.processes.get(usize::from(seen.checked_sub(FIRST)?)).copied()
    }

    /// The number of a process; when there are no more numbers, all is forgotten.
    fn number(&mut self, process: Process) -> u16 {
        if let Some(&number) = self.numbers.get(&process) {
            return number;
        }
        if self.processes.len() >= usize::from(u16::MAX - FIRST) {
            self.processes.clear();
            self.numbers.clear();
            self.sets.fill(Default::default());
        }
        let number = FIRST + self.processes.len() as u16;
        self.processes.push(process);
        self.numbers.insert(process, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process { pid, ..Process::default() }
    }

    fn note(joined: &mut Joined, exchange: Exchange, side: usize, process: Process, now_us: u64) {
        joined.note(&[Part { exchange, side, process }], now_us);
    }

    #[test]
    fn each_end_is_found_and_two_processes_are_nobody() {
        let mut joined = Joined::default();
        assert_eq!(joined.find((1, 2), 0), None);
        note(&mut joined, (1, 2), 0, process(10), 0);
        note(&mut joined, (1, 2), 1, process(20), 1_000);
        note(&mut joined, (1, 2), 1, Process { pid: 20, comm: [b'x'; 16] }, 1_000);
        assert_eq!(joined.find((1, 2), 0), Some(process(10)));
        assert_eq!(joined.find((1, 2), 1), Some(Process { pid: 20, comm: [b'x'; 16] }));
        assert_eq!(joined.find((2, 1), 0), None);
        note(&mut joined, (1, 2), 1, process(21), 2_000);
        note(&mut joined, (1, 2), 1, process(20), 2_000);
        assert_eq!(joined.find((1, 2), 1), None);
        assert_eq!(joined.find((1, 2), 0), Some(process(10)));
    }

    #[test]
    fn what_is_older_than_five_seconds_is_another_exchange() {
        let mut joined = Joined::default();
        note(&mut joined, (1, 2), 0, process(10), 1_000_000);
        note(&mut joined, (3, 4), 0, process(10), 6_000_000);
        assert_eq!(joined.find((1, 2), 0), Some(process(10)));
        note(&mut joined, (3, 4), 0, process(10), 6_002_000);
        assert_eq!(joined.find((1, 2), 0), None);
        note(&mut joined, (1, 2), 0, process(11), 6_002_000);
        assert_eq!(joined.find((1, 2), 0), Some(process(11)));
        assert_eq!(joined.find((1, 2), 1), None);
        note(&mut joined, (7, 8), 0, process(13), 6_002_000 + (5 << 29) * 1_000);
        assert_eq!(joined.find((1, 2), 0), None, "a month later");
    }

    #[test]
    fn engines_that_tell_the_time_one_after_the_other_find_all() {
        let mut joined = Joined::default();
        note(&mut joined, (1, 2), 0, process(11), 6_002_000);
        note(&mut joined, (5, 6), 0, process(12), 5_990_000);
        assert_eq!(joined.find((1, 2), 0), Some(process(11)));
        assert_eq!(joined.find((5, 6), 0), Some(process(12)));
    }

    #[test]
    fn the_latest_tens_of_thousands_are_found() {
        let mut joined = Joined::default();
        let exchange = |number: u32| (number.wrapping_mul(43), number.wrapping_mul(181) ^ 0x5555);
        for number in 0..1_000_000 {
            note(&mut joined, exchange(number), 0, process(number % 7), 1);
        }
        let found = |first: u32| (first..first + 1000).filter(|&n| joined.find(exchange(n), 0).is_some()).count();
        assert_eq!(found(999_000), 1000);
        assert!(found(960_000) > 950, "{}", found(960_000));
        assert!((0..1000).all(|n| joined.find(exchange(n), 0).is_none()));
        assert_eq!(joined.sets.len() * size_of::<Set>(), 2 << 20);
    }

    #[test]
    fn more_processes_than_numbers_forget_what_was() {
        let mut joined = Joined::default();
        for pid in 1..=u32::from(u16::MAX - FIRST) {
            note(&mut joined, (pid, 1), 0, process(pid), 1);
        }
        assert_eq!(joined.find((65_000, 1), 0), Some(process(65_000)));
        note(&mut joined, (7, 2), 0, process(70_000), 1);
        assert_eq!(joined.find((7, 2), 0), Some(process(70_000)));
        assert_eq!(joined.find((65_000, 1), 0), None);
    }
}

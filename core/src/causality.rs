//! Which request caused which: docs/architecture.md, section 7.
//!
//! A request read on a server socket opens a context with a new id. A thread carries at most one id; socket calls
//! change it. When it is not certain what a thread works on, it carries none: nothing is guessed.

use std::hash::{BuildHasher, RandomState};

use rustc_hash::FxHashMap;

use crate::event::Task;

/// Most threads that carry an id, most open contexts, and most processes known to move requests between threads.
pub const MAX_THREADS: usize = 65_536;
pub const MAX_OPEN: usize = 262_144;
const MAX_MOVING: usize = 65_536;

/// No known cause.
pub const NONE: u64 = 0;

type Thread = (u32, u32);

/// What a connection remembers of causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Id carried by the thread that began the connection, for its first request.
    connect: u64,
    /// Id of the last response read on it, for the bytes of that response that come later.
    last_response: Option<u64>,
    /// Id under which bytes were written since the last read, while the protocol is not known.
    written: Option<u64>,
}

/// The ids of what one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Brought {
    #[default]
    Nothing,
    One(u64),
    Mixed,
}

impl Brought {
    pub fn add(&mut self, id: u64) {
        *self = match *self {
            Self::Nothing => Self::One(id),
            Self::One(known) if known == id => Self::One(id),
            _ => Self::Mixed,
        };
    }
}

#[derive(Clone, Copy, Debug)]
struct Carried {
    id: u64,
    turn: u64,
}

/// What is known of a process that serves requests.
#[derive(Clone, Copy, Debug, Default)]
struct Serving {
    /// Contexts open in it.
    open: u32,
    /// A response left on another thread than its request came in on: requests move between its threads unseen.
    moves: bool,
}

/// Contexts of all threads of this host.
#[derive(Debug)]
pub struct Causality {
    threads: FxHashMap<Thread, Carried>,
    /// Contexts whose response has not left, and the thread that read their request.
    open: FxHashMap<u64, Thread>,
    serving: FxHashMap<u32, Serving>,
    seed: u64,
    issued: u64,
    turn: u64,
    enabled: bool,
    /// Times that an ambiguity ended a context, and entries let go for want of room.
    pub ambiguous: u64,
    pub evicted: u64,
}

impl Causality {
    /// `enabled` false: every id is 0.
    pub fn new(enabled: bool) -> Self {
        // The standard library seeds RandomState from the system's entropy: ids of two runs do not meet.
        let seed = RandomState::new().hash_one(std::process::id());
        let (threads, open, serving) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        Self { threads, open, serving, seed, issued: 0, turn: 0, enabled, ambiguous: 0, evicted: 0 }
    }

    /// Threads that carry an id, and open contexts.
    pub fn sizes(&self) -> (usize, usize) {
        (self.threads.len(), self.open.len())
    }

    /// The id that the thread carries. Where requests move between threads it counts only while it is the only one.
    pub fn current(&self, task: &Task) -> u64 {
        self.threads
            .get(&(task.pid, task.tid))
            .map(|carried| carried.id)
            .filter(|id| self.open.contains_key(id) && self.certain(task.pid))
            .unwrap_or(NONE)
    }

    /// A thread of this process works on what it carries.
    fn certain(&self, pid: u32) -> bool {
        self.serving.get(&pid).is_none_or(|serving| !serving.moves || serving.open == 1)
    }

    /// The process ended or became another program.
    pub fn forget(&mut self, pid: u32) {
        if let Some(serving) = self.serving.get_mut(&pid) {
            serving.moves = false;
            if serving.open == 0 {
                self.serving.remove(&pid);
            }
        }
    }

    /// A request was read on a server socket: its new id. The caller says with `set` what the thread carries then.
    pub fn open(&mut self, task: &Task) -> u64 {
        if !self.enabled {
            return NONE;
        }
        if self.open.len() >= MAX_OPEN {
            // Without order among them the only honest way is to forget all: ids stay unique, links are lost.
            self.evicted += self.open.len() as u64;
            self.open.clear();
            self.threads.clear();
            self.serving.retain(|_, serving| {
                serving.open = 0;
                serving.moves
            });
        }
        loop {
            self.issued += 1;
            let id = mix(self.seed.wrapping_add(self.issued));
            if id != NONE {
                self.open.insert(id, (task.pid, task.tid));
                self.serving.entry(task.pid).or_default().open += 1;
                return id;
            }
        }
    }

    /// The thread goes on with `id`; `NONE` and ids whose response has left end what it carried.
    pub fn set(&mut self, task: &Task, id: u64) {
        let thread = (task.pid, task.tid);
        if id == NONE || !self.open.contains_key(&id) {
            self.threads.remove(&thread);
            return;
        }
        self.turn += 1;
        self.threads.insert(thread, Carried { id, turn: self.turn });
        if self.threads.len() > MAX_THREADS {
            self.evict();
        }
    }

    /// The thread goes on with what one read brought.
    pub fn resume(&mut self, task: &Task, brought: Brought) {
        match brought {
            Brought::Nothing => {}
            Brought::One(id) => self.set(task, id),
            Brought::Mixed => {
                self.ambiguous += 1;
                self.set(task, NONE);
            }
        }
    }

    /// The thread begins a connection.
    pub fn connect(&self, task: &Task, memory: &mut Memory) {
        memory.connect = self.current(task);
    }

    /// A request is written on a client socket: its id.
    pub fn request_written(&self, task: &Task, memory: &mut Memory) -> u64 {
        let remembered = std::mem::take(&mut memory.connect);
        if remembered != NONE && self.open.contains_key(&remembered) { remembered } else { self.current(task) }
    }

    /// A response is read on a client socket; `id` is that of its request.
    pub fn response_read(memory: &mut Memory, id: u64, brought: &mut Brought) {
        memory.last_response = Some(id);
        brought.add(id);
    }

    /// Bytes were read that belong to a response named before; `waiting`: id of the request that waits, if any.
    pub fn response_continues(memory: &Memory, waiting: Option<u64>, brought: &mut Brought) {
        if let Some(id) = waiting.or(memory.last_response) {
            brought.add(id);
        }
    }

    /// The response of `id` was written on a server socket: the context ends, on this thread and everywhere.
    pub fn response_written(&mut self, task: &Task, id: u64) {
        self.end(id, Some(task));
        self.threads.remove(&(task.pid, task.tid));
    }

    /// No response of `id` will come.
    pub fn close(&mut self, id: u64) {
        self.end(id, None);
    }

    /// The context of `id` ends; `by` wrote its response.
    fn end(&mut self, id: u64, by: Option<&Task>) {
        let Some((pid, tid)) = self.open.remove(&id) else {
            return;
        };
        if let Some(serving) = self.serving.get_mut(&pid) {
            serving.moves |= by.is_some_and(|task| task.pid == pid && task.tid != tid);
            serving.open = serving.open.saturating_sub(1);
            if serving.open == 0 && !serving.moves {
                self.serving.remove(&pid);
            }
        }
        // The ends of processes may be lost: what has nothing open goes, and is recognised anew.
        if self.serving.len() > MAX_MOVING {
            self.serving.retain(|_, serving| serving.open > 0);
        }
    }

    /// Bytes were written on a connection whose protocol is not known.
    pub fn unknown_written(&self, task: &Task, memory: &mut Memory) {
        let id = self.current(task);
        memory.written = Some(match memory.written {
            Some(known) if known != id => NONE,
            _ => id,
        });
    }

    /// Bytes were read on a connection whose protocol is not known: the answer to what was written, or a new cause.
    pub fn unknown_read(&mut self, task: &Task, memory: &mut Memory) {
        let id = memory.written.unwrap_or(NONE);
        self.set(task, id);
    }

    /// Drops the quarter of the threads that changed their id longest ago.
    fn evict(&mut self) {
        let mut turns: Vec<u64> = self.threads.values().map(|carried| carried.turn).collect();
        let quarter = turns.len() / 4;
        let (_, &mut bound, _) = turns.select_nth_unstable(quarter);
        let before = self.threads.len();
        self.threads.retain(|_, carried| carried.turn >= bound);
        self.evicted += (before - self.threads.len()) as u64;
    }
}

/// A bijection of 64-bit numbers that looks random (the finaliser of SplitMix64): one counter never repeats an id.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

//! Which process owns which end of a connection on this host.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::event::{Endpoint, Place, Task};
use crate::joined::Joined;

/// Most socket tuples, listening sockets and process names that are remembered.
pub const MAX_SOCKETS: usize = 131_072;
const MAX_LISTENERS: usize = 16_384;
const MAX_NAMES: usize = 65_536;
/// How long a closed socket is remembered, so that rows of its last requests still find it, µs.
const GRACE_US: u64 = 10_000_000;

/// A process as rows name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: u32,
    pub comm: [u8; 16],
}

impl From<&Task> for Process {
    fn from(task: &Task) -> Self {
        Self { pid: task.pid, comm: task.comm }
    }
}

/// Text of a kernel name.
pub fn comm_text(comm: &[u8; 16]) -> &str {
    let end = memchr::memchr(0, comm).unwrap_or(comm.len());
    let whole = &comm[..end];
    // A name can be cut within a character; what is whole is shown.
    std::str::from_utf8(whole)
        .unwrap_or_else(|error| std::str::from_utf8(&whole[..error.valid_up_to()]).unwrap_or_default())
}

/// Kernel name from text, cut to what the kernel keeps.
pub fn comm_bytes(text: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let count = text.len().min(15);
    comm[..count].copy_from_slice(&text.as_bytes()[..count]);
    comm
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple {
    protocol: u8,
    /// 0 unless the address is a loopback one, which means something else in every namespace.
    netns: u32,
    local: Endpoint,
    remote: Endpoint,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    process: Process,
    used_us: u64,
    closed_us: u64,
}

/// Socket tuple → process, for sockets seen and sockets told of.
#[derive(Debug, Default)]
pub struct Peers {
    sockets: FxHashMap<Tuple, Entry>,
    listeners: FxHashMap<(u32, IpAddr, u16), u32>,
    names: FxHashMap<u32, [u8; 16]>,
    pub joined: Joined,
    pub evicted: u64,
}

/// What all engines of an agent know of its sockets.
pub type SharedPeers = Arc<Mutex<Peers>>;

/// Locks the table; one that a panic left behind is still right, as every change to it is one call.
pub fn locked(peers: &SharedPeers) -> MutexGuard<'_, Peers> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tuple(protocol: u8, netns: u32, local: Endpoint, remote: Endpoint) -> Tuple {
    let netns = if local.ip.is_loopback() { netns } else { 0 };
    Tuple { protocol, netns, local, remote }
}

impl Peers {
    /// Sockets, listening sockets and names remembered.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.sockets.len(), self.listeners.len(), self.names.len())
    }

    /// `process` owns the `local` end.
    pub fn own(&mut self, protocol: u8, netns: u32, local: Endpoint, remote: Endpoint, process: Process, now_us: u64) {
        if process.pid == 0 {
            return;
        }
        let entry = Entry { process, used_us: now_us, closed_us: 0 };
        self.sockets.insert(tuple(protocol, netns, local, remote), entry);
        if self.sockets.len() > MAX_SOCKETS {
            self.evict();
        }
    }

    /// The socket is gone; another one may already have its tuple.
    pub fn close(&mut self, protocol: u8, netns: u32, local: Endpoint, remote: Endpoint, pid: u32, now_us: u64) {
        if let Some(entry) = self.sockets.get_mut(&tuple(protocol, netns, local, remote))
            && entry.process.pid == pid
        {
            entry.closed_us = now_us.max(1);
        }
    }

    /// Replaces the table of listening sockets.
    pub fn seed_listeners(&mut self, listeners: impl Iterator<Item = (u32, IpAddr, u16, u32)>) {
        self.listeners.clear();
        for (netns, ip, port, pid) in listeners.take(MAX_LISTENERS) {
            self.listeners.insert((netns, ip.to_canonical(), port), pid);
        }
    }

    /// Somebody listens on this end.
    pub fn listens(&self, netns: u32, end: Endpoint) -> bool {
        self.listener(netns, end).is_some()
    }

    fn listener(&self, netns: u32, end: Endpoint) -> Option<u32> {
        if self.listeners.is_empty() {
            return None;
        }
        let any4 = IpAddr::from([0u8; 4]);
        let any6 = IpAddr::from([0u8; 16]);
        [end.ip, any4, any6].into_iter().find_map(|ip| self.listeners.get(&(netns, ip, end.port)).copied())
    }

    /// Name of a process as its main thread carries it.
    pub fn name(&mut self, pid: u32, comm: [u8; 16]) {
        if self.names.len() < MAX_NAMES || self.names.contains_key(&pid) {
            self.names.insert(pid, comm);
        }
    }

    /// The process ended.
    pub fn forget(&mut self, pid: u32) {
        self.names.remove(&pid);
    }

    /// Name of the process rather than of its thread, when it is known.
    pub fn named(&self, process: Process) -> Process {
        self.names.get(&process.pid).map_or(process, |comm| Process { comm: *comm, ..process })
    }

    /// Who owns the other end of a connection whose near end is `local`, when it is on this host.
    pub fn peer(&self, protocol: u8, netns: u32, local: Endpoint, remote: Endpoint) -> Option<Process> {
        if let Some(process) = self.owner(protocol, netns, remote, local) {
            return Some(process);
        }
        // A server that was not seen itself: only within one loopback is a listener's port beyond doubt.
        if !remote.ip.is_loopback() {
            return None;
        }
        self.listener(netns, remote).map(|pid| Process { pid, comm: self.names.get(&pid).copied().unwrap_or_default() })
    }

    /// Who owns the socket with this `local` end.
    pub fn owner(&self, protocol: u8, netns: u32, local: Endpoint, remote: Endpoint) -> Option<Process> {
        self.sockets.get(&tuple(protocol, netns, local, remote)).map(|entry| entry.process)
    }

    /// Who listens at the server's end of a flow of packets, when that end is where they were seen.
    pub fn server_at(&self, place: &Place, server: Endpoint) -> Option<Process> {
        let pid = place.l3_end[1].then(|| self.listener(place.netns, server)).flatten()?;
        Some(Process { pid, comm: self.names.get(&pid).copied().unwrap_or_default() })
    }

    /// Forgets sockets that closed a while ago.
    pub fn sweep(&mut self, now_us: u64) {
        self.sockets.retain(|_, entry| entry.closed_us == 0 || now_us < entry.closed_us.saturating_add(GRACE_US));
    }

    fn evict(&mut self) {
        let mut ages: Vec<u64> = self.sockets.values().map(|entry| entry.used_us).collect();
        let eighth = ages.len() / 8;
        let (_, &mut bound, _) = ages.select_nth_unstable(eighth);
        let before = self.sockets.len();
        let mut room = eighth + 1;
        self.sockets.retain(|_, entry| {
            let goes = entry.used_us <= bound && room > 0;
            room -= usize::from(goes);
            !goes
        });
        self.evicted += (before - self.sockets.len()) as u64;
    }
}

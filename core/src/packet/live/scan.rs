//! Looks every few seconds, and when the kernel tells of a change, which namespaces and interfaces there are, and opens
//! and closes the rings.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::capture_nics::CaptureNics;
use super::filter::{self, Instruction};
use super::interfaces::{Captured, Interface, Interfaces, Kind, Peer};
use super::namespaces::{self, Namespace, Watch};
use super::netlink::{Link, Netlink};
use super::ring::{BLOCK_BYTES, Fanout, Ring, Socket, Wanted};
use super::settings::{PacketConfig, expression};

/// Most namespaces that are looked into, interfaces that are remembered, and rings.
const MAX_NAMESPACES: usize = 512;
const MAX_INTERFACES: usize = 8192;
const MAX_RINGS: usize = 512;
/// With more interfaces than this a namespace has one ring for all of them: a ring of its own spares other interfaces
/// the way through the filter, but takes memory.
const SINGLE_RINGS: usize = 4;
/// Blocks of a ring at most and at least, where the settings do not say.
const MOST_BLOCKS: usize = 64;
const LEAST_BLOCKS: usize = 8;
/// Blocks of a ring in another namespace, most of which are pods.
const INNER_BLOCKS: usize = 16;

const RESCAN: Duration = Duration::from_secs(3);
/// After a change there may be more: an interface comes first, then its addresses.
const SOON: Duration = Duration::from_millis(500);
const SOON_SCANS: u32 = 4;
/// How long packets of an interface may still be in a ring after it went: a worker without a processor comes late.
const DEPARTURE: Duration = Duration::from_secs(5);
/// Least time between two looks.
const CALM: Duration = Duration::from_millis(100);

/// Namespace and interface index, 0 all interfaces of the namespace.
pub(super) type RingKey = (u32, u32);

/// What a worker is told.
pub(super) enum Change {
    Interfaces(Arc<Interfaces>),
    Open(RingKey, Box<Ring>),
    /// Numbers of a ring's interfaces.
    Number(RingKey, Vec<(i32, u32)>),
    Close(RingKey),
}

/// How far the last look came.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub interfaces: usize,
    pub namespaces: usize,
    pub rings: usize,
    pub ring_bytes: usize,
    /// Namespaces, interfaces and rings beyond the bounds.
    pub left_out: usize,
    /// Names of captured interfaces, the node's own first.
    pub names: Vec<String>,
    pub captured: Arc<Vec<Captured>>,
    pub problems: Vec<String>,
}

struct Opened {
    sockets: Vec<Arc<Socket>>,
    filter: Vec<Instruction>,
    nics: Vec<(i32, u32)>,
    bytes: usize,
}

/// What one namespace has.
struct Seen {
    namespace: Namespace,
    netlink: Netlink,
    links: Vec<Link>,
    addresses: FxHashMap<u32, Vec<std::net::IpAddr>>,
}

pub(super) struct Scanner {
    config: PacketConfig,
    own: Namespace,
    outer: Option<Regex>,
    inner: Option<Regex>,
    workers: Vec<Sender<Change>>,
    numbers: FxHashMap<RingKey, u32>,
    last_number: u32,
    capture_nics: CaptureNics,
    open: FxHashMap<RingKey, Opened>,
    /// Namespaces that have one ring for all.
    joined: FxHashSet<u32>,
    /// As told last, and those that went a moment ago.
    known: Vec<Interface>,
    departed: Vec<(Instant, Interface)>,
    captured: Arc<Vec<Captured>>,
    changes: Netlink,
    watch: Watch,
    status: Arc<Mutex<Status>>,
}

impl Scanner {
    /// Must be called on the thread that scans: it goes from namespace to namespace.
    pub fn new(
        config: &PacketConfig,
        workers: Vec<Sender<Change>>,
        status: Arc<Mutex<Status>>,
    ) -> Result<Self, String> {
        let own = namespaces::own().map_err(|error| format!("the network namespace cannot be read: {error}"))?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let changes = Netlink::open(groups as u32).map_err(|error| format!("rtnetlink cannot be used: {error}"))?;
        let inner = config.inner_interface_capture_enabled.then_some(config.inner_interface_regex.as_str());
        Ok(Self {
            outer: expression("packets.interface_regex", &config.interface_regex)?,
            inner: expression("packets.inner_interface_regex", inner.unwrap_or_default())?,
            config: config.clone(),
            own,
            workers,
            numbers: FxHashMap::default(),
            last_number: 0,
            capture_nics: CaptureNics::default(),
            open: FxHashMap::default(),
            joined: FxHashSet::default(),
            known: Vec::new(),
            departed: Vec::new(),
            captured: Arc::default(),
            changes,
            watch: Watch::new(),
            status,
        })
    }

    /// Scans until the other end of `stop` is closed.
    pub fn run(mut self, stop: &OwnedFd) {
        let mut soon = 0;
        loop {
            let pause = if soon > 0 { SOON } else { RESCAN };
            let Some(changed) = self.wait(pause, stop) else {
                return;
            };
            soon = if changed { SOON_SCANS } else { soon.saturating_sub(1) };
            self.scan();
        }
    }

    /// Whether something changed within the pause; None: it is time to stop.
    fn wait(&self, pause: Duration, stop: &OwnedFd) -> Option<bool> {
        let started = Instant::now();
        let changed = self.poll(pause, stop)?;
        if changed && let Some(rest) = CALM.checked_sub(started.elapsed()) {
            std::thread::sleep(rest);
        }
        // Both are emptied, so that the next wait is one.
        let (links, mounts) = (self.changes.changed(), self.watch.changed());
        Some(changed || links || mounts)
    }

    fn poll(&self, pause: Duration, stop: &OwnedFd) -> Option<bool> {
        let wait = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [wait(stop.as_raw_fd()), wait(self.changes.fd()), wait(self.watch.fd())];
        // SAFETY: the array is valid for its length during the call.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, pause.as_millis() as i32) };
        if fds[0].revents != 0 {
            return None;
        }
        Some(ready > 0)
    }

    /// One look at everything.
    pub fn scan(&mut self) {
        let mut status = Status::default();
        let seen = self.look(&mut status);
        let mut list = self.interfaces(&seen, &mut status);
        // Before their packets come, so that each is of a known interface …
        self.publish(&list);
        self.open_rings(&seen, &list, &mut status);
        for one in &mut list {
            one.captured = self.reads((one.netns, one.index));
        }
        // … and afterwards, so that those called captured are.
        self.publish(&list);
        let mut captured: Vec<&Interface> = list.iter().filter(|one| one.captured).collect();
        captured.sort_by_key(|one| (one.netns != self.own.inode, one.netns, one.index));
        status.names = captured.iter().map(|one| one.name.clone()).collect();
        status.captured = Arc::clone(&self.captured);
        status.namespaces = seen.len();
        status.interfaces = captured.len();
        status.rings = self.open.len() * self.workers.len();
        status.ring_bytes = self.open.values().map(|ring| ring.bytes).sum();
        if let Ok(mut shared) = self.status.lock() {
            *shared = status;
        }
        // Not to keep another namespace alive until the next look.
        let _ = namespaces::enter(&self.own);
    }

    /// A ring takes packets of this interface.
    fn reads(&self, key: RingKey) -> bool {
        let shared = || {
            self.open
                .get(&(key.0, 0))
                .is_some_and(|ring| ring.nics.iter().any(|(index, _)| *index == key.1.cast_signed()))
        };
        self.open.contains_key(&key) || shared()
    }

    /// Tells of the interfaces, if anything is new; those that just went are still known for a while.
    fn publish(&mut self, list: &[Interface]) {
        if self.known == list {
            return;
        }
        let now = Instant::now();
        let present: FxHashSet<u32> = list.iter().map(|one| one.nic).collect();
        let gone = self.known.drain(..).filter(|one| !present.contains(&one.nic)).map(|one| (now, one));
        self.departed.extend(gone);
        self.departed.retain(|(since, _)| since.elapsed() < DEPARTURE);
        self.known = list.to_vec();
        let departed = self.departed.iter().map(|(_, one)| Interface { captured: false, ..one.clone() });
        let all = list.iter().cloned().chain(departed).collect();
        let interfaces = Arc::new(Interfaces::new(self.own.inode, all));
        self.captured = Arc::new(interfaces.captured(self.own.inode));
        self.tell(|| Change::Interfaces(Arc::clone(&interfaces)));
    }

    fn tell(&self, change: impl Fn() -> Change) {
        for worker in &self.workers {
            // A worker that is gone needs no more.
            let _ = worker.send(change());
        }
    }

    fn look(&mut self, status: &mut Status) -> Vec<Seen> {
        self.watch.renew();
        let (others, left_out) =
            namespaces::others(Path::new(&self.config.proc_dir), self.own.inode, MAX_NAMESPACES - 1);
        status.left_out += left_out;
        let own = self.own.handle.try_clone().map(|handle| Namespace { inode: self.own.inode, handle });
        let mut seen = Vec::with_capacity(others.len() + 1);
        for namespace in own.into_iter().chain(others) {
            match Self::visit(namespace) {
                Ok(one) => seen.push(one),
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    status
                        .problems
                        .push("other network namespaces cannot be entered without CAP_SYS_ADMIN".to_string());
                    break;
                }
                // It ended meanwhile.
                Err(_) => {}
            }
        }
        seen
    }

    fn visit(namespace: Namespace) -> io::Result<Seen> {
        namespaces::enter(&namespace)?;
        let netlink = Netlink::open(0)?;
        let (links, addresses) = (netlink.links()?, netlink.addresses()?);
        Ok(Seen { namespace, netlink, links, addresses })
    }

    fn interfaces(&mut self, seen: &[Seen], status: &mut Status) -> Vec<Interface> {
        let peers = peers(seen);
        let mut numbers = FxHashMap::default();
        let mut list = Vec::new();
        for one in seen {
            let netns = one.namespace.inode;
            for link in &one.links {
                if list.len() >= MAX_INTERFACES {
                    status.left_out += 1;
                    continue;
                }
                let key = (netns, link.index);
                let nic = self.numbers.get(&key).copied().unwrap_or_else(|| {
                    self.last_number += 1;
                    self.last_number
                });
                numbers.insert(key, nic);
                list.push(Interface {
                    nic,
                    capture_nic: 0,
                    netns,
                    index: link.index,
                    name: link.name.clone(),
                    mac: link.mac,
                    kind: Kind::of(link),
                    master: link.master,
                    addresses: one.addresses.get(&link.index).cloned().unwrap_or_default(),
                    peer: peers.get(&key).copied(),
                    captured: self.reads(key),
                });
            }
        }
        self.numbers = numbers;
        self.capture_nics.give(&mut list);
        list
    }

    fn chosen(&self, netns: u32, link: &Link) -> bool {
        let pattern = if netns == self.own.inode { &self.outer } else { &self.inner };
        let loopback = Kind::of(link) == Kind::Loopback;
        (!loopback || self.config.loopback.unwrap_or(true))
            && pattern.as_ref().is_some_and(|one| one.is_match(&link.name))
    }

    /// Rings as they are wanted now: new ones are opened, those of what is gone closed, filters brought up to date.
    fn open_rings(&mut self, seen: &[Seen], list: &[Interface], status: &mut Status) {
        let own_addresses: Vec<_> =
            list.iter().filter(|one| one.netns == self.own.inode).flat_map(|one| one.addresses.clone()).collect();
        let condition = self.config.condition(&own_addresses);
        let wanted = self.wanted(seen, list);
        let gone: Vec<RingKey> = self.open.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            if let Some(opened) = self.open.remove(&key) {
                for socket in opened.sockets {
                    // What is in the ring is still read; a socket that cannot be silenced is closed a little later.
                    let _ = socket.filter(&filter::NOTHING);
                }
                self.tell(|| Change::Close(key));
            }
        }
        let new = wanted.keys().filter(|key| !self.open.contains_key(key)).count();
        let mut keys: Vec<&RingKey> = wanted.keys().collect();
        keys.sort_unstable_by_key(|(netns, index)| (*netns != self.own.inode, *netns, *index));
        for key in keys {
            let nics = &wanted[key];
            let interfaces: Vec<u32> = nics.iter().map(|(index, _)| index.cast_unsigned()).collect();
            let only = (key.1 == 0).then_some(interfaces.as_slice());
            let filter = match filter::program(only, &condition, self.config.extra(), self.config.max_packet_bytes) {
                Ok(filter) => filter,
                Err(problem) => {
                    status.problems.push(problem);
                    continue;
                }
            };
            if self.open.contains_key(key) {
                self.renew(*key, filter, nics);
                continue;
            }
            let Some(blocks) = self.blocks(*key, new) else {
                status.left_out += nics.len();
                continue;
            };
            let namespace = seen.iter().find(|one| one.namespace.inode == key.0).map(|one| &one.namespace);
            let opened = namespace.ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(|namespace| {
                namespaces::enter(namespace)?;
                self.open_ring(*key, filter, nics, blocks, list)
            });
            if let Err(error) = opened {
                let numbers: FxHashSet<u32> = nics.iter().map(|(_, nic)| *nic).collect();
                let names: Vec<&str> =
                    list.iter().filter(|one| numbers.contains(&one.nic)).map(|one| &*one.name).collect();
                status.problems.push(match error.raw_os_error() {
                    Some(libc::EPERM) => "packet sockets need CAP_NET_RAW (or root)".to_string(),
                    _ => format!("packets of {} cannot be read: {error}", names.join(", ")),
                });
            }
        }
    }

    /// The interfaces (index and number) of each ring that is to be open.
    fn wanted(&mut self, seen: &[Seen], list: &[Interface]) -> FxHashMap<RingKey, Vec<(i32, u32)>> {
        // A socket can be bound before its interface is up, but then cannot join a group.
        let up = |link: &Link, key: &RingKey| link.flags & libc::IFF_UP as u32 != 0 || self.open.contains_key(key);
        let chosen: FxHashSet<RingKey> = seen
            .iter()
            .flat_map(|one| one.links.iter().map(|link| ((one.namespace.inode, link.index), link)))
            .filter(|(key, link)| self.chosen(key.0, link) && up(link, key))
            .map(|(key, _)| key)
            .collect();
        let mut by_namespace: FxHashMap<u32, Vec<(i32, u32)>> = FxHashMap::default();
        for one in list.iter().filter(|one| chosen.contains(&(one.netns, one.index))) {
            by_namespace.entry(one.netns).or_default().push((one.index.cast_signed(), one.nic));
        }
        self.joined.retain(|netns| by_namespace.contains_key(netns));
        let mut wanted = FxHashMap::default();
        for (netns, mut nics) in by_namespace {
            nics.sort_unstable();
            if nics.len() > SINGLE_RINGS || self.joined.contains(&netns) {
                self.joined.insert(netns);
                wanted.insert((netns, 0), nics);
            } else {
                wanted.extend(nics.into_iter().map(|nic| ((netns, nic.0.cast_unsigned()), vec![nic])));
            }
        }
        wanted
    }

    fn renew(&mut self, key: RingKey, filter: Vec<Instruction>, nics: &[(i32, u32)]) {
        let numbers = self.numbered(key.0, nics);
        let Some(opened) = self.open.get_mut(&key) else {
            return;
        };
        // Numbers first: a packet of an interface without one belongs to nobody.
        if opened.nics != numbers {
            opened.nics.clone_from(&numbers);
            self.tell(|| Change::Number(key, numbers.clone()));
        }
        if let Some(opened) = self.open.get_mut(&key)
            && opened.filter != filter
            && opened.sockets.iter().all(|socket| socket.filter(&filter).is_ok())
        {
            opened.filter = filter;
        }
    }

    /// Numbers of a ring's interfaces, with those that went a moment ago: their last packets may still lie in it.
    fn numbered(&self, netns: u32, nics: &[(i32, u32)]) -> Vec<(i32, u32)> {
        let mut numbers = nics.to_vec();
        for (_, one) in self.departed.iter().rev().filter(|(_, one)| one.netns == netns) {
            let index = one.index.cast_signed();
            if !self.numbers.contains_key(&(netns, one.index)) && numbers.iter().all(|(other, _)| *other != index) {
                numbers.push((index, one.nic));
            }
        }
        numbers
    }

    /// Blocks of a new ring for each worker, if there is still room for it; `new` rings share what is left.
    fn blocks(&self, key: RingKey, new: usize) -> Option<usize> {
        let sockets = self.workers.len();
        if (self.open.len() + 1) * sockets > MAX_RINGS {
            return None;
        }
        let used: usize = self.open.values().map(|ring| ring.bytes).sum();
        let left = self.config.ring_bytes.saturating_sub(used) / BLOCK_BYTES / sockets;
        if self.config.ring_blocks > 0 {
            return Some(self.config.ring_blocks);
        }
        let most = if key.0 == self.own.inode { MOST_BLOCKS } else { INNER_BLOCKS };
        let share = (left / new.max(1)).clamp(LEAST_BLOCKS, most);
        (share <= left).then_some(share)
    }

    fn open_ring(
        &mut self,
        key: RingKey,
        filter: Vec<Instruction>,
        nics: &[(i32, u32)],
        blocks: usize,
        list: &[Interface],
    ) -> io::Result<()> {
        let loopback = list.iter().any(|one| (one.netns, one.index) == key && one.kind == Kind::Loopback);
        let mode = self.config.fanout_mode;
        let mut rings: Vec<Ring> = Vec::with_capacity(self.workers.len());
        for worker in 0..self.workers.len() {
            let fanout = match rings.first() {
                _ if self.workers.len() == 1 => None,
                None => Some(Fanout::New { mode }),
                Some(first) => Some(Fanout::Join { group: first.socket().group()?, mode }),
            };
            let mut ring = Ring::open(&Wanted {
                ifindex: key.1,
                incoming_only: loopback,
                promiscuous: self.config.promiscuous,
                blocks,
                fanout,
            })?;
            ring.number(nics.to_vec());
            debug_assert_eq!(worker, rings.len());
            rings.push(ring);
        }
        // Only now: before, each of a group would have had all packets.
        let sockets: Vec<Arc<Socket>> = rings.iter().map(Ring::socket).collect();
        for socket in &sockets {
            socket.filter(&filter)?;
        }
        let bytes = blocks * BLOCK_BYTES * rings.len();
        for (worker, ring) in self.workers.iter().zip(rings) {
            let _ = worker.send(Change::Open(key, Box::new(ring)));
        }
        self.open.insert(key, Opened { sockets, filter, nics: nics.to_vec(), bytes });
        Ok(())
    }
}

/// The other end of each veth, confirmed by the number its namespace gives the other one's.
fn peers(seen: &[Seen]) -> FxHashMap<RingKey, Peer> {
    let mut candidates: FxHashMap<(u32, u32), Vec<&Seen>> = FxHashMap::default();
    for one in seen {
        for link in one.links.iter().filter(|link| Kind::of(link) == Kind::Veth) {
            candidates.entry((link.index, link.link)).or_default().push(one);
        }
    }
    let mut peers = FxHashMap::default();
    for one in seen {
        for link in one.links.iter().filter(|link| Kind::of(link) == Kind::Veth && link.link != 0) {
            let key = (one.namespace.inode, link.index);
            let netns = match link.link_namespace {
                None => Some(one.namespace.inode),
                Some(number) => candidates.get(&(link.link, link.index)).into_iter().flatten().find_map(|there| {
                    let is_it = one.netlink.number_of(&there.namespace).ok().flatten() == Some(number);
                    is_it.then_some(there.namespace.inode)
                }),
            };
            if let Some(netns) = netns {
                peers.insert(key, Peer { netns, index: link.link });
            }
        }
    }
    peers
}

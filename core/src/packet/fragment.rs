//! Fragments of IP packets: a later one has no ports, the first one of its packet told them.
//!
//! What fragments carry is never put together: only the first one's payload is read. Later ones count as packets and
//! bytes of their flow; those of TCP whose turn it is also take their sequence numbers, so that the stream sees a hole
//! and no gap to wait for.

use std::collections::VecDeque;
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::decode::{ACK, Packet, SYN, TCP, Tcp, TcpOptions};

/// Most packets whose other fragments are awaited.
pub const MAX_PACKETS: usize = 8192;
/// How long, µs of capture time: as long as Linux keeps fragments (net.ipv4.ipfrag_time).
const AWAIT_US: u64 = 30_000_000;
/// No IP packet has more bytes behind its header.
const MAX_BYTES: u32 = 65_535;

/// Place of a fragment in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub id: u32,
    /// Bytes before it.
    pub offset: u32,
    /// It is not the last.
    pub more: bool,
}

impl Fragment {
    /// None of a whole packet.
    pub fn new(id: u32, offset: u32, more: bool) -> Option<Self> {
        (more || offset != 0).then_some(Self { id, offset, more })
    }
}

/// A fragment, and what tells its packet from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragmented {
    pub fragment: Fragment,
    /// Id of the tunnel around it, 0 none.
    pub tunnel: u32,
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Bytes of the fragment behind its IP header.
    pub length: u32,
}

/// Fragments, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    pub first: u64,
    /// Later ones, of all kinds below.
    pub later: u64,
    /// Later ones that came before the first, or long after it, or without it.
    pub orphans: u64,
    /// Later ones that overlap others, leave a gap or go beyond the end of their packet.
    pub displaced: u64,
    /// Later ones of a packet that carries a tunnel: of no flow.
    pub tunnelled: u64,
    /// Packets that gave way to others before all of their fragments were seen.
    pub evicted: u64,
}

/// What the first fragment held.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// Source and destination port; of TCP the header, and its bytes.
    Ports(u16, u16, Option<(Tcp, u32)>),
    /// A tunnel, whose inner packet tells its own length.
    Tunnel,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    number: u64,
    time_us: u64,
    held: Held,
    /// Bytes seen, in order and without holes.
    seen: u32,
}

/// What tells packets apart; the same packet is seen at several capture points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    point: u32,
    tunnel: u32,
    id: u32,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
}

impl Key {
    fn new(point: u32, of: &Fragmented) -> Self {
        let Fragmented { fragment: Fragment { id, .. }, tunnel, protocol, source, destination, .. } = *of;
        Self { point, tunnel, id, protocol, source, destination }
    }
}

/// What a later fragment belongs to.
pub(super) enum Belongs {
    /// To the flow of its packet, whose ports it has now if they are known.
    Flow,
    /// To a tunnel whose inner packet has been counted whole.
    Tunnel,
}

/// Packets whose other fragments are awaited.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    awaited: FxHashMap<Key, Awaited>,
    /// By age.
    order: VecDeque<(Key, u64)>,
    last: u64,
    pub counters: FragmentCounters,
}

impl Fragments {
    pub fn len(&self) -> usize {
        self.awaited.len()
    }

    /// A first fragment around a tunnel whose inner packet was found.
    pub fn carries(&mut self, point: u32, time_us: u64, of: &Fragmented) {
        self.counters.first += 1;
        self.keep(point, time_us, of, Held::Tunnel);
    }

    /// A first fragment of an ordinary packet.
    pub fn begins(&mut self, point: u32, time_us: u64, of: &Fragmented, packet: &Packet<'_>) {
        self.counters.first += 1;
        let ports = (packet.source.port, packet.destination.port);
        let header = of.length.saturating_sub(packet.length);
        let tcp = (packet.protocol == TCP).then_some((packet.tcp, header));
        self.keep(point, time_us, of, Held::Ports(ports.0, ports.1, tcp));
    }

    fn keep(&mut self, point: u32, time_us: u64, of: &Fragmented, held: Held) {
        self.forget(time_us);
        let key = Key::new(point, of);
        self.last += 1;
        let number = self.last;
        // The same first fragment twice, or an identification that has come round.
        self.awaited.insert(key, Awaited { number, time_us, held, seen: of.length });
        self.order.push_back((key, number));
    }

    /// Lets go what is too old or too much.
    fn forget(&mut self, time_us: u64) {
        while let Some((key, number)) = self.order.front() {
            // Complete, or replaced: only its place in the order is left.
            let old = self.awaited.get(key).filter(|awaited| awaited.number == *number);
            if let Some(awaited) = old {
                let expired = time_us.saturating_sub(awaited.time_us) > AWAIT_US;
                if !expired && self.awaited.len() < MAX_PACKETS {
                    break;
                }
                self.counters.evicted += u64::from(!expired);
                self.awaited.remove(key);
            }
            self.order.pop_front();
        }
        if self.order.len() > 4 * MAX_PACKETS {
            // Places of what is complete, behind one that waits long.
            let awaited = &self.awaited;
            self.order.retain(|(key, number)| awaited.get(key).is_some_and(|one| one.number == *number));
        }
    }

    /// A later fragment: `packet` takes ports and sequence number from the first.
    pub fn continues(&mut self, point: u32, time_us: u64, of: &Fragmented, packet: &mut Packet<'_>) -> Belongs {
        self.counters.later += 1;
        // What it carries is neither read nor, without a place in the stream, counted there.
        packet.length = 0;
        let key = Key::new(point, of);
        let fresh = |awaited: &&mut Awaited| time_us.saturating_sub(awaited.time_us) <= AWAIT_US;
        let Some(awaited) = self.awaited.get_mut(&key).filter(fresh) else {
            self.counters.orphans += 1;
            return Belongs::Flow;
        };
        let Fragment { offset, more, .. } = of.fragment;
        let in_order = offset == awaited.seen && of.length > 0 && offset + of.length <= MAX_BYTES;
        let held = awaited.held;
        if in_order {
            awaited.seen += of.length;
            if !more {
                self.awaited.remove(&key);
            }
        } else {
            self.counters.displaced += 1;
        }
        let Held::Ports(source, destination, tcp) = held else {
            self.counters.tunnelled += 1;
            return Belongs::Tunnel;
        };
        (packet.source.port, packet.destination.port) = (source, destination);
        if let (Some((tcp, header)), true) = (tcp, in_order) {
            packet.tcp = later_segment(tcp, offset.saturating_sub(header));
            packet.length = of.length;
        }
        Belongs::Flow
    }
}

/// The header that a segment would have so many payload bytes after the first.
fn later_segment(first: Tcp, bytes: u32) -> Tcp {
    let seq = first.seq.wrapping_add(u32::from(first.flags & SYN != 0)).wrapping_add(bytes);
    Tcp { seq, flags: first.flags & ACK, options: TcpOptions::default(), ..first }
}

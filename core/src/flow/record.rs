//! One flow: its ends, what was counted on it in this second and since its last row.

use std::net::IpAddr;
use std::rc::Rc;

use super::perf::{Perf, Report};
use super::state::State;
use crate::connection::Flow as Spoken;
use crate::event::{Endpoint, Place};
use crate::meter::Tally;
use crate::packet::decode::{Packet, Tunnel};

/// What makes a flow: the interface, the tunnel, the protocol and both ends in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Addresses with IPv4 as mapped IPv6, the smaller end first.
    ends: [(u128, u16); 2],
    nic: u32,
    tunnel: u32,
    protocol: u8,
    tunnel_kind: u8,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

impl Key {
    pub fn of(nic: u32, packet: &Packet<'_>) -> Self {
        let [a, b] = [packet.source, packet.destination].map(|end| (number(end.ip), end.port));
        let (tunnel, tunnel_kind) = packet.tunnel.map_or((0, 0), |tunnel| (tunnel.id, tunnel.kind as u8));
        let ends = if a <= b { [a, b] } else { [b, a] };
        Self { ends, nic, tunnel, protocol: packet.protocol, tunnel_kind }
    }

    pub fn tunnel_kind(&self) -> u8 {
        self.tunnel_kind
    }
}

/// Packets and bytes; index 0 from the client, 1 from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: [u64; 2],
    /// Whole frames.
    pub bytes: [u64; 2],
    /// Behind the IP header.
    pub l3_bytes: [u64; 2],
    /// Payload of the transport.
    pub l4_bytes: [u64; 2],
}

impl Traffic {
    pub fn add(&mut self, other: &Self) {
        for side in 0..2 {
            self.packets[side] += other.packets[side];
            self.bytes[side] += other.bytes[side];
            self.l3_bytes[side] += other.l3_bytes[side];
            self.l4_bytes[side] += other.l4_bytes[side];
        }
    }

    pub fn swap(&mut self) {
        self.packets.swap(0, 1);
        self.bytes.swap(0, 1);
        self.l3_bytes.swap(0, 1);
        self.l4_bytes.swap(0, 1);
    }
}

/// What was counted in some stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub traffic: Traffic,
    pub tcp: Report,
    pub l7: Tally,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.traffic.add(&other.traffic);
        self.tcp.add(&other.tcp);
        self.l7.add(&other.l7);
    }
}

/// Headers of the outer packets of one direction.
pub type Outer = Option<Tunnel>;

/// What the application engine knows of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Bytes,
    /// That it is over.
    End,
}

/// A flow while it is followed.
#[derive(Debug)]
pub struct Flow {
    pub id: u64,
    pub key: Key,
    /// Client and server.
    pub ends: [Endpoint; 2],
    pub macs: [[u8; 6]; 2],
    pub place: Place,
    pub protocol: u8,
    pub ether_type: u16,
    pub vlan: u16,
    /// By direction: of what the client sent, of what the server sent.
    pub outer: [Outer; 2],
    pub init_ip_id: u16,
    /// 255 a SYN, 254 the application protocol, 128 a port that servers have, 0 who spoke first.
    pub direction_score: u8,
    pub state: State,
    pub perf: Perf,
    pub start_us: u64,
    pub last_us: u64,
    /// Second that `second_traffic` and `second_l7` belong to.
    pub second: u32,
    pub second_traffic: Traffic,
    pub second_l7: Tally,
    /// Since the last row.
    pub period: Counts,
    pub parse_failed: u32,
    pub period_start_us: u64,
    pub flags: [u8; 2],
    pub total_packets: [u64; 2],
    pub total_bytes: [u64; 2],
    /// No row yet; not yet among the meters.
    pub unreported: bool,
    pub unmetered: bool,
    pub syn_seq: u32,
    pub syn_ack_seq: u32,
    /// Real addresses that load balancers wrote into options (TOA), and processes that senders wrote (option 253).
    pub real: [Option<Endpoint>; 2],
    pub traced_pid: [u32; 2],
    /// First byte of each direction, from its SYN.
    pub first_seq: [Option<u32>; 2],
    pub told: Told,
    /// Client and server changed places since the application engine got the first bytes.
    pub turned: bool,
    /// What the application engine found.
    pub spoken: Option<Rc<Spoken>>,
    /// In the list of flows with something in their second.
    pub active: bool,
    /// When it is to be looked at again, s.
    pub due_s: u64,
}

impl Flow {
    /// Client and server are the other way round.
    pub fn swap(&mut self) {
        self.ends.swap(0, 1);
        self.macs.swap(0, 1);
        self.outer.swap(0, 1);
        self.place = self.place.mirrored();
        self.perf.swap();
        self.state.swap();
        self.second_traffic.swap();
        self.period.traffic.swap();
        self.period.tcp.swap();
        self.flags.swap(0, 1);
        self.total_packets.swap(0, 1);
        self.total_bytes.swap(0, 1);
        self.real.swap(0, 1);
        self.traced_pid.swap(0, 1);
        self.first_seq.swap(0, 1);
        self.turned ^= self.told != Told::Nothing;
    }

    /// What was counted in the second that is over, which is then forgotten.
    pub fn take_second(&mut self) -> Counts {
        let counts = Counts {
            traffic: std::mem::take(&mut self.second_traffic),
            tcp: self.perf.take(),
            l7: std::mem::take(&mut self.second_l7),
        };
        self.period.add(&counts);
        counts
    }
}

/// `nat_source` numbers.
const NAT_TOA: u8 = 6;

impl Flow {
    /// What told the addresses before translation (`nat_source`), 0 nothing.
    pub fn nat_source(&self) -> u8 {
        if self.real.iter().any(Option::is_some) { NAT_TOA } else { 0 }
    }
}

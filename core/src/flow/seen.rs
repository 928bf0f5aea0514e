//! How a packet lies to its flow: where it was seen, which end sent it.

use std::net::IpAddr;

use super::record::Flow;
use crate::engine::Engine;
use crate::event::{Endpoint, Place};
use crate::packet::decode::{ACK, Packet, SYN, TCP};

/// Ports from here up are usually ephemeral (Linux, net.ipv4.ip_local_port_range).
const EPHEMERAL: u16 = 32_768;

/// Knows the interfaces.
pub trait Places {
    /// How the ends of a flow lie to an interface.
    fn place(&self, nic: u32, client: Endpoint, server: Endpoint) -> Place;

    /// This host has the address.
    fn is_here(&self, ip: IpAddr) -> bool;
}

/// A capture file: nobody knows where it was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Places for Nowhere {
    fn place(&self, _: u32, _: Endpoint, _: Endpoint) -> Place {
        Place::default()
    }

    fn is_here(&self, _: IpAddr) -> bool {
        false
    }
}

/// How one packet was seen.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Wall clock, µs.
    pub time_us: u64,
    /// Number of the interface.
    pub nic: u32,
    /// Bytes of the whole frame on the wire.
    pub wire: u32,
}

/// Side that sent a packet of a flow.
pub fn side_of(flow: &Flow, packet: &Packet<'_>) -> usize {
    // Both ends can only be the same when a machine talks to itself on one port: then the hardware address tells.
    if flow.ends[0] == flow.ends[1] {
        return usize::from(packet.link.source != flow.macs[0]);
    }
    usize::from(packet.source != flow.ends[0])
}

/// Whether the sender is the client, and how sure that is. `server_ports`, in order, are those of servers whatever else
/// speaks for it, but for a handshake and, later, the application protocol.
pub fn direction(packet: &Packet<'_>, engine: &Engine, netns: u32, server_ports: &[u16]) -> (bool, u8) {
    if packet.protocol == TCP && packet.tcp.flags & SYN != 0 {
        return (packet.tcp.flags & ACK == 0, u8::MAX);
    }
    let listens = |end| engine.listens(netns, end);
    let (source, destination) = (packet.source, packet.destination);
    let configured = |end: Endpoint| server_ports.binary_search(&end.port).is_ok();
    match (configured(source), configured(destination)) {
        (true, false) => return (false, 253),
        (false, true) => return (true, 253),
        _ => {}
    }
    match (listens(source), listens(destination)) {
        (true, false) => return (false, 192),
        (false, true) => return (true, 192),
        _ => {}
    }
    match (source.port < EPHEMERAL, destination.port < EPHEMERAL) {
        (true, false) => (false, 128),
        (false, true) => (true, 128),
        _ => (true, 0),
    }
}

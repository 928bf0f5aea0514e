//! From link layer to TCP or UDP payload, or to an ICMP echo, through tunnels.

use std::net::{IpAddr, Ipv4Addr};

use super::fragment::Fragmented;
use super::network::{Layer, network};
use super::tunnel::{self, Decapsulation, Inside};
use crate::event::Endpoint;

/// LINKTYPE_* numbers (www.tcpdump.org/linktypes.html).
const LINK_NULL: u16 = 0;
const LINK_ETHERNET: u16 = 1;
const LINK_RAW_BSD: u16 = 12;
const LINK_RAW_OPENBSD: u16 = 14;
const LINK_RAW: u16 = 101;
const LINK_LOOP: u16 = 108;
const LINK_COOKED: u16 = 113;
const LINK_IPV4: u16 = 228;
const LINK_IPV6: u16 = 229;
const LINK_COOKED_2: u16 = 276;

pub(super) const ETHER_IPV4: u16 = 0x0800;
pub(super) const ETHER_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad and the older QinQ.
const ETHER_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const MAX_VLANS: usize = 4;
/// MPLS with unicast and with multicast labels (RFC 5332).
const ETHER_MPLS: [u16; 2] = [0x8847, 0x8848];
const MAX_LABELS: usize = 8;
/// Tunnels in tunnels that are taken off.
pub const MAX_TIER: u8 = 8;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP_6: u8 = 58;

/// TCP flags.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// Why a packet gives no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The link type is not known.
    Link,
    /// Not IP.
    Protocol,
    /// The headers are cut or contradict themselves.
    Malformed,
    /// A later fragment around a tunnel: the inner packet was given whole with the first one.
    Continued,
}

/// Header of the link layer; zeros where the link type has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    /// EtherType of the network layer.
    pub ether_type: u16,
    /// Innermost VLAN number, 0 none.
    pub vlan: u16,
}

/// How a tunnel carried a packet (numbers of tunnel_type in docs/schema.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TunnelKind {
    Vxlan = 1,
    Ipip = 2,
    TencentGre = 3,
    Geneve = 4,
    VxlanNsh = 5,
    Erspan = 6,
    Teb = 7,
}

/// The tunnel that was taken off; of several the outermost, with their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub kind: TunnelKind,
    /// Headers taken off.
    pub tier: u8,
    /// VNI, key or session id.
    pub id: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Addresses of the outer link.
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
}

/// What a sender wrote about itself into TCP option 253 (docs/network.md, "Addresses behind NAT").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    pub pid: u32,
    pub ip: Ipv4Addr,
    pub tcp_seq: u32,
}

/// TCP options that flows use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Largest segment, of a SYN.
    pub mss: Option<u16>,
    /// Shift of the window, of a SYN.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// SACK blocks: their number, first at most.
    pub sack: [(u32, u32); 4],
    pub sack_count: u8,
    /// Value and echo.
    pub timestamp: Option<(u32, u32)>,
    /// The real client behind a load balancer (TOA, options 200 and 254).
    pub toa: Option<Endpoint>,
    pub traced: Option<Traced>,
}

/// TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// As it stands in the header, not scaled.
    pub window: u16,
    pub options: TcpOptions,
}

/// One IP packet with the headers of its tunnels taken off.
///
/// `protocol` is TCP, UDP, or any other (ports are 0 then). Of an ICMP echo the payload is the whole ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub link: Link,
    pub tunnel: Option<Tunnel>,
    pub protocol: u8,
    pub source: Endpoint,
    pub destination: Endpoint,
    /// Identification of IPv4, 0 for IPv6.
    pub ip_id: u16,
    pub ttl: u8,
    /// A fragment after the first: no payload. `Decoder` gives it the ports of the first one, and if it is TCP and in
    /// order its `tcp.seq` and `length`; otherwise ports or `length` are 0.
    pub later_fragment: bool,
    /// Bytes of the IP packet on the wire behind its header, that is l3_byte of the flow.
    pub l3_length: u32,
    pub tcp: Tcp,
    /// Payload bytes of the transport on the wire.
    pub length: u32,
    /// What was captured of them.
    pub payload: &'a [u8],
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What was met on the way to a packet, also when none came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// As in the packet; also where the inside is not IP.
    pub tunnel: Option<Tunnel>,
    /// The packet is a fragment.
    pub(super) fragment: Option<Fragmented>,
    /// The outermost packet around a tunnel that is a fragment.
    pub(super) carrier: Option<Fragmented>,
    /// A tunnel's header was there, but no sound packet inside: the outer packet is given.
    pub lying: bool,
    /// More than `MAX_TIER` tunnels: the packet of the last one that was taken off is given.
    pub deeper: bool,
}

/// Decodes one frame, and takes off tunnels of the kinds in `decapsulation`.
pub fn decode(link_type: u16, frame: &[u8], decapsulation: Decapsulation) -> Result<Packet<'_>, Other> {
    walk(link_type, frame, decapsulation, &mut Trail::default())
}

/// The same, with the way there. `trail` is empty at first.
pub fn walk<'a>(
    link_type: u16,
    frame: &'a [u8],
    decapsulation: Decapsulation,
    trail: &mut Trail,
) -> Result<Packet<'a>, Other> {
    let (link, rest) = link_layer(link_type, frame)?;
    let mut layer = network(link, rest)?;
    trail.fragment = layer.fragmented(0);
    while let Some(found) = tunnel::find(&layer.packet, layer.body) {
        if !decapsulation.takes(found.kind) {
            break;
        }
        let tier = layer.packet.tunnel.map_or(0, |tunnel| tunnel.tier);
        if tier >= MAX_TIER {
            trail.deeper = true;
            break;
        }
        let inner = match found.inside {
            Inside::Ethernet(inner) => link_layer(LINK_ETHERNET, inner).and_then(|(link, rest)| network(link, rest)),
            // The frame around an inner IP packet is that of the outer one.
            Inside::Ip(ether_type, inner) => network(Link { ether_type, ..layer.packet.link }, inner),
        };
        let Packet { link, source, destination, .. } = layer.packet;
        let first = Tunnel {
            kind: found.kind,
            tier: 0,
            id: found.id,
            source: source.ip,
            destination: destination.ip,
            source_mac: link.source,
            destination_mac: link.destination,
        };
        let tunnel = Some(Tunnel { tier: tier + 1, ..layer.packet.tunnel.unwrap_or(first) });
        match inner {
            Ok(inner) if found.holds(&layer, &inner) => {
                layer = inner;
                layer.packet.tunnel = tunnel;
                trail.tunnel = tunnel;
                trail.carrier = trail.carrier.or(trail.fragment);
                trail.fragment = layer.fragmented(found.id);
            }
            // What a switch or a mirror carries besides IP has no addresses of its own: the outer packet stands for it.
            Err(Other::Protocol) if !found.vague => {
                trail.tunnel = tunnel;
                break;
            }
            _ => {
                trail.lying = true;
                break;
            }
        }
    }
    Ok(layer.packet)
}

/// Link header and what follows it.
fn link_layer(link_type: u16, frame: &[u8]) -> Result<(Link, &[u8]), Other> {
    let mut link = Link::default();
    let (ether_type, rest) = match link_type {
        LINK_ETHERNET => {
            let head: &[u8; 14] = frame.first_chunk().ok_or(Other::Malformed)?;
            link.destination.copy_from_slice(&head[..6]);
            link.source.copy_from_slice(&head[6..12]);
            (u16_at(head, 12), frame.get(14..))
        }
        LINK_COOKED => (u16_at(frame, 14), frame.get(16..)),
        LINK_COOKED_2 => (u16_at(frame, 0), frame.get(20..)),
        // The address family has the byte order of the machine and its own numbers there: the IP version tells.
        LINK_NULL | LINK_LOOP => return version(link, frame.get(4..).ok_or(Other::Malformed)?),
        LINK_RAW | LINK_RAW_BSD | LINK_RAW_OPENBSD | LINK_IPV4 | LINK_IPV6 => return version(link, frame),
        _ => return Err(Other::Link),
    };
    let (mut ether_type, mut rest) = ether_type.zip(rest).ok_or(Other::Malformed)?;
    if !matches!(ether_type, ETHER_IPV4 | ETHER_IPV6) {
        for _ in 0..MAX_VLANS {
            if !ETHER_VLAN.contains(&ether_type) {
                break;
            }
            link.vlan = u16_at(rest, 0).ok_or(Other::Malformed)? & 0x0fff;
            ether_type = u16_at(rest, 2).ok_or(Other::Malformed)?;
            rest = rest.get(4..).ok_or(Other::Malformed)?;
        }
        if ETHER_MPLS.contains(&ether_type) {
            return labels(link, rest);
        }
    }
    link.ether_type = ether_type;
    match ether_type {
        ETHER_IPV4 | ETHER_IPV6 => Ok((link, rest)),
        _ => Err(Other::Protocol),
    }
}

/// Behind the last label (RFC 3032, section 2.1) nothing but its first bits tells what follows.
fn labels(link: Link, mut rest: &[u8]) -> Result<(Link, &[u8]), Other> {
    for _ in 0..MAX_LABELS {
        let label = u32_at(rest, 0).ok_or(Other::Malformed)?;
        rest = rest.get(4..).ok_or(Other::Malformed)?;
        if label & 0x100 != 0 {
            return version(link, rest);
        }
    }
    Err(Other::Protocol)
}

fn version(link: Link, packet: &[u8]) -> Result<(Link, &[u8]), Other> {
    let ether_type = match packet.first().ok_or(Other::Malformed)? >> 4 {
        4 => ETHER_IPV4,
        6 => ETHER_IPV6,
        _ => return Err(Other::Protocol),
    };
    Ok((Link { ether_type, ..link }, packet))
}

impl Layer<'_> {
    fn fragmented(&self, tunnel: u32) -> Option<Fragmented> {
        let Packet { protocol, source, destination, .. } = self.packet;
        self.fragment.map(|fragment| Fragmented {
            fragment,
            tunnel,
            protocol,
            source: source.ip,
            destination: destination.ip,
            length: self.packet.l3_length,
        })
    }
}

//! From link layer to TCP or UDP payload, or to an ICMP echo.

use std::net::{IpAddr, Ipv4Addr};

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

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad and the older QinQ.
const ETHER_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const MAX_VLANS: usize = 4;
const MAX_EXTENSIONS: usize = 8;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_6: u8 = 58;

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

/// What a sender wrote about itself into TCP option 253 (docs/reference of TCP option tracing).
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
    /// A fragment after the first: no ports, no payload.
    pub later_fragment: bool,
    /// Bytes of the IP packet on the wire behind its header, that is l3_byte of the flow.
    pub l3_length: u32,
    pub tcp: Tcp,
    /// Payload bytes of the transport on the wire.
    pub length: u32,
    /// What was captured of them.
    pub payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Decodes one frame.
pub fn decode(link_type: u16, frame: &[u8]) -> Result<Packet<'_>, Other> {
    let mut link = Link::default();
    if let (LINK_ETHERNET, Some(head)) = (link_type, frame.first_chunk::<12>()) {
        link.destination.copy_from_slice(&head[..6]);
        link.source.copy_from_slice(&head[6..]);
    }
    let (ether_type, rest) = match link_type {
        LINK_ETHERNET => (u16_at(frame, 12), frame.get(14..)),
        LINK_COOKED => (u16_at(frame, 14), frame.get(16..)),
        LINK_COOKED_2 => (u16_at(frame, 0), frame.get(20..)),
        // The address family has the byte order of the machine and its own numbers there: the IP version tells.
        LINK_NULL | LINK_LOOP => return version(link, frame.get(4..).ok_or(Other::Malformed)?),
        LINK_RAW | LINK_RAW_BSD | LINK_RAW_OPENBSD | LINK_IPV4 | LINK_IPV6 => {
            return version(link, frame);
        }
        _ => return Err(Other::Link),
    };
    let (mut ether_type, mut rest) = ether_type.zip(rest).ok_or(Other::Malformed)?;
    for _ in 0..MAX_VLANS {
        if !ETHER_VLAN.contains(&ether_type) {
            break;
        }
        link.vlan = u16_at(rest, 0).ok_or(Other::Malformed)? & 0x0fff;
        ether_type = u16_at(rest, 2).ok_or(Other::Malformed)?;
        rest = rest.get(4..).ok_or(Other::Malformed)?;
    }
    link.ether_type = ether_type;
    match ether_type {
        ETHER_IPV4 => ipv4(link, rest),
        ETHER_IPV6 => ipv6(link, rest),
        _ => return Err(Other::Protocol),
    }
    .ok_or(Other::Malformed)
}

fn version(link: Link, packet: &[u8]) -> Result<Packet<'_>, Other> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(Link { ether_type: ETHER_IPV4, ..link }, packet).ok_or(Other::Malformed),
        Some(6) => ipv6(Link { ether_type: ETHER_IPV6, ..link }, packet).ok_or(Other::Malformed),
        Some(_) => Err(Other::Protocol),
        None => Err(Other::Malformed),
    }
}

/// None where a field lies beyond the capture or headers contradict themselves.
type Decoded<'a> = Option<Packet<'a>>;

/// What the network layer says of a packet.
struct Network {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ip_id: u16,
    ttl: u8,
    later_fragment: bool,
    /// Bytes behind the header.
    length: u32,
}

fn ipv4(link: Link, packet: &[u8]) -> Decoded<'_> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    // Segmentation offload leaves the length empty: the frame tells then.
    let total = if total == 0 { packet.len() } else { total };
    if first >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let body = packet.get(..total.min(packet.len()))?.get(header..)?;
    let network = Network {
        source: source.into(),
        destination: destination.into(),
        protocol: packet[9],
        ip_id: u16_at(packet, 4)?,
        ttl: packet[8],
        later_fragment: u16_at(packet, 6)? & 0x1fff != 0,
        length: (total - header) as u32,
    };
    transport(link, network, body)
}

fn ipv6(link: Link, packet: &[u8]) -> Decoded<'_> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let declared = usize::from(u16_at(packet, 4)?);
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let mut body = packet.get(40..)?;
    let mut length = if declared == 0 { body.len() } else { declared };
    body = &body[..length.min(body.len())];
    let mut next = *packet.get(6)?;
    let mut later_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200, RFC 4302).
        let size = match next {
            0 | 43 | 60 => (usize::from(*body.get(1)?) + 1) * 8,
            44 => {
                later_fragment = u16_at(body, 2)? & 0xfff8 != 0;
                8
            }
            51 => (usize::from(*body.get(1)?) + 2) * 4,
            _ => break,
        };
        next = *body.first()?;
        body = body.get(size..)?;
        length = length.checked_sub(size)?;
        if later_fragment {
            break;
        }
    }
    let network = Network {
        source: source.into(),
        destination: destination.into(),
        protocol: next,
        ip_id: 0,
        ttl: packet[7],
        later_fragment,
        length: length as u32,
    };
    transport(link, network, body)
}

fn transport(link: Link, network: Network, body: &[u8]) -> Decoded<'_> {
    let Network { source, destination, protocol, ip_id, ttl, later_fragment, length } = network;
    let mut packet = Packet {
        link,
        tunnel: None,
        protocol,
        source: Endpoint { ip: source, port: 0 },
        destination: Endpoint { ip: destination, port: 0 },
        ip_id,
        ttl,
        later_fragment,
        l3_length: length,
        tcp: Tcp::default(),
        length,
        payload: &[],
    };
    if later_fragment {
        return Some(packet);
    }
    if protocol != TCP && protocol != UDP {
        // Echo request and reply (RFC 792, RFC 4443); other messages are about packets of others.
        if let (ICMP, [8 | 0, 0, ..]) | (ICMP_6, [128 | 129, 0, ..]) = (protocol, body) {
            packet.payload = body;
        }
        return Some(packet);
    }
    packet.source.port = u16_at(body, 0)?;
    packet.destination.port = u16_at(body, 2)?;
    let (header, length) = if protocol == TCP {
        let header = usize::from(*body.get(12)? >> 4) * 4;
        if header < 20 {
            return None;
        }
        packet.tcp = Tcp {
            seq: u32_at(body, 4)?,
            ack: u32_at(body, 8)?,
            flags: *body.get(13)?,
            window: u16_at(body, 14)?,
            options: TcpOptions::default(),
        };
        (header, length)
    } else {
        // The datagram's own length also covers later fragments.
        let declared = u32::from(u16_at(body, 4)?);
        (8, if declared == 0 { length } else { declared })
    };
    packet.length = length.checked_sub(header as u32)?;
    let payload = body.get(header..).unwrap_or_default();
    packet.payload = &payload[..payload.len().min(packet.length as usize)];
    Some(packet)
}

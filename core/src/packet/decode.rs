//! From link layer to TCP or UDP payload, or to an ICMP echo.

use std::net::IpAddr;

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
pub const ACK: u8 = 16;

/// Why a packet gives no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The link type is not known.
    Link,
    /// Not IP, or neither TCP nor UDP nor an ICMP echo.
    Protocol,
    /// A later fragment: only the first has the ports.
    Fragment,
    /// The headers are cut or contradict themselves.
    Malformed,
}

/// A TCP or UDP packet, or an ICMP echo, whose ports are 0 and whose payload is the whole ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport<'a> {
    pub protocol: u8,
    pub source: Endpoint,
    pub destination: Endpoint,
    /// 0 for UDP.
    pub tcp_seq: u32,
    pub flags: u8,
    /// Bytes on the wire.
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
pub fn decode(link_type: u16, frame: &[u8]) -> Result<Transport<'_>, Other> {
    let (ether_type, rest) = match link_type {
        LINK_ETHERNET => (u16_at(frame, 12), frame.get(14..)),
        LINK_COOKED => (u16_at(frame, 14), frame.get(16..)),
        LINK_COOKED_2 => (u16_at(frame, 0), frame.get(20..)),
        // The address family has the byte order of the machine and its own numbers there: the IP version tells.
        LINK_NULL | LINK_LOOP => return version(frame.get(4..).ok_or(Other::Malformed)?),
        LINK_RAW | LINK_RAW_BSD | LINK_RAW_OPENBSD | LINK_IPV4 | LINK_IPV6 => {
            return version(frame);
        }
        _ => return Err(Other::Link),
    };
    let (mut ether_type, mut rest) = ether_type.zip(rest).ok_or(Other::Malformed)?;
    for _ in 0..MAX_VLANS {
        if !ETHER_VLAN.contains(&ether_type) {
            break;
        }
        ether_type = u16_at(rest, 2).ok_or(Other::Malformed)?;
        rest = rest.get(4..).ok_or(Other::Malformed)?;
    }
    match ether_type {
        ETHER_IPV4 => ipv4(rest).ok_or(Other::Malformed)?,
        ETHER_IPV6 => ipv6(rest).ok_or(Other::Malformed)?,
        _ => Err(Other::Protocol),
    }
}

fn version(packet: &[u8]) -> Result<Transport<'_>, Other> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet).ok_or(Other::Malformed)?,
        Some(6) => ipv6(packet).ok_or(Other::Malformed)?,
        Some(_) => Err(Other::Protocol),
        None => Err(Other::Malformed),
    }
}

/// The outer option: a field lies beyond the capture.
type Decoded<'a> = Option<Result<Transport<'a>, Other>>;

fn ipv4(packet: &[u8]) -> Decoded<'_> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    // Segmentation offload leaves the length empty: the frame tells then.
    let total = if total == 0 { packet.len() } else { total };
    if first >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    if u16_at(packet, 6)? & 0x1fff != 0 {
        return Some(Err(Other::Fragment));
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let body = &packet.get(..total.min(packet.len()))?.get(header..)?;
    let length = (total - header) as u32;
    transport(packet[9], source.into(), destination.into(), length, body)
}

fn ipv6(packet: &[u8]) -> Decoded<'_> {
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
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200, RFC 4302).
        let size = match next {
            0 | 43 | 60 => (usize::from(*body.get(1)?) + 1) * 8,
            44 => {
                if u16_at(body, 2)? & 0xfff8 != 0 {
                    return Some(Err(Other::Fragment));
                }
                8
            }
            51 => (usize::from(*body.get(1)?) + 2) * 4,
            _ => break,
        };
        next = *body.first()?;
        body = body.get(size..)?;
        length = length.checked_sub(size)?;
    }
    transport(next, source.into(), destination.into(), length as u32, body)
}

fn transport(protocol: u8, source: IpAddr, destination: IpAddr, length: u32, body: &[u8]) -> Decoded<'_> {
    if protocol != TCP && protocol != UDP {
        // Echo request and reply (RFC 792, RFC 4443); other messages are about packets of others.
        return Some(match (protocol, body) {
            (ICMP, [8 | 0, 0, ..]) | (ICMP_6, [128 | 129, 0, ..]) => {
                let (source, destination) = (Endpoint { ip: source, port: 0 }, Endpoint { ip: destination, port: 0 });
                Ok(Transport { protocol, source, destination, tcp_seq: 0, flags: 0, length, payload: body })
            }
            _ => Err(Other::Protocol),
        });
    }
    let source = Endpoint { ip: source, port: u16_at(body, 0)? };
    let destination = Endpoint { ip: destination, port: u16_at(body, 2)? };
    let (header, length, tcp_seq, flags) = if protocol == TCP {
        let header = usize::from(*body.get(12)? >> 4) * 4;
        if header < 20 {
            return None;
        }
        (header, length, u32_at(body, 4)?, *body.get(13)?)
    } else {
        // The datagram's own length also covers later fragments.
        let declared = u32::from(u16_at(body, 4)?);
        (8, if declared == 0 { length } else { declared }, 0, 0)
    };
    let length = length.checked_sub(header as u32)?;
    let payload = body.get(header..).unwrap_or_default();
    let payload = &payload[..payload.len().min(length as usize)];
    Some(Ok(Transport { protocol, source, destination, tcp_seq, flags, length, payload }))
}

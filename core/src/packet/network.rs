//! IPv4 and IPv6 with TCP, UDP or an ICMP echo behind them.

use super::decode::{ETHER_IPV4, ICMP, ICMP_6, Link, Other, Packet, TCP, Tcp, TcpOptions, UDP, u16_at, u32_at};
use super::fragment::Fragment;
use super::tcp_options;
use crate::event::Endpoint;

const MAX_EXTENSIONS: usize = 8;

/// One IP packet.
pub(super) struct Layer<'a> {
    /// Without a tunnel.
    pub packet: Packet<'a>,
    /// What the transport carries, of every protocol; empty of a fragment after the first.
    pub body: &'a [u8],
    /// Bytes on the wire, the IP header among them.
    pub total: u32,
    pub fragment: Option<Fragment>,
}

/// None where a field lies beyond the capture or headers contradict themselves.
type Decoded<'a> = Option<Layer<'a>>;

/// Decodes the packet of the kind that `link` names.
pub(super) fn network(link: Link, packet: &[u8]) -> Result<Layer<'_>, Other> {
    let layer = if link.ether_type == ETHER_IPV4 { ipv4(link, packet) } else { ipv6(link, packet) };
    layer.ok_or(Other::Malformed)
}

/// What the network layer says of a packet.
struct Header {
    source: std::net::IpAddr,
    destination: std::net::IpAddr,
    protocol: u8,
    ip_id: u16,
    ttl: u8,
    fragment: Option<Fragment>,
    /// Bytes before and behind the end of the header.
    before: u32,
    length: u32,
    /// The length stands in the header; otherwise it is that of the frame.
    declared: bool,
}

fn ipv4(link: Link, packet: &[u8]) -> Decoded<'_> {
    let head: &[u8; 20] = packet.first_chunk()?;
    let header = usize::from(head[0] & 0xf) * 4;
    let declared = usize::from(u16_at(head, 2)?);
    // Segmentation offload leaves the length empty: the frame tells then.
    let total = if declared == 0 { packet.len() } else { declared };
    if head[0] >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    let source: [u8; 4] = *head[12..].first_chunk()?;
    let destination: [u8; 4] = *head[16..].first_chunk()?;
    let body = packet.get(..total.min(packet.len()))?.get(header..)?;
    let id = u16_at(head, 4)?;
    let bits = u16_at(head, 6)?;
    let network = Header {
        source: source.into(),
        destination: destination.into(),
        protocol: head[9],
        ip_id: id,
        ttl: head[8],
        fragment: Fragment::new(u32::from(id), u32::from(bits & 0x1fff) * 8, bits & 0x2000 != 0),
        before: header as u32,
        length: (total - header) as u32,
        declared: declared != 0,
    };
    transport(link, network, body)
}

fn ipv6(link: Link, packet: &[u8]) -> Decoded<'_> {
    let head: &[u8; 40] = packet.first_chunk()?;
    if head[0] >> 4 != 6 {
        return None;
    }
    let declared = usize::from(u16_at(head, 4)?);
    let source: [u8; 16] = *head[8..].first_chunk()?;
    let destination: [u8; 16] = *head[24..].first_chunk()?;
    let mut body = packet.get(40..)?;
    let total = if declared == 0 { body.len() } else { declared };
    let mut length = total;
    body = body.get(..length.min(body.len()))?;
    let mut next = head[6];
    let mut fragment = None;
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200, RFC 4302).
        let size = match next {
            0 | 43 | 60 => (usize::from(*body.get(1)?) + 1) * 8,
            44 => {
                let bits = u16_at(body, 2)?;
                fragment = Fragment::new(u32_at(body, 4)?, u32::from(bits & 0xfff8), bits & 1 != 0);
                8
            }
            51 => (usize::from(*body.get(1)?) + 2) * 4,
            _ => break,
        };
        next = *body.first()?;
        body = body.get(size..)?;
        length = length.checked_sub(size)?;
        if fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
    }
    let network = Header {
        source: source.into(),
        destination: destination.into(),
        protocol: next,
        ip_id: 0,
        ttl: head[7],
        fragment,
        before: (40 + total - length) as u32,
        length: length as u32,
        declared: declared != 0,
    };
    transport(link, network, body)
}

fn transport(link: Link, network: Header, body: &[u8]) -> Decoded<'_> {
    let Header { source, destination, protocol, ip_id, ttl, fragment, before, length, declared } = network;
    let later_fragment = fragment.is_some_and(|fragment| fragment.offset > 0);
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
    let total = before + length;
    if later_fragment {
        return Some(Layer { packet, body: &[], total, fragment });
    }
    if protocol != TCP && protocol != UDP {
        // Echo request and reply (RFC 792, RFC 4443); other messages are about packets of others.
        if let (ICMP, [8 | 0, 0, ..]) | (ICMP_6, [128 | 129, 0, ..]) = (protocol, body) {
            packet.payload = body;
        }
        return Some(Layer { packet, body, total, fragment });
    }
    let ports: &[u8; 4] = body.first_chunk()?;
    packet.source.port = u16_at(ports, 0)?;
    packet.destination.port = u16_at(ports, 2)?;
    let (header, length) = if protocol == TCP {
        let head: &[u8; 20] = body.first_chunk()?;
        let header = usize::from(head[12] >> 4) * 4;
        if header < 20 {
            return None;
        }
        let options = match body.get(20..header) {
            Some(options) if !options.is_empty() => tcp_options::parse(options),
            _ => TcpOptions::default(),
        };
        packet.tcp =
            Tcp { seq: u32_at(head, 4)?, ack: u32_at(head, 8)?, flags: head[13], window: u16_at(head, 14)?, options };
        (header, length)
    } else {
        let own = u32::from(u16_at(body, 4)?);
        // The datagram's own length also covers later fragments; otherwise it does not go beyond the packet.
        let whole = fragment.is_none() && declared;
        (8, if own == 0 || (whole && own > length) { length } else { own })
    };
    packet.length = length.checked_sub(header as u32)?;
    let payload = body.get(header..).unwrap_or_default();
    packet.payload = payload.get(..packet.length as usize).unwrap_or(payload);
    Some(Layer { packet, body: packet.payload, total, fragment })
}

//! Tunnel headers: VXLAN (RFC 7348, with group policy), VXLAN-GPE and NSH (draft-ietf-nvo3-vxlan-gpe, RFC 8300),
//! Geneve (RFC 8926), IP in IP (RFC 2003, 2473, 4213), GRE with IP, Ethernet or PPP inside (RFC 2784, 2890, 7637,
//! 2637), ERSPAN types I to III (draft-foschiano-erspan).
//!
//! A port or a flag alone proves nothing: a tunnel is taken off when its header keeps the rules of its format and a
//! sound packet is inside.

use super::decode::{ETHER_IPV4, ETHER_IPV6, Packet, TunnelKind, UDP, u16_at, u32_at};
use super::network::Layer;

/// VXLAN by IANA, of Linux before that, and of some virtual switches.
const VXLAN_PORTS: [u16; 3] = [4789, 8472, 58678];
const VXLAN_GPE_PORT: u16 = 4790;
const GENEVE_PORT: u16 = 6081;
/// IP protocols.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const GRE: u8 = 47;
/// EtherTypes that only tunnels use.
const ETHERNET: u16 = 0x6558;
const PPP: u16 = 0x880b;
const ERSPAN_1_OR_2: u16 = 0x88be;
const ERSPAN_3: u16 = 0x22eb;

/// Kinds of tunnels that are taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decapsulation(u8);

impl Decapsulation {
    pub const ALL: Self = Self(0xfe);
    pub const NONE: Self = Self(0);

    /// By the numbers of `TunnelKind`; others are passed over.
    pub fn of(kinds: &[u8]) -> Self {
        let bits = kinds.iter().filter(|&&kind| (1..=TunnelKind::Teb as u8).contains(&kind));
        Self(bits.fold(0, |bits, kind| bits | 1 << kind))
    }

    pub fn takes(self, kind: TunnelKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl Default for Decapsulation {
    fn default() -> Self {
        Self::ALL
    }
}

/// What a tunnel's header says is behind it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside<'a> {
    Ethernet(&'a [u8]),
    /// EtherType, and the packet.
    Ip(u16, &'a [u8]),
}

/// A tunnel's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub kind: TunnelKind,
    pub id: u32,
    pub inside: Inside<'a>,
    /// The header uses bits that its format leaves empty: only an IP packet inside makes it a tunnel.
    pub vague: bool,
}

impl Found<'_> {
    /// The inner packet does not claim more bytes than the outer one has.
    pub fn holds(&self, outer: &Layer<'_>, inner: &Layer<'_>) -> bool {
        // A fragment has only a part of it, and a mirror may cut what it sends.
        outer.fragment.is_some() || self.kind == TunnelKind::Erspan || inner.total <= outer.total
    }
}

/// The tunnel's header in `body`, which is the payload of `packet`, if there is one.
pub(super) fn find<'a>(packet: &Packet<'_>, body: &'a [u8]) -> Option<Found<'a>> {
    match packet.protocol {
        UDP => match packet.destination.port {
            VXLAN_GPE_PORT => vxlan(body),
            port if VXLAN_PORTS.contains(&port) => vxlan(body),
            GENEVE_PORT => geneve(body),
            _ => None,
        },
        IPV4_INSIDE => ip(TunnelKind::Ipip, 0, ETHER_IPV4, body),
        IPV6_INSIDE => ip(TunnelKind::Ipip, 0, ETHER_IPV6, body),
        GRE => gre(body),
        _ => None,
    }
}

fn ip(kind: TunnelKind, id: u32, ether_type: u16, inside: &[u8]) -> Option<Found<'_>> {
    let version = if ether_type == ETHER_IPV4 { 4 } else { 6 };
    let sound = inside.first()? >> 4 == version;
    sound.then_some(Found { kind, id, inside: Inside::Ip(ether_type, inside), vague: false })
}

fn ethernet(kind: TunnelKind, id: u32, inside: &[u8]) -> Option<Found<'_>> {
    Some(Found { kind, id, inside: Inside::Ethernet(inside), vague: false })
}

fn of_ether_type(kind: TunnelKind, id: u32, ether_type: u16, inside: &[u8]) -> Option<Found<'_>> {
    match ether_type {
        ETHER_IPV4 | ETHER_IPV6 => ip(kind, id, ether_type, inside),
        ETHERNET => ethernet(kind, id, inside),
        _ => None,
    }
}

/// By the numbers that VXLAN-GPE and NSH share.
fn of_next_protocol(kind: TunnelKind, id: u32, next: u8, inside: &[u8]) -> Option<Found<'_>> {
    match next {
        1 => ip(kind, id, ETHER_IPV4, inside),
        2 => ip(kind, id, ETHER_IPV6, inside),
        3 => ethernet(kind, id, inside),
        _ => None,
    }
}

fn vxlan(body: &[u8]) -> Option<Found<'_>> {
    const NUMBERED: u8 = 0x08;
    const GROUP_POLICY: u8 = 0x80;
    const NEXT_PROTOCOL: u8 = 0x04;
    const BROADCAST: u8 = 0x02;
    let (head, inside) = body.split_first_chunk::<8>()?;
    let id = u32_at(head, 4)? >> 8;
    let flags = head[0];
    if flags & NUMBERED == 0 || head[7] != 0 {
        return None;
    }
    if flags & NEXT_PROTOCOL != 0 {
        let sound = flags & !(NUMBERED | NEXT_PROTOCOL | BROADCAST) == 0 && head[1..3] == [0, 0];
        return match head[3] {
            _ if !sound => None,
            4 => nsh(id, inside),
            next => of_next_protocol(TunnelKind::Vxlan, id, next, inside),
        };
    }
    if flags & !(NUMBERED | GROUP_POLICY) != 0 {
        return None;
    }
    // Receivers ignore what is in the reserved bits, and some senders leave something there.
    let vague = flags & GROUP_POLICY == 0 && head[1..4] != [0; 3];
    Some(Found { kind: TunnelKind::Vxlan, id, inside: Inside::Ethernet(inside), vague })
}

/// Network service header (RFC 8300, section 2.2).
fn nsh(id: u32, body: &[u8]) -> Option<Found<'_>> {
    const OAM: u8 = 0x20;
    let head: &[u8; 8] = body.first_chunk()?;
    let words = usize::from(head[1] & 0x3f);
    let fits = match head[2] & 0xf {
        1 => words == 6,
        2 => words >= 2,
        _ => false,
    };
    if head[0] >> 6 != 0 || head[0] & OAM != 0 || !fits {
        return None;
    }
    of_next_protocol(TunnelKind::VxlanNsh, id, head[3], body.get(words * 4..)?)
}

fn geneve(body: &[u8]) -> Option<Found<'_>> {
    const CRITICAL: u8 = 0x40;
    let head: &[u8; 8] = body.first_chunk()?;
    // Version 0, not a control packet, reserved bits empty.
    if head[0] & 0xc0 != 0 || head[1] & !CRITICAL != 0 || head[7] != 0 {
        return None;
    }
    let options = usize::from(head[0] & 0x3f) * 4;
    of_ether_type(TunnelKind::Geneve, u32_at(head, 4)? >> 8, u16_at(head, 2)?, body.get(8 + options..)?)
}

fn gre(body: &[u8]) -> Option<Found<'_>> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGED: u16 = 0x0080;
    let (flags, protocol) = (u16_at(body, 0)?, u16_at(body, 2)?);
    let version = flags & 7;
    if flags & ROUTING != 0 || version > 1 {
        return None;
    }
    let mut at = if flags & CHECKSUM != 0 { 8 } else { 4 };
    let mut key = 0;
    if flags & KEY != 0 {
        key = u32_at(body, at)?;
        at += 4;
    }
    let sequenced = flags & SEQUENCE != 0;
    at += if sequenced { 4 } else { 0 };
    at += if version == 1 && flags & ACKNOWLEDGED != 0 { 4 } else { 0 };
    let inside = body.get(at..)?;
    match protocol {
        ETHER_IPV4 | ETHER_IPV6 => ip(TunnelKind::TencentGre, key, protocol, inside),
        ETHERNET => ethernet(TunnelKind::Teb, key, inside),
        // The key is the length of the payload and the number of the call.
        PPP if version == 1 => ppp(key & 0xffff, inside),
        // Type I has no header of its own, and no sequence number.
        ERSPAN_1_OR_2 if !sequenced => ethernet(TunnelKind::Erspan, 0, inside),
        ERSPAN_1_OR_2 => erspan(1, inside),
        ERSPAN_3 => erspan(2, inside),
        _ => None,
    }
}

/// RFC 1661, with or without the compressions of section 6.
fn ppp(call: u32, frame: &[u8]) -> Option<Found<'_>> {
    let frame = frame.strip_prefix(&[0xff, 3]).unwrap_or(frame);
    let frame = frame.strip_prefix(&[0]).unwrap_or(frame);
    match frame.split_first()? {
        (0x21, inside) => ip(TunnelKind::TencentGre, call, ETHER_IPV4, inside),
        (0x57, inside) => ip(TunnelKind::TencentGre, call, ETHER_IPV6, inside),
        _ => None,
    }
}

/// Types II (version 1) and III (version 2).
fn erspan(version: u8, body: &[u8]) -> Option<Found<'_>> {
    let session = u32::from(u16_at(body, 2)? & 0x3ff);
    if body.first()? >> 4 != version {
        return None;
    }
    if version == 1 {
        return ethernet(TunnelKind::Erspan, session, body.get(8..)?);
    }
    let bits = u16_at(body, 10)?;
    let inside = body.get(if bits & 1 == 0 { 12 } else { 20 }..)?;
    match bits >> 10 & 0x1f {
        0 => ethernet(TunnelKind::Erspan, session, inside),
        2 if inside.first()? >> 4 == 6 => ip(TunnelKind::Erspan, session, ETHER_IPV6, inside),
        2 => ip(TunnelKind::Erspan, session, ETHER_IPV4, inside),
        _ => None,
    }
}

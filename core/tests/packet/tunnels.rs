//! Every kind of tunnel by hand; what only looks like one; tunnels in tunnels.

use std::net::IpAddr;

use _core::packet::decode::{MAX_TIER, Other, Packet, TCP, Trail, Tunnel, TunnelKind, UDP, decode, walk};
use _core::packet::decoder::Decoder;
use _core::packet::tunnel::Decapsulation;

use crate::frames::*;

fn all(frame: &[u8]) -> Packet<'_> {
    decode(ETHERNET, frame, Decapsulation::ALL).expect("a packet")
}

/// The request is inside, and around it a tunnel of the nodes.
fn holds_request(packet: &[u8], kind: TunnelKind, id: u32) {
    let frame = framed(packet);
    let found = all(&frame);
    let tunnel = found.tunnel.unwrap_or_else(|| panic!("{kind:?} is not taken off"));
    assert_eq!((tunnel.kind, tunnel.id, tunnel.tier), (kind, id, 1));
    assert_eq!((tunnel.source, tunnel.destination), (IpAddr::from(NODE), NODE_TARGET));
    assert_eq!((tunnel.source_mac[5], tunnel.destination_mac[5]), (0x51, 0xd1));
    assert_eq!((found.source.port, found.destination.port, found.protocol), (40_000, 80, TCP));
    assert_eq!(found.payload, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!((found.length, found.tcp.seq), (18, 1000));
    // Of other kinds nothing is taken off.
    let others: Vec<u8> = (1..=7).filter(|other| *other != kind as u8).collect();
    let left = decode(ETHERNET, &frame, Decapsulation::of(&others)).expect("a packet");
    assert_eq!((left.tunnel, left.source.ip), (None, NODE.into()));
    let taken = decode(ETHERNET, &frame, Decapsulation::of(&[kind as u8])).expect("a packet");
    assert_eq!(taken, found);
    // However much was captured, nothing is read beyond it, and what is found agrees with the whole.
    for cut in 0..frame.len() {
        if let Ok(part) = decode(ETHERNET, &frame[..cut], Decapsulation::ALL) {
            if part.tunnel.is_some() {
                assert_eq!(Packet { payload: found.payload, ..part }, found);
                assert!(found.payload.starts_with(part.payload));
            } else {
                assert_eq!(part.source.ip, IpAddr::from(NODE));
            }
        }
    }
}

const NODE_TARGET: IpAddr = IpAddr::V4(OTHER_NODE);

#[test]
fn each_kind() {
    let (packet, packet_v6) = (request(), request_v6());
    let frame = framed(&packet);
    let tagged = ethernet(0x8100, &[&[0x20, 17, 8, 0], &packet[..]].concat());
    for port in [4789, 8472, 58678, 4790] {
        holds_request(&vxlan(port, [8, 0, 0, 0], 0xabcdef, &frame), TunnelKind::Vxlan, 0xabcdef);
    }
    holds_request(&vxlan(4789, [8, 0, 0, 0], 5, &tagged), TunnelKind::Vxlan, 5);
    // Group policy: the bits of the group are not reserved ones.
    holds_request(&vxlan(4789, [0x88, 0x08, 1, 2], 6, &frame), TunnelKind::Vxlan, 6);
    // A sender that leaves something in the reserved bits.
    holds_request(&vxlan(4789, [8, 0, 0x8c, 0x0d], 123, &frame), TunnelKind::Vxlan, 123);
    for (next, inside) in [(1, &packet), (2, &packet_v6), (3, &frame)] {
        holds_request(&vxlan(4790, [0x0c, 0, 0, next], 7, inside), TunnelKind::Vxlan, 7);
        holds_request(&nsh(8, next, inside), TunnelKind::VxlanNsh, 8);
    }
    for (protocol, inside) in [(0x6558, &frame), (0x0800, &packet), (0x86dd, &packet_v6)] {
        holds_request(&geneve(protocol, 99, &[], inside), TunnelKind::Geneve, 99);
        holds_request(&geneve(protocol, 99, &[1, 2, 0x80, 1, 0, 0, 0, 9], inside), TunnelKind::Geneve, 99);
    }
    holds_request(&outer(4, &packet), TunnelKind::Ipip, 0);
    holds_request(&outer(41, &packet_v6), TunnelKind::Ipip, 0);
    holds_request(&gre(0, 0x0800, &[], &packet), TunnelKind::TencentGre, 0);
    holds_request(&gre(0, 0x86dd, &[], &packet_v6), TunnelKind::TencentGre, 0);
    holds_request(&gre(0x2000, 0x0800, &[0, 1, 2, 3], &packet), TunnelKind::TencentGre, 0x1_0203);
    let fields = [0xde, 0xad, 0, 0, 0, 0, 0, 77, 0, 0, 0, 1];
    holds_request(&gre(0xb000, 0x0800, &fields, &packet), TunnelKind::TencentGre, 77);
    holds_request(&gre(0x2000, 0x6558, &[0, 0, 1, 0], &frame), TunnelKind::Teb, 256);
    let call = [&[0, 62, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 3, 0, 0x21], &packet[..]].concat();
    holds_request(&gre(0x3081, 0x880b, &[], &call), TunnelKind::TencentGre, 9);
    holds_request(&gre(0, 0x88be, &[], &frame), TunnelKind::Erspan, 0);
    let second = [&[0, 0, 0, 1, 0x10, 0x17, 0x08, 0x64, 0, 0, 0, 1], &frame[..]].concat();
    holds_request(&gre(0x1000, 0x88be, &[], &second), TunnelKind::Erspan, 100);
    let third = |bits: u16, platform: &[u8], inside: &[u8]| {
        let head = [&[0, 0, 0, 1, 0x20, 0, 0, 200, 0, 0, 0, 5, 0, 0], &bits.to_be_bytes()[..]].concat();
        gre(0x1000, 0x22eb, &[], &[&head[..], platform, inside].concat())
    };
    holds_request(&third(0, &[], &frame), TunnelKind::Erspan, 200);
    holds_request(&third(1, &[7; 8], &frame), TunnelKind::Erspan, 200);
    holds_request(&third(2 << 10, &[], &packet), TunnelKind::Erspan, 200);
}

#[test]
fn outer_ipv6_and_inner_link() {
    let inner = framed(&request());
    let carrier = ip(v6(NODE), v6(OTHER_NODE), 17, &udp(1, 4789, &[&[8, 0, 0, 0, 0, 0, 9, 0], &inner[..]].concat()));
    let frame = ethernet(0x88a8, &[&[0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], &carrier[..]].concat());
    let found = all(&frame);
    let tunnel = found.tunnel.expect("a tunnel");
    assert_eq!((tunnel.source, tunnel.destination), (v6(NODE).into(), v6(OTHER_NODE).into()));
    assert_eq!((found.link.ether_type, found.link.vlan, found.ttl), (0x0800, 0, 62));
    // IPv4 in IPv6: the frame is that of the carrier.
    let frame = ethernet(0x8100, &[&[0, 7, 0x86, 0xdd], &ip(v6(NODE), v6(OTHER_NODE), 4, &request())[..]].concat());
    let found = all(&frame);
    assert_eq!(found.tunnel.map(|tunnel| tunnel.kind), Some(TunnelKind::Ipip));
    assert_eq!((found.link.ether_type, found.link.vlan, found.link.source[5]), (0x0800, 7, 0x51));
}

#[test]
fn labels_are_passed_over() {
    for packet in [request(), request_v6()] {
        let frame = ethernet(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64], &packet[..]].concat());
        let found = all(&frame);
        assert_eq!((found.tunnel, found.payload.len()), (None, 18));
        assert_eq!(decode(ETHERNET, &frame[..17], Decapsulation::ALL), Err(Other::Malformed));
    }
    let endless = ethernet(0x8847, &[0; 400]);
    assert_eq!(decode(ETHERNET, &endless, Decapsulation::ALL), Err(Other::Protocol));
}

/// It stays the packet that it is from outside. `lying`: a tunnel's header is there.
fn stays(what: &str, packet: &[u8], lying: bool) {
    let frame = framed(packet);
    let mut trail = Trail::default();
    let found =
        walk(ETHERNET, &frame, Decapsulation::ALL, &mut trail).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((found.tunnel, found.source.ip, trail.tunnel), (None, NODE.into(), None), "{what}");
    assert_eq!((trail.lying, trail.deeper), (lying, false), "{what}");
}

#[test]
fn what_only_looks_like_a_tunnel() {
    let packet = request();
    let frame = framed(&packet);
    let query = b"\x08\x00\x01\0\0\x01\0\0\0\0\0\0\x04shop\x05local\0\0\x01\0\x01";
    stays("a DNS query from port 4789", &outer(17, &udp(4789, 53, query)), false);
    stays("a DNS query to port 4789", &outer(17, &udp(53, 4789, query)), true);
    stays("no number", &vxlan(4789, [0, 0, 0, 0], 1, &frame), false);
    stays("an unknown flag", &vxlan(4789, [0x18, 0, 0, 0], 1, &frame), false);
    stays("an OAM packet", &vxlan(4790, [0x0d, 0, 0, 3], 1, &frame), false);
    stays("no frame", &vxlan(4789, [8, 0, 0, 0], 1, &frame[..9]), true);
    stays("half an IP header", &vxlan(4789, [8, 0, 0, 0], 1, &frame[..30]), true);
    let mut wrong = frame.clone();
    wrong[14] = 0x65;
    stays("the wrong version", &vxlan(4789, [8, 0, 0, 0], 1, &wrong), true);
    wrong[14] = 0x44;
    stays("a header of 16 bytes", &vxlan(4789, [8, 0, 0, 0], 1, &wrong), true);
    let mut long = frame.clone();
    long[16] = 0x20;
    stays("more bytes inside than outside", &vxlan(4789, [8, 0, 0, 0], 1, &long), true);
    stays("reserved bits, and no IP", &vxlan(4789, [8, 0, 1, 0], 1, &ethernet(0x0806, &[0; 46])), true);
    stays(
        "a control packet",
        &outer(17, &udp(1, 6081, &[&[0, 0x80, 0x65, 0x58, 0, 0, 1, 0], &frame[..]].concat())),
        false,
    );
    stays("options beyond the end", &geneve(0x6558, 1, &[0; 8], &[])[..36], false);
    stays("version 6 in protocol 4", &outer(4, &request_v6()), false);
    stays("nothing in protocol 4", &outer(4, &[]), false);
    stays("IP in IP, cut", &outer(4, &packet[..12]), true);
    stays("source routes", &gre(0x4000, 0x0800, &[0; 4], &packet), false);
    stays("version 2", &gre(2, 0x0800, &[], &packet), false);
    stays("PPP of version 0", &gre(0, 0x880b, &[], &packet), false);
    stays("ERSPAN II of another version", &gre(0x1000, 0x88be, &[0; 12], &frame), false);
    stays("an unknown protocol", &gre(0, 0x1234, &[], &packet), false);
    let mut chain = nsh(1, 1, &packet);
    chain[20 + 8 + 8 + 1] = 0xff;
    stays("a service header beyond the end", &chain, false);
}

#[test]
fn other_protocols_inside() {
    let arp = framed(&vxlan(4789, [8, 0, 0, 0], 70, &ethernet(0x0806, &[0; 46])));
    let mut trail = Trail::default();
    let found = walk(ETHERNET, &arp, Decapsulation::ALL, &mut trail).expect("a packet");
    assert_eq!((found.tunnel, found.source.ip, found.length), (None, NODE.into(), 68));
    assert_eq!(trail.tunnel.map(|tunnel| (tunnel.kind, tunnel.id)), Some((TunnelKind::Vxlan, 70)));
    assert!(!trail.lying);
}

#[test]
fn tunnels_in_tunnels() {
    let mut packet = request();
    for tier in 1..=2 * MAX_TIER {
        packet = match tier % 3 {
            0 => vxlan(4789, [8, 0, 0, 0], u32::from(tier), &framed(&packet)),
            1 => outer(4, &packet),
            _ => gre(0x2000, 0x0800, &[0, 0, 0, tier], &packet),
        };
        let frame = framed(&packet);
        let mut trail = Trail::default();
        let found = walk(ETHERNET, &frame, Decapsulation::ALL, &mut trail).expect("a packet");
        let Tunnel { kind, tier: taken, id, source, .. } = found.tunnel.expect("a tunnel");
        assert_eq!((taken, trail.deeper), (tier.min(MAX_TIER), tier > MAX_TIER));
        // Of several the outermost is named.
        let outermost = match tier % 3 {
            0 => (TunnelKind::Vxlan, u32::from(tier)),
            1 => (TunnelKind::Ipip, 0),
            _ => (TunnelKind::TencentGre, u32::from(tier)),
        };
        assert_eq!(((kind, id), source), (outermost, NODE.into()));
        assert_eq!(found.payload == b"GET / HTTP/1.1\r\n\r\n", tier <= MAX_TIER);
    }
    // A kind that is not to be taken off hides what is in it.
    let frame = framed(&vxlan(4789, [8, 0, 0, 0], 1, &framed(&outer(4, &request()))));
    let found = decode(ETHERNET, &frame, Decapsulation::of(&[1])).expect("a packet");
    assert_eq!((found.tunnel.map(|tunnel| tunnel.tier), found.protocol), (Some(1), 4));
}

#[test]
fn what_is_counted() {
    let mut deep = request();
    for _ in 0..=MAX_TIER {
        deep = outer(4, &deep);
    }
    let mut decoder = Decoder::default();
    for (frame, times) in [
        (framed(&vxlan(4789, [8, 0, 0, 0], 1, &framed(&request()))), 2),
        (framed(&vxlan(4789, [8, 0, 0, 0], 1, &framed(&request())[..20])), 3),
        (framed(&deep), 4),
        (framed(&request())[..20].to_vec(), 5),
        (ethernet(0x0806, &[0; 46]), 6),
    ] {
        for _ in 0..times {
            let _ = decoder.decode(0, 1, ETHERNET, &frame);
        }
    }
    let counted = decoder.counters();
    let list = counted.list();
    assert_eq!(
        &list[..5],
        [
            ("packets_tunnelled", 6),
            ("packets_lying_tunnels", 3),
            ("packets_deeper_tunnels", 4),
            ("packets_malformed", 5),
            ("packets_foreign", 6),
        ]
    );
}

#[test]
fn lengths_that_lie() {
    let body = udp(1000, 2000, b"four");
    let mut packet = ip(CLIENT, SERVER, UDP, &body);
    // A datagram does not go beyond its packet.
    packet[24..26].copy_from_slice(&400_u16.to_be_bytes());
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL).map(|found| found.length), Ok(4));
    packet[24..26].copy_from_slice(&10_u16.to_be_bytes());
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL).map(|found| found.payload), Ok(&b"fo"[..]));
    packet[24..26].copy_from_slice(&7_u16.to_be_bytes());
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL), Err(Other::Malformed));
    // Offloaded segments have no length: the frame has it.
    let mut packet = request();
    packet[2..4].fill(0);
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL).map(|found| found.length), Ok(18));
    packet[2..4].copy_from_slice(&19_u16.to_be_bytes());
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL), Err(Other::Malformed));
    let mut packet = request();
    packet[32] = 0xf0;
    assert_eq!(decode(RAW, &packet, Decapsulation::ALL), Err(Other::Malformed));
    // Snap length: the bytes of the wire count, what is there is read.
    let packet = request();
    let found = decode(RAW, &packet[..45], Decapsulation::ALL).expect("a packet");
    assert_eq!((found.length, found.l3_length, found.payload), (18, 38, &b"GET /"[..]));
}

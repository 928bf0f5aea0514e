//! Fragments: whose they are, what they count, what is not believed.

use _core::packet::decode::{ACK, Other, Packet, SYN, TCP, UDP};
use _core::packet::decoder::Decoder;
use _core::packet::fragment::MAX_PACKETS;
use _core::packet::tunnel::Decapsulation;
use _core::replay::replay_with_counters;

use crate::frames::*;

const MORE: u16 = 0x2000;

/// A packet's transport part in fragments of so many bytes (a multiple of 8).
fn split(id: u16, protocol: u8, inside: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = inside.len().div_ceil(size);
    let piece = |(at, bytes): (usize, &[u8])| {
        let place = (at * size / 8) as u16 | if at + 1 < count { MORE } else { 0 };
        ipv4(CLIENT, SERVER, protocol, (id, place), bytes)
    };
    inside.chunks(size).enumerate().map(piece).collect()
}

fn feed<'a>(decoder: &mut Decoder, time_us: u64, packet: &'a [u8]) -> Packet<'a> {
    decoder.decode(0, time_us, RAW, packet).expect("a packet")
}

#[test]
fn later_fragments_of_udp() {
    let mut decoder = Decoder::new(Decapsulation::ALL);
    let parts = split(9, UDP, &udp(5000, 53, &[7; 3000]), 1480);
    let first = feed(&mut decoder, 1, &parts[0]);
    assert_eq!((first.later_fragment, first.length, first.payload.len(), first.l3_length), (false, 3000, 1472, 1480));
    assert_eq!(decoder.awaited(), 1);
    for (part, length) in parts[1..].iter().zip([1480, 48]) {
        let later = feed(&mut decoder, 2, part);
        assert_eq!((later.source.port, later.destination.port), (5000, 53));
        // The first datagram has told its whole length.
        assert_eq!((later.later_fragment, later.l3_length, later.length), (true, length, 0));
        assert!(later.payload.is_empty());
    }
    assert_eq!(decoder.awaited(), 0);
    let counted = decoder.counters().fragments;
    assert_eq!((counted.first, counted.later, counted.orphans, counted.displaced), (1, 2, 0, 0));
}

#[test]
fn later_fragments_of_tcp_take_their_place_in_the_stream() {
    for (flags, first_seq) in [(ACK | 8, 1000), (SYN, 1001)] {
        let mut decoder = Decoder::default();
        let parts = split(9, TCP, &tcp(5000, 80, flags, b"\x02\x04\x05\xb4", &[b'x'; 2976]), 1000);
        let first = feed(&mut decoder, 1, &parts[0]);
        assert_eq!((first.length, first.payload.len(), first.tcp.seq), (976, 976, 1000));
        let second = feed(&mut decoder, 2, &parts[1]);
        assert_eq!((second.length, second.payload.len(), second.tcp.seq), (1000, 0, first_seq + 976));
        assert_eq!((second.tcp.flags, second.tcp.ack), (flags & ACK, first.tcp.ack));
        let third = feed(&mut decoder, 2, &parts[2]);
        assert_eq!((third.length, third.tcp.seq, third.source.port), (1000, first_seq + 1976, 5000));
        assert_eq!(decoder.awaited(), 0);
    }
}

#[test]
fn fragments_of_ipv6() {
    let piece = |place: u16, id: u32, inside: &[u8]| {
        let head = [&[UDP, 0], &place.to_be_bytes()[..], &id.to_be_bytes()].concat();
        ip(v6(CLIENT), v6(SERVER), 44, &[&head[..], inside].concat())
    };
    let body = udp(5000, 53, &[7; 2000]);
    let mut decoder = Decoder::default();
    let (one, two) = (piece(1, 0x1_0000, &body[..1000]), piece(1000, 0x1_0000, &body[1000..]));
    assert_eq!(feed(&mut decoder, 1, &one).payload.len(), 992);
    // Another identification, the same low half.
    let other = piece(1000, 0x2_0000, &body[1000..]);
    assert_eq!(feed(&mut decoder, 1, &other).source.port, 0);
    let later = feed(&mut decoder, 1, &two);
    assert_eq!((later.source.port, later.l3_length, later.protocol), (5000, 1008, UDP));
    // An atomic fragment (RFC 6946) is a whole packet.
    let whole = piece(0, 3, &udp(1, 2, b"all"));
    assert_eq!(feed(&mut decoder, 1, &whole).payload, b"all");
    assert_eq!(decoder.awaited(), 0);
}

#[test]
fn what_is_not_believed() {
    let parts = split(9, TCP, &tcp(5000, 80, ACK, &[], &[b'x'; 2000]), 1000);
    // Before the first, or without it.
    let mut decoder = Decoder::default();
    let orphan = feed(&mut decoder, 1, &parts[1]);
    assert_eq!((orphan.source.port, orphan.length, orphan.l3_length), (0, 0, 1000));
    // Overlapping, twice, with a hole, beyond the end of any packet: bytes of the flow, no place in the stream.
    feed(&mut decoder, 2, &parts[0]);
    let displaced = [
        ipv4(CLIENT, SERVER, TCP, (9, 1 | MORE), &[0; 16]),
        ipv4(CLIENT, SERVER, TCP, (9, 200 | MORE), &[0; 16]),
        ipv4(CLIENT, SERVER, TCP, (9, 0x1fff), &[0; 1400]),
    ];
    for packet in &displaced {
        let found = feed(&mut decoder, 3, packet);
        assert_eq!((found.source.port, found.length, found.tcp.seq), (5000, 0, 0));
        assert!(found.payload.is_empty());
    }
    assert_eq!(feed(&mut decoder, 4, &parts[1]).length, 1000);
    // Complete: what comes now belongs to nothing.
    feed(&mut decoder, 5, &parts[2]);
    assert_eq!(feed(&mut decoder, 6, &parts[1]).source.port, 0);
    let counted = decoder.counters().fragments;
    assert_eq!((counted.first, counted.later, counted.orphans, counted.displaced), (1, 7, 2, 3));
    // A first fragment that is too short for its ports or header.
    let tiny = ipv4(CLIENT, SERVER, TCP, (10, MORE), &[0x13, 0x88, 0, 80, 0, 0, 0, 1]);
    assert_eq!(decoder.decode(0, 7, RAW, &tiny), Err(Other::Malformed));
    // Other ends, other protocols and other capture points know nothing of it.
    feed(&mut decoder, 8, &parts[0]);
    assert_eq!(decoder.decode(1, 8, RAW, &parts[1]).map(|found| found.source.port), Ok(0));
    let other = ipv4(CLIENT, SERVER, UDP, (9, 125), &[0; 8]);
    assert_eq!(feed(&mut decoder, 8, &other).source.port, 0);
    assert_eq!(feed(&mut decoder, 8, &parts[1]).source.port, 5000);
}

#[test]
fn the_table_is_bounded() {
    let mut decoder = Decoder::default();
    let first = |at: usize| {
        let target = std::net::Ipv4Addr::from_bits(0x0a00_0000 + at as u32);
        ipv4(CLIENT, target, UDP, (1, MORE), &udp(5000, 53, &[0; 16]))
    };
    let later = |at: usize| {
        let target = std::net::Ipv4Addr::from_bits(0x0a00_0000 + at as u32);
        ipv4(CLIENT, target, UDP, (1, 3), &[0; 16])
    };
    for at in 0..3 * MAX_PACKETS {
        feed(&mut decoder, 1, &first(at));
        assert!(decoder.awaited() <= MAX_PACKETS);
    }
    assert_eq!(decoder.counters().fragments.evicted, 2 * MAX_PACKETS as u64);
    // The oldest went first.
    assert_eq!(feed(&mut decoder, 1, &later(2 * MAX_PACKETS - 1)).source.port, 0);
    assert_eq!(feed(&mut decoder, 1, &later(2 * MAX_PACKETS)).source.port, 5000);
    // After a time nothing is awaited any more; time that runs backwards harms nothing.
    assert_eq!(feed(&mut decoder, 0, &later(2 * MAX_PACKETS + 1)).source.port, 5000);
    assert_eq!(feed(&mut decoder, 40_000_000, &later(2 * MAX_PACKETS + 2)).source.port, 0);
    feed(&mut decoder, 40_000_000, &first(0));
    assert_eq!(decoder.awaited(), 1);
    assert_eq!(decoder.counters().fragments.evicted, 2 * MAX_PACKETS as u64);
}

#[test]
fn fragments_around_tunnels() {
    let inner = ip(CLIENT, SERVER, TCP, &tcp(40_000, 80, ACK, &[], &[b'x'; 1400]));
    let whole = vxlan(4789, [8, 0, 0, 0], 5, &framed(&inner));
    let (one, two) = whole[20..].split_at(1000);
    let parts = [ipv4(NODE, OTHER_NODE, UDP, (3, MORE), one), ipv4(NODE, OTHER_NODE, UDP, (3, 125), two)];
    let mut decoder = Decoder::default();
    let found = feed(&mut decoder, 1, &parts[0]);
    assert_eq!((found.source.port, found.length, found.l3_length), (40_000, 1400, 1420));
    assert_eq!((found.later_fragment, found.payload.len()), (false, 1000 - 8 - 8 - 14 - 40));
    // The inner packet counts as a whole already.
    assert_eq!(decoder.decode(0, 2, RAW, &parts[1]), Err(Other::Continued));
    // Fragments within a tunnel are those of its own packets: two networks may use the same addresses.
    let split = split(9, UDP, &udp(5000, 53, &[7; 2000]), 1000);
    let within = |vni: u32, part: &[u8]| vxlan(4789, [8, 0, 0, 0], vni, &framed(part));
    feed(&mut decoder, 3, &within(1, &split[0]));
    assert_eq!(feed(&mut decoder, 4, &within(2, &split[1])).source.port, 0);
    assert_eq!(feed(&mut decoder, 4, &within(1, &split[1])).source.port, 5000);
    assert_eq!(decoder.counters().tunnelled, 4);
}

/// A request in fragments, then one that is whole: both are seen, and nothing is waited for.
#[test]
fn a_stream_goes_on_behind_fragments() {
    let long = format!("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n{}", "b".repeat(2000));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let short = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    let segment = |seq: usize, text: &str| {
        let mut segment = tcp(40_000, 80, ACK, &[], text.as_bytes());
        segment[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
        segment
    };
    let back = |seq: usize| {
        let mut segment = tcp(80, 40_000, ACK, &[], answer.as_bytes());
        segment[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
        ip(SERVER, CLIENT, TCP, &segment)
    };
    let mut packets = split(9, TCP, &segment(100, &long), 1000);
    packets.extend([
        back(500),
        ip(CLIENT, SERVER, TCP, &segment(100 + long.len(), short)),
        back(500 + answer.len()),
        ip(CLIENT, SERVER, TCP, &segment(100 + long.len() + short.len(), short)),
    ]);
    let path = std::env::temp_dir().join(format!("deepflow-fragments-{}.pcap", std::process::id()));
    std::fs::write(&path, capture(&packets)).expect("a file");
    let replayed = replay_with_counters(&path.to_string_lossy(), "").expect("a replay");
    std::fs::remove_file(&path).expect("removed");
    let counters: std::collections::HashMap<_, _> = replayed.counters.into_iter().collect();
    assert_eq!((counters["fragments_later"], counters["packets_malformed"]), (2, 0));
    assert_eq!((counters["sessions_paired"], counters["gaps"], counters["gap_bytes"]), (2, 0, 0));
}

/// A classic capture file of raw IP, a packet a millisecond.
fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, u32::from(RAW)] {
        file.extend(word.to_le_bytes());
    }
    for (at, packet) in packets.iter().enumerate() {
        let length = packet.len() as u32;
        for word in [1_700_000_000, at as u32 * 1000, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

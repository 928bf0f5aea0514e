//! Packets a second on one core through the decoder alone: TCP with a time stamp, UDP, the same in VXLAN and in GRE, and
//! fragments. Prints JSON.
//!
//! `cargo run --release --no-default-features --example decode_rate [millions]`

use std::hint::black_box;
use std::time::Instant;

use _core::packet::decoder::Decoder;

const ETHERNET: u16 = 1;
const OPTIONS: &[u8] = b"\x01\x01\x08\x0a\0\0\0\x07\0\0\0\x09";
/// Frames that are decoded in turn: more than the caches next to the core hold.
const FRAMES: usize = 4096;

type Frame<'a> = &'a dyn Fn(u16) -> Vec<u8>;

fn ethernet(inside: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], inside].concat()
}

fn ipv4(host: u16, protocol: u8, (id, place): (u16, u16), inside: &[u8]) -> Vec<u8> {
    let total = (20 + inside.len() as u16).to_be_bytes();
    let [high, low] = host.to_be_bytes();
    let head = [&[0x45, 0], &total[..], &id.to_be_bytes(), &place.to_be_bytes(), &[64, protocol, 0, 0]].concat();
    [&head[..], &[10, 0, high, low, 10, 1, 0, 1], inside].concat()
}

fn udp(port: u16, inside: &[u8]) -> Vec<u8> {
    let length = (8 + inside.len() as u16).to_be_bytes();
    [&[0x90, 0], &port.to_be_bytes()[..], &length[..], &[0, 0], inside].concat()
}

fn tcp(inside: &[u8]) -> Vec<u8> {
    [&[0x90, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 24, 1, 0, 0, 0, 0, 0], OPTIONS, inside].concat()
}

fn main() {
    let millions: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let body = [b'x'; 600];
    let kinds: [(&str, Frame<'_>); 5] = [
        ("tcp", &|at| ethernet(&ipv4(at, 6, (at, 0x4000), &tcp(&body)))),
        ("udp", &|at| ethernet(&ipv4(at, 17, (at, 0), &udp(53, &body[..60])))),
        ("vxlan_tcp", &|at| {
            let inner = ethernet(&ipv4(at, 6, (at, 0x4000), &tcp(&body)));
            ethernet(&ipv4(1, 17, (at, 0), &udp(4789, &[&[8, 0, 0, 0, 0, 0, 5, 0], &inner[..]].concat())))
        }),
        ("gre_tcp", &|at| {
            let inner = ipv4(at, 6, (at, 0x4000), &tcp(&body));
            ethernet(&ipv4(1, 47, (at, 0), &[&[0, 0, 8, 0], &inner[..]].concat()))
        }),
        // First and last fragment in turn.
        ("udp_fragments", &|at| {
            let datagram = udp(5000, &body);
            let (first, last) = datagram.split_at(304);
            if at % 2 == 0 {
                ethernet(&ipv4(7, 17, (at / 2, 0x2000), first))
            } else {
                ethernet(&ipv4(7, 17, (at / 2, 38), last))
            }
        }),
    ];
    let mut report = serde_json::Map::new();
    for (name, frame) in kinds {
        let frames: Vec<Vec<u8>> = (0..FRAMES).map(|at| frame(at as u16)).collect();
        let mut decoder = Decoder::default();
        let (mut packets, mut bytes) = (0_u64, 0_u64);
        let started = Instant::now();
        while packets < millions * 1_000_000 {
            for data in &frames {
                if let Ok(packet) = black_box(decoder.decode(0, packets, ETHERNET, data)) {
                    bytes += u64::from(packet.l3_length);
                }
                packets += 1;
            }
        }
        let rate = packets as f64 / started.elapsed().as_secs_f64();
        black_box(bytes);
        report.insert(format!("{name}_packets_per_second"), rate.round().into());
    }
    println!("{}", serde_json::Value::Object(report));
}

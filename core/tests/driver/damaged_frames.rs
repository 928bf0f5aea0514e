//! Damaged frames for the decoder: chosen by a number, so that a failure can be had again.
#![allow(dead_code)]

#[path = "../packet/frames.rs"]
mod frames;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::LazyLock;

use _core::packet::decode::{MAX_TIER, decode};
use _core::packet::decoder::Decoder;
use _core::packet::file::Capture;
use _core::packet::fragment::MAX_PACKETS;
use _core::packet::tunnel::Decapsulation;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

use super::driver::fixtures;
use super::mutation::{Dice, length_field};
use frames::*;

const LINK_TYPES: [u16; 8] = [0, 1, 12, 101, 108, 113, 229, 276];
/// Folders and files whose frames are damaged, besides those made by hand.
const CAPTURES: [&str; 4] = ["deepflow/common", "pcaps/tunnel", "pcaps/icmp", "pcaps/tcp"];
const FRAMES_OF_A_CAPTURE: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub point: u32,
    pub time_us: u64,
    pub link_type: u16,
    pub bytes: Vec<u8>,
}

/// By hand: every kind of tunnel, fragments, options, extension headers.
fn made() -> Vec<(u16, Vec<u8>)> {
    let (packet, packet_v6) = (request(), request_v6());
    let frame = framed(&packet);
    let options =
        b"\x02\x04\x05\xb4\x01\x01\x05\x0a\0\0\0\x01\0\0\0\x02\xfd\x10\xde\xe9\0\0\x04\xd2\x0a\x01\0\x01\0\0\x10\0";
    let extended = [&[44, 0, 0, 0, 0, 0, 0, 0, UDP_NUMBER, 0, 0, 1, 0, 0, 0, 7], &udp(1, 53, b"query")[..]].concat();
    let mut made = vec![
        vxlan(4789, [8, 0, 0, 0], 7, &frame),
        vxlan(4790, [0x0c, 0, 0, 1], 7, &packet),
        vxlan(8472, [8, 0, 0, 0], 7, &framed(&outer(4, &outer(41, &packet_v6)))),
        nsh(7, 3, &frame),
        geneve(0x6558, 7, &[1, 2, 3, 1, 0, 0, 0, 0], &frame),
        outer(4, &packet),
        outer(41, &packet_v6),
        gre(0x2000, 0x0800, &[0, 0, 0, 1], &packet),
        gre(0xb000, 0x6558, &[0; 12], &frame),
        gre(0x1000, 0x88be, &[], &[&[0, 0, 0, 1, 0x10, 0, 0, 1, 0, 0, 0, 0], &frame[..]].concat()),
        gre(0x1000, 0x22eb, &[], &[&[0, 0, 0, 1, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &frame[..]].concat()),
        gre(0x3081, 0x880b, &[], &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0x21], &packet[..]].concat()),
        ip(v6(CLIENT), v6(SERVER), 0, &extended),
        ip(CLIENT, SERVER, 6, &tcp(1, 80, 18, options, b"payload")),
        ipv4(CLIENT, SERVER, 17, (3, 0x2000), &udp(1, 53, &[7; 64])),
        ipv4(CLIENT, SERVER, 17, (3, 9), &[7; 64]),
        ipv4(CLIENT, SERVER, 6, (4, 0x2000), &tcp(1, 80, 16, &[], &[7; 44])),
        ipv4(CLIENT, SERVER, 6, (4, 8), &[7; 64]),
    ];
    let mut in_tunnels = packet;
    for _ in 0..=MAX_TIER {
        in_tunnels = outer(4, &in_tunnels);
    }
    made.push(in_tunnels);
    made.iter().flat_map(|packet| [(ETHERNET, framed(packet)), (RAW, packet.clone())]).collect()
}

const UDP_NUMBER: u8 = 17;

fn published() -> Vec<(u16, Vec<u8>)> {
    let Some(root) = fixtures() else { return Vec::new() };
    let mut paths: Vec<PathBuf> = CAPTURES
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| -> Vec<(u16, Vec<u8>)> {
        let Ok(mut capture) = Capture::open(&path.to_string_lossy()) else { return Vec::new() };
        std::iter::from_fn(|| capture.next_packet().ok().flatten())
            .take(FRAMES_OF_A_CAPTURE)
            .map(|packet| (packet.link_type, packet.data))
            .collect()
    };
    paths.iter().flat_map(read).collect()
}

static SOUND: LazyLock<Vec<(u16, Vec<u8>)>> = LazyLock::new(|| made().into_iter().chain(published()).collect());

/// The frames of a number.
pub fn case(seed: u64) -> Vec<Frame> {
    let mut dice = Dice::new(seed);
    let mut time_us = 1_700_000_000_000_000;
    (0..1 + dice.below(12))
        .map(|_| {
            let (link_type, mut bytes) = dice.pick(&SOUND).clone();
            for _ in 0..dice.below(4) {
                damage(&mut dice, &mut bytes);
            }
            time_us = if dice.one_in(8) { dice.next() } else { time_us + dice.below(2_000_000) as u64 };
            let link_type = if dice.one_in(10) { *dice.pick(&LINK_TYPES) } else { link_type };
            Frame { point: dice.below(2) as u32, time_us, link_type, bytes }
        })
        .collect()
}

fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(8) {
        0 => bytes.truncate(at),
        1 => length_field(dice, bytes),
        2 => {
            // One frame or packet in another.
            let (_, other) = dice.pick(&SOUND);
            let range = dice.range(other.len(), other.len());
            bytes.splice(at..at, other[range].iter().copied());
        }
        3 => bytes.truncate(at.min(60)),
        4 => bytes[at] = *dice.pick(&[0, 1, 4, 6, 17, 41, 44, 47, 0x45, 0x60, 0x7f, 0x80, 0xff]),
        5 => {
            // The field of flags and offset, behind an Ethernet header or none.
            let place = *dice.pick(&[6, 20]);
            if let Some(field) = bytes.get_mut(place..place + 2) {
                let value = *dice.pick(&[0x2000_u16, 0x2001, 1, 8, 0x1fff, 0x3fff, 125]);
                field.copy_from_slice(&value.to_be_bytes());
            }
        }
        6 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = dice.next() as u8),
        _ => bytes[at] ^= 1 << dice.below(8),
    }
}

/// Decodes the frames; panics where a rule is broken.
pub fn run(frames: &[Frame]) {
    let mut decoder = Decoder::default();
    for Frame { point, time_us, link_type, bytes } in frames {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let alone = decode(*link_type, bytes, Decapsulation::ALL);
        assert_eq!(region.change().allocations, 0, "decoding allocates");
        let found = decoder.decode(*point, *time_us, *link_type, bytes);
        assert!(decoder.awaited() <= MAX_PACKETS);
        let Ok(packet) = found else { continue };
        assert!(packet.tunnel.is_none_or(|tunnel| (1..=MAX_TIER).contains(&tunnel.tier)));
        assert!(packet.payload.len() <= packet.length as usize);
        // A packet without a length has that of its frame, all others one of 16 bits.
        assert!(packet.l3_length as usize <= bytes.len().max(65_535));
        if packet.later_fragment {
            assert!(packet.payload.is_empty());
        } else {
            assert_eq!(alone, Ok(packet), "what is remembered changes only later fragments");
        }
    }
}

/// The same, with the message of the panic as a text.
pub fn failure(frames: &[Frame]) -> Option<String> {
    let caught = catch_unwind(AssertUnwindSafe(|| run(frames))).err()?;
    let text = caught.downcast_ref::<String>().cloned();
    Some(text.or_else(|| caught.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz_frames")
}

/// Keeps a case that failed; returns its file.
pub fn save(frames: &[Frame], name: &str) -> PathBuf {
    let frames: Vec<Value> =
        frames.iter().map(|frame| json!([frame.point, frame.time_us, frame.link_type, frame.bytes])).collect();
    std::fs::create_dir_all(folder()).expect("a folder");
    let path = folder().join(format!("{name}.json"));
    std::fs::write(&path, format!("{}\n", Value::from(frames))).expect("a file");
    path
}

/// Cases that failed once: `tests/data/fuzz_frames/*.json`.
pub fn saved() -> Vec<(String, Vec<Frame>)> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a saved case");
        let saved: Vec<(u32, u64, u16, Vec<u8>)> = serde_json::from_str(&text).expect("frames");
        let frame = |(point, time_us, link_type, bytes)| Frame { point, time_us, link_type, bytes };
        (path.display().to_string(), saved.into_iter().map(frame).collect())
    };
    paths.into_iter().map(read).collect()
}

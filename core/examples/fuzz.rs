//! Damages conversations and frames for so many seconds and runs the parsers and the decoder on them: `cargo run --profile
//! fuzz --no-default-features --example fuzz -- SECONDS [PROTOCOL]`, where the protocol `frames` is the decoder alone. What
//! breaks a rule is kept in `tests/data/fuzz*`, where `cargo test` tries it again.

#[path = "../tests/driver/damaged_frames.rs"]
mod damaged_frames;
#[path = "../tests/driver/mod.rs"]
mod driver;
#[path = "../tests/driver/mutation.rs"]
mod mutation;

use std::alloc::System;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Cases of frames for one of a conversation, which takes so much longer.
const FRAMES_A_TURN: u64 = 16;
/// Fed to one parser in a flood.
const FLOOD_BYTES: u64 = 1 << 22;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(600);
    let only = arguments.next();
    let only = only.as_deref();
    // The panics of a failing case are reported below, once each.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let first = RandomState::new().hash_one("first seed") >> 24;
    let (mut tried, mut reported) = (0, BTreeSet::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let seed = first + tried;
        tried += 1;
        if only.is_none_or(|name| name == "frames") {
            for seed in seed * FRAMES_A_TURN..(seed + 1) * FRAMES_A_TURN {
                let frames = damaged_frames::case(seed);
                if let Some(text) = damaged_frames::failure(&frames) {
                    let shape: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
                    if reported.insert(("frames", shape)) {
                        let path = damaged_frames::save(&frames, &seed.to_string());
                        println!("frames: {text}\n  kept in {}", path.display());
                    }
                }
            }
        }
        if only == Some("frames") {
            continue;
        }
        let case = mutation::case(seed, only);
        if let Some(text) = mutation::failure(&case) {
            let shape: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
            if reported.insert((case.protocol.name, shape)) {
                let name = case.protocol.name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let path = mutation::save(&case, &format!("{name}-{seed}"));
                println!("{}: {text}\n  kept in {}", case.protocol.name, path.display());
            }
        }
    }
    for conversation in driver::conversations::conversations() {
        if only.is_none_or(|name| conversation.protocol.name == name) {
            for answered in [true, false] {
                if std::panic::catch_unwind(|| mutation::flood(conversation, FLOOD_BYTES, answered)).is_err() {
                    println!("{}: a flood of it is held in memory", conversation.name);
                    reported.insert((conversation.protocol.name, String::new()));
                }
            }
        }
    }
    println!("{tried} cases from seed {first} on, {} kinds of failure", reported.len());
    if reported.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

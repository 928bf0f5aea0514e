//! Parsers on damaged conversations, the decoder on damaged frames: no panic, bounded memory, work in proportion to the bytes.
//!
//! A binary of its own with one test, because it counts what is allocated. `make fuzz` runs the same for as long as one likes
//! (`examples/fuzz.rs`) and leaves what fails in `tests/data/fuzz*`, where it is tried again here.

#[path = "driver/damaged_frames.rs"]
mod damaged_frames;
#[path = "driver/mod.rs"]
mod driver;
#[path = "driver/mutation.rs"]
mod mutation;

use driver::conversations::conversations;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CASES: u64 = 2000;
const FRAME_CASES: u64 = 20_000;
/// Fed to one parser in a flood.
const FLOOD_BYTES: u64 = 1 << 17;

#[test]
fn damage_stays_within_bounds() {
    let failed = damaged_frames::saved();
    let fresh = (0..FRAME_CASES).map(|seed| (format!("seed {seed}"), damaged_frames::case(seed)));
    for (name, frames) in failed.into_iter().chain(fresh) {
        if let Some(text) = damaged_frames::failure(&frames) {
            panic!("{name}: {text}: {frames:?}");
        }
    }
    let failed = mutation::saved();
    let fresh = (0..CASES).map(|seed| (format!("seed {seed}"), mutation::case(seed, None)));
    for (name, case) in failed.into_iter().chain(fresh) {
        if let Some(text) = mutation::failure(&case) {
            panic!("{name}, {}: {text}", case.protocol.name);
        }
    }
    for conversation in conversations() {
        mutation::flood(conversation, FLOOD_BYTES, true);
        mutation::flood(conversation, FLOOD_BYTES, false);
    }
}

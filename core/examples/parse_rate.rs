//! Messages per second of one core and bytes allocated per message, by protocol: a JSON object. The bytes are the
//! conversations of tests/data/conversations, walked as the engine walks a connection, a write a segment.
//! `cargo run --release --no-default-features --example parse_rate`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use _core::event::{Direction, Origin};
use _core::protocols::{ParserSettings, Protocol, REGISTRY, Role};
use _core::stream::{Piece, Report, Stream};
use serde_json::Value;

/// Bytes asked of the allocator so far.
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Conversation {
    protocol: &'static Protocol,
    transport: u8,
    writes: Vec<(Role, Vec<u8>)>,
}

fn bytes(text: &Value) -> Vec<u8> {
    text.as_str().unwrap_or_default().chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect()
}

fn conversation(case: &Value) -> Conversation {
    let write = |write: &Value| {
        let role = if write[0] == "C" { Role::Client } else { Role::Server };
        let mut text = bytes(&write[1]);
        text.extend(std::iter::repeat_n(b'x', write[2].as_u64().unwrap_or(0) as usize));
        text.extend(bytes(&write[3]));
        (role, text)
    };
    let name = case["protocol"].as_str().expect("a protocol");
    Conversation {
        protocol: REGISTRY.iter().find(|protocol| protocol.name == name).expect(name),
        transport: case["transport"].as_u64().map_or(6, |number| number as u8),
        writes: case["writes"].as_array().expect("writes").iter().map(write).collect(),
    }
}

/// Walks one connection; messages seen, and bytes allocated for them and for what they wait in.
fn walk(case: &Conversation, settings: &Arc<ParserSettings>) -> (u64, u64) {
    let mut parser = (case.protocol.parser)(settings);
    parser.transport(case.transport);
    let mut streams = [Stream::default(), Stream::default()];
    let (mut seen, mut report) = (Vec::with_capacity(1024), Report::default());
    let (mut messages, before) = (0, ALLOCATED.load(Ordering::Relaxed));
    for (role, bytes) in &case.writes {
        let (stream, direction) = match role {
            Role::Client => (&mut streams[0], Direction::Egress),
            Role::Server => (&mut streams[1], Direction::Ingress),
        };
        let piece = Piece { origin: Origin::default(), length: bytes.len() as u64, payload: bytes };
        let datagram = case.transport == 17;
        stream.feed(parser.as_mut(), (*role, direction), piece, datagram, &mut seen, &mut report);
        messages += seen.len() as u64;
        seen.clear();
        if report.switched.is_some() {
            break;
        }
    }
    (messages, ALLOCATED.load(Ordering::Relaxed) - before)
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conversations");
    let mut by_protocol: BTreeMap<&str, Vec<Conversation>> = BTreeMap::new();
    for file in std::fs::read_dir(&folder).expect("the conversations").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a file of text");
        let cases: Value = serde_json::from_str(&text).expect("JSON");
        for case in cases.as_array().expect("a list").iter().map(conversation) {
            by_protocol.entry(case.protocol.name).or_default().push(case);
        }
    }
    let settings = Arc::new(ParserSettings::default());
    let (mut rates, mut allocated) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, cases) in by_protocol {
        let (mut messages, mut memory, start) = (0u64, 0u64, Instant::now());
        while start.elapsed() < Duration::from_secs(1) {
            for case in &cases {
                let (seen, taken) = walk(case, &settings);
                messages += seen;
                memory += taken;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        if messages > 0 {
            rates.insert(name.to_owned(), ((messages as f64 / seconds).round() as u64).into());
            allocated.insert(name.to_owned(), (memory / messages).into());
        }
    }
    let document = serde_json::json!({ "messages_per_s_and_core": rates, "allocated_bytes_per_message": allocated });
    println!("{document}");
}

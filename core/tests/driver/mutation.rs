//! Damaged conversations for parsers: chosen by a number, so that a failure can be had again.
//!
//! A mutation knows what protocols are made of: length fields (binary of two widths and both orders, digits of text), messages
//! that come twice, too early, from the wrong side, or never; deep nesting; pieces of another conversation.
#![allow(dead_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

use _core::event::{Direction, Origin};
use _core::protocols::{Parser, ParserSettings, Protocol, Role, Step};
use _core::stream::{Piece, Report, Stream};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

use super::driver::conversations::{self, Conversation, conversations};

/// Bytes that one look at a window may ask for, and how many times the window more.
const LOOK_BYTES: usize = 1 << 20;
const LOOK_FACTOR: usize = 64;
/// Bytes that a connection may hold after any input.
pub const HELD_BYTES: usize = 4 << 20;
/// Longest write that is mutated.
const MAX_WRITE: usize = 1 << 14;

/// A sequence of numbers (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// 0..bound; 0 when the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A range of at most `longest` of `length` bytes.
    pub fn range(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let from = self.below(length);
        from..from + self.below((length - from).min(longest) + 1)
    }
}

/// Bytes of one side, and how many after them are lost.
#[derive(Clone, Debug)]
pub struct Feed {
    pub role: Role,
    pub bytes: Vec<u8>,
    pub missing: u64,
}

pub struct Case {
    pub protocol: &'static Protocol,
    pub transport: u8,
    pub feeds: Vec<Feed>,
}

/// The case of a number, of all protocols or of one.
pub fn case(seed: u64, only: Option<&str>) -> Case {
    let mut dice = Dice::new(seed);
    let fits = |one: &&Conversation| only.is_none_or(|name| one.protocol.name == name);
    let all: Vec<&Conversation> = conversations().iter().filter(fits).collect();
    let chosen = *dice.pick(&all);
    let other_transport = *dice.pick(chosen.protocol.transports);
    let transport = if dice.one_in(4) { other_transport } else { chosen.transport };
    let short = |(role, bytes): &(Role, Vec<u8>)| (*role, bytes.get(..MAX_WRITE).unwrap_or(bytes).to_vec());
    let mut writes: Vec<(Role, Vec<u8>)> = chosen.writes.iter().map(short).collect();
    for _ in 0..1 + dice.below(4) {
        let other = *dice.pick(&all);
        mutate(&mut dice, &mut writes, other);
    }
    let cut = *dice.pick(&[usize::MAX, usize::MAX, 1, 7, 1460]);
    let mut feeds = Vec::new();
    for (role, bytes) in writes {
        let missing = if dice.one_in(8) { dice.below(3000) as u64 } else { 0 };
        let size = cut.min(bytes.len().max(1));
        let mut pieces: Vec<Feed> =
            bytes.chunks(size).map(|piece| Feed { role, bytes: piece.to_vec(), missing: 0 }).collect();
        if let Some(last) = pieces.last_mut() {
            last.missing = missing;
        }
        feeds.append(&mut pieces);
    }
    Case { protocol: chosen.protocol, transport, feeds }
}

fn mutate(dice: &mut Dice, writes: &mut Vec<(Role, Vec<u8>)>, other: &Conversation) {
    let place = dice.below(writes.len());
    match dice.below(12) {
        0 => writes.swap(place, 0),
        1 => {
            let again = writes[place].clone();
            writes.insert(dice.below(writes.len()), again);
        }
        2 if writes.len() > 1 => _ = writes.remove(place),
        3 => writes[place].0 = if writes[place].0 == Role::Client { Role::Server } else { Role::Client },
        4 => {
            let (_, from) = dice.pick(&other.writes);
            let range = dice.range(from.len(), 512);
            let at = dice.below(writes[place].1.len() + 1);
            writes[place].1.splice(at..at, from[range].iter().copied());
        }
        kind => bytes(dice, kind, &mut writes[place].1),
    }
}

/// Damages one write.
fn bytes(dice: &mut Dice, kind: usize, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    match kind {
        5 => {
            let range = dice.range(bytes.len(), 64);
            bytes.drain(range);
        }
        6 => {
            // The same few bytes over and over: nesting, counts of elements, empty messages.
            let range = dice.range(bytes.len(), 12);
            let piece = bytes[range].to_vec();
            let times = *dice.pick(&[2, 16, 200, 2000]);
            let many: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * times).collect();
            bytes.splice(at..at, many);
        }
        7 | 8 => length_field(dice, bytes),
        9 => digits(dice, bytes),
        10 => bytes[at] = *dice.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff, b'0', b'\n']),
        _ => bytes[at] ^= 1 << dice.below(8),
    }
}

/// Puts a lie where a number stands that could be a length: one not larger than what follows it.
pub fn length_field(dice: &mut Dice, bytes: &mut [u8]) {
    let width = *dice.pick(&[1usize, 2, 3, 4, 8]);
    let little = dice.one_in(2);
    let value = |field: &[u8]| {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) }
    };
    let fields: Vec<usize> = (0..bytes.len().saturating_sub(width))
        .filter(|&at| (1..=(bytes.len() - at) as u64).contains(&value(&bytes[at..at + width])))
        .collect();
    if fields.is_empty() {
        return;
    }
    let at = *dice.pick(&fields);
    let right = value(&bytes[at..at + width]);
    let lie =
        *dice.pick(&[0, right + 1, right - 1, right * 2, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 31]);
    for index in 0..width {
        let shift = 8 * if little { index } else { width - 1 - index };
        bytes[at + index] = (lie >> shift) as u8;
    }
}

/// Puts another number where digits stand.
fn digits(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let at = *dice.pick(&starts);
    let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let lie = *dice.pick(&[
        "0",
        "-1",
        "1",
        "65536",
        "2147483648",
        "4294967295",
        "9223372036854775807",
        "18446744073709551616",
        "1e9",
    ]);
    bytes.splice(at..end, lie.bytes());
}

/// A parser whose calls and allocations are counted.
struct Counted {
    inner: Box<dyn Parser>,
    calls: u64,
    allocated: u64,
}

impl Counted {
    fn look<T>(&mut self, window: usize, call: impl FnOnce(&mut dyn Parser) -> T) -> T {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let result = call(self.inner.as_mut());
        let allocated = region.change().bytes_allocated;
        assert!(allocated <= LOOK_BYTES + LOOK_FACTOR * window, "one look at {window} bytes allocates {allocated}");
        self.calls += 1;
        self.allocated += allocated as u64;
        result
    }
}

impl Parser for Counted {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.look(window.len(), |parser| parser.parse(role, window))
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        let step = self.look(window.len(), |parser| parser.truncated(role, window, missing));
        assert!(!matches!(step, Step::NeedMore), "truncated asks for more");
        step
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.look(window.len(), |parser| parser.resync(role, window))
    }

    fn at(&mut self, origin: Origin) {
        self.inner.at(origin);
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.inner.transport(ip_protocol);
    }
}

/// A parser, walked along by the streams of the core.
pub struct Fuzzed {
    parser: Counted,
    streams: [Stream; 2],
    transport: u8,
    fed: u64,
    feeds: u64,
    /// Another protocol took over.
    pub switched: bool,
}

impl Fuzzed {
    pub fn new(protocol: &Protocol, transport: u8) -> Self {
        let mut inner = (protocol.parser)(&Rc::new(ParserSettings::default()));
        inner.transport(transport);
        let parser = Counted { inner, calls: 0, allocated: 0 };
        Self { parser, streams: Default::default(), transport, fed: 0, feeds: 0, switched: false }
    }

    /// Feeds bytes of one side.
    pub fn feed(&mut self, feed: &Feed) {
        if self.switched {
            return;
        }
        let direction = if feed.role == Role::Client { Direction::Ingress } else { Direction::Egress };
        let stream = &mut self.streams[usize::from(feed.role == Role::Server)];
        let (mut seen, mut report) = (Vec::new(), Report::default());
        let datagram = self.transport != 6;
        let length = feed.bytes.len() as u64 + feed.missing;
        let piece = Piece { origin: Origin { time_us: 1, seq: 0 }, length, payload: &feed.bytes };
        stream.feed(&mut self.parser, (feed.role, direction), &piece, datagram, &mut seen, &mut report);
        self.switched = report.switched.is_some();
        self.fed += feed.bytes.len() as u64;
        self.feeds += 1;
    }

    /// Calls and allocations grow with the bytes, not with their square.
    pub fn check_work(&self) {
        let (calls, allocated) = (self.parser.calls, self.parser.allocated);
        let most_calls = 64 + 4 * self.feeds + 4 * self.fed;
        assert!(calls <= most_calls, "{calls} calls for {} bytes in {} feeds", self.fed, self.feeds);
        // Some windows are inflated anew until something comes of it, which takes tens of KB each time.
        let most = (32 * LOOK_BYTES) as u64 + 512 * (self.fed + self.feeds);
        assert!(allocated <= most, "{allocated} bytes allocated for {} bytes in {} feeds", self.fed, self.feeds);
    }
}

/// Cases that failed once: `tests/data/fuzz/*.json`.
pub fn saved() -> Vec<(String, Case)> {
    let Ok(entries) = std::fs::read_dir(saved_folder()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a saved case");
        let saved: Value = serde_json::from_str(&text).expect("JSON");
        let feeds = saved["feeds"].as_array().expect("feeds").iter().map(|feed| {
            let (role, bytes) = conversations::write(&json!([feed[0], feed[1]]));
            Feed { role, bytes, missing: feed[2].as_u64().expect("a count") }
        });
        let case = Case {
            protocol: conversations::protocol(saved["protocol"].as_str().expect("a name")),
            transport: saved["transport"].as_u64().and_then(|number| number.try_into().ok()).expect("a number"),
            feeds: feeds.collect(),
        };
        (path.display().to_string(), case)
    };
    paths.into_iter().map(read).collect()
}

fn saved_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz")
}

/// Keeps a case that failed; returns its file.
pub fn save(case: &Case, name: &str) -> PathBuf {
    let latin = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let side = |role| if role == Role::Client { "C" } else { "S" };
    let feeds: Vec<Value> =
        case.feeds.iter().map(|feed| json!([side(feed.role), latin(&feed.bytes), feed.missing])).collect();
    let saved = json!({"protocol": case.protocol.name, "transport": case.transport, "feeds": feeds});
    std::fs::create_dir_all(saved_folder()).expect("a folder");
    let path = saved_folder().join(format!("{name}.json"));
    std::fs::write(&path, format!("{saved:#}\n")).expect("a file");
    path
}

/// Runs a case; panics where a rule is broken.
pub fn run(case: &Case) {
    for feed in &case.feeds {
        for port in [0, 53, 6379] {
            let _ = (case.protocol.check)(&feed.bytes, port);
        }
    }
    let held = Region::new(&INSTRUMENTED_SYSTEM);
    let mut fuzzed = Fuzzed::new(case.protocol, case.transport);
    for feed in &case.feeds {
        fuzzed.feed(feed);
    }
    fuzzed.check_work();
    let change = held.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    assert!(kept <= HELD_BYTES, "{kept} bytes are held after {}", fuzzed.fed);
}

/// The same, with the message of the panic as a text.
pub fn failure(case: &Case) -> Option<String> {
    let caught = catch_unwind(AssertUnwindSafe(|| run(case))).err()?;
    let text = caught.downcast_ref::<String>().cloned();
    Some(text.or_else(|| caught.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

/// Feeds a conversation over and over, slightly changed each time, until so many bytes were fed.
/// `answered`: with the server's part.
pub fn flood(conversation: &Conversation, bytes: u64, answered: bool) {
    let held = Region::new(&INSTRUMENTED_SYSTEM);
    let mut fuzzed = Fuzzed::new(conversation.protocol, conversation.transport);
    let mut dice = Dice::new(bytes);
    while fuzzed.fed < bytes && !fuzzed.switched {
        let before = fuzzed.fed;
        for (role, bytes) in &conversation.writes {
            if !answered && *role == Role::Server {
                continue;
            }
            let mut bytes = bytes.get(..MAX_WRITE).unwrap_or(bytes).to_vec();
            if !bytes.is_empty() && dice.one_in(2) {
                // Another id, name or number, more often than not.
                let at = dice.below(bytes.len());
                bytes[at] = bytes[at].wrapping_add(1 + dice.below(9) as u8);
            }
            fuzzed.feed(&Feed { role: *role, bytes, missing: 0 });
        }
        if fuzzed.fed == before {
            break;
        }
    }
    let change = held.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    assert!(kept <= HELD_BYTES, "{}: {kept} bytes are held after {}", conversation.name, fuzzed.fed);
}

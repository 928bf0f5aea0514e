//! Lines of the text protocol.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use super::super::{Guess, Role, Status};
use super::Awaited;

/// `verb` of `watch`.
pub const WATCH: u8 = 1;

/// How a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Always,
    /// noreply.
    Never,
    /// The meta flag q: the expected outcome goes without saying.
    Quiet,
    Quit,
}

pub struct Command<'a> {
    pub word: &'a [u8],
    /// Bytes of the value that follows the line.
    pub data: Option<u64>,
    pub answer: Answer,
    pub verb: u8,
    pub tag: u64,
    pub key: u64,
    pub is_single: bool,
}

pub enum Reply {
    Line,
    Failure(Status),
    /// A value of so many bytes follows, and that is all.
    Data(u64),
    /// The first line of a list, with the value that follows it.
    List(Option<u64>),
}

/// Commands of memcached 1.6 (doc/protocol.txt).
const COMMANDS: [&[u8]; 30] = [
    b"add",
    b"append",
    b"cache_memlimit",
    b"cas",
    b"decr",
    b"delete",
    b"extstore",
    b"flush_all",
    b"gat",
    b"gats",
    b"get",
    b"gets",
    b"incr",
    b"lru",
    b"lru_crawler",
    b"ma",
    b"md",
    b"me",
    b"mg",
    b"mn",
    b"ms",
    b"prepend",
    b"replace",
    b"set",
    b"slabs",
    b"stats",
    b"touch",
    b"verbosity",
    b"version",
    b"watch",
];

/// Replies of one line that no other line protocol gives.
const OWN_REPLIES: [&[u8]; 6] = [b"STORED", b"NOT_STORED", b"DELETED", b"TOUCHED", b"NOT_FOUND", b"EXISTS"];
/// Replies that are Memcached's on its own port.
const REPLIES: [&[u8]; 13] =
    [b"OK", b"END", b"ERROR", b"RESET", b"HD", b"EN", b"NF", b"NS", b"EX", b"MN", b"BUSY", b"BADCLASS", b"NOSPARE"];

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn number(word: Option<&[u8]>) -> Option<u64> {
    let word = word.filter(|word| !word.is_empty() && word.iter().all(u8::is_ascii_digit))?;
    // Larger than any item; the bound keeps sums exact.
    std::str::from_utf8(word).ok()?.parse().ok().filter(|number| *number < 1 << 40)
}

/// A number that tells texts apart; never 0.
pub fn hashed(text: &[u8]) -> u64 {
    rustc_hash::FxBuildHasher.hash_one(text) | 1
}

fn is_meta(word: &[u8]) -> bool {
    matches!(word, b"mg" | b"ms" | b"md" | b"ma" | b"mn" | b"me")
}

/// Place of the length of the value that follows a command line.
fn length_at(word: &[u8]) -> Option<usize> {
    match word {
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => Some(4),
        b"ms" => Some(2),
        _ => None,
    }
}

pub fn command(line: &[u8]) -> Command<'_> {
    let word = words(line).next().unwrap_or_default();
    let key = words(line).nth(1).unwrap_or_default();
    let data = length_at(word).and_then(|at| number(words(line).nth(at)));
    let mut command = Command { word, data, answer: Answer::Always, verb: 0, tag: 0, key: 0, is_single: false };
    match word {
        b"quit" => command.answer = Answer::Quit,
        b"shutdown" => command.answer = Answer::Never,
        b"watch" => command.verb = WATCH,
        b"get" | b"gets" => command.is_single = words(line).count() == 2,
        b"gat" | b"gats" => command.is_single = words(line).count() == 3,
        _ if is_meta(word) => {
            command.verb = word.get(1).copied().unwrap_or_default();
            command.key = hashed(key);
            for flag in words(line).skip(if word == b"ms" { 3 } else { 2 }) {
                match flag.split_first() {
                    Some((b'q', [])) => command.answer = Answer::Quiet,
                    Some((b'O', token)) => command.tag = hashed(token),
                    _ => {}
                }
            }
        }
        _ if words(line).last() == Some(b"noreply") => command.answer = Answer::Never,
        _ => {}
    }
    command
}

pub fn reply(line: &[u8]) -> Reply {
    let mut parts = words(line);
    match parts.next().unwrap_or_default() {
        b"ERROR" | b"CLIENT_ERROR" => Reply::Failure(Status::ClientError),
        b"SERVER_ERROR" => Reply::Failure(Status::ServerError),
        b"VALUE" => match number(parts.nth(2)) {
            Some(bytes) => Reply::List(Some(bytes)),
            None => Reply::Line,
        },
        b"VA" => number(parts.next()).map_or(Reply::Line, Reply::Data),
        b"STAT" | b"ITEM" | b"PREFIX" => Reply::List(None),
        // A dump of keys: `key=…` of lru_crawler metadump, `mg …` of mgdump.
        b"mg" => Reply::List(None),
        word if word.starts_with(b"key=") => Reply::List(None),
        _ => Reply::Line,
    }
}

/// The command that a reply answers; those before it were passed over in silence.
pub fn answers(line: &[u8], awaited: &mut VecDeque<Awaited>) -> Option<Awaited> {
    let word = words(line).next().unwrap_or_default();
    let flags = || words(line).skip(if word == b"VA" { 2 } else { 1 });
    let flag = |name: u8| {
        let mut found = flags().filter_map(|flag| flag.strip_prefix(&[name]));
        found.next().map_or(0, hashed)
    };
    while let Some(first) = awaited.pop_front() {
        if !first.is_quiet {
            return Some(first);
        }
        let can = match word {
            b"HD" => first.verb == b'g',
            b"VA" => matches!(first.verb, b'g' | b'a'),
            b"NF" => matches!(first.verb, b'd' | b'a'),
            b"NS" | b"EX" => first.verb != b'g',
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => true,
            _ => false,
        };
        let meta = matches!(word, b"HD" | b"VA" | b"NF" | b"NS" | b"EX");
        let same = |said: u64, own: u64| said == 0 || said == own;
        if can && (!meta || same(flag(b'O'), first.tag) && same(flag(b'k'), first.key)) {
            return Some(first);
        }
    }
    None
}

/// A reply without the counter that it holds.
pub fn masked(line: &[u8]) -> &[u8] {
    if number(words(line).next()).is_some() { b"?" } else { line }
}

pub fn check(payload: &[u8], ours: bool) -> Guess {
    let seen = payload.get(..2048).unwrap_or(payload);
    let Some(end) = memchr::memchr(b'\n', seen) else {
        let word = words(seen).next().unwrap_or_default();
        let more = COMMANDS.iter().any(|known| known.starts_with(seen) || *known == word)
            || OWN_REPLIES.iter().any(|known| known.starts_with(seen.trim_ascii_end()))
            || b"VALUE ".starts_with(seen)
            || seen.starts_with(b"VALUE ");
        let plain = !seen.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r');
        let strong = length_at(word).is_some() || word == b"VALUE";
        // Many keys fit into one get.
        let long = ours && plain && matches!(word, b"get" | b"gets");
        return match (payload.len() < 2048, long) {
            (true, _) if more && plain && (ours || strong || seen.len() < 8) => Guess::Maybe,
            (false, true) => Guess::Yes(Role::Client),
            _ => Guess::No,
        };
    };
    let line = seen.get(..end).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r").or(Some(line).filter(|_| ours)) else {
        return Guess::No;
    };
    if line.iter().any(u8::is_ascii_control) {
        return Guess::No;
    }
    let yes = |sure: bool, role: Role| if sure { Guess::Yes(role) } else { Guess::No };
    let count = words(line).count();
    let at = |place: usize| words(line).nth(place);
    let word = at(0).unwrap_or_default();
    let keyed = at(1).is_some_and(|key| key.len() <= 250);
    if let Some(place) = length_at(word) {
        let numbers =
            (2..=place).all(|place| number(at(place).map(|word| word.strip_prefix(b"-").unwrap_or(word))).is_some());
        let most = match word {
            b"ms" => usize::MAX,
            b"cas" => 7,
            _ => 6,
        };
        let least = if word == b"cas" { 6 } else { place + 1 };
        // Two words and a number are much for other protocols to say.
        let sure = ours || word != b"ms";
        return yes(sure && keyed && numbers && count >= least && count <= most, Role::Client);
    }
    if COMMANDS.contains(&word) {
        let sound = match word {
            b"get" | b"gets" | b"mg" | b"md" | b"ma" | b"me" => keyed,
            b"incr" | b"decr" | b"touch" => keyed && number(at(2)).is_some() && count <= 4,
            b"gat" | b"gats" => number(at(1)).is_some() && count >= 3,
            b"delete" => keyed && count <= 4,
            b"mn" => count == 1,
            _ => count <= 6,
        };
        return yes(ours && sound, Role::Client);
    }
    let whole = payload.len() == end + 1;
    match word {
        b"VALUE" => yes(keyed && number(at(2)).is_some() && number(at(3)).is_some() && count <= 5, Role::Server),
        b"VA" => yes(ours && number(at(1)).is_some(), Role::Server),
        b"STAT" => yes(count >= 2 && (ours || count == 3 && at(1) == Some(b"pid")), Role::Server),
        b"CLIENT_ERROR" | b"SERVER_ERROR" => yes(ours, Role::Server),
        b"VERSION" => yes(ours && count == 2, Role::Server),
        _ if OWN_REPLIES.contains(&line) => yes(ours || whole && !matches!(line, b"EXISTS"), Role::Server),
        _ if REPLIES.contains(&word) => yes(ours, Role::Server),
        // The value of a counter.
        _ => yes(ours && count == 1 && whole && number(at(0)).is_some(), Role::Server),
    }
}

//! Values of RESP: their header lines, and how many values follow.

use memchr::memchr;

use super::super::Step;

/// A type byte, a 64-bit number, CR LF and some slack.
pub const MAX_HEADER: usize = 32;
/// Nesting of streamed aggregates (RESP3 `*?`); plain nesting needs no memory.
pub const MAX_STREAMED: usize = 32;
/// `left` of a streamed aggregate, whose end is marked.
pub const STREAMED: u64 = u64::MAX;

/// What a header line says.
pub enum Header {
    /// Length of a bulk; the bytes and CR LF follow.
    Bulk(u64),
    /// So many values follow.
    Values(u64),
    /// So many values follow that are no value themselves (RESP3 attributes).
    Attribute(u64),
    Streamed,
    StreamEnd,
    /// Complete in itself.
    Line,
}

/// Result of a look at a header line.
pub enum Look {
    Header(Header, usize),
    Short,
    /// A line type whose end is not in sight.
    LongLine,
    Wrong,
}

/// One direction of a connection.
#[derive(Default)]
pub struct Side {
    /// Values of the current message still to skip, and the counts of the streamed aggregates around it.
    pub left: u64,
    pub streamed: Vec<u64>,
    /// Inside a line whose end is to skip to.
    pub in_line: bool,
    pub lost: bool,
    /// The window has to be this long before it is worth another look.
    pub wanted: usize,
}

impl Side {
    /// Skips the values that are left of a message, as far as the window goes.
    pub fn skip(&mut self, window: &[u8]) -> Step {
        self.wanted = 0;
        if self.in_line {
            let end = memchr(b'\n', window);
            self.in_line = end.is_none();
            return Step::Skip(end.map_or(window.len(), |end| end + 1) as u64);
        }
        let mut at = 0usize;
        while self.left > 0 && at < window.len() {
            let (header, size) = match look(window.get(at..).unwrap_or_default()) {
                Look::Header(header, size) => (header, size),
                Look::Short if at == 0 => return Step::NeedMore,
                Look::Short => break,
                Look::LongLine => {
                    self.in_line = true;
                    (Header::Line, window.len() - at)
                }
                Look::Wrong => {
                    *self = Self { lost: true, ..Self::default() };
                    return Step::Skip((at as u64).max(1));
                }
            };
            at += size;
            let within = self.left == STREAMED;
            match header {
                Header::Attribute(count) if within => {
                    self.push(count);
                    continue;
                }
                Header::Values(count) if within && count > 0 => {
                    self.push(count);
                    continue;
                }
                Header::Attribute(count) => self.left = (self.left - 1).saturating_add(count).saturating_add(1),
                Header::Values(count) => {
                    if !within {
                        self.left = (self.left - 1).saturating_add(count).min(STREAMED - 1);
                    }
                }
                Header::Streamed => {
                    if !within {
                        self.left -= 1;
                    }
                    self.push(STREAMED);
                }
                Header::StreamEnd if within => {
                    self.left = self.streamed.pop().unwrap_or(0);
                }
                Header::StreamEnd => self.lost = true,
                Header::Line => {
                    if !within {
                        self.left -= 1;
                    }
                }
                Header::Bulk(length) => {
                    if !within {
                        self.left -= 1;
                    }
                    self.pop_done();
                    let past = (at as u64).saturating_add(length).saturating_add(2);
                    if past >= window.len() as u64 {
                        return Step::Skip(past);
                    }
                    at = past as usize;
                    continue;
                }
            }
            self.pop_done();
            if self.in_line || self.lost {
                break;
            }
        }
        Step::Skip(at as u64)
    }

    fn push(&mut self, left: u64) {
        if self.streamed.len() >= MAX_STREAMED {
            self.lost = true;
            return;
        }
        self.streamed.push(self.left);
        self.left = left;
    }

    /// A counted aggregate inside a streamed one is over: go on with the streamed one.
    fn pop_done(&mut self) {
        while self.left == 0 {
            match self.streamed.pop() {
                Some(left) => self.left = left,
                None => break,
            }
        }
    }
}

/// Looks at the header line that a value begins with.
pub fn look(bytes: &[u8]) -> Look {
    let Some(&kind) = bytes.first() else {
        return Look::Short;
    };
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => match memchr(b'\n', bytes) {
            Some(end) => Look::Header(Header::Line, end + 1),
            None => Look::LongLine,
        },
        b'$' | b'=' | b'!' | b';' | b'*' | b'~' | b'>' | b'%' | b'|' | b'.' => {
            let Some(end) = memchr(b'\n', bytes.get(..MAX_HEADER).unwrap_or(bytes)) else {
                return if bytes.len() < MAX_HEADER { Look::Short } else { Look::Wrong };
            };
            let Some(digits) = bytes.get(1..end).and_then(|line| line.strip_suffix(b"\r")) else {
                return Look::Wrong;
            };
            match header(kind, digits) {
                Some(header) => Look::Header(header, end + 1),
                None => Look::Wrong,
            }
        }
        _ => Look::Wrong,
    }
}

fn header(kind: u8, digits: &[u8]) -> Option<Header> {
    if kind == b'.' {
        return digits.is_empty().then_some(Header::StreamEnd);
    }
    if digits == b"?" {
        return Some(Header::Streamed);
    }
    if digits == b"-1" {
        return Some(Header::Line);
    }
    let number = number(digits)?;
    Some(match kind {
        b';' if number == 0 => Header::StreamEnd,
        b'$' | b'=' | b'!' | b';' => Header::Bulk(number),
        b'%' => Header::Values(number.saturating_mul(2)),
        b'|' => Header::Attribute(number.saturating_mul(2)),
        _ => Header::Values(number),
    })
}

pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // No value of Redis is as large as 2^62; the bound keeps later sums exact.
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number < 1 << 62)
}

/// The first bulk of a push, `None` when more bytes are needed to tell; empty when it is none.
pub fn push_kind(bytes: &[u8]) -> Option<&[u8]> {
    match look(bytes) {
        Look::Header(Header::Bulk(length), size) if length <= 16 => bytes.get(size..size + length as usize),
        Look::Short => None,
        _ => Some(b""),
    }
}

/// `response_result`: the type of the reply.
pub fn result_name(first: u8, window: &[u8]) -> &'static str {
    match first {
        _ if window.get(1..3) == Some(b"-1") && (first == b'$' || first == b'*') => "Null",
        b'+' => "SimpleString",
        b'-' | b'!' => "Error",
        b':' => "Integer",
        b'$' => "BulkString",
        b'*' => "Array",
        b'_' => "Null",
        b'#' => "Boolean",
        b',' => "Double",
        b'(' => "BigNumber",
        b'=' => "VerbatimString",
        b'%' => "Map",
        b'~' => "Set",
        b'>' => "Push",
        _ => "Unknown",
    }
}

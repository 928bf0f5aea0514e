//! The head of a frame: its command and headers (STOMP 1.2, "STOMP Frames").

use std::borrow::Cow;

use memchr::{memchr, memmem};

use crate::protocols::Role;

/// Commands, who sends them, and headers of which one has to be there (none: any or no header).
const COMMANDS: &[(&str, Role, &[&str])] = &[
    ("CONNECT", Role::Client, &[]),
    ("STOMP", Role::Client, &["accept-version", "host"]),
    ("SEND", Role::Client, &["destination"]),
    ("SUBSCRIBE", Role::Client, &["destination"]),
    ("UNSUBSCRIBE", Role::Client, &["id", "destination"]),
    ("ACK", Role::Client, &["id", "message-id"]),
    ("NACK", Role::Client, &["id", "message-id"]),
    ("BEGIN", Role::Client, &["transaction"]),
    ("COMMIT", Role::Client, &["transaction"]),
    ("ABORT", Role::Client, &["transaction"]),
    ("DISCONNECT", Role::Client, &[]),
    ("CONNECTED", Role::Server, &[]),
    ("MESSAGE", Role::Server, &["destination", "message-id"]),
    ("RECEIPT", Role::Server, &["receipt-id"]),
    ("ERROR", Role::Server, &[]),
];

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub command: &'static str,
    pub writer: Role,
    headers: &'a [u8],
    /// Bytes up to the body; `None` while the blank line is not in sight.
    pub size: Option<usize>,
}

/// Result of a look at a head.
pub enum Look<'a> {
    Head(Head<'a>),
    /// Could become one.
    Short,
    Wrong,
}

impl<'a> Head<'a> {
    /// Reads what begins here. The headers of an incomplete head are those whose lines are complete.
    pub fn read(bytes: &'a [u8]) -> Look<'a> {
        let known = |line: &[u8]| COMMANDS.iter().find(|(name, _, _)| name.as_bytes() == line);
        let Some(end) = memchr(b'\n', bytes.get(..16).unwrap_or(bytes)) else {
            let begun = COMMANDS.iter().any(|(name, _, _)| {
                name.as_bytes().starts_with(bytes) || bytes.strip_suffix(b"\r") == Some(name.as_bytes())
            });
            return if begun { Look::Short } else { Look::Wrong };
        };
        let line = bytes.get(..end).unwrap_or_default();
        let Some((command, writer, _)) = known(line.strip_suffix(b"\r").unwrap_or(line)) else {
            return Look::Wrong;
        };
        let rest = bytes.get(end + 1..).unwrap_or_default();
        let length = blank_line(rest);
        let headers = match length {
            Some((headers, _)) => rest.get(..headers),
            None => memchr::memrchr(b'\n', rest).and_then(|end| rest.get(..=end)),
        };
        let head = Self {
            command,
            writer: *writer,
            headers: headers.unwrap_or_default(),
            size: length.map(|(headers, blank)| end + 1 + headers + blank),
        };
        if head.fields().any(|(name, _)| name.is_empty() || name.iter().any(u8::is_ascii_control)) {
            return Look::Wrong;
        }
        Look::Head(head)
    }

    /// Header lines as they are written; one without a colon has an empty name.
    fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.headers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match memchr(b':', line) {
                Some(colon) => (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default()),
                None => (&b""[..], line),
            }
        })
    }

    /// Headers; CONNECT and CONNECTED know no escapes.
    pub fn headers(self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        let plain = matches!(self.command, "CONNECT" | "CONNECTED");
        self.fields().map(
            move |(name, value)| {
                if plain { (name.into(), value.into()) } else { (unescape(name), unescape(value)) }
            },
        )
    }

    /// Has it a header that its command needs?
    pub fn is_right(self) -> bool {
        let needed =
            COMMANDS.iter().find(|(name, _, _)| *name == self.command).map_or(&[][..], |(_, _, needed)| needed);
        needed.is_empty() || self.fields().any(|(name, _)| needed.iter().any(|known| known.as_bytes() == name))
    }
}

/// Length of the header lines before a blank line, and of the blank line.
fn blank_line(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.starts_with(b"\n") {
        return Some((0, 1));
    }
    if bytes.starts_with(b"\r\n") {
        return Some((0, 2));
    }
    memmem::find_iter(bytes, b"\n").find_map(|end| {
        let rest = bytes.get(end + 1..)?;
        let blank = if rest.starts_with(b"\n") { 1 } else { 2 * usize::from(rest.starts_with(b"\r\n")) };
        (blank > 0).then_some((end + 1, blank))
    })
}

/// `\n`, `\r`, `\c` and `\\` of STOMP 1.1 and later.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', text).is_none() {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => b'\n',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b'c')) => b':',
            (b'\\', Some(b'\\')) => b'\\',
            _ => {
                plain.push(byte);
                continue;
            }
        };
        plain.push(escaped);
        bytes.next();
    }
    plain.into()
}

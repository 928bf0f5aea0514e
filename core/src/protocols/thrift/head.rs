//! How a message begins: frame, header transport, message header.

use super::value::{Encoding, Looked, Trouble, byte, text_length, u32_at, varint};

pub const CALL: u8 = 1;
pub const REPLY: u8 = 2;
pub const EXCEPTION: u8 = 3;
pub const ONEWAY: u8 = 4;

const MAX_NAME: u64 = 256;
/// Shortest name of a message without a version that recognition trusts.
const SURE_NAME: usize = 3;
/// Larger frames make no sense; the libraries refuse 16 MB already.
const MAX_FRAME: u32 = 1 << 28;
/// Pairs of the header transport that are read, and bytes they may take.
const MAX_PAIRS: u64 = 64;
const MAX_HEADER: usize = 8192;

pub struct Head<'a> {
    pub encoding: Encoding,
    pub version: &'static str,
    /// CALL, REPLY, EXCEPTION, ONEWAY; 0 when a transform of the header transport hides it.
    pub kind: u8,
    pub name: &'a [u8],
    pub sequence: u32,
    /// Offset of the arguments or the result.
    pub size: usize,
    /// Length of the whole message with its frame; `None`: unframed.
    pub total: Option<u64>,
    /// Key-value pairs of the header transport.
    pub pairs: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    /// The message that begins with `bytes`.
    pub fn read(bytes: &'a [u8]) -> Looked<Self> {
        match bytes {
            [0x80 | 0x82, ..] => Self::message(bytes, 0),
            [] => Err(Trouble::Short(5)),
            _ => {
                let length = u32_at(bytes, 0)?;
                match byte(bytes, 4)? {
                    0x80 | 0x82 | 0 => Self::framed(bytes, length, Self::message(bytes, 4)),
                    0x0f => Self::framed(bytes, length, Self::header_transport(bytes, length)),
                    _ => Self::message(bytes, 0),
                }
            }
        }
    }

    fn framed(bytes: &[u8], length: u32, head: Looked<Self>) -> Looked<Self> {
        // A frame holds at least a version, the length of a name, a sequence number and the end of a struct.
        if !(6..=MAX_FRAME).contains(&length) {
            return Err(Trouble::Wrong);
        }
        let total = u64::from(length) + 4;
        let head = head.map_err(|trouble| match trouble {
            Trouble::Short(_) if bytes.len() as u64 >= total => Trouble::Wrong,
            other => other,
        })?;
        if head.size as u64 > total || (head.kind != 0 && head.size as u64 == total) {
            return Err(Trouble::Wrong);
        }
        Ok(Self { total: Some(total), ..head })
    }

    /// A message header at `at`, in whichever encoding.
    fn message(bytes: &'a [u8], at: usize) -> Looked<Self> {
        let (encoding, version, kind, name, sequence, size) = match byte(bytes, at)? {
            0x80 => {
                let word = u32_at(bytes, at)?;
                if word >> 8 != 0x80_0100 {
                    return Err(Trouble::Wrong);
                }
                let (name, end) = name(Encoding::Binary, bytes, at + 4)?;
                (Encoding::Binary, "binary", (word & 0xff) as u8, name, u32_at(bytes, end)?, end + 4)
            }
            0x82 => {
                let second = byte(bytes, at + 1)?;
                if second & 31 != 1 {
                    return Err(Trouble::Wrong);
                }
                let (sequence, next) = varint(bytes, at + 2)?;
                let sequence = u32::try_from(sequence).map_err(|_| Trouble::Wrong)?;
                let (name, end) = name(Encoding::Compact, bytes, next)?;
                (Encoding::Compact, "compact", second >> 5, name, sequence, end)
            }
            _ => {
                let (name, end) = name(Encoding::Binary, bytes, at)?;
                (Encoding::Binary, "binary without version", byte(bytes, end)?, name, u32_at(bytes, end + 1)?, end + 5)
            }
        };
        if !(CALL..=ONEWAY).contains(&kind) {
            return Err(Trouble::Wrong);
        }
        Ok(Self { encoding, version, kind, name, sequence, size, total: None, pairs: Vec::new() })
    }

    /// The header transport (doc/specs/HeaderFormat.md) in a frame of `length` bytes.
    fn header_transport(bytes: &'a [u8], length: u32) -> Looked<Self> {
        if byte(bytes, 5)? != 0xff {
            return Err(Trouble::Wrong);
        }
        let sequence = u32_at(bytes, 8)?;
        let words = usize::from(byte(bytes, 12)?) << 8 | usize::from(byte(bytes, 13)?);
        let (start, end) = (14, 14 + words * 4);
        if end as u64 > u64::from(length) + 4 || end > MAX_HEADER {
            return Err(Trouble::Wrong);
        }
        let header = bytes.get(..end).ok_or(Trouble::Short(end))?;
        let inside = |looked: Looked<(u64, usize)>| looked.map_err(|_| Trouble::Wrong);
        let (protocol, at) = inside(varint(header, start))?;
        let (transforms, mut at) = inside(varint(header, at))?;
        let encoding = match protocol {
            0 => Encoding::Binary,
            2 => Encoding::Compact,
            _ => return Err(Trouble::Wrong),
        };
        if transforms > 8 {
            return Err(Trouble::Wrong);
        }
        for _ in 0..transforms {
            (_, at) = inside(varint(header, at))?;
        }
        let pairs = pairs(header, at);
        if transforms > 0 {
            let version = if encoding == Encoding::Binary { "binary" } else { "compact" };
            return Ok(Self { encoding, version, kind: 0, name: b"", sequence, size: end, total: None, pairs });
        }
        Ok(Self { pairs, ..Self::message(bytes, end)? })
    }

    /// Is this beyond doubt a message, of those that could be another protocol's?
    pub fn is_sure(&self, bytes: &[u8]) -> bool {
        let rest = bytes.get(self.size..).unwrap_or_default();
        super::value::may_begin(self.encoding, rest)
            && (self.version != "binary without version" || self.name.len() >= SURE_NAME && !rest.is_empty())
    }
}

/// Name of a method and the offset behind it.
fn name(encoding: Encoding, bytes: &[u8], at: usize) -> Looked<(&[u8], usize)> {
    let (length, start) = text_length(encoding, bytes, at)?;
    if length == 0 || length > MAX_NAME {
        return Err(Trouble::Wrong);
    }
    let end = start + length as usize;
    let seen = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
    let right = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:$/-".contains(byte);
    if seen.first().is_some_and(|first| !first.is_ascii_alphabetic() && *first != b'_') || !seen.iter().all(right) {
        return Err(Trouble::Wrong);
    }
    bytes.get(start..end).map(|name| (name, end)).ok_or(Trouble::Short(end))
}

/// The key-value pairs of the header transport that are whole.
fn pairs(header: &[u8], mut at: usize) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    let text = |at: usize| {
        let (length, start) = text_length(Encoding::Compact, header, at).ok()?;
        let end = start.checked_add(length as usize)?;
        Some((header.get(start..end)?, end))
    };
    while let Ok((1 | 2, next)) = varint(header, at) {
        let Ok((count, next)) = varint(header, next) else { break };
        at = next;
        for _ in 0..count.min(MAX_PAIRS) {
            let Some((key, next)) = text(at) else { return found };
            let Some((value, next)) = text(next) else { return found };
            found.push((key, value));
            at = next;
        }
    }
    found
}

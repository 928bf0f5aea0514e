//! How a connection is asked for and granted.

use super::HEADER;
use crate::protocols::cursor::Cursor;

pub struct Wish<'a> {
    pub version: u16,
    pub data: &'a [u8],
    /// SERVICE_NAME or SID.
    pub service: &'a [u8],
}

fn u16_at(body: &[u8], at: usize) -> Option<u16> {
    Cursor(body.get(at..)?).u16()
}

/// CONNECT; offsets count the packet's header. Long connect data follow in a packet of their own.
pub fn read(body: &[u8]) -> Option<Wish<'_>> {
    let version = u16_at(body, 0).filter(|version| (100..1000).contains(version))?;
    let (length, offset) = (usize::from(u16_at(body, 16)?), usize::from(u16_at(body, 18)?));
    let data = offset.checked_sub(HEADER).and_then(|from| body.get(from..)).unwrap_or_default();
    let data = data.get(..length).unwrap_or(data);
    let service = value(data, b"(SERVICE_NAME=").or_else(|| value(data, b"(SID=")).unwrap_or_default();
    Some(Wish { version, data, service })
}

/// What stands behind a key, up to the parenthesis; keys in capitals, as the drivers write them.
fn value<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let from = memchr::memmem::find(data, key)? + key.len();
    let rest = data.get(from..)?;
    rest.get(..memchr::memchr(b')', rest)?)
}

/// Version and size of the session data unit of an ACCEPT.
pub fn accepted(body: &[u8]) -> Option<(u16, usize)> {
    let version = u16_at(body, 0)?;
    let unit = usize::from(u16_at(body, 4)?);
    let large = body.get(24..).and_then(|rest| Cursor(rest).u32()).map(|unit| unit as usize);
    Some((version, if version >= super::LARGE_LENGTHS { large.unwrap_or(unit) } else { unit }))
}

/// The number of the error in a REFUSE.
pub fn refusal(body: &[u8]) -> Option<i32> {
    std::str::from_utf8(value(body, b"(ERR=").or_else(|| value(body, b"(CODE="))?).ok()?.parse().ok()
}

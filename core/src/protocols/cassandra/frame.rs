//! Headers of frames (native_protocol_v3.spec to v5.spec, section 2) and of the segments of version 5.

use super::super::compressed::{Algorithm, prefix};
use super::super::sql;
use super::super::{Guess, Role, clip};

pub const HEADER: usize = 9;
/// native_transport_max_frame_size of any sane server.
const MAX_BODY: usize = 256 << 20;
const PORT: u16 = 9042;

pub const ERROR: u8 = 0x00;
pub const STARTUP: u8 = 0x01;
pub const READY: u8 = 0x02;
pub const AUTHENTICATE: u8 = 0x03;
const OPTIONS: u8 = 0x05;
const SUPPORTED: u8 = 0x06;
pub const QUERY: u8 = 0x07;
pub const RESULT: u8 = 0x08;
pub const PREPARE: u8 = 0x09;
pub const EXECUTE: u8 = 0x0a;
pub const REGISTER: u8 = 0x0b;
pub const EVENT: u8 = 0x0c;
pub const BATCH: u8 = 0x0d;

pub struct Header {
    pub version: u8,
    pub role: Role,
    pub flags: u8,
    pub stream: i16,
    pub opcode: u8,
    pub length: usize,
}

pub fn name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        ERROR => "ERROR",
        STARTUP => "STARTUP",
        READY => "READY",
        AUTHENTICATE => "AUTHENTICATE",
        OPTIONS => "OPTIONS",
        SUPPORTED => "SUPPORTED",
        QUERY => "QUERY",
        RESULT => "RESULT",
        PREPARE => "PREPARE",
        EXECUTE => "EXECUTE",
        REGISTER => "REGISTER",
        EVENT => "EVENT",
        BATCH => "BATCH",
        0x0e => "AUTH_CHALLENGE",
        0x0f => "AUTH_RESPONSE",
        0x10 => "AUTH_SUCCESS",
        _ => return None,
    })
}

impl Header {
    /// `None` for what is no header.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[version, flags, high, low, opcode, a, b, c, d] = bytes.get(..HEADER)? else {
            return None;
        };
        let role = if version & 0x80 == 0 { Role::Client } else { Role::Server };
        let asks = matches!(opcode, STARTUP | OPTIONS | QUERY | PREPARE | EXECUTE | REGISTER | BATCH | 0x0f);
        let header = Self {
            version: version & 0x7f,
            role,
            flags,
            stream: i16::from_be_bytes([high, low]),
            opcode,
            length: u32::from_be_bytes([a, b, c, d]) as usize,
        };
        let sound = (3..=5).contains(&header.version)
            && flags & !0x1f == 0
            && name(opcode).is_some()
            && asks == (role == Role::Client)
            && header.length <= MAX_BODY
            && (header.stream >= 0 || opcode == EVENT);
        sound.then_some(header)
    }
}

/// Could these fewer than nine bytes begin a frame?
pub fn plausible(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|version| (3..=5).contains(&(version & 0x7f)))
        && bytes.get(1).is_none_or(|flags| flags & !0x1f == 0)
        && bytes.get(4).is_none_or(|opcode| name(*opcode).is_some())
}

/// Header of a segment.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Bytes of the header.
    pub header: usize,
    /// Bytes of the payload as it was sent.
    pub length: usize,
    /// Bytes of the payload after decompression; 0 for one that was sent as it is.
    pub unpacked: usize,
    /// Whole frames, not a piece of one.
    pub is_self_contained: bool,
}

/// CRC-24 of a segment's header (v5 specification, section 2.2).
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc = 0x87_5060_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= 0x197_4f0b;
            }
        }
    }
    crc & 0xff_ffff
}

impl Segment {
    /// `None` when the checksum says that it is none.
    pub fn read(bytes: &[u8], compressed: bool) -> Option<Self> {
        let size = if compressed { 5 } else { 3 };
        let (head, crc) = (bytes.get(..size)?, bytes.get(size..size + 3)?);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if u64::from(crc24(head)) != number(crc) {
            return None;
        }
        let bits = number(head);
        let field = |shift: u32| (bits >> shift & 0x1_ffff) as usize;
        Some(Self {
            header: size + 3,
            length: field(0),
            unpacked: if compressed { field(17) } else { 0 },
            is_self_contained: bits >> if compressed { 34 } else { 17 } & 1 == 1,
        })
    }

    /// At most `max` bytes of the payload, as frames.
    pub fn unpack(&self, payload: &[u8], max: usize) -> Vec<u8> {
        match self.unpacked {
            0 => payload.get(..max).unwrap_or(payload).to_vec(),
            length => prefix(Algorithm::Lz4, payload, length.min(max)),
        }
    }
}

pub fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    if let Some(header) = Header::read(payload) {
        let body = payload.get(HEADER..).unwrap_or_default();
        let body = body.get(..header.length).unwrap_or(body);
        let says = |text: &[u8]| memchr::memmem::find(body.get(..200).unwrap_or(body), text).is_some();
        let sure = match header.opcode {
            _ if header.flags & 1 != 0 => ours,
            STARTUP | SUPPORTED => says(b"CQL_VERSION"),
            OPTIONS | READY => header.length == 0 && (ours || payload.len() == HEADER),
            QUERY | PREPARE if header.flags == 0 => {
                let size = body.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize);
                let text = clip(body.get(4..).unwrap_or_default(), 64);
                size.is_some_and(|size| size + 4 <= header.length) && (ours || sql::is_statement(&text))
            }
            _ => ours,
        };
        return match sure {
            true => Guess::Yes(header.role),
            false if body.len() < header.length.min(200) => Guess::Maybe,
            false => Guess::No,
        };
    }
    for compressed in [false, true] {
        let Some(segment) = Segment::read(payload, compressed) else { continue };
        let inside = payload.get(segment.header..).unwrap_or_default();
        // Compressed or not, the first bytes are the header of a frame.
        let first = segment.unpack(inside.get(..segment.length).unwrap_or(inside), HEADER);
        match Header::read(&first).filter(|header| header.version == 5 && segment.length > 0) {
            Some(header) => return Guess::Yes(header.role),
            None if first.len() < HEADER && segment.is_self_contained && segment.length > HEADER => {
                return Guess::Maybe;
            }
            None => {}
        }
    }
    if payload.len() < HEADER && plausible(payload) { Guess::Maybe } else { Guess::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_known_by_its_checksum() {
        let mut head = [20, 0, 2, 0, 0, 0];
        let crc = crc24(&head[..3]);
        head[3..].copy_from_slice(&crc.to_le_bytes()[..3]);
        let segment = Segment::read(&head, false).expect("a segment");
        assert!(segment.length == 20 && segment.is_self_contained && segment.header == 6);
        head[0] ^= 1;
        assert!(Segment::read(&head, false).is_none());
    }
}

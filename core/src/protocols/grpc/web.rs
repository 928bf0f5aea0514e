//! The trailers at the end of a gRPC-Web body: its last frame, marked by the top bit of its flags.

use std::borrow::Cow;

use super::{Call, Outcome};
use crate::protocols::compressed::{Algorithm, prefix};
use crate::protocols::{Message, ParserSettings, Status};

/// Longest trailers that are read.
const MAX_TRAILERS: usize = 8192;
const MARK: u8 = 0x80;
const COMPRESSED: u8 = 1;
/// What gzip begins with; other compressions have no name in the frame.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Walks a body that comes in any pieces; keeps nothing of it but the trailers.
#[derive(Debug, Default)]
pub struct Body {
    text: bool,
    /// Base64 digits that are no whole group yet.
    digits: [u8; 4],
    held: usize,
    /// Flags and length of the frame that begins.
    header: [u8; 5],
    read: usize,
    left: u64,
    trailers: Vec<u8>,
    compressed: bool,
    /// Bytes are missing, or it is no such body.
    lost: bool,
}

impl Body {
    pub fn new(call: Call) -> Self {
        Self { text: call == Call::WebText, ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        if !self.text {
            return self.frames(bytes);
        }
        for &byte in bytes {
            let Some(place) = self.digits.get_mut(self.held) else {
                continue;
            };
            *place = byte;
            self.held += 1;
            if self.held == 4 {
                self.held = 0;
                match group(self.digits) {
                    Some((three, count)) => self.frames(three.get(..count).unwrap_or_default()),
                    None => self.lost = true,
                }
            }
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Some(place) = self.header.get_mut(self.read) {
                *place = byte;
                self.read += 1;
                bytes = rest;
                if self.read == self.header.len() {
                    let [flags, a, b, c, d] = self.header;
                    self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                    self.lost = flags & !(MARK | COMPRESSED) != 0;
                    self.compressed = flags & COMPRESSED != 0;
                    if self.left == 0 {
                        self.read = 0;
                    }
                }
                if self.lost {
                    return;
                }
                continue;
            }
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, after) = bytes.split_at(here);
            if self.header.first().is_some_and(|flags| flags & MARK != 0) {
                let room = MAX_TRAILERS.saturating_sub(self.trailers.len());
                self.trailers.extend_from_slice(part.get(..room).unwrap_or(part));
            }
            self.left -= here as u64;
            if self.left == 0 {
                self.read = 0;
            }
            bytes = after;
        }
    }

    /// Bytes of the body were not seen.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Puts what the trailers said into the response; trailers that cannot be read leave its outcome open.
    pub fn fill(&self, message: &mut Message, settings: &ParserSettings) {
        let outcome = self.outcome(settings);
        if outcome.status.is_none() && !self.trailers.is_empty() && message.status == Status::Success {
            message.status = Status::Unknown;
        }
        outcome.fill(message);
    }

    fn outcome(&self, settings: &ParserSettings) -> Outcome {
        let mut outcome = Outcome::default();
        let lines = match self.compressed {
            true if self.trailers.starts_with(&GZIP) => {
                Cow::Owned(prefix(Algorithm::Gzip, &self.trailers, MAX_TRAILERS))
            }
            true => return outcome,
            false => Cow::Borrowed(self.trailers.as_slice()),
        };
        for line in lines.split(|&byte| byte == b'\n') {
            if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                let (name, value) = line.split_at(colon);
                outcome.read(name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii(), settings);
            }
        }
        outcome
    }
}

/// Four base64 digits as up to three bytes.
fn group(digits: [u8; 4]) -> Option<([u8; 3], usize)> {
    let mut bits = 0u32;
    let padding = digits.iter().rev().take_while(|&&digit| digit == b'=').count();
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
    }
    let [_, a, b, c] = bits.to_be_bytes();
    Some(([a, b, c], 3usize.checked_sub(padding)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const BINARY: &[u8] = b"\0\0\0\0\x03abc\x80\0\0\0\x26grpc-status: 5\r\ngrpc-message: no%20key";
    const TEXT: &[u8] = b"AAAAAANhYmM=gAAAACZncnBjLXN0YXR1czogNQ0KZ3JwYy1tZXNzYWdlOiBubyUyMGtleQ==";

    #[test]
    fn any_pieces_give_the_trailers() {
        for (call, bytes) in [(Call::Web, BINARY), (Call::WebText, TEXT)] {
            for size in 1..bytes.len() {
                let mut body = Body::new(call);
                for piece in bytes.chunks(size) {
                    body.feed(piece);
                }
                let outcome = body.outcome(&ParserSettings::default());
                assert_eq!(outcome, Outcome { status: Some(5), message: "no key".to_owned() }, "{call:?} {size}");
            }
        }
    }

    #[test]
    fn trailers_may_be_compressed() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"Grpc-Status: 15\r\nGrpc-Message: the%20end\r\n").unwrap();
        let gzip = gzip.finish().unwrap();
        let length = u32::try_from(gzip.len()).unwrap().to_be_bytes();
        for (trailers, code, status) in
            [(gzip.as_slice(), Some(15), Status::ServerError), (&vec![7; gzip.len()], None, Status::Unknown)]
        {
            let mut body = Body::new(Call::Web);
            body.feed(&[b"\0\0\0\0\x03abc\x81", length.as_slice(), trailers].concat());
            let mut message = Message { status: Status::Success, ..Message::default() };
            body.fill(&mut message, &ParserSettings::default());
            assert_eq!((message.response_code, message.status), (code, status));
        }
    }

    #[test]
    fn what_is_no_such_body_says_nothing() {
        let mut body = Body::new(Call::Web);
        body.feed(b"<html>grpc-status: 5");
        assert_eq!(body.outcome(&ParserSettings::default()), Outcome::default());
    }
}

//! Is it HTTP/2, also in the middle of a connection?

use memchr::memmem;

use super::frame::{self, CONTINUATION, Frame, HEADER, HEADERS, PREFACE, PUSH_PROMISE, SETTINGS, fragment};
use super::hpack::Decoder;
use crate::protocols::{Guess, Role};

/// Frames in a row that are looked at.
const MAX_FRAMES: usize = 8;
/// Bytes of a header block that are looked at: what tells who wrote it stands at its beginning.
const MAX_TELLING: usize = 2048;
/// Header blocks are decoded at many places of a window: their bytes are so many times those of the window at most.
const LOOKS: usize = 4;

pub fn check(payload: &[u8], _port: u16) -> Guess {
    let shared = payload.len().min(PREFACE.len());
    if payload.get(..shared) == PREFACE.get(..shared) {
        return if shared == PREFACE.len() { Guess::Yes(Role::Client) } else { Guess::Maybe };
    }
    match Looks::at(payload).chain(payload) {
        Chain::Wrong => Guess::No,
        Chain::Written(role) => Guess::Yes(role),
        Chain::Frames(_) => Guess::Maybe,
    }
}

/// Offset of the first frame in bytes of `role` that begin anywhere.
pub fn find(role: Role, window: &[u8]) -> Option<usize> {
    let preface = if role == Role::Client { memmem::find(window, PREFACE) } else { None };
    let mut looks = Looks::at(window);
    // The kind of a frame is its fourth byte; nothing else of it is as telling.
    let frame = (0..window.len().saturating_sub(HEADER - 1)).find(|&at| {
        let rest = window.get(at..).unwrap_or_default();
        rest.get(3).is_some_and(|kind| *kind <= CONTINUATION)
            && match looks.chain(rest) {
                Chain::Wrong => false,
                Chain::Written(writer) => writer == role,
                // At the beginning of a segment a frame is likely, elsewhere only a row of them.
                Chain::Frames(count) => count >= 2 || at == 0 && count == 1,
            }
    });
    preface.into_iter().chain(frame).min()
}

enum Chain {
    /// Not of this protocol.
    Wrong,
    /// Of this protocol, and it is clear who wrote it.
    Written(Role),
    /// So many plausible frames, and nothing that says who wrote them.
    Frames(usize),
}

/// Header blocks that may still be looked at.
struct Looks {
    decoder: Decoder,
    left: usize,
}

impl Looks {
    fn at(window: &[u8]) -> Self {
        Self { decoder: Decoder::default(), left: window.len().saturating_mul(LOOKS) }
    }

    /// Looks at the frames that follow each other from the start of `bytes`.
    fn chain(&mut self, bytes: &[u8]) -> Chain {
        let mut rest = bytes;
        let mut begins = true;
        for count in 0..MAX_FRAMES {
            let Some(frame) = Frame::read(rest) else {
                let cut =
                    rest.get(3).is_none_or(|kind| *kind <= CONTINUATION) && rest.first().is_none_or(|&high| high == 0);
                return if cut { Chain::Frames(count) } else { Chain::Wrong };
            };
            if !frame.is_plausible() || frame.length > 1 << 14 && count == 0 {
                return Chain::Wrong;
            }
            let after = rest.get(HEADER..).unwrap_or_default();
            let payload = after.get(..frame.length as usize);
            match frame.kind {
                HEADERS | PUSH_PROMISE => return self.written(frame, payload.unwrap_or(after), count),
                // A server begins with its settings; a client sends its own behind the preface.
                SETTINGS if begins && !frame.has(frame::ACK) => {
                    if !payload.unwrap_or(after).chunks(6).all(setting) {
                        return Chain::Wrong;
                    }
                    if frame.length > 0 && payload.is_some() {
                        return Chain::Written(Role::Server);
                    }
                }
                _ => {}
            }
            begins = false;
            match after.get(frame.length as usize..) {
                Some([]) | None => return Chain::Frames(count + usize::from(payload.is_some())),
                Some(next) => rest = next,
            }
        }
        Chain::Frames(MAX_FRAMES)
    }

    /// Who wrote this header block?
    fn written(&mut self, frame: Frame, payload: &[u8], before: usize) -> Chain {
        let whole = payload.len() == frame.length as usize;
        let Some(block) = fragment(frame, payload) else {
            return if whole || payload.len() > 5 { Chain::Wrong } else { Chain::Frames(before) };
        };
        let look = block.len().min(MAX_TELLING);
        let (Some(block), Some(left)) = (block.get(..look), self.left.checked_sub(look)) else {
            return Chain::Frames(before);
        };
        self.left = left;
        let whole = whole && look < MAX_TELLING;
        let (mut asks, mut answers, mut odd) = (false, false, false);
        let complete = whole && frame.has(frame::END_HEADERS);
        self.decoder.lose();
        let decoded = self.decoder.decode(block, complete, &mut |name, _| match name {
            Some(b":method" | b":path" | b":scheme" | b":authority" | b":protocol") => asks = true,
            Some(b":status") => answers = true,
            Some(b"grpc-status") => answers = true,
            Some(name) => odd |= name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()),
            None => {}
        });
        match (asks, answers) {
            _ if decoded.is_err() || odd || asks && answers => Chain::Wrong,
            (true, _) if frame.kind == PUSH_PROMISE => Chain::Written(Role::Server),
            (true, _) => Chain::Written(Role::Client),
            (_, true) => Chain::Written(Role::Server),
            _ => Chain::Frames(before + usize::from(whole)),
        }
    }
}

/// A setting with a value that it may have (RFC 9113 section 6.5.2), or the beginning of one.
fn setting(bytes: &[u8]) -> bool {
    let [high, low, value @ ..] = bytes else {
        return true;
    };
    let Some(value) = value.first_chunk::<4>().map(|value| u32::from_be_bytes(*value)) else {
        return true;
    };
    match u16::from_be_bytes([*high, *low]) {
        2 | 8 | 9 => value <= 1,
        4 => value >> 31 == 0,
        5 => (1 << 14..1 << 24).contains(&value),
        // gRPC's own is 0xfe03.
        1 | 3 | 6 | 0xfe03 => true,
        // Values that nobody understands are sent on purpose (RFC 8701).
        other => other & 0x0f0f == 0x0a0a,
    }
}

//! The compressed protocol ("Compressed Packet"): packets of zlib or zstd, or stored ones, that hold the stream of
//! plain packets. They are inflated piece by piece; what a plain packet does not need is skipped by count there too.

use std::collections::VecDeque;

use super::{Mysql, packet, u24};
use crate::event::Origin;
use crate::protocols::inflate::{Inside, ZSTD, inside};
use crate::protocols::{Message, Role, Step};

/// Length, sequence number, inflated length (0: stored).
const HEADER: usize = 7;
/// Most bytes of one compressed packet that are inflated; the rest is lost.
const MAX_HELD: usize = 48 * 1024;
/// The tables of a block of zlib are shorter: what gives nothing after so many bytes gives nothing at all. (zstd gives
/// whole blocks only.)
const MAX_SILENT: usize = 512;
const PIECE: usize = 4 * 1024;
/// Most bytes of an unfinished plain packet.
const MAX_PLAIN: usize = 64 * 1024;

/// The plain stream of one direction.
#[derive(Default)]
struct Side {
    plain: Vec<u8>,
    skip: u64,
    lost: bool,
    /// Where the plain bytes that are kept began.
    began: Origin,
    /// Messages of one compressed packet; each takes a byte of it, the last one the rest.
    ready: VecDeque<Message>,
    left: u64,
}

#[derive(Default)]
pub struct Compressed {
    sides: [Side; 2],
}

impl Compressed {
    pub fn lose(&mut self, role: Role) {
        if let Some(side) = self.sides.get_mut(usize::from(role == Role::Server)) {
            *side = Side { lost: true, ..Side::default() };
        }
    }
}

struct Frame<'a> {
    length: usize,
    inflated: usize,
    body: &'a [u8],
}

fn frame(window: &[u8]) -> Option<Frame<'_>> {
    let (length, inflated) = (u24(window)?, u24(window.get(4..)?)?);
    let end = (HEADER + length).min(window.len());
    Some(Frame { length, inflated, body: window.get(HEADER..end)? })
}

/// Bytes until the end of the first block of zstd (RFC 8878, sections 3.1.1.1 and 3.1.1.2): before, it gives nothing.
fn first_block(body: &[u8]) -> Option<usize> {
    let descriptor = *body.get(ZSTD.len())?;
    let single = usize::from(descriptor >> 5 & 1);
    let size = match descriptor >> 6 {
        0 => single,
        flag => 1 << flag,
    };
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let at = ZSTD.len() + 1 + (1 - single) + dictionary + size;
    let header = u24(body.get(at..)?)?;
    let content = if header >> 1 & 3 == 1 { 1 } else { header >> 3 };
    Some(at + 3 + content)
}

/// The plain bytes at the beginning, when this is a compressed packet. `None` in `Err`: too short to tell.
pub fn peek(window: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let whole = packet(window).is_some_and(|packet| packet.body.len() == packet.length);
    let undecided = if whole { Ok(None) } else { Err(()) };
    let Some(frame) = frame(window) else {
        return undecided;
    };
    if frame.inflated == 0 {
        return match u24(frame.body) {
            None if frame.length < 5 => Ok(None),
            None => Err(()),
            Some(inner) => {
                let body = frame.body.get(..4096).unwrap_or(frame.body);
                Ok((inner > 0 && inner + 4 == frame.length).then(|| body.to_vec()))
            }
        };
    }
    let zlib = match frame.body {
        [0x78, flags, ..] => (0x7800 + u16::from(*flags)).is_multiple_of(31),
        _ => false,
    };
    if frame.body.len() < ZSTD.len() && !whole {
        return Err(());
    }
    if !(zlib || frame.body.starts_with(&ZSTD)) || frame.inflated < 5 || frame.length < 8 {
        return Ok(None);
    }
    // The window comes again for each byte that it grows: it is inflated once.
    let most = frame.length.min(if zlib { MAX_SILENT } else { MAX_HELD });
    let awaited = if zlib { most } else { first_block(frame.body).unwrap_or(most).min(most) };
    if frame.body.len() < awaited {
        return Err(());
    }
    let mut plain = vec![0; frame.inflated.min(4096)];
    let Some(length) = inside(frame.body, |inside| inside.fill(&mut plain)).flatten() else {
        return Ok(None);
    };
    plain.truncate(length);
    Ok((length > 4).then_some(plain))
}

impl Mysql {
    pub fn inflate(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let index = usize::from(role == Role::Server);
        if let Some(side) = self.compressed.as_mut().and_then(|all| all.sides.get_mut(index))
            && let Some(message) = side.ready.pop_front()
        {
            let consumed = if side.ready.is_empty() { side.left } else { 1 };
            side.left = side.left.saturating_sub(consumed);
            return Step::Message { consumed: consumed.max(1), message: Box::new(message) };
        }
        let Some(frame) = frame(window) else {
            return match last {
                None => Step::NeedMore,
                Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
            };
        };
        let total = (HEADER + frame.length) as u64;
        let held = frame.length.min(MAX_HELD);
        if frame.length == 0 || frame.inflated > 0 && frame.inflated < 5 {
            return Step::Invalid;
        }
        if frame.body.len() < held && last.is_none() {
            return Step::NeedMore;
        }
        let body = frame.body.get(..held).unwrap_or(frame.body);
        let mut side = match self.compressed.as_mut().and_then(|all| all.sides.get_mut(index)) {
            Some(side) => std::mem::take(side),
            None => Side::default(),
        };
        if frame.inflated == 0 {
            self.plain(role, &mut side, body, (frame.length - body.len()) as u64);
        } else {
            let read = inside(body, |inside| self.pieces(role, &mut side, inside, frame.inflated));
            side.lost |= read.is_none();
        }
        side.ready.truncate(frame.length);
        side.left = total;
        if let Some(place) = self.compressed.as_mut().and_then(|all| all.sides.get_mut(index)) {
            *place = side;
        }
        let waits = self.compressed.as_ref().and_then(|all| all.sides.get(index)).is_some_and(|s| !s.ready.is_empty());
        if waits { self.inflate(role, window, last) } else { Step::Skip(total) }
    }

    /// Inflates `length` bytes piece by piece.
    fn pieces(&mut self, role: Role, side: &mut Side, inside: &mut Inside<'_, '_>, length: usize) {
        let mut piece = [0; PIECE];
        let mut left = length;
        while left > 0 {
            let wanted = left.min(PIECE);
            let Some(room) = piece.get_mut(..wanted) else { return };
            let filled = inside.fill(room).unwrap_or(0);
            left -= filled;
            let missing = if filled < wanted { left } else { 0 };
            self.plain(role, side, piece.get(..filled).unwrap_or_default(), missing as u64);
            if filled < wanted {
                return;
            }
        }
    }

    /// Walks along plain bytes, behind which `missing` are not known.
    fn plain(&mut self, role: Role, side: &mut Side, bytes: &[u8], mut missing: u64) {
        let cut = side.skip.min(bytes.len() as u64);
        side.skip -= cut;
        let bytes = bytes.get(usize::try_from(cut).unwrap_or(bytes.len())..).unwrap_or_default();
        if side.lost && !bytes.is_empty() {
            if self.resync_plain(role, bytes).is_none() {
                return;
            }
            side.lost = false;
        }
        if side.plain.is_empty() {
            let skipped = side.skip.min(missing);
            side.skip -= skipped;
            missing -= skipped;
            side.began = self.origin;
        }
        side.plain.extend_from_slice(bytes);
        let mut window = std::mem::take(&mut side.plain);
        let mut at = 0;
        while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
            let last = (missing > 0 || rest.len() >= MAX_PLAIN).then_some(missing);
            let consumed = match self.step(role, rest, last) {
                Step::Message { consumed, mut message } => {
                    if side.began != self.origin {
                        message.began = Some(side.began);
                    }
                    side.ready.push_back(*message);
                    consumed
                }
                Step::Skip(consumed) => consumed,
                Step::NeedMore => break,
                // (No message of MySQL is shared with others.)
                Step::Known { .. } | Step::Invalid | Step::Switch | Step::SwitchTo(_) => {
                    side.lost = true;
                    return;
                }
            };
            side.began = self.origin;
            at = at.saturating_add(usize::try_from(consumed).unwrap_or(usize::MAX));
            if let Some(beyond) = at.checked_sub(window.len()) {
                let hole = (beyond as u64).min(missing);
                missing -= hole;
                side.skip = beyond as u64 - hole;
            }
        }
        side.lost = missing > 0;
        if !side.lost {
            window.drain(..at.min(window.len()));
            side.plain = window;
        }
    }
}

//! One direction of a connection: puts bytes in order and walks a parser along them.
//!
//! A message that lies within one segment is parsed from the segment's own payload; bytes are copied only when a
//! message goes on beyond it. Bytes that nobody needs are skipped by count. What was not captured, or was lost, is a
//! hole: the parser is told (`truncated`), and when the hole hides the start of a message it has to find the next one
//! (`resync`).

use crate::event::{Direction, Origin};
use crate::protocols::{Parser, Role, Step, Told};

/// Most bytes of an unfinished message that are kept.
pub const WINDOW: usize = 64 * 1024;
/// A sequence number further away than this is no gap but another numbering.
const FAR: u32 = 1 << 28;
/// Bounds of the queue of packets that came too early.
const AHEAD_SEGMENTS: usize = 64;
const AHEAD_BYTES: usize = 256 * 1024;

/// Bytes in order: a captured prefix of `length` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub origin: Origin,
    pub length: u64,
    pub payload: &'a [u8],
}

impl<'a> Piece<'a> {
    /// What lies behind the first `bytes`.
    fn after(&self, bytes: u64) -> Self {
        let captured = (bytes.min(self.payload.len() as u64)) as usize;
        Self {
            origin: self.origin.after(bytes as usize),
            length: self.length - bytes,
            payload: &self.payload[captured..],
        }
    }
}

/// A message and where its first byte was.
#[derive(Debug)]
pub struct Seen {
    pub message: Told,
    pub direction: Direction,
    pub origin: Origin,
    /// Bytes of the message that were in the window, and those since its beginning.
    pub captured: u32,
}

/// Another protocol begins with the bytes that are kept of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    pub direction: Direction,
    /// Its number, when it is known.
    pub to: Option<u8>,
}

/// What happened while one segment was worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub invalid: u64,
    pub truncated: u64,
    /// Gaps in the sequence numbers, and the bytes in them.
    pub gaps: u64,
    pub gap_bytes: u64,
    /// Segments whose bytes had all been seen before.
    pub repeated: u64,
    /// The segment began with bytes of a message that was named before.
    pub continued: bool,
    pub switched: Option<Switched>,
    /// Bytes are missing that may have held the start of a message: how many messages had been seen then.
    pub lost: Option<usize>,
}

impl Report {
    fn lose(&mut self, seen: usize) {
        self.lost = Some(self.lost.unwrap_or(seen));
    }
}

/// A packet that came before its turn.
#[derive(Debug)]
struct Ahead {
    origin: Origin,
    length: u64,
    payload: Vec<u8>,
}

/// State of one direction.
#[derive(Debug, Default)]
pub struct Stream {
    window: Vec<u8>,
    /// Origin of the bytes from an offset of the window on, in order.
    marks: Vec<(usize, Origin)>,
    skip: u64,
    lost: bool,
    next_seq: Option<u32>,
    ahead: Vec<Ahead>,
    ahead_bytes: usize,
}

/// How a segment lies to what was seen before.
enum Arrival {
    InOrder,
    /// The first bytes are known.
    Overlap(u32),
    /// Bytes are missing before it.
    Early(u32),
    /// Another numbering: the connection was not followed.
    Elsewhere,
}

/// Distance that counts as "before" in sequence space.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

impl Stream {
    /// Bytes kept for a message that is not complete.
    pub fn kept(&self) -> &[u8] {
        &self.window
    }

    /// Keeps bytes without parsing them, until it is known whose they are.
    pub fn keep(&mut self, piece: &Piece<'_>) {
        self.marks.push((self.window.len(), piece.origin));
        self.window.extend_from_slice(piece.payload);
    }

    /// Gives the kept bytes away, with the origin of the first.
    pub fn give_back(&mut self) -> (Origin, Vec<u8>) {
        let origin = self.marks.first().map(|(_, origin)| *origin).unwrap_or_default();
        let window = std::mem::take(&mut self.window);
        self.clear();
        (origin, window)
    }

    /// Forgets kept bytes.
    pub fn clear(&mut self) {
        self.window = Vec::new();
        self.marks.clear();
        self.skip = 0;
        self.lost = false;
    }

    /// Packets wait for an earlier one.
    pub fn waits(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Time of the oldest packet that waits, µs.
    pub fn waits_since(&self) -> Option<u64> {
        self.ahead.iter().map(|ahead| ahead.origin.time_us).min()
    }

    fn arrival(&self, seq: u32, length: u64) -> Arrival {
        let Some(next) = self.next_seq else {
            return Arrival::InOrder;
        };
        let delta = distance(next, seq);
        if delta.unsigned_abs() > FAR {
            Arrival::Elsewhere
        } else if delta == 0 {
            Arrival::InOrder
        } else if delta > 0 {
            Arrival::Early(delta as u32)
        } else {
            Arrival::Overlap((delta.unsigned_abs() as u64).min(length) as u32)
        }
    }

    /// Is this the piece that comes next, with nothing to be put in order? Then it counts as passed on, and `order` is
    /// not to be called for it.
    #[inline]
    pub fn is_next(&mut self, piece: &Piece<'_>) -> bool {
        let seq = piece.origin.seq;
        let next = self.next_seq == Some(seq) && seq != 0 && piece.length > 0 && self.ahead.is_empty();
        if next {
            self.next_seq = Some(seq.wrapping_add(piece.length as u32));
        }
        next
    }

    /// Puts a piece in order. Calls `each` for every piece whose turn has come, a gap being a piece without payload.
    /// `wait`: pieces that come too early are kept for a while (packets); otherwise what lies before them is lost.
    pub fn order(
        &mut self,
        mut piece: Piece<'_>,
        wait: bool,
        report: &mut Report,
        each: &mut dyn FnMut(&mut Self, &Piece<'_>, &mut Report),
    ) {
        if piece.origin.seq == 0 {
            self.next_seq = None;
            each(self, &piece, report);
            return;
        }
        if piece.length == 0 {
            // No byte, so nothing to put in order; a FIN before it took a number that no byte has.
            self.next_seq = self.next_seq.or(Some(piece.origin.seq));
            return;
        }
        match self.arrival(piece.origin.seq, piece.length) {
            Arrival::InOrder => {}
            Arrival::Elsewhere => {
                report.gaps += 1;
                self.ahead.clear();
                self.ahead_bytes = 0;
                self.clear();
                self.lost = true;
                report.lose(0);
            }
            Arrival::Overlap(known) => {
                if u64::from(known) >= piece.length {
                    report.repeated += 1;
                    return;
                }
                piece = piece.after(u64::from(known));
            }
            Arrival::Early(_) if wait => {
                self.queue(&piece);
                if self.ahead.len() > AHEAD_SEGMENTS || self.ahead_bytes > AHEAD_BYTES {
                    self.release(report, each);
                }
                return;
            }
            Arrival::Early(missing) => self.gap(missing, piece.origin, report, each),
        }
        self.deliver(&piece, report, each);
        self.deliver_due(report, each);
    }

    /// Gives up waiting for what lies before the first early packet.
    pub fn release(&mut self, report: &mut Report, each: &mut dyn FnMut(&mut Self, &Piece<'_>, &mut Report)) {
        if let (Some(first), Some(next)) = (self.ahead.first(), self.next_seq) {
            let missing = distance(next, first.origin.seq);
            if missing > 0 {
                let origin = first.origin;
                self.gap(missing as u32, origin, report, each);
            }
            self.deliver_due(report, each);
        }
    }

    fn deliver(
        &mut self,
        piece: &Piece<'_>,
        report: &mut Report,
        each: &mut dyn FnMut(&mut Self, &Piece<'_>, &mut Report),
    ) {
        self.next_seq = Some(piece.origin.seq.wrapping_add(piece.length as u32));
        if piece.length > 0 {
            each(self, piece, report);
        }
    }

    fn deliver_due(&mut self, report: &mut Report, each: &mut dyn FnMut(&mut Self, &Piece<'_>, &mut Report)) {
        while let (Some(first), Some(next)) = (self.ahead.first(), self.next_seq) {
            if distance(next, first.origin.seq) > 0 {
                return;
            }
            let first = self.ahead.remove(0);
            self.ahead_bytes -= first.payload.len();
            let mut piece = Piece { origin: first.origin, length: first.length, payload: &first.payload };
            let known = u64::from(distance(piece.origin.seq, next).unsigned_abs());
            if known >= piece.length {
                report.repeated += 1;
                continue;
            }
            piece = piece.after(known);
            self.deliver(&piece, report, each);
        }
    }

    fn gap(
        &mut self,
        missing: u32,
        before: Origin,
        report: &mut Report,
        each: &mut dyn FnMut(&mut Self, &Piece<'_>, &mut Report),
    ) {
        report.gaps += 1;
        report.gap_bytes += u64::from(missing);
        let origin = Origin { time_us: before.time_us, seq: before.seq.wrapping_sub(missing) };
        self.next_seq = Some(before.seq);
        each(self, &Piece { origin, length: u64::from(missing), payload: &[] }, report);
    }

    fn queue(&mut self, piece: &Piece<'_>) {
        let place = self
            .ahead
            .iter()
            .position(|ahead| distance(piece.origin.seq, ahead.origin.seq) > 0)
            .unwrap_or(self.ahead.len());
        self.ahead_bytes += piece.payload.len();
        let payload = piece.payload.to_vec();
        self.ahead.insert(place, Ahead { origin: piece.origin, length: piece.length, payload });
    }

    /// Walks the parser along the bytes at hand. `datagram`: nothing follows these bytes.
    #[inline]
    pub fn feed(
        &mut self,
        parser: &mut dyn Parser,
        (role, direction): (Role, Direction),
        piece: &Piece<'_>,
        datagram: bool,
        seen: &mut Vec<Seen>,
        report: &mut Report,
    ) {
        // By reference: a copy of what was written a moment ago is slow.
        let rest;
        let mut piece = piece;
        if self.skip > 0 && piece.length > 0 {
            let passed = self.skip.min(piece.length);
            self.skip -= passed;
            report.continued = true;
            if piece.length == passed {
                return;
            }
            rest = piece.after(passed);
            piece = &rest;
        }
        let hole = piece.length - piece.payload.len() as u64;
        let mut walk = Walk { parser, role, direction, seen, report, hole, datagram };
        if self.window.is_empty() {
            let used = self.walk(&mut walk, piece.payload, |at| piece.origin.after(at));
            if used < piece.payload.len() && !datagram {
                self.keep(&piece.after(used as u64));
            }
        } else {
            self.keep(piece);
            let window = std::mem::take(&mut self.window);
            let marks = std::mem::take(&mut self.marks);
            let used = self.walk(&mut walk, &window, |at| origin_at(&marks, at));
            if used < window.len() {
                self.marks = marks_from(marks, used);
                self.window = window;
                self.window.drain(..used);
            }
        }
        if datagram {
            self.clear();
        }
    }

    /// Parses as far as it goes; returns how many bytes are done with.
    fn walk(&mut self, walk: &mut Walk<'_>, bytes: &[u8], origin: impl Fn(usize) -> Origin) -> usize {
        let role = walk.role;
        let mut at = 0;
        if self.lost && !bytes.is_empty() {
            match walk.parser.resync(role, bytes) {
                Some(start) if start < bytes.len() => {
                    at = start;
                    self.lost = false;
                }
                _ => return bytes.len(),
            }
        }
        while at < bytes.len() {
            let window = &bytes[at..];
            walk.parser.at(origin(at));
            let mut step = walk.parser.parse(role, window);
            if matches!(step, Step::NeedMore) && (walk.hole > 0 || walk.datagram || window.len() >= WINDOW) {
                walk.report.truncated += 1;
                step = walk.parser.truncated(role, window, walk.hole);
                if matches!(step, Step::NeedMore) {
                    step = Step::Invalid;
                }
            }
            match step {
                Step::Message { consumed, message } if consumed > 0 => {
                    let (origin, captured) = walk.see(Told::Own(message), origin(at), consumed, window.len());
                    while let Some(message) = walk.parser.more() {
                        let (message, direction) = (Told::Own(message), walk.direction);
                        walk.seen.push(Seen { message, direction, origin, captured });
                    }
                    at = self.pass(at, consumed, bytes.len(), &mut walk.hole);
                }
                Step::Known { consumed, message } if consumed > 0 => {
                    walk.see(Told::Shared(message), origin(at), consumed, window.len());
                    at = self.pass(at, consumed, bytes.len(), &mut walk.hole);
                }
                Step::Skip(count) if count > 0 => {
                    walk.report.continued |= walk.seen.is_empty();
                    at = self.pass(at, count, bytes.len(), &mut walk.hole);
                }
                Step::NeedMore => return at,
                Step::Switch | Step::SwitchTo(_) => {
                    let to = if let Step::SwitchTo(number) = step { Some(number) } else { None };
                    walk.report.switched = Some(Switched { direction: walk.direction, to });
                    walk.hole = 0;
                    return at;
                }
                _ => {
                    walk.report.invalid += 1;
                    match walk.parser.resync(role, &bytes[at + 1..]) {
                        Some(start) if at + 1 + start < bytes.len() => at += 1 + start,
                        _ => {
                            at = bytes.len();
                            self.lost = true;
                            walk.report.lose(walk.seen.len());
                        }
                    }
                }
            }
        }
        if walk.hole > 0 {
            self.lost = true;
            walk.report.lose(walk.seen.len());
        }
        at
    }

    /// Position after `count` bytes from `at`; what goes beyond the bytes eats the hole, then counts as to be skipped.
    fn pass(&mut self, at: usize, count: u64, end: usize, hole: &mut u64) -> usize {
        let here = (end - at) as u64;
        if count <= here {
            return at + count as usize;
        }
        let beyond = count - here;
        let unseen = beyond.min(*hole);
        *hole -= unseen;
        self.skip = beyond - unseen;
        end
    }
}

/// What `walk` needs besides the bytes.
struct Walk<'a> {
    parser: &'a mut dyn Parser,
    role: Role,
    direction: Direction,
    seen: &'a mut Vec<Seen>,
    report: &'a mut Report,
    hole: u64,
    datagram: bool,
}

impl Walk<'_> {
    /// Notes a message whose bytes end `consumed` bytes after `here`, of which `window` are at hand. Returns where it
    /// began, and how many of its bytes were captured.
    #[inline(always)]
    fn see(&mut self, message: Told, here: Origin, consumed: u64, window: usize) -> (Origin, u32) {
        let origin = message.began.unwrap_or(here);
        let before = if origin.seq == 0 { 0 } else { here.seq.wrapping_sub(origin.seq) };
        let captured = (consumed.min(window as u64) as u32).saturating_add(before);
        self.seen.push(Seen { message, direction: self.direction, origin, captured });
        (origin, captured)
    }
}

fn origin_at(marks: &[(usize, Origin)], at: usize) -> Origin {
    let after = marks.partition_point(|(offset, _)| *offset <= at);
    let known = after.checked_sub(1).and_then(|place| marks.get(place));
    known.map_or_else(Origin::default, |(offset, origin)| origin.after(at - offset))
}

fn marks_from(mut marks: Vec<(usize, Origin)>, used: usize) -> Vec<(usize, Origin)> {
    // A message that comes byte by byte has a mark a byte: they are not to be gone through each time.
    if used == 0 {
        return marks;
    }
    let first = origin_at(&marks, used);
    marks.retain(|(offset, _)| *offset > used);
    for (offset, _) in &mut marks {
        *offset -= used;
    }
    marks.insert(0, (0, first));
    marks
}

//! What one side of a TCP connection has sent: a stretch of sequence numbers and the holes in it.

/// Ranges of sequence numbers that are remembered: one more than the holes between them.
pub const MAX_RANGES: usize = 16;
const MAX_HOLES: usize = MAX_RANGES - 1;
/// A jump over more than this is another connection or garbage, not a hole.
const MAX_JUMP: u32 = 1 << 30;
/// Behind the highest number by more than this nothing is remembered.
const MEMORY: u32 = 1 << 29;
/// More than any segment with offload (BIG TCP) has.
const MAX_LENGTH: u32 = 1 << 24;
const MAX_REACH: i64 = 1 << 16;
/// A segment that fills a hole this early, with no round trip known, was overtaken (as in Wireshark's analysis).
const OVERTAKEN_US: u64 = 3_000;
/// IP identifications of one sender that lie this near count its packets.
const NEAR_IDS: u16 = 1_024;

/// What a segment of data is to what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Nothing of it was seen, and it is the furthest so far.
    New,
    /// Some of its bytes were seen before.
    Repeated,
    /// It fills a hole: it was lost before the capture point, and sent again.
    Resent,
    /// It fills a hole: the next one overtook it.
    Overtaken,
}

/// When and as which packet something was first missed.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    time_us: u64,
    ip_id: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hole {
    start: u32,
    end: u32,
    missed: Missed,
}

#[derive(Debug)]
struct Holes {
    list: [Hole; MAX_HOLES],
    count: usize,
}

impl Holes {
    /// Keeps the newest: they lie nearest to what is sent next.
    fn push(&mut self, hole: Hole) {
        if self.count == MAX_HOLES {
            self.list.copy_within(1.., 0);
            self.count -= 1;
        }
        if let Some(free) = self.list.get_mut(self.count) {
            *free = hole;
            self.count += 1;
        }
    }
}

/// The sequence numbers one side has sent, `low..high` without the holes. The holes are boxed: few flows have any.
#[derive(Debug, Default)]
pub struct Sent {
    known: bool,
    low: u32,
    high: u32,
    begun: Missed,
    holes: Option<Box<Holes>>,
}

/// How far `to` lies ahead of `from` (RFC 9293, 3.4); negative: behind.
fn distance(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

impl Sent {
    /// The number after the furthest byte, once anything was seen.
    pub fn next(&self) -> Option<u32> {
        self.known.then_some(self.high)
    }

    /// Forgets all: the next byte has this number.
    pub fn begin(&mut self, seq: u32, time_us: u64, ip_id: u16) {
        *self = Self { known: true, low: seq, high: seq, begun: Missed { time_us, ip_id }, holes: None };
    }

    /// A packet without data has this number: what lies before it was sent. No more than one large segment is believed.
    pub fn reach(&mut self, seq: u32, time_us: u64, ip_id: u16) {
        if self.known && (1..=MAX_REACH).contains(&distance(self.high, seq)) {
            self.miss(Hole { start: self.high, end: seq, missed: Missed { time_us, ip_id } });
            self.advance(seq);
        }
    }

    /// A segment of data. `rtt_us` is the round trip at this capture point, 0 unknown.
    pub fn segment(&mut self, seq: u32, length: u32, time_us: u64, ip_id: u16, rtt_us: u32) -> Segment {
        let length = length.min(MAX_LENGTH);
        let ahead = distance(self.high, seq);
        if !self.known || ahead.unsigned_abs() > u64::from(MAX_JUMP) {
            self.begin(seq, time_us, ip_id);
            self.high = seq.wrapping_add(length);
            return Segment::New;
        }
        let end = seq.wrapping_add(length);
        if ahead >= 0 {
            if ahead > 0 {
                self.miss(Hole { start: self.high, end: seq, missed: Missed { time_us, ip_id } });
            }
            self.advance(end);
            return Segment::New;
        }
        let mut missing = 0;
        let mut missed = self.begun;
        let known_end = if distance(self.high, end) > 0 { self.high } else { end };
        if distance(self.low, seq) < 0 {
            let before = if distance(self.low, known_end) < 0 { known_end } else { self.low };
            missing += distance(seq, before);
            if before != self.low {
                let hole = Hole { start: known_end, end: self.low, missed };
                self.miss(hole);
            }
            self.low = seq;
        }
        if let Some((filled, first)) = self.fill(seq, known_end) {
            missing += filled;
            missed = first;
        }
        self.advance(end);
        if missing < distance(seq, known_end) {
            Segment::Repeated
        } else if overtaken(missed, time_us, ip_id, rtt_us) {
            Segment::Overtaken
        } else {
            Segment::Resent
        }
    }

    fn advance(&mut self, end: u32) {
        if distance(self.high, end) > 0 {
            self.high = end;
        }
        if distance(self.low, self.high) > i64::from(MAX_JUMP) {
            self.low = self.high.wrapping_sub(MEMORY);
            let low = self.low;
            self.retain(|hole| distance(low, hole.start) >= 0);
        }
    }

    fn miss(&mut self, hole: Hole) {
        self.holes.get_or_insert_with(|| Box::new(Holes { list: Default::default(), count: 0 })).push(hole);
    }

    fn retain(&mut self, keep: impl Fn(&Hole) -> bool) {
        let Some(holes) = self.holes.take() else { return };
        for hole in holes.list.iter().take(holes.count).filter(|hole| keep(hole)) {
            self.miss(*hole);
        }
    }

    /// Takes `start..end` out of the holes; how many bytes of it were missing, and since when.
    fn fill(&mut self, start: u32, end: u32) -> Option<(i64, Missed)> {
        let holes = self.holes.take()?;
        let mut filled = 0;
        let mut since = None;
        for hole in holes.list.iter().take(holes.count) {
            let from = if distance(hole.start, start) > 0 { start } else { hole.start };
            let to = if distance(hole.end, end) < 0 { end } else { hole.end };
            if distance(from, to) <= 0 {
                self.miss(*hole);
                continue;
            }
            filled += distance(from, to);
            since.get_or_insert(hole.missed);
            if from != hole.start {
                self.miss(Hole { end: from, ..*hole });
            }
            if to != hole.end {
                self.miss(Hole { start: to, ..*hole });
            }
        }
        since.map(|missed| (filled, missed))
    }
}

/// Was a late segment sent before the one that showed its absence? Most senders number their packets
/// (RFC 6864 asks for no more than uniqueness); else the time tells: sent again it comes a round trip later.
fn overtaken(missed: Missed, time_us: u64, ip_id: u16, rtt_us: u32) -> bool {
    let later = ip_id.wrapping_sub(missed.ip_id);
    if ip_id != 0 && missed.ip_id != 0 && later != 0 {
        if later < NEAR_IDS {
            return false;
        }
        if later.wrapping_neg() < NEAR_IDS {
            return true;
        }
    }
    let limit = if rtt_us == 0 { OVERTAKEN_US } else { u64::from(rtt_us) };
    time_us.saturating_sub(missed.time_us) < limit
}

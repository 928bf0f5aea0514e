//! Cassandra's native protocol, CQL (native_protocol_v3.spec, v4.spec, v5.spec of Apache Cassandra).
//!
//! A frame is named by the first `max_field` bytes of its body. From version 5 on frames travel in segments once the
//! connection is set up; what a segment holds is read from its first bytes too.

mod body;
mod frame;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::compressed::{Algorithm, prefix};
use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql, without_quoted};
use frame::{HEADER, Header, Segment};

pub const PROTOCOL: Protocol = Protocol {
    id: 202,
    name: "Cassandra",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check: frame::check,
    parser: |settings| Box::new(Cassandra::new(settings.clone())),
    doc: "CQL over the native protocol, versions 3 to 5: queries, prepared statements with their text, batches, \
          authentication, events. Bodies compressed with LZ4 or Snappy are read when the start of the connection was \
          seen, version 5 segments in any case. List Cassandra in `obfuscate_protocols` to mask literals.",
};

/// Prepared statements remembered, and prepares under way.
const MAX_PREPARED: usize = 4096;
/// Bytes of a compressed segment that are waited for.
const MAX_SEGMENT: usize = 60 * 1024;
/// Frames read from one compressed segment.
const MAX_FRAMES: usize = 1024;

#[derive(Default)]
struct Side {
    /// Bytes left of the payload of the segment at hand.
    segment: usize,
    /// Bytes left of a frame that spans segments.
    frame: usize,
    /// Messages of a compressed segment, and the bytes that it takes.
    queued: VecDeque<Box<Message>>,
    tail: u64,
}

struct Cassandra {
    settings: Rc<ParserSettings>,
    masked: bool,
    compression: Option<Algorithm>,
    segmented: bool,
    client: Side,
    server: Side,
    /// Text of prepared statements, by the hash of their id.
    prepared: FxHashMap<u64, String>,
    /// Text of the statements being prepared, by stream.
    preparing: FxHashMap<i16, String>,
}

fn hashed(id: &[u8]) -> u64 {
    rustc_hash::FxBuildHasher.hash_one(id)
}

impl Cassandra {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("Cassandra"),
            settings,
            compression: None,
            segmented: false,
            client: Side::default(),
            server: Side::default(),
            prepared: FxHashMap::default(),
            preparing: FxHashMap::default(),
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// Bytes of a frame's body that are looked at.
    fn limit(&self) -> usize {
        self.settings.max_field.max(256)
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        if let Some(message) = self.side(role).queued.pop_front() {
            let side = self.side(role);
            let consumed = if side.queued.is_empty() { side.tail } else { 1 };
            side.tail -= consumed;
            return Step::Message { consumed, message };
        }
        if self.side(role).segment > 0 {
            return self.in_segment(role, window, last);
        }
        if !self.segmented {
            if window.len() < HEADER && !last {
                // A segment is recognised in the middle of a connection, and begins with anything.
                return Step::NeedMore;
            }
            match Header::read(window).filter(|header| header.role == role) {
                Some(header) => return self.frame(&header, window, last),
                None if self.is_segment(window, false) || self.is_segment(window, true) => self.segmented = true,
                None => return Step::Invalid,
            }
        }
        if window.len() < 8 && !last {
            return Step::NeedMore;
        }
        if let Some(segment) = Segment::read(window, false).filter(|_| self.compression.is_none()) {
            self.side(role).segment = segment.length;
            let empty = if segment.length == 0 { 4 } else { 0 };
            return Step::Skip((segment.header + empty) as u64);
        }
        match Segment::read(window, true) {
            Some(segment) => self.compressed(role, &segment, window, last),
            None => Step::Invalid,
        }
    }

    fn is_segment(&self, window: &[u8], compressed: bool) -> bool {
        Segment::read(window, compressed).is_some()
    }

    /// A frame of its own.
    fn frame(&mut self, header: &Header, window: &[u8], last: bool) -> Step {
        let wanted = HEADER + header.length.min(self.limit());
        if window.len() < wanted && !last {
            return Step::NeedMore;
        }
        let body = window.get(HEADER..wanted.min(window.len())).unwrap_or_default();
        let consumed = (HEADER + header.length) as u64;
        match self.message(header, body) {
            Some(message) => Step::Message { consumed, message },
            None => Step::Skip(consumed),
        }
    }

    /// Frames in a segment that is not compressed.
    fn in_segment(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let limit = self.limit();
        let side = self.side(role);
        let checksum = |left: usize| if left == 0 { 4 } else { 0 };
        if side.frame > 0 {
            let taken = side.frame.min(side.segment);
            side.frame -= taken;
            side.segment -= taken;
            return Step::Skip((taken + checksum(side.segment)) as u64);
        }
        if window.len() < HEADER.min(side.segment) && !last {
            return Step::NeedMore;
        }
        let Some(header) = Header::read(window).filter(|header| header.role == role && side.segment >= HEADER) else {
            side.segment = 0;
            return Step::Invalid;
        };
        let wanted = (HEADER + header.length.min(limit)).min(side.segment);
        if window.len() < wanted && !last {
            return Step::NeedMore;
        }
        let taken = (HEADER + header.length).min(side.segment);
        side.frame = HEADER + header.length - taken;
        side.segment -= taken;
        let consumed = (taken + checksum(side.segment)) as u64;
        let body = window.get(HEADER..wanted.min(window.len())).unwrap_or_default();
        match self.message(&header, body) {
            Some(message) => Step::Message { consumed, message },
            None => Step::Skip(consumed),
        }
    }

    /// A segment of a connection that compresses; its frames are named together.
    fn compressed(&mut self, role: Role, segment: &Segment, window: &[u8], last: bool) -> Step {
        let total = segment.header + segment.length + 4;
        if window.len() < total.min(MAX_SEGMENT) && !last {
            return Step::NeedMore;
        }
        let payload = window.get(segment.header..).unwrap_or_default();
        let payload = payload.get(..segment.length).unwrap_or(payload);
        let size = if segment.unpacked == 0 { segment.length } else { segment.unpacked };
        let continued = self.side(role).frame;
        if continued > 0 {
            self.side(role).frame = continued - continued.min(size);
            return Step::Skip(total as u64);
        }
        let unpacked = segment.unpack(payload, size);
        let mut at = 0;
        let mut messages = VecDeque::new();
        while messages.len() < MAX_FRAMES
            && let Some(header) =
                Header::read(unpacked.get(at..).unwrap_or_default()).filter(|header| header.role == role)
        {
            let body = unpacked.get(at + HEADER..).unwrap_or_default();
            let body = body.get(..header.length.min(self.limit())).unwrap_or(body);
            messages.extend(self.message(&header, body));
            at += HEADER + header.length;
        }
        if !segment.is_self_contained {
            self.side(role).frame = at.saturating_sub(size);
        }
        let Some(message) = messages.pop_front() else {
            return Step::Skip(total as u64);
        };
        let consumed = if messages.is_empty() { total } else { 1 };
        let side = self.side(role);
        side.queued = messages;
        side.tail = (total - consumed) as u64;
        Step::Message { consumed: consumed as u64, message }
    }

    fn message(&mut self, header: &Header, body: &[u8]) -> Option<Box<Message>> {
        let unpacked;
        let mut body = body;
        let mut is_opaque = false;
        // Version 5 compresses segments, not frames.
        if header.flags & 1 != 0 && header.version < 5 {
            unpacked = match self.compression {
                Some(Algorithm::Lz4) => prefix(Algorithm::Lz4, body.get(4..).unwrap_or_default(), self.limit()),
                Some(algorithm) => prefix(algorithm, body, self.limit()),
                None => {
                    is_opaque = true;
                    Vec::new()
                }
            };
            body = &unpacked;
        }
        let mut message = match header.role {
            Role::Client => self.request(header, body),
            Role::Server if header.opcode == frame::EVENT => Message {
                kind: Kind::Session,
                status: Status::Success,
                is_reversed: true,
                request_type: "EVENT".to_owned(),
                request_resource: self.settings.text(body::event(body).as_bytes()),
                ..Message::default()
            },
            Role::Server => self.response(header, body),
        };
        message.version = header.version.to_string().into();
        if is_opaque {
            message.attributes.push(("compression".to_owned(), "unknown".to_owned()));
        }
        Some(Box::new(message))
    }

    fn request(&mut self, header: &Header, body: &[u8]) -> Message {
        let asked = body::asked(header, body, &self.settings, &|id| self.prepared.get(&hashed(id)).map(String::as_str));
        if header.opcode == frame::STARTUP {
            self.compression = asked.compression;
        }
        let mut message = Message {
            kind: Kind::Request,
            request_id: Some(u64::from(header.stream as u16)),
            request_type: frame::name(header.opcode).unwrap_or_default().to_owned(),
            ..Message::default()
        };
        if let Some(consistency) = asked.consistency {
            message.attributes.push(("consistency".to_owned(), consistency.to_owned()));
        }
        if asked.statements > 0 {
            message.attributes.push(("batch_size".to_owned(), asked.statements.to_string()));
        }
        let text = asked.text;
        if asked.is_statement {
            message.endpoint = sql::endpoint(&text, &sql::POSTGRESQL);
            (message.trace_id, message.span_id) = sql::trace(&text, &sql::POSTGRESQL, &self.settings);
        }
        let shown = if asked.is_statement && self.masked { sql::mask(&text, &sql::POSTGRESQL) } else { text.clone() };
        message.request_resource = self.settings.text(shown.as_bytes());
        if header.opcode == frame::PREPARE {
            if self.preparing.len() >= MAX_PREPARED {
                self.preparing.clear();
            }
            self.preparing.insert(header.stream, text);
        }
        message
    }

    fn response(&mut self, header: &Header, body: &[u8]) -> Message {
        let said = body::said(header, body);
        if matches!(header.opcode, frame::READY | frame::AUTHENTICATE) && header.version >= 5 {
            self.segmented = true;
        }
        if let (Some(id), Some(text)) = (said.prepared, self.preparing.remove(&header.stream)) {
            if self.prepared.len() >= MAX_PREPARED {
                self.prepared.clear();
            }
            self.prepared.insert(hashed(id), text);
        }
        let mut message = Message {
            kind: Kind::Response,
            request_id: Some(u64::from(header.stream as u16)),
            status: said.failure.unwrap_or(Status::Success),
            response_code: Some(said.code.unwrap_or(0)),
            response_result: said.result.to_owned(),
            ..Message::default()
        };
        if said.failure.is_some() {
            message.response_exception = match self.masked {
                true => self.settings.text(&without_quoted(said.message)),
                false => self.settings.text(said.message),
            };
        }
        if !said.keyspace.is_empty() {
            message.attributes.push(("keyspace".to_owned(), self.settings.text(said.keyspace)));
        }
        if !said.warnings.is_empty() {
            message.attributes.push(("warnings".to_owned(), self.settings.text(said.warnings.as_bytes())));
        }
        message
    }
}

impl Parser for Cassandra {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        match self.step(role, window, true) {
            Step::NeedMore => Step::Invalid,
            step => step,
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        *self.side(role) = Side::default();
        if role == Role::Server {
            self.preparing.clear();
        }
        if !self.segmented && Header::read(window).is_some_and(|header| header.role == role) {
            return Some(0);
        }
        (0..window.len()).find(|at| {
            let rest = window.get(*at..).unwrap_or_default();
            frame::check(rest, 0) == super::Guess::Yes(role)
        })
    }
}

//! MongoDB wire protocol (mongodb.com/docs/manual/reference/mongodb-wire-protocol): OP_MSG, OP_QUERY and the other
//! older operations, OP_COMPRESSED.
//!
//! A message is named by its first `max_field` bytes; the rest is skipped by count.

mod bson;
mod recognition;

use std::rc::Rc;

use super::compressed::{Algorithm, prefix};
use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, without_quoted};
use bson::{Element, Elements, Shown, Text};
use recognition::{check, plausible_start, writer};

pub const PROTOCOL: Protocol = Protocol {
    id: 81,
    name: "MongoDB",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Mongo::new(settings.clone())),
    doc: "OP_MSG with document sequences and checksum, OP_QUERY, OP_REPLY and the other older operations, and \
          OP_COMPRESSED (snappy, zlib, zstd). The command document is request_resource, the reply response_result. \
          Messages that ask for no reply (moreToCome, older writes) are sessions of their own; the further replies of \
          an exhaust cursor belong to the first. What logins carry is never shown; list MongoDB in \
          `obfuscate_protocols` to show every value as `?`.",
};

const HEADER: usize = 16;
/// maxMessageSizeBytes of all servers, and the header of what carries it.
const MAX_MESSAGE: usize = 48_000_000 + 16 * 1024;

const OP_REPLY: i32 = 1;
const OP_UPDATE: i32 = 2001;
const OP_INSERT: i32 = 2002;
const OP_QUERY: i32 = 2004;
const OP_GET_MORE: i32 = 2005;
const OP_DELETE: i32 = 2006;
const OP_KILL_CURSORS: i32 = 2007;
const OP_COMPRESSED: i32 = 2012;
const OP_MSG: i32 = 2013;

/// OP_MSG: a checksum follows the sections.
const CHECKSUM: i32 = 1;
/// OP_MSG: another message follows without being asked for; from a client, no reply is wanted.
const MORE_TO_COME: i32 = 2;
const EXHAUST_ALLOWED: i32 = 1 << 16;

fn name(op: i32) -> Option<&'static str> {
    Some(match op {
        OP_REPLY => "OP_REPLY",
        OP_UPDATE => "OP_UPDATE",
        OP_INSERT => "OP_INSERT",
        OP_QUERY => "OP_QUERY",
        OP_GET_MORE => "OP_GET_MORE",
        OP_DELETE => "OP_DELETE",
        OP_KILL_CURSORS => "OP_KILL_CURSORS",
        OP_COMPRESSED => "OP_COMPRESSED",
        OP_MSG => "OP_MSG",
        _ => return None,
    })
}

/// Does this side send this operation?
fn writes(role: Role, op: i32) -> bool {
    op == OP_MSG || (role == Role::Server) == (op == OP_REPLY)
}

struct Header {
    length: usize,
    id: i32,
    to: i32,
    op: i32,
}

impl Header {
    /// `None` for what is no header.
    fn read(window: &[u8]) -> Option<Self> {
        let word = |at: usize| bson::int32(window.get(at..)?);
        let header = Self { length: usize::try_from(word(0)?).ok()?, id: word(4)?, to: word(8)?, op: word(12)? };
        let sound = header.length > HEADER && header.length <= MAX_MESSAGE && name(header.op).is_some();
        sound.then_some(header)
    }
}

struct Mongo {
    settings: Rc<ParserSettings>,
    shown: Shown,
    /// A reply that announced another one: its own id, and the request it answers.
    streaming: Option<(i32, i32)>,
}

/// What the operations have in common.
#[derive(Default)]
struct Content {
    text: Vec<u8>,
    one_way: bool,
    more_to_come: bool,
    command: Vec<u8>,
    database: Vec<u8>,
    collection: Vec<u8>,
    outcome: Outcome,
}

#[derive(Default)]
struct Outcome {
    failed: bool,
    code: i32,
    message: Vec<u8>,
}

impl Mongo {
    fn new(settings: Rc<ParserSettings>) -> Self {
        let shown = if settings.masks("MongoDB") { Shown::Names } else { Shown::All };
        Self { settings, shown, streaming: None }
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        if window.len() < HEADER && !last {
            return if plausible_start(window) { Step::NeedMore } else { Step::Invalid };
        }
        let Some(header) = Header::read(window) else {
            return Step::Invalid;
        };
        let wanted = header.length.min(HEADER + self.settings.max_field.max(64));
        if window.len() < wanted && !last {
            return Step::NeedMore;
        }
        let body = window.get(HEADER..wanted.min(window.len())).unwrap_or_default();
        let mut content = Content::default();
        let (mut op, mut compressor) = (header.op, None);
        let whole = header.length - HEADER;
        if op == OP_COMPRESSED {
            let Some((inner, length, algorithm)) = compression(body) else {
                return Step::Invalid;
            };
            op = inner;
            compressor = Some(algorithm);
            let packed = body.get(9..).unwrap_or_default();
            let max = self.settings.max_field.max(64);
            let unpacked = match algorithm {
                Compressor::None => packed.to_vec(),
                Compressor::By(algorithm, _) => prefix(algorithm, packed, max),
            };
            if !writes(role, op) {
                return Step::Invalid;
            }
            self.read(role, op, &unpacked, length, &mut content);
        } else if !writes(role, op) {
            return Step::Invalid;
        } else {
            self.read(role, op, body, whole, &mut content);
        }
        let consumed = header.length as u64;
        if role == Role::Server {
            let goes_on = self.streaming.is_some_and(|(id, to)| header.to == id || header.to == to);
            self.streaming = content.more_to_come.then_some((header.id, header.to));
            if goes_on {
                return Step::Skip(consumed);
            }
        }
        let message = match role {
            Role::Client => self.request(&header, op, compressor, &content),
            Role::Server => self.response(&header, &content),
        };
        Step::Message { consumed, message: Box::new(message) }
    }

    fn request(&self, header: &Header, op: i32, compressor: Option<Compressor>, content: &Content) -> Message {
        let text = |bytes: &[u8]| self.settings.text(bytes);
        let mut attributes = Vec::new();
        for (name, value) in
            [("command", &content.command), ("database", &content.database), ("collection", &content.collection)]
        {
            if !value.is_empty() {
                attributes.push((name.to_owned(), text(value)));
            }
        }
        if let Some(Compressor::By(_, name)) = compressor {
            attributes.push(("compressor".to_owned(), name.to_owned()));
        }
        Message {
            kind: if content.one_way { Kind::Session } else { Kind::Request },
            status: if content.one_way { Status::Success } else { Status::Unknown },
            request_id: Some(u64::from(header.id as u32)),
            request_type: name(op).unwrap_or_default().to_owned(),
            request_resource: text(&content.text),
            attributes,
            ..Message::default()
        }
    }

    fn response(&self, header: &Header, content: &Content) -> Message {
        let outcome = &content.outcome;
        Message {
            kind: Kind::Response,
            status: if outcome.failed { Status::ServerError } else { Status::Success },
            request_id: Some(u64::from(header.to as u32)),
            response_code: Some(outcome.code),
            response_exception: self.settings.text(&outcome.message),
            response_result: self.settings.text(&content.text),
            ..Message::default()
        }
    }

    /// The body of an operation. `whole`: bytes that it takes, of which `body` are the first.
    fn read(&self, role: Role, op: i32, body: &[u8], whole: usize, content: &mut Content) {
        let mut text = Text::new(self.settings.max_field);
        let after = |at: usize| body.get(at..).unwrap_or_default();
        match op {
            OP_MSG => self.sections(role, body, whole, &mut text, content),
            OP_REPLY => {
                let flags = bson::int32(body).unwrap_or(0);
                let documents = after(20);
                self.outcome(documents, content);
                if flags & 3 != 0 {
                    content.outcome.failed = true;
                    if content.outcome.message.is_empty() && flags & 1 != 0 {
                        content.outcome.message = b"cursor not found".to_vec();
                    }
                }
                text.sequence(documents, self.secrecy(documents));
            }
            OP_QUERY => {
                let (collection, rest) = bson::cstring(after(4)).unwrap_or_default();
                let document = rest.get(8..).unwrap_or_default();
                name_place(collection, content);
                // A driver that sends a read preference wraps what it asks.
                let inner = Elements::of(document).next().filter(|first| matches!(first.key, b"$query" | b"query"));
                let asked = inner.filter(|first| first.kind == bson::DOCUMENT).map_or(document, |first| first.value);
                if content.collection == b"$cmd" {
                    content.collection.clear();
                    name_command(asked, content);
                } else {
                    content.command = b"find".to_vec();
                }
                text.document(document, &[], self.secrecy(asked));
            }
            OP_GET_MORE => {
                let (collection, rest) = bson::cstring(after(4)).unwrap_or_default();
                name_place(collection, content);
                content.command = b"getMore".to_vec();
                let (count, cursor) = (bson::int32(rest), bson::int64(rest.get(4..).unwrap_or_default()));
                if let (Some(count), Some(cursor)) = (count, cursor) {
                    let name = String::from_utf8_lossy(&content.collection);
                    content.text =
                        format!("{{ \"getMore\": {cursor}, \"collection\": \"{name}\", \"batchSize\": {count} }}")
                            .into();
                }
                return;
            }
            OP_KILL_CURSORS => {
                content.one_way = true;
                content.command = b"killCursors".to_vec();
                let cursors: Vec<String> =
                    after(8).chunks_exact(8).filter_map(bson::int64).map(|cursor| cursor.to_string()).collect();
                content.text = format!("{{ \"cursors\": [{}] }}", cursors.join(", ")).into();
                return;
            }
            _ => {
                content.one_way = true;
                let (collection, rest) = bson::cstring(after(4)).unwrap_or_default();
                name_place(collection, content);
                content.command = name(op).unwrap_or_default().trim_start_matches("OP_").to_lowercase().into();
                let documents = if op == OP_INSERT { rest } else { rest.get(4..).unwrap_or_default() };
                text.sequence(documents, self.shown);
            }
        }
        content.text = text.into_bytes();
    }

    /// The sections of OP_MSG: one document, and any number of named sequences before or after it.
    fn sections(&self, role: Role, body: &[u8], whole: usize, text: &mut Text, content: &mut Content) {
        let flags = bson::int32(body).unwrap_or(0);
        content.more_to_come = flags & MORE_TO_COME != 0;
        content.one_way = role == Role::Client && content.more_to_come;
        let end = whole.saturating_sub(if flags & CHECKSUM != 0 { 4 } else { 0 }).min(body.len());
        let mut rest = body.get(4..end).unwrap_or_default();
        let mut document: &[u8] = &[];
        let mut lists = Vec::new();
        while let Some((kind, section)) = rest.split_first() {
            let Some(length) = bson::int32(section).and_then(|length| usize::try_from(length).ok()) else {
                break;
            };
            let this = section.get(..length).unwrap_or(section);
            match kind {
                0 => document = this,
                1 => {
                    let Some((name, documents)) = bson::cstring(this.get(4..).unwrap_or_default()) else {
                        break;
                    };
                    // A message has two or three of them; more are not named.
                    if lists.len() < 8 {
                        lists.push((name, documents));
                    }
                }
                _ => break,
            }
            rest = section.get(length.max(4)..).unwrap_or_default();
        }
        if role == Role::Client {
            name_command(document, content);
        } else {
            self.outcome(document, content);
        }
        text.document(document, &lists, self.secrecy(document));
    }

    /// What of a document may be shown.
    fn secrecy(&self, document: &[u8]) -> Shown {
        let first = Elements::of(document).next().map_or(&b""[..], |element| element.key);
        let login = [
            &b"saslStart"[..],
            b"saslContinue",
            b"authenticate",
            b"createUser",
            b"updateUser",
            b"conversationId",
            b"nonce",
        ];
        if self.shown == Shown::All && login.contains(&first) { Shown::NoSecrets } else { self.shown }
    }

    /// `ok`, the error, the first error of a write.
    fn outcome(&self, document: &[u8], content: &mut Content) {
        let outcome = &mut content.outcome;
        let is_found = Elements::of(document).next().is_some_and(|first| first.key == b"_id");
        if is_found {
            // A document that a query found may have such fields.
            return;
        }
        let error = |document: &[u8], outcome: &mut Outcome| {
            outcome.failed = true;
            for element in Elements::of(document) {
                match element.key {
                    b"code" if outcome.code == 0 => outcome.code = code(&element),
                    b"errmsg" if outcome.message.is_empty() => {
                        outcome.message = element.text().unwrap_or_default().to_vec();
                    }
                    _ => {}
                }
            }
        };
        for element in Elements::of(document) {
            match element.key {
                b"ok" => outcome.failed |= element.number() == Some(0),
                b"code" => outcome.code = code(&element),
                b"errmsg" => outcome.message = element.text().unwrap_or_default().to_vec(),
                // Of OP_REPLY, and of getLastError.
                b"$err" | b"err" if element.kind == bson::STRING => {
                    outcome.failed = true;
                    outcome.message = element.text().unwrap_or_default().to_vec();
                }
                b"writeErrors" if element.kind == bson::ARRAY => {
                    if let Some(first) = Elements::of(element.value).next() {
                        error(first.value, outcome);
                    }
                }
                b"writeConcernError" if element.kind == bson::DOCUMENT => error(element.value, outcome),
                _ => {}
            }
        }
        if !outcome.failed {
            *outcome = Outcome::default();
        } else if self.shown == Shown::Names {
            outcome.message = without_quoted(&outcome.message);
        }
    }
}

fn code(element: &Element<'_>) -> i32 {
    element.number().and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
}

/// `database.collection`.
fn name_place(full: &[u8], content: &mut Content) {
    let dot = memchr::memchr(b'.', full).unwrap_or(full.len());
    content.database = full.get(..dot).unwrap_or_default().to_vec();
    content.collection = full.get(dot + 1..).unwrap_or_default().to_vec();
}

/// The first field of a command document is its name, and its value the collection, where it is a text.
fn name_command(document: &[u8], content: &mut Content) {
    for (index, element) in Elements::of(document).enumerate() {
        match element.key {
            key if index == 0 => {
                content.command = key.to_vec();
                content.collection = element.text().unwrap_or_default().to_vec();
            }
            b"$db" => content.database = element.text().unwrap_or_default().to_vec(),
            b"collection" if content.collection.is_empty() => {
                content.collection = element.text().unwrap_or_default().to_vec();
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Compressor {
    None,
    By(Algorithm, &'static str),
}

/// Operation, uncompressed length and compressor of OP_COMPRESSED.
fn compression(body: &[u8]) -> Option<(i32, usize, Compressor)> {
    let op = bson::int32(body).filter(|op| name(*op).is_some() && *op != OP_COMPRESSED)?;
    let length = usize::try_from(bson::int32(body.get(4..)?)?).ok().filter(|length| *length <= MAX_MESSAGE)?;
    let compressor = match body.get(8)? {
        0 => Compressor::None,
        1 => Compressor::By(Algorithm::Snappy, "snappy"),
        2 => Compressor::By(Algorithm::Zlib, "zlib"),
        3 => Compressor::By(Algorithm::Zstd, "zstd"),
        _ => return None,
    };
    Some((op, length, compressor))
}

impl Parser for Mongo {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.streaming = None;
        (0..window.len()).find(|at| writer(window.get(*at..).unwrap_or_default()) == Some(Some(role)))
    }
}

//! Memcached: text and meta commands (doc/protocol.txt), the binary protocol (docs.memcached.org, "Binary protocol"),
//! and text commands in UDP frames.
//!
//! A command is named by its line or by its header and key; values are skipped by count.

mod binary;
mod text;

use std::collections::VecDeque;
use std::rc::Rc;

use memchr::memchr;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use text::{Answer, Reply};

pub const PROTOCOL: Protocol = Protocol {
    id: 82,
    name: "Memcached",
    pairing: Pairing::Ordered,
    transports: &[6, 17],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Memcached::new(settings.clone())),
    doc: "Text commands, meta commands and the binary protocol, with pipelines; text commands over UDP. `noreply` \
          commands are sessions of their own, and so are quiet commands (meta flag q, binary GETQ, SETQ, …) that the \
          server passes over in silence. Stored values are never kept; list Memcached in `obfuscate_protocols` to \
          hide counters too.",
};

const PORT: u16 = 11211;
/// Commands remembered while their replies are awaited.
const MAX_AWAITED: usize = 8192;
/// A UDP frame begins with its request id, number, count and two bytes that are zero.
const FRAME: usize = 8;

/// A command that waits for its reply.
pub struct Awaited {
    serial: u64,
    /// The server may say nothing.
    is_quiet: bool,
    /// The meta command's second letter, or a binary opcode; 0 for what is answered in any case.
    verb: u8,
    /// Opaque token or key that a reply repeats, hashed; the opaque number of a binary command.
    tag: u64,
    key: u64,
    /// A get of one key: END follows its value at once.
    is_single: bool,
}

/// What follows in a direction.
#[derive(Clone, Copy, Default, PartialEq)]
enum Inside {
    #[default]
    Nothing,
    /// A line whose end is to skip to.
    Line,
    /// A list of values, statistics or keys, ended by a line of its own.
    List,
    /// Bytes were lost, nobody knows what begins here.
    Lost,
}

#[derive(Default)]
struct Side {
    inside: Inside,
    /// So far no line ends.
    searched: usize,
}

struct Memcached {
    settings: Rc<ParserSettings>,
    masked: bool,
    client: Side,
    server: Side,
    awaited: VecDeque<Awaited>,
    serial: u64,
    /// `serial` when the server was last heard.
    heard: u64,
    datagrams: bool,
    /// After `watch`: the server writes log lines.
    watched: bool,
    /// The reply of a binary STAT goes on until an empty one.
    stat: Option<u32>,
}

impl Memcached {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("Memcached"),
            settings,
            client: Side::default(),
            server: Side::default(),
            awaited: VecDeque::new(),
            serial: 0,
            heard: 0,
            datagrams: false,
            watched: false,
            stat: None,
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        if self.datagrams {
            return self.datagram(role, window);
        }
        if role == Role::Server {
            self.heard = self.serial;
        }
        match self.side(role).inside {
            Inside::Lost => match find_start(role, window) {
                Some(0) => self.side(role).inside = Inside::Nothing,
                start => {
                    let side = self.side(role);
                    side.inside = if start.is_some() { Inside::Nothing } else { Inside::Lost };
                    return Step::Skip(start.unwrap_or(window.len()) as u64);
                }
            },
            Inside::Line => {
                let end = memchr(b'\n', window);
                if end.is_some() {
                    self.side(role).inside = Inside::Nothing;
                }
                return Step::Skip(end.map_or(window.len(), |end| end + 1) as u64);
            }
            Inside::List => return self.list(window, last),
            Inside::Nothing => {}
        }
        match (role, window.first()) {
            (Role::Client, Some(&binary::REQUEST)) | (Role::Server, Some(&binary::RESPONSE)) => {
                self.binary(role, window, last)
            }
            _ => self.line(role, window, last),
        }
    }

    /// The line at the start of the window, and the bytes it takes; `Err` says what to do instead.
    fn take_line<'a>(&mut self, role: Role, window: &'a [u8], last: bool) -> Result<(&'a [u8], usize), Step> {
        let limit = self.settings.max_field.max(256);
        let seen = window.get(..limit).unwrap_or(window);
        let side = self.side(role);
        let from = side.searched.min(seen.len());
        match memchr(b'\n', seen.get(from..).unwrap_or_default()) {
            Some(end) => {
                side.searched = 0;
                let end = from + end;
                let line = seen.get(..end).unwrap_or_default();
                Ok((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
            }
            None if seen.len() < limit && !last => {
                side.searched = seen.len();
                Err(Step::NeedMore)
            }
            None => {
                *side = Side { inside: Inside::Line, searched: 0 };
                Ok((seen, seen.len()))
            }
        }
    }

    fn line(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let first = window.first().copied().unwrap_or_default();
        if !first.is_ascii_alphanumeric() {
            return Step::Invalid;
        }
        let (line, size) = match self.take_line(role, window, last) {
            Ok(found) => found,
            Err(step) => return step,
        };
        if line.iter().any(u8::is_ascii_control) {
            *self.side(role) = Side::default();
            return Step::Invalid;
        }
        match role {
            Role::Client => self.command(line, size),
            Role::Server => self.reply(line, size),
        }
    }

    fn command(&mut self, line: &[u8], size: usize) -> Step {
        let command = text::command(line);
        let consumed = (size as u64).saturating_add(command.data.map_or(0, |data| data.saturating_add(2)));
        if command.answer == Answer::Quit {
            // It ends the connection and is no request of DeepFlow's either.
            return Step::Skip(consumed);
        }
        let mut message = Message {
            kind: Kind::Session,
            status: Status::Success,
            request_type: self.settings.text(command.word),
            request_resource: self.settings.text(line),
            ..Message::default()
        };
        if command.answer != Answer::Never {
            let is_quiet = command.answer == Answer::Quiet;
            self.expect(&mut message, is_quiet, command.verb, command.tag, command.key);
            if let Some(newest) = self.awaited.back_mut() {
                newest.is_single = command.is_single;
            }
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    /// Makes a request of a message, and remembers that it is answered.
    fn expect(&mut self, message: &mut Message, is_quiet: bool, verb: u8, tag: u64, key: u64) {
        self.serial += 1;
        message.kind = Kind::Request;
        message.status = Status::Unknown;
        message.pair = Some(self.serial);
        message.may_be_silent = is_quiet;
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(Awaited { serial: self.serial, is_quiet, verb, tag, key, is_single: false });
    }

    fn reply(&mut self, line: &[u8], size: usize) -> Step {
        if self.watched && line.starts_with(b"ts=") {
            return Step::Skip(size as u64);
        }
        let reply = text::reply(line);
        let answered = text::answers(line, &mut self.awaited);
        let (mut consumed, mut status) = (size as u64, Status::Success);
        match reply {
            Reply::Line => {}
            Reply::Failure(failure) => status = failure,
            Reply::Data(bytes) => consumed = consumed.saturating_add(bytes).saturating_add(2),
            Reply::List(Some(bytes)) if answered.as_ref().is_some_and(|answered| answered.is_single) => {
                consumed = consumed.saturating_add(bytes).saturating_add(b"\r\nEND\r\n".len() as u64);
            }
            Reply::List(bytes) => {
                // A line too long to be seen whole is no list.
                if self.server.inside == Inside::Nothing {
                    self.server.inside = Inside::List;
                }
                consumed = consumed.saturating_add(bytes.map_or(0, |bytes| bytes.saturating_add(2)));
            }
        }
        self.watched |= answered.as_ref().is_some_and(|answered| answered.verb == text::WATCH);
        let shown = if self.masked { text::masked(line) } else { line };
        let failed = status != Status::Success;
        let message = Message {
            kind: Kind::Response,
            pair: answered.map(|answered| answered.serial),
            status,
            response_exception: if failed { self.settings.text(line) } else { String::new() },
            response_result: if failed { String::new() } else { self.settings.text(shown) },
            ..Message::default()
        };
        Step::Message { consumed, message: Box::new(message) }
    }

    /// The rest of a list, as far as the window goes.
    fn list(&mut self, window: &[u8], last: bool) -> Step {
        let mut at = 0usize;
        while at < window.len() {
            let rest = window.get(at..).unwrap_or_default();
            self.server.searched = if at == 0 { self.server.searched } else { 0 };
            let (line, size) = match self.take_line(Role::Server, rest, last) {
                Ok(found) => found,
                Err(step) if at == 0 => return step,
                Err(_) => break,
            };
            if self.server.inside == Inside::Line {
                // Nothing in a list is as long as that.
                self.server.inside = Inside::Lost;
                return Step::Skip(window.len() as u64);
            }
            at += size;
            match text::reply(line) {
                Reply::List(Some(bytes)) | Reply::Data(bytes) => {
                    let past = (at as u64).saturating_add(bytes).saturating_add(2);
                    if past >= window.len() as u64 {
                        return Step::Skip(past);
                    }
                    at = past as usize;
                }
                Reply::Failure(_) => self.server.inside = Inside::Nothing,
                Reply::Line if matches!(line, b"END" | b"EN" | b"RESET") => self.server.inside = Inside::Nothing,
                Reply::Line | Reply::List(None) => {}
            }
            if self.server.inside == Inside::Nothing {
                break;
            }
        }
        self.server.searched = 0;
        Step::Skip(at as u64)
    }

    fn binary(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let header = match binary::Header::read(window) {
            Some(header) => header,
            None if window.len() < binary::HEADER && !last && binary::plausible(window) => return Step::NeedMore,
            None => return Step::Invalid,
        };
        let failure = if role == Role::Server { binary::failure(header.status) } else { None };
        // Of a request the key, of a failure what the server says about it.
        let named = match role {
            Role::Client => header.extras + header.key,
            Role::Server if failure.is_some() => header.body.min(self.settings.max_field),
            // A reply to a get with key repeats the key.
            Role::Server => header.extras + header.key,
        };
        if window.len() < binary::HEADER + named && !last {
            return Step::NeedMore;
        }
        let body = window.get(binary::HEADER..).unwrap_or_default();
        let body = body.get(..named).unwrap_or(body);
        let consumed = (binary::HEADER + header.body) as u64;
        if role == Role::Client {
            if header.opcode == binary::QUITQ {
                return Step::Skip(consumed);
            }
            let key = body.get(header.extras..).unwrap_or_default();
            let name = binary::name(header.opcode).unwrap_or_default();
            let mut resource = name.as_bytes().to_vec();
            if !key.is_empty() {
                resource.push(b' ');
                resource.extend_from_slice(key);
            }
            let mut message = Message {
                request_id: Some(u64::from(header.opaque)),
                request_type: name.to_owned(),
                request_resource: self.settings.text(&resource),
                ..Message::default()
            };
            let is_quiet = binary::is_quiet(header.opcode);
            self.expect(&mut message, is_quiet, header.opcode, u64::from(header.opaque), text::hashed(key));
            return Step::Message { consumed, message: Box::new(message) };
        }
        if self.stat == Some(header.opaque) && header.opcode == binary::STAT {
            if header.body == 0 {
                self.stat = None;
            }
            return Step::Skip(consumed);
        }
        self.stat = (header.opcode == binary::STAT && header.body > 0 && failure.is_none()).then_some(header.opaque);
        let place =
            self.awaited.iter().position(|waits| waits.verb == header.opcode && waits.tag == u64::from(header.opaque));
        let answered = place.and_then(|place| self.awaited.drain(..=place).next_back());
        let (name, said) = (binary::status_name(header.status), String::from_utf8_lossy(body));
        let exception = match failure {
            None => String::new(),
            Some(_) if body.is_empty() => name.to_owned(),
            Some(_) => self.settings.text(said.as_bytes()),
        };
        let message = Message {
            kind: Kind::Response,
            request_id: Some(u64::from(header.opaque)),
            pair: Some(answered.map_or(0, |answered| answered.serial)),
            status: failure.unwrap_or(Status::Success),
            response_code: Some(i32::from(header.status)),
            response_result: if failure.is_none() { name.to_owned() } else { String::new() },
            response_exception: exception,
            ..Message::default()
        };
        Step::Message { consumed, message: Box::new(message) }
    }

    /// One UDP frame; only the first of a long reply says what it is.
    fn datagram(&mut self, role: Role, window: &[u8]) -> Step {
        let word = |at: usize| Some(u16::from_be_bytes(window.get(at..at + 2)?.try_into().ok()?));
        let (Some(id), Some(number), Some(rest)) = (word(0), word(2), window.get(FRAME..)) else {
            return Step::Invalid;
        };
        let consumed = window.len() as u64;
        if number > 0 || rest.is_empty() {
            return Step::Skip(consumed);
        }
        self.datagrams = false;
        let step = self.step(role, rest, true);
        self.datagrams = true;
        self.client.inside = Inside::Nothing;
        self.server.inside = Inside::Nothing;
        self.awaited.clear();
        match step {
            Step::Message { mut message, .. } => {
                message.pair = Some(u64::from(id));
                message.request_id = message.request_id.or(Some(u64::from(id)));
                Step::Message { consumed, message }
            }
            Step::Skip(_) => Step::Skip(consumed),
            _ => Step::Invalid,
        }
    }
}

impl Parser for Memcached {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if role == Role::Server {
            // Nobody knows which commands were answered in what was lost; those sent since then were not.
            self.awaited.retain(|waits| waits.serial > self.heard);
            self.stat = None;
        }
        let start = find_start(role, window);
        *self.side(role) = Side { inside: if start.is_some() { Inside::Nothing } else { Inside::Lost }, searched: 0 };
        start
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.datagrams = ip_protocol == 17;
    }
}

/// Offset of the first sure message in bytes that begin anywhere. A stored value may look like a reply, so only the
/// beginning of a window (of a write, that is) is trusted for the server.
fn find_start(role: Role, window: &[u8]) -> Option<usize> {
    let begins = |at: usize| {
        let rest = window.get(at..).unwrap_or_default();
        check(rest, PORT) == Guess::Yes(role)
    };
    if begins(0) {
        return Some(0);
    }
    match role {
        Role::Client => memchr::memchr_iter(b'\n', window).map(|end| end + 1).find(|&at| begins(at)),
        Role::Server => None,
    }
}

fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    match payload.first() {
        None => Guess::Maybe,
        Some(&(binary::REQUEST | binary::RESPONSE)) => binary::check(payload),
        // The first frame of one, over UDP.
        Some(_) if ours && payload.get(2..6) == Some(&[0, 0, 0, 1]) => {
            text::check(payload.get(FRAME..).unwrap_or_default(), ours)
        }
        Some(_) => text::check(payload, ours),
    }
}

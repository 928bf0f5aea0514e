//! Redis, RESP2 and RESP3 (redis.io "Redis serialization protocol specification"), and inline commands.
//!
//! A command or reply is named by its first `max_field` bytes; the values after that are skipped by count.

mod commands;
mod mask;
mod recognition;
mod resp;

use std::collections::VecDeque;
use std::rc::Rc;

use memchr::memchr;

use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use recognition::{check, find_start};
use resp::{Header, Look, MAX_HEADER, STREAMED, Side, look, push_kind, result_name};

pub const PROTOCOL: Protocol = Protocol {
    id: 80,
    name: "Redis",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Redis::new(settings.clone())),
    doc: "RESP2, RESP3 and inline commands, with pipelines, transactions and CLIENT REPLY. Messages pushed to a \
          subscriber are skipped; after SYNC or PSYNC the connection is opaque. Values are shown as `?` while \
          Redis is listed in `obfuscate_protocols` (the default).",
};

/// Commands remembered while their replies are awaited; a longer pipeline loses its special replies only.
const MAX_AWAITED: usize = 65536;

/// How the reply of a command is told from what a server pushes.
#[derive(Clone, Copy, PartialEq)]
enum Awaited {
    Reply,
    /// SUBSCRIBE and its kin: so many confirmations; the first is the reply.
    Confirmations {
        left: u32,
        answered: bool,
    },
    Monitor,
    Replication,
    Reset,
}

/// CLIENT REPLY.
#[derive(Clone, Copy, PartialEq)]
enum Replies {
    On,
    Off,
    /// Not to the next command.
    SkipNext,
}

struct Redis {
    settings: Rc<ParserSettings>,
    masked: bool,
    client: Side,
    server: Side,
    awaited: VecDeque<Awaited>,
    replies: Replies,
    subscribed: bool,
    /// Between MULTI and EXEC: commands are only queued.
    in_transaction: bool,
    monitored: bool,
    opaque: bool,
}

impl Redis {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("Redis"),
            settings,
            client: Side::default(),
            server: Side::default(),
            awaited: VecDeque::new(),
            replies: Replies::On,
            subscribed: false,
            in_transaction: false,
            monitored: false,
            opaque: false,
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let side = self.side(role);
        if side.lost {
            match find_start(role, window) {
                Some(0) => *side = Side::default(),
                Some(at) => {
                    *side = Side::default();
                    return Step::Skip(at as u64);
                }
                None => return Step::Skip(window.len() as u64),
            }
        }
        if side.in_line || side.left > 0 || !side.streamed.is_empty() {
            return side.skip(window);
        }
        if window.len() < side.wanted && last.is_none() {
            return Step::NeedMore;
        }
        match (role, window.first()) {
            (Role::Client, Some(b'*')) => self.command(window, last),
            (Role::Client, _) => self.inline(window, last),
            (Role::Server, _) => self.reply(window, last),
        }
    }

    fn wait_for(&mut self, role: Role, bytes: usize) -> Step {
        self.side(role).wanted = bytes;
        Step::NeedMore
    }

    /// An array of bulk strings from the client. `last` = the window will not grow, so many bytes are missing.
    fn command(&mut self, window: &[u8], last: Option<u64>) -> Step {
        let (count, mut at) = match look(window) {
            Look::Header(Header::Values(0), size) => return Step::Skip(size as u64),
            Look::Header(Header::Values(count), size) => (count, size),
            Look::Short if last.is_none() => return self.wait_for(Role::Client, window.len() + 1),
            _ => return Step::Invalid,
        };
        let limit = self.settings.max_field.max(MAX_HEADER);
        let mut words: Vec<&[u8]> = Vec::with_capacity(count.min(8) as usize);
        let mut left = count;
        let mut lost = false;
        while left > 0 && at < limit {
            let (length, size) = match look(window.get(at..).unwrap_or_default()) {
                Look::Header(Header::Bulk(length), size) => (length, size),
                Look::Header(Header::Line, size) if !words.is_empty() => {
                    // A null or a number among the arguments; no client library sends it, but it has its place.
                    words.push(window.get(at..at + size).unwrap_or_default().trim_ascii());
                    (at, left) = (at + size, left - 1);
                    continue;
                }
                Look::Short | Look::LongLine if last.is_none() => {
                    return self.wait_for(Role::Client, window.len() + 1);
                }
                Look::Short | Look::LongLine if !words.is_empty() => {
                    lost = true;
                    break;
                }
                _ if words.is_empty() => return Step::Invalid,
                _ => {
                    lost = true;
                    break;
                }
            };
            let from = at + size;
            let end = usize::try_from(length).ok().and_then(|length| from.checked_add(length)).unwrap_or(usize::MAX);
            let seen = end.min(limit.max(from));
            if window.len() < seen && last.is_none() {
                return self.wait_for(Role::Client, seen);
            }
            let word = window.get(from..seen.min(window.len())).unwrap_or_default();
            if words.is_empty() && !word.iter().all(|byte| byte.is_ascii_graphic()) {
                return Step::Invalid;
            }
            words.push(word);
            left -= 1;
            at = end.saturating_add(2);
            if at > window.len() && last.is_some() {
                break;
            }
        }
        self.client = Side { left, lost, ..Side::default() };
        let consumed = if lost { (window.len() as u64).saturating_add(last.unwrap_or(0)) } else { at as u64 };
        self.request(&words, count, consumed)
    }

    fn inline(&mut self, window: &[u8], last: Option<u64>) -> Step {
        let blank = window.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if blank > 0 {
            return Step::Skip(blank as u64);
        }
        if !window.first().is_some_and(u8::is_ascii_alphabetic) {
            return Step::Invalid;
        }
        let limit = self.settings.max_field;
        let end = memchr(b'\n', window.get(..limit).unwrap_or(window));
        if end.is_none() && window.len() < limit && last.is_none() {
            // Lines of people at a terminal: short, so looking again from the start is cheap.
            return self.wait_for(Role::Client, window.len() + 1);
        }
        let line = window.get(..end.unwrap_or(window.len().min(limit))).unwrap_or_default();
        if line.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()) {
            return Step::Invalid;
        }
        let words: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        self.client = Side { in_line: end.is_none(), ..Side::default() };
        let consumed = end.map_or(line.len(), |end| end + 1) as u64;
        self.request(&words, words.len() as u64, consumed)
    }

    fn request(&mut self, words: &[&[u8]], count: u64, consumed: u64) -> Step {
        let command = words.first().copied().unwrap_or_default();
        let resource = if self.masked {
            mask::command(words, self.settings.max_field)
        } else {
            mask::join(words.iter().copied(), self.settings.max_field)
        };
        let answered = self.expect(command, words.get(1).copied(), words.get(2).copied(), count);
        let message = Message {
            kind: if answered { Kind::Request } else { Kind::Session },
            status: if answered { Status::Unknown } else { Status::Success },
            request_type: self.settings.text(command),
            request_resource: resource,
            ..Message::default()
        };
        Step::Message { consumed, message: Box::new(message) }
    }

    /// Remembers what reply a command gets; false when it gets none.
    fn expect(&mut self, command: &[u8], first: Option<&[u8]>, second: Option<&[u8]>, count: u64) -> bool {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        let is = |word: Option<&[u8]>, known: &[u8]| word.is_some_and(|word| word.eq_ignore_ascii_case(known));
        let command = Some(command);
        if is(command, b"RESET") {
            self.replies = Replies::On;
            self.in_transaction = false;
            // From its reply on; what the server pushed before that is on the wire already.
            self.awaited.push_back(Awaited::Reset);
            return true;
        }
        if is(command, b"CLIENT") && is(first, b"REPLY") {
            if is(second, b"OFF") {
                self.replies = Replies::Off;
                return false;
            }
            if is(second, b"SKIP") {
                if self.replies == Replies::On {
                    self.replies = Replies::SkipNext;
                }
                return false;
            }
            self.replies = Replies::On;
        }
        match self.replies {
            Replies::Off => return false,
            Replies::SkipNext => {
                self.replies = Replies::On;
                return false;
            }
            Replies::On => {}
        }
        let queued = self.in_transaction;
        if is(command, b"MULTI") {
            self.in_transaction = true;
        } else if is(command, b"EXEC") || is(command, b"DISCARD") {
            self.in_transaction = false;
        }
        let subscribes = [&b"SUBSCRIBE"[..], b"PSUBSCRIBE", b"SSUBSCRIBE"].iter().any(|known| is(command, known));
        let unsubscribes =
            [&b"UNSUBSCRIBE"[..], b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"].iter().any(|known| is(command, known));
        self.subscribed |= subscribes || unsubscribes;
        let awaited = if queued {
            Awaited::Reply
        } else if subscribes || unsubscribes {
            let left = u32::try_from(count.saturating_sub(1).max(1)).unwrap_or(u32::MAX);
            Awaited::Confirmations { left, answered: false }
        } else if is(command, b"MONITOR") {
            Awaited::Monitor
        } else if is(command, b"PSYNC") || is(command, b"SYNC") {
            Awaited::Replication
        } else {
            Awaited::Reply
        };
        self.awaited.push_back(awaited);
        true
    }

    fn reply(&mut self, window: &[u8], last: Option<u64>) -> Step {
        let first = window.first().copied().unwrap_or_default();
        let limit = self.settings.max_field.max(MAX_HEADER);
        let (header, size) = match look(window) {
            Look::Header(header, size) => (header, size),
            Look::LongLine if window.len() >= limit || last.is_some() => {
                self.server.in_line = true;
                (Header::Line, window.len().min(limit))
            }
            // Bounded by `limit`, so looking again from the start is cheap.
            Look::LongLine => return self.wait_for(Role::Server, window.len() + 1),
            Look::Short if last.is_none() => return self.wait_for(Role::Server, window.len() + 1),
            Look::Short | Look::Wrong => return Step::Invalid,
        };
        if first == b'>' || first == b'*' && self.subscribed {
            match push_kind(window.get(size..).unwrap_or_default()) {
                None if last.is_none() => return self.wait_for(Role::Server, window.len() + 1),
                Some(kind) if !self.is_reply(kind, first == b'>') => {
                    return self.skip_whole(header, size);
                }
                _ => {}
            }
        }
        let mut exception = String::new();
        match (first, &header) {
            (b'-', _) => exception = self.settings.text(window.get(..size).unwrap_or_default().trim_ascii_end()),
            (b'!', Header::Bulk(length)) => {
                let end = size.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX)).min(limit.max(size));
                if window.len() < end && last.is_none() {
                    return self.wait_for(Role::Server, end);
                }
                let text = window.get(size..end.min(window.len())).unwrap_or_default();
                exception = self.settings.text(&[b"-", text].concat());
            }
            (_, Header::Attribute(_)) => return self.skip_whole(header, size),
            (b'+', _) if self.monitored && window.get(1).is_some_and(u8::is_ascii_digit) => {
                return self.skip_whole(header, size);
            }
            _ => {}
        }
        match self.awaited.front().copied() {
            Some(Awaited::Confirmations { left, .. }) if exception.is_empty() && left > 1 => {
                if let Some(front) = self.awaited.front_mut() {
                    *front = Awaited::Confirmations { left: left - 1, answered: true };
                }
            }
            Some(awaited) => {
                self.awaited.pop_front();
                if awaited == Awaited::Reset {
                    (self.subscribed, self.monitored) = (false, false);
                }
                self.monitored |= awaited == Awaited::Monitor;
                self.opaque |= awaited == Awaited::Replication && exception.is_empty();
            }
            None => {}
        }
        let message = Message {
            kind: Kind::Response,
            status: if exception.is_empty() { Status::Success } else { Status::ServerError },
            response_exception: exception,
            response_result: result_name(first, window).to_owned(),
            ..Message::default()
        };
        match self.skip_whole(header, size) {
            Step::Skip(consumed) => Step::Message { consumed, message: Box::new(message) },
            other => other,
        }
    }

    /// Is a push of this kind the reply to a command? Counts the confirmations that are not.
    fn is_reply(&mut self, kind: &[u8], push: bool) -> bool {
        let confirms = kind.ends_with(b"subscribe");
        if !confirms {
            return !push && !matches!(kind, b"message" | b"pmessage" | b"smessage");
        }
        match self.awaited.front_mut() {
            Some(Awaited::Confirmations { answered: false, .. }) => true,
            Some(Awaited::Confirmations { left, .. }) => {
                *left -= 1;
                if *left == 0 {
                    self.awaited.pop_front();
                }
                false
            }
            _ => false,
        }
    }

    /// The value that a header begins, whole: what of it is not consumed with the header stays to be skipped.
    fn skip_whole(&mut self, header: Header, size: usize) -> Step {
        let size = size as u64;
        match header {
            Header::Bulk(length) => {
                return Step::Skip(size.saturating_add(length).saturating_add(2));
            }
            Header::Values(count) | Header::Attribute(count) => self.server.left = count,
            Header::Streamed => {
                self.server.streamed.push(0);
                self.server.left = STREAMED;
            }
            Header::StreamEnd => return Step::Invalid,
            Header::Line => {}
        }
        self.server.wanted = 0;
        Step::Skip(size)
    }
}

impl Parser for Redis {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        if self.opaque {
            return Step::Skip(window.len() as u64);
        }
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        let all = (window.len() as u64).saturating_add(missing);
        if self.opaque {
            return Step::Skip(all);
        }
        match self.step(role, window, Some(missing)) {
            Step::NeedMore => {
                *self.side(role) = Side { lost: true, ..Side::default() };
                Step::Skip(all)
            }
            step => step,
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if self.opaque {
            return None;
        }
        self.awaited.clear();
        let start = find_start(role, window);
        *self.side(role) = Side { lost: start.is_none(), ..Side::default() };
        start
    }
}

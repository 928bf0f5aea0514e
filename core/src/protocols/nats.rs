//! The client protocol of NATS (docs.nats.io, "Client protocol"; headers: ADR-4).
//!
//! Payloads are skipped by count; of a message's headers only trace context and an inline status are kept.

mod line;

use std::borrow::Cow;
use std::rc::Rc;

use memchr::{memchr, memmem};

use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::connection::other;
use line::{Line, Verb};

pub const PROTOCOL: Protocol = Protocol {
    id: 104,
    name: "NATS",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Nats::new(settings.clone())),
    doc: "The client protocol of NATS, with headers and JetStream. The server's INFO waits for CONNECT and a PING of \
          either side for its PONG; publications, deliveries and subscriptions stand alone, with the trace ids of \
          their headers and the subject that an answer goes to. -ERR is an error, and so is the status 503 (no \
          responders) of a delivery.",
};

const PORT: u16 = 4222;
/// Begins a TLS record: what follows INFO when the server requires TLS.
const TLS_HANDSHAKE: u8 = 0x16;
/// So much of INFO is looked at to recognise it.
const MAX_CHECKED: usize = 1024;

#[derive(Default)]
struct Side {
    /// Bytes of the window that hold no end of a line.
    searched: usize,
    /// Inside a line whose end is to be skipped to.
    in_line: bool,
}

struct Nats {
    settings: Rc<ParserSettings>,
    sides: [Side; 2],
    /// The client has spoken: further INFO is news, not a greeting.
    connected: bool,
    server_name: String,
    version: Cow<'static, str>,
}

impl Nats {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            settings,
            sides: Default::default(),
            connected: false,
            server_name: String::new(),
            version: Cow::Borrowed(""),
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        &mut self.sides[usize::from(role == Role::Server)]
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let limit = self.settings.max_field;
        let side = self.side(role);
        if side.in_line {
            let end = memchr(b'\n', window);
            side.in_line = end.is_none();
            return Step::Skip(end.map_or(window.len(), |end| end + 1) as u64);
        }
        if role == Role::Client && window.first() == Some(&TLS_HANDSHAKE) && !self.connected {
            return Step::Switch;
        }
        let side = self.side(role);
        let shown = window.get(..limit).unwrap_or(window);
        let end = memchr(b'\n', shown.get(side.searched..).unwrap_or_default()).map(|end| side.searched + end);
        let Some(end) = end else {
            if shown.len() < limit && !last {
                side.searched = shown.len();
                return Step::NeedMore;
            }
            side.searched = 0;
            return self.cut_line(role, shown, last);
        };
        let Some(line) = Line::read(shown.get(..end).unwrap_or_default(), role) else {
            side.searched = 0;
            return Step::Invalid;
        };
        let size = end + 1;
        let headers = match line.headers {
            Some(length) => {
                let wanted = size.saturating_add(length.min(limit));
                if window.len() < wanted && !last {
                    return Step::NeedMore;
                }
                window.get(size..wanted.min(window.len())).unwrap_or_default()
            }
            None => b"",
        };
        let consumed = match line.payload {
            Some(length) => {
                let end = size.saturating_add(length);
                if window.get(end..).is_some_and(|rest| !b"\r\n".starts_with(rest.get(..2).unwrap_or(rest))) {
                    return Step::Invalid;
                }
                end.saturating_add(2)
            }
            None => size,
        };
        self.side(role).searched = 0;
        let message = self.message(role, &line, size, headers);
        Step::Message { consumed: consumed as u64, message: Box::new(message) }
    }

    /// A line whose end is not in sight: only INFO and CONNECT may be so long.
    fn cut_line(&mut self, role: Role, shown: &[u8], last: bool) -> Step {
        match Line::read(shown, role) {
            Some(line) if matches!(line.verb, Verb::Info | Verb::Connect) => {
                self.side(role).in_line = !last;
                let mut message = self.message(role, &line, shown.len(), b"");
                message.length = None;
                Step::Message { consumed: shown.len() as u64, message: Box::new(message) }
            }
            _ => Step::Invalid,
        }
    }

    fn message(&mut self, role: Role, line: &Line<'_>, size: usize, headers: &[u8]) -> Message {
        if line.verb == Verb::Info {
            let text = |key| self.settings.text(text_of(line.rest, key).unwrap_or_default());
            (self.server_name, self.version) = (text(b"\"server_name\""), Cow::Owned(text(b"\"version\"")));
        }
        let mut message = Message {
            kind: Kind::Session,
            status: Status::Success,
            version: self.version.clone(),
            request_type: line.verb.name().to_owned(),
            request_domain: self.server_name.clone(),
            request_resource: self.settings.text(line.subject),
            ..Message::default()
        };
        let first = line.subject.split(|byte| *byte == b'.').next().unwrap_or_default();
        message.endpoint = self.settings.text(first);
        let key = |asker: Role, verb: Verb| Some(u64::from(asker == Role::Server) << 63 | verb as u64);
        match line.verb {
            Verb::Info if !self.connected => {
                (message.kind, message.pair) = (Kind::Request, key(role, Verb::Info));
            }
            Verb::Ping => (message.kind, message.pair) = (Kind::Request, key(role, Verb::Ping)),
            Verb::Connect => (message.kind, message.pair) = (Kind::Response, key(other(role), Verb::Info)),
            Verb::Pong => (message.kind, message.pair) = (Kind::Response, key(other(role), Verb::Ping)),
            Verb::Err => {
                message.status = blame(line.rest);
                message.response_exception = self.settings.text(line.rest);
            }
            _ => {}
        }
        if message.kind == Kind::Request {
            message.status = Status::Unknown;
        }
        if message.kind != Kind::Session {
            message.length = i64::try_from(size).ok();
        }
        message.is_reversed = role == Role::Server && message.kind != Kind::Response;
        self.connected |= role == Role::Client;
        let mut attribute = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                message.attributes.push((name.to_owned(), self.settings.text(value)));
            }
        };
        attribute("reply_to", line.reply_to);
        attribute("queue_group", line.queue_group);
        if let Some(payload) = line.payload {
            let payload = payload - line.headers.unwrap_or(0);
            message.attributes.push(("payload_size".to_owned(), payload.to_string()));
        }
        self.headers(headers, &mut message);
        message
    }

    /// `NATS/1.0`, perhaps a status, and `name: value` lines.
    fn headers(&self, bytes: &[u8], message: &mut Message) {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let Some(status) = lines.next().and_then(|first| first.strip_prefix(b"NATS/1.0")) else {
            return;
        };
        let status = std::str::from_utf8(status).unwrap_or_default().trim();
        let (code, text) = status.split_once(' ').unwrap_or((status, ""));
        message.response_code = code.parse().ok();
        message.response_result = text.to_owned();
        if code == "503" {
            message.status = Status::ServerError;
            message.response_result = String::new();
            message.response_exception = "no responders".to_owned();
        }
        let mut propagation = Propagation::new(&self.settings);
        for line in lines {
            if let Some(colon) = memchr(b':', line) {
                let (name, value) = line.split_at(colon);
                propagation.offer(name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
            }
        }
        propagation.fill(message);
    }
}

/// Whose fault an error of the server is.
fn blame(text: &[u8]) -> Status {
    let server = [&b"Maximum Connections"[..], b"Server Shutdown", b"Slow Consumer", b"Stale Connection"];
    if server.iter().any(|known| memmem::find(text, known).is_some()) {
        Status::ServerError
    } else {
        Status::ClientError
    }
}

/// The text that follows a key (with its quotes) in a JSON object, as it is written.
fn text_of<'a>(json: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let after = json.get(memmem::find(json, key)? + key.len()..)?.trim_ascii_start();
    let text = after.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    text.get(..memchr(b'"', text)?)
}

impl Parser for Nats {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        *self.side(role) = Side::default();
        let begins = |at: usize| {
            let rest = window.get(at..).unwrap_or_default();
            memchr(b'\n', rest).is_some_and(|end| Line::read(rest.get(..end).unwrap_or_default(), role).is_some())
        };
        let starts = memchr::memchr_iter(b'\n', window).map(|end| end + 1);
        std::iter::once(0).chain(starts).take(MAX_CHECKED).find(|at| begins(*at))
    }
}

fn check(payload: &[u8], port: u16) -> Guess {
    let shown = payload.get(..MAX_CHECKED).unwrap_or(payload);
    let has = |key: &[u8]| memmem::find(shown, key).is_some();
    let end = memchr(b'\n', payload);
    for (role, verb, keys) in [
        (Role::Server, &b"INFO {"[..], [&b"\"server_id\""[..], b"\"max_payload\""]),
        (Role::Client, b"CONNECT {", [b"\"verbose\"", b"\"pedantic\""]),
    ] {
        if payload.starts_with(verb) {
            return match keys.into_iter().any(has) {
                true => Guess::Yes(role),
                false if end.is_none() && payload.len() < MAX_CHECKED => Guess::Maybe,
                false => Guess::No,
            };
        }
        if verb.starts_with(payload) {
            return Guess::Maybe;
        }
    }
    let role = match payload.first().map(u8::to_ascii_uppercase) {
        Some(b'P' | b'S' | b'U') => Role::Client,
        Some(b'M' | b'+' | b'-') => Role::Server,
        Some(b'H') if payload.get(1).is_some_and(|second| second.eq_ignore_ascii_case(&b'M')) => Role::Server,
        Some(b'H') => Role::Client,
        _ => return Guess::No,
    };
    let Some(end) = end else {
        let word = payload.split(|byte| *byte == b' ').next().unwrap_or_default();
        let begun = port == PORT && payload.len() < MAX_CHECKED && Verb::read(word, role).is_some();
        return if begun { Guess::Maybe } else { Guess::No };
    };
    let Some(line) = Line::read(payload.get(..end).unwrap_or_default(), role) else {
        return Guess::No;
    };
    let body = payload.get(end + 1..).unwrap_or_default();
    let closed = line.payload.is_some_and(|length| body.get(length..).is_some_and(|rest| rest.starts_with(b"\r\n")));
    let headed = line.headers.is_some() && body.starts_with(b"NATS/1.0");
    match line.verb {
        // Both sides send them.
        Verb::Ping | Verb::Pong => Guess::No,
        _ if port == PORT || closed || headed => Guess::Yes(role),
        _ => Guess::No,
    }
}

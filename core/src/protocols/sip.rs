//! SIP (RFC 3261) over UDP and TCP.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::rc::Rc;

use memchr::{memchr, memchr_iter};
use rustc_hash::FxBuildHasher;

use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

pub const PROTOCOL: Protocol = Protocol {
    id: 206,
    name: "SIP",
    pairing: Pairing::Id,
    transports: &[17, 6],
    timeout_s: 0,
    check,
    parser: |settings| Box::new(Sip::new(settings)),
    doc: "SIP 2.0 over UDP and TCP. A final response answers the request with the same Call-ID and CSeq; provisional ones \
          (1xx) and repetitions are passed over, ACK is a row of its own. The request id is the number of CSeq, the \
          X-Request-ID the Call-ID, which proxies hand on. Codes from 400 are errors of the client, 500 to 599 of the server.",
};

const VERSION: &[u8] = b"SIP/2.0";
const METHODS: &[&[u8]] = &[
    b"INVITE",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"REGISTER",
    b"OPTIONS",
    b"PRACK",
    b"SUBSCRIBE",
    b"NOTIFY",
    b"PUBLISH",
    b"INFO",
    b"REFER",
    b"MESSAGE",
    b"UPDATE",
];
const SCHEMES: &[&[u8]] = &[b"sip:", b"sips:", b"tel:", b"urn:"];
/// Transactions of a connection that are remembered, to know repetitions.
const MAX_OPEN: usize = 1024;
const MAX_CLOSED: usize = 128;

struct Sip {
    settings: Rc<ParserSettings>,
    datagrams: bool,
    /// The end of the head is not before this offset of the growing window, client and server.
    searched: [usize; 2],
    /// Requests without a final response, and those that had one.
    open: VecDeque<Transaction>,
    closed: VecDeque<Transaction>,
}

/// Requests that a proxy sends to one target after the other share the key, and have a branch each (RFC 3261 section
/// 17.1.3). Answers are known by the key alone, too.
#[derive(Clone, Copy, PartialEq)]
struct Transaction {
    key: u64,
    branch: u64,
    /// The request was seen.
    asked: bool,
}

#[derive(Clone, Copy)]
enum Line<'a> {
    Request { method: &'a [u8], uri: &'a [u8] },
    Response { code: u16, phrase: &'a [u8] },
}

/// What a head says.
struct Head<'a> {
    line: Line<'a>,
    call_id: &'a [u8],
    sequence: u32,
    method: &'a [u8],
    /// Of the topmost Via.
    branch: &'a [u8],
    content_length: Option<u64>,
    user_agent: &'a [u8],
}

impl Sip {
    fn new(settings: &Rc<ParserSettings>) -> Self {
        let (open, closed) = (VecDeque::new(), VecDeque::new());
        Self { settings: settings.clone(), datagrams: false, searched: [0; 2], open, closed }
    }

    fn step(&mut self, role: Role, window: &[u8], missing: Option<u64>) -> Step {
        let blank = window.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return Step::Skip(blank as u64);
        }
        if starts(window) == Guess::No {
            return Step::Invalid;
        }
        let all = (window.len() as u64).saturating_add(missing.unwrap_or(0));
        let searched = &mut self.searched[usize::from(role == Role::Server)];
        let (head, end) = match (head_end(window, *searched), missing) {
            (Some(end), _) => (window.get(..end).unwrap_or(window), Some(end)),
            (None, None) if !self.datagrams => {
                *searched = window.len().saturating_sub(3);
                return Step::NeedMore;
            }
            (None, _) => (window, None),
        };
        *searched = 0;
        let mut propagation = Propagation::new(&self.settings);
        let Some(read) = Head::read(head, &mut propagation) else {
            // Of a cut head that does not say which exchange it belongs to, nothing can be told.
            return if end.is_none() && missing.is_some() { Step::Skip(all) } else { Step::Invalid };
        };
        let consumed = match end {
            _ if self.datagrams => all,
            Some(end) => (end as u64).saturating_add(read.content_length.unwrap_or(0)),
            None => all,
        };
        let mut message = Message::default();
        propagation.fill(&mut message);
        match self.message(role, &read, message) {
            Some(message) => Step::Message { consumed, message: Box::new(message) },
            None => Step::Skip(consumed),
        }
    }

    fn message(&mut self, role: Role, head: &Head<'_>, mut message: Message) -> Option<Message> {
        let request = matches!(head.line, Line::Request { .. });
        let reversed = (role == Role::Server) == request;
        let key = FxBuildHasher.hash_one((head.call_id, head.sequence, head.method, reversed));
        let branch = FxBuildHasher.hash_one(head.branch);
        message.pair = Some(key);
        message.request_id = Some(u64::from(head.sequence));
        message.version = "2.0".into();
        message.length = head.content_length.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
        if message.x_request_id.is_empty() {
            message.x_request_id = self.settings.text(head.call_id);
        }
        match head.line {
            Line::Request { method, uri } => {
                message.request_type = self.settings.text(method);
                message.request_resource = self.settings.text(uri);
                message.request_domain = self.settings.text(host(uri));
                message.endpoint.clone_from(&message.request_domain);
                message.is_reversed = reversed;
                if !head.user_agent.is_empty() {
                    message.attributes.push(("user_agent".to_owned(), self.settings.text(head.user_agent)));
                }
                if method == b"ACK" {
                    message.kind = Kind::Session;
                    return Some(message);
                }
                // Sent again, perhaps read after the answer to the first.
                let own = Transaction { key, branch, asked: true };
                if self.open.contains(&own) || self.closed.contains(&own) {
                    return None;
                }
                remember(&mut self.open, own, MAX_OPEN);
            }
            Line::Response { code: 100..200, .. } => return None,
            Line::Response { code, phrase } => {
                let same = |one: &Transaction| (one.key, one.branch) == (key, branch);
                let place = match self.open.iter().position(same) {
                    None if self.closed.iter().any(same) => return None,
                    place => place.or_else(|| self.open.iter().position(|open| open.key == key)),
                };
                let request = place.and_then(|place| self.open.remove(place));
                if request.is_none() && self.closed.iter().any(|closed| closed.key == key) {
                    return None;
                }
                let own = request.unwrap_or(Transaction { key, branch, asked: false });
                remember(&mut self.closed, own, MAX_CLOSED);
                message.kind = Kind::Response;
                message.response_code = Some(i32::from(code));
                message.status = match code {
                    ..400 => Status::Success,
                    500..600 => Status::ServerError,
                    _ => Status::ClientError,
                };
                if code >= 400 {
                    message.response_exception = self.settings.text(phrase);
                }
            }
        }
        Some(message)
    }
}

fn remember(known: &mut VecDeque<Transaction>, one: Transaction, most: usize) {
    if known.len() >= most {
        known.pop_front();
    }
    known.push_back(one);
}

/// The branch of a Via, which may be the first of several.
fn branch(via: &[u8]) -> &[u8] {
    let first = via.split(|&byte| byte == b',').next().unwrap_or_default();
    let parameters = first.split(|&byte| byte == b';').skip(1).map(<[u8]>::trim_ascii);
    parameters
        .filter_map(|one| one.split_at_checked(7))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"branch="))
        .map_or(b"", |(_, value)| value)
}

impl Parser for Sip {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.searched[usize::from(role == Role::Server)] = 0;
        let line_starts = memchr_iter(b'\n', window).map(|at| at + 1);
        std::iter::once(0).chain(line_starts).find(|&at| matches!(window.get(at..).map(starts), Some(Guess::Yes(_))))
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.datagrams = ip_protocol == 17;
    }
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8], propagation: &mut Propagation<'_>) -> Option<Self> {
        let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = match lines.next()? {
            first if first.starts_with(VERSION) => {
                let rest = first.get(VERSION.len() + 1..)?;
                let code = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
                Line::Response { code, phrase: rest.get(3..)?.trim_ascii() }
            }
            first => {
                let (method, rest) = first.split_at_checked(memchr(b' ', first)?)?;
                let rest = rest.trim_ascii();
                let uri = rest.get(..memchr(b' ', rest).unwrap_or(rest.len()))?;
                Line::Request { method, uri }
            }
        };
        let nothing: &[u8] = b"";
        let (mut call_id, mut sequence, mut user_agent, mut content_length) = (nothing, None, nothing, None);
        let mut via = None;
        for line in lines {
            let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else {
                continue;
            };
            let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
            let is = |long: &str, short: &str| {
                name.eq_ignore_ascii_case(long.as_bytes()) || name.eq_ignore_ascii_case(short.as_bytes())
            };
            if is("Call-ID", "i") {
                call_id = value;
            } else if is("CSeq", "CSeq") {
                sequence = memchr(b' ', value).and_then(|blank| value.split_at_checked(blank));
            } else if is("Content-Length", "l") {
                content_length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            } else if is("User-Agent", "User-Agent") {
                user_agent = value;
            } else if is("Via", "v") {
                via.get_or_insert(branch(value));
            } else {
                propagation.offer(name, value);
            }
        }
        let (number, method) = sequence?;
        let sequence = std::str::from_utf8(number).ok()?.parse().ok()?;
        let method = method.trim_ascii();
        let branch = via.unwrap_or_default();
        (!call_id.is_empty()).then_some(Self { line, call_id, sequence, method, branch, content_length, user_agent })
    }
}

/// Offset behind the empty line that ends a head.
fn head_end(window: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', window.get(from..)?).map(|at| from + at).find_map(|at| match window.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Host of a SIP URI, without port and parameters; the number of a telephone URI.
fn host(uri: &[u8]) -> &[u8] {
    let rest = uri.get(memchr(b':', uri).map_or(0, |colon| colon + 1)..).unwrap_or_default();
    let rest = rest.get(..rest.iter().position(|byte| b";?".contains(byte)).unwrap_or(rest.len())).unwrap_or(rest);
    let rest = rest.get(memchr(b'@', rest).map_or(0, |at| at + 1)..).unwrap_or_default();
    let end = match rest.first() {
        Some(b'[') => memchr(b']', rest).map(|at| at + 1),
        _ => memchr(b':', rest),
    };
    rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest)
}

/// Does a message begin here? The role is that of the usual writer.
fn starts(window: &[u8]) -> Guess {
    let shared = VERSION.len().min(window.len());
    if window.get(..shared) == VERSION.get(..shared) {
        return match window.get(VERSION.len()..) {
            Some(&[b' ', b'1'..=b'6', b'0'..=b'9', b'0'..=b'9', ..]) => Guess::Yes(Role::Server),
            Some(rest) if rest.len() >= 4 => Guess::No,
            _ => Guess::Maybe,
        };
    }
    let Some(blank) = memchr(b' ', window.get(..window.len().min(16)).unwrap_or_default()) else {
        let could = METHODS.iter().any(|method| method.starts_with(window));
        return if could { Guess::Maybe } else { Guess::No };
    };
    let (method, rest) = window.split_at(blank);
    let rest = rest.get(1..).unwrap_or_default();
    if !METHODS.contains(&method) {
        return Guess::No;
    }
    if SCHEMES.iter().any(|scheme| scheme.len() > rest.len() && scheme.starts_with(rest)) {
        return Guess::Maybe;
    }
    if !SCHEMES.iter().any(|scheme| rest.starts_with(scheme)) {
        return Guess::No;
    }
    match memchr(b'\n', rest) {
        Some(end) if !rest.get(..end).unwrap_or_default().trim_ascii_end().ends_with(VERSION) => Guess::No,
        _ => Guess::Yes(Role::Client),
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    if payload.is_empty() { Guess::No } else { starts(payload) }
}

//! LDAP version 3 (RFC 4511).

mod operation;

use std::rc::Rc;

use super::ber::{Element, Header, element, header, number};
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::event::Origin;
use operation::{START_TLS, is_partial, is_result, is_servers_fault, target};

pub const PROTOCOL: Protocol = Protocol {
    id: 205,
    name: "LDAP",
    pairing: Pairing::Id,
    transports: &[6, 17],
    timeout_s: 0,
    check,
    parser: |settings| Box::new(Ldap::new(settings)),
    doc: "LDAP 3. The resource is the distinguished name, of a search with its scope and filter; the endpoint is where the \
          entry lies. Entries that a search finds are counted (attribute `entries`), its delay is that of the first. After \
          StartTLS the connection is TLS. Passwords are never read; values in filters are shown as `?` when LDAP is listed \
          in `obfuscate_protocols`.",
};

const PORTS: &[u16] = &[389, 3268];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const BIND: u8 = 0x60;
const UNBIND: u8 = 0x42;
const ABANDON: u8 = 0x50;
const EXTENDED: u8 = 0x77;
/// Longest message that is believed.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Bytes of a message that are waited for.
const MAX_READ: usize = 8192;
/// Searches and the like whose answers are collected.
const MAX_OPEN: usize = 256;

/// Head of a message.
#[derive(Clone, Copy)]
struct Head {
    id: u32,
    operation: Element,
    total: usize,
}

enum Read {
    Is(Head),
    Cut,
    Wrong,
}

/// Partial answers to a request.
struct Open {
    id: u32,
    began: Origin,
    entries: u64,
    /// Its response was named although its end was not seen.
    named: bool,
}

struct Ldap {
    settings: Rc<ParserSettings>,
    open: Vec<Open>,
    /// The request that asked for TLS.
    start_tls: Option<u32>,
    /// What follows is TLS.
    secured: bool,
    /// The connection was authenticated by SASL, which may have brought encryption of its own.
    sasl: Option<u32>,
    opaque: bool,
    /// The window has to be this long before it is worth another look, client and server.
    wanted: [usize; 2],
    at: Origin,
}

impl Ldap {
    fn new(settings: &Rc<ParserSettings>) -> Self {
        Self {
            settings: settings.clone(),
            open: Vec::new(),
            start_tls: None,
            secured: false,
            sasl: None,
            opaque: false,
            wanted: [0; 2],
            at: Origin::default(),
        }
    }

    fn step(&mut self, role: Role, window: &[u8], missing: Option<u64>) -> Step {
        let all = (window.len() as u64).saturating_add(missing.unwrap_or(0));
        if self.secured {
            return Step::Switch;
        }
        if self.opaque {
            return Step::Skip(all);
        }
        let wanted = &mut self.wanted[usize::from(role == Role::Server)];
        if window.len() < *wanted && missing.is_none() {
            return Step::NeedMore;
        }
        *wanted = 0;
        // A security layer puts a length of four bytes before every buffer (RFC 4422 section 3.7).
        if self.sasl.is_some() && window.first() == Some(&0) {
            self.opaque = true;
            return Step::Skip(all);
        }
        let head = match (read(window), missing) {
            (Read::Is(head), _) => head,
            (Read::Cut, None) => return Step::NeedMore,
            (Read::Cut, Some(_)) => return Step::Skip(all),
            (Read::Wrong, _) => return Step::Invalid,
        };
        let tag = head.operation.tag;
        if is_partial(tag) {
            let lost_behind = missing.is_some_and(|missing| missing > 0) && (head.total as u64) < all;
            return match self.partial(&head, lost_behind) {
                Some(message) => Step::Message { consumed: head.total as u64, message: Box::new(message) },
                None => Step::Skip(head.total as u64),
            };
        }
        let needed = head.total.min(MAX_READ);
        if window.len() < needed && missing.is_none() {
            *wanted = needed;
            return Step::NeedMore;
        }
        let bytes = window.get(..needed).unwrap_or(window);
        let message = match operation::request(tag) {
            Some(name) => Some(self.request(&head, name, bytes)),
            None if is_result(tag) => self.response(&head, bytes),
            None => None,
        };
        match message {
            Some(message) => Step::Message { consumed: head.total as u64, message: Box::new(message) },
            None => Step::Skip(head.total as u64),
        }
    }

    fn request(&mut self, head: &Head, name: &str, bytes: &[u8]) -> Message {
        let (tag, target) = (head.operation.tag, target(bytes, head.operation, &self.settings));
        let mut message = Message { request_id: Some(u64::from(head.id)), ..Message::default() };
        message.kind = if matches!(tag, UNBIND | ABANDON) { Kind::Session } else { Kind::Request };
        message.request_type = name.to_owned();
        message.request_resource = target.resource;
        message.endpoint = target.endpoint;
        if let Some(version) = target.version {
            message.version = version.to_string().into();
        }
        if tag == BIND && !target.authentication.is_empty() {
            if target.authentication != "simple" {
                self.sasl = Some(head.id);
            }
            message.attributes.push(("authentication".to_owned(), target.authentication));
        }
        let extension = element(bytes, head.operation.from).map(|name| name.contents(bytes));
        if tag == EXTENDED && extension == Some(START_TLS) {
            self.start_tls = Some(head.id);
        }
        // An id is used again only when its request is over.
        self.open.retain(|open| open.id != head.id);
        message
    }

    /// An entry or the like. `lost_behind`: so is what follows it, perhaps the result.
    fn partial(&mut self, head: &Head, lost_behind: bool) -> Option<Message> {
        let place = match self.open.iter().position(|open| open.id == head.id) {
            Some(place) => place,
            None => {
                if self.open.len() >= MAX_OPEN {
                    self.open.remove(0);
                }
                self.open.push(Open { id: head.id, began: self.at, entries: 0, named: false });
                self.open.len() - 1
            }
        };
        let open = self.open.get_mut(place)?;
        open.entries += u64::from(head.operation.tag == 0x64);
        if !lost_behind || open.named {
            return None;
        }
        open.named = true;
        Some(Message {
            kind: Kind::Response,
            request_id: Some(u64::from(head.id)),
            began: Some(open.began),
            status: Status::Success,
            ..Message::default()
        })
    }

    fn response(&mut self, head: &Head, bytes: &[u8]) -> Option<Message> {
        let place = self.open.iter().position(|open| open.id == head.id);
        let open = place.map(|place| self.open.remove(place));
        if open.as_ref().is_some_and(|open| open.named) {
            return None;
        }
        let mut message = Message { kind: Kind::Response, request_id: Some(u64::from(head.id)), ..Message::default() };
        message.began = open.as_ref().map(|open| open.began);
        if head.operation.tag == 0x65 {
            let entries = open.map_or(0, |open| open.entries);
            message.attributes.push(("entries".to_owned(), entries.to_string()));
        }
        let code = element(bytes, head.operation.from).filter(|code| code.tag == ENUMERATED);
        let Some((code, value)) = code.and_then(|code| Some((code, number(code.contents(bytes))?))) else {
            return Some(message);
        };
        message.response_code = i32::try_from(value).ok();
        message.status = match is_servers_fault(value) {
            None => Status::Success,
            Some(true) => Status::ServerError,
            Some(false) => Status::ClientError,
        };
        if message.status != Status::Success {
            // The matched name, then what the server says.
            let diagnostic = element(bytes, code.end).and_then(|matched| element(bytes, matched.end));
            let diagnostic = diagnostic.filter(|text| text.tag == OCTETS).map(|text| text.contents(bytes));
            let name = operation::result(value).map_or_else(|| format!("result {value}"), ToOwned::to_owned);
            message.response_exception = match diagnostic.unwrap_or_default() {
                [] => name,
                text => self.settings.text([name.as_bytes(), b": ", text].concat().as_slice()),
            };
        }
        self.secured = self.start_tls == Some(head.id) && value == 0;
        if self.sasl == Some(head.id) && value != 0 {
            self.sasl = None;
        }
        Some(message)
    }
}

impl Parser for Ldap {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.wanted = [0; 2];
        if self.opaque || self.secured {
            return Some(0);
        }
        memchr::memchr_iter(SEQUENCE, window).find(|&at| {
            let rest = window.get(at..).unwrap_or_default();
            matches!(sure(rest), Guess::Yes(writer) if writer == role)
        })
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }
}

/// The head of the message that begins the window.
fn read(window: &[u8]) -> Read {
    let message = match header(window, 0) {
        Header::Is(message) if message.tag == SEQUENCE && message.end <= MAX_MESSAGE => message,
        Header::Cut if window.first().is_none_or(|&tag| tag == SEQUENCE) => return Read::Cut,
        _ => return Read::Wrong,
    };
    let id = match header(window, message.from) {
        Header::Is(id) if id.tag == INTEGER && id.end - id.from <= 4 && id.end <= message.end => id,
        Header::Cut => return Read::Cut,
        _ => return Read::Wrong,
    };
    match (header(window, id.end), number(id.contents(window))) {
        (Header::Is(operation), Some(number)) if operation.end <= message.end => {
            let known = operation::request(operation.tag).is_some();
            if !known && !is_result(operation.tag) && !is_partial(operation.tag) {
                return Read::Wrong;
            }
            Read::Is(Head { id: number, operation, total: message.end })
        }
        (Header::Cut, _) => Read::Cut,
        _ => Read::Wrong,
    }
}

/// Is it certainly LDAP: do also the first fields of the operation fit?
fn sure(payload: &[u8]) -> Guess {
    let head = match read(payload) {
        Read::Is(head) => head,
        Read::Cut => return Guess::Maybe,
        Read::Wrong => return Guess::No,
    };
    let operation = head.operation;
    let role = if operation::request(operation.tag).is_some() { Role::Client } else { Role::Server };
    let first = match header(payload, operation.from) {
        Header::Is(first) => first,
        Header::Cut if operation.from < operation.end => return Guess::Maybe,
        _ => return Guess::No,
    };
    let (tag, end) = (first.tag, first.end);
    let fits = match operation.tag {
        BIND => {
            let version = first.contents(payload);
            tag == INTEGER && matches!(version, [2 | 3]) && element(payload, end).is_none_or(|name| name.tag == OCTETS)
        }
        EXTENDED => tag == 0x80 && first.contents(payload).iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'),
        0x63 => tag == OCTETS && element(payload, end).is_none_or(|scope| scope.tag == ENUMERATED),
        0x66 | 0x68 | 0x6e => tag == OCTETS && element(payload, end).is_none_or(|list| list.tag == SEQUENCE),
        0x6c => tag == OCTETS && element(payload, end).is_none_or(|name| name.tag == OCTETS),
        0x64 => tag == OCTETS && element(payload, end).is_none_or(|list| list.tag == SEQUENCE),
        0x73 => tag == OCTETS,
        other if is_result(other) => {
            tag == ENUMERATED && end - first.from == 1 && element(payload, end).is_none_or(|name| name.tag == OCTETS)
        }
        _ => false,
    };
    if fits && end <= operation.end { Guess::Yes(role) } else { Guess::No }
}

fn check(payload: &[u8], port: u16) -> Guess {
    match (sure(payload), read(payload)) {
        // Delete, Abandon and Unbind have nothing to look at.
        (Guess::No, Read::Is(head))
            if PORTS.contains(&port) && matches!(head.operation.tag, 0x4a | UNBIND | ABANDON) =>
        {
            Guess::Yes(Role::Client)
        }
        (guess, _) => guess,
    }
}

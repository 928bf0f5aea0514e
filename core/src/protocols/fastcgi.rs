//! FastCGI (specification 1.0): requests of a web server to an application.

mod head;

use std::rc::Rc;

use memchr::memchr_iter;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::event::Origin;
use head::Params;

pub const PROTOCOL: Protocol = Protocol {
    id: 44,
    name: "FastCGI",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 0,
    check,
    parser: |settings| Box::new(FastCgi::new(settings)),
    doc: "FastCGI, requests multiplexed by id. Parameters that begin with HTTP_ are read as HTTP headers, trace context \
          included. The status is the Status header of the response, 200 without one, with the classes of HTTP; an \
          application that refuses the request (overloaded, unknown role) is an error of the server.",
};

const PORT: u16 = 9000;
const HEADER: usize = 8;
/// Most requests of one connection that are followed at a time.
const MAX_OPEN: usize = 64;
/// Most bytes kept of a parameter or of a response's head that go on in the next record.
const MAX_PART: usize = 16 * 1024;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// A record's header; the reserved byte is not looked at.
#[derive(Clone, Copy)]
struct Record {
    kind: u8,
    id: u16,
    content: usize,
    padding: usize,
}

impl Record {
    fn read(window: &[u8], role: Role) -> Option<Self> {
        let &[1, kind, id_high, id_low, high, low, padding, _, ..] = window else {
            return None;
        };
        let of_role = match role {
            Role::Client => matches!(kind, BEGIN_REQUEST | 2 | PARAMS | 5 | 8 | 9),
            Role::Server => matches!(kind, END_REQUEST | STDOUT | STDERR | 10 | 11),
        };
        let (id, content) = (u16::from_be_bytes([id_high, id_low]), usize::from(u16::from_be_bytes([high, low])));
        of_role.then_some(Self { kind, id, content, padding: usize::from(padding) })
    }

    fn total(&self) -> usize {
        HEADER + self.content + self.padding
    }
}

/// A request whose parameters are not complete.
struct Asking {
    id: u16,
    began: Origin,
    params: Params,
    /// The beginning of a pair that goes on in the next record.
    part: Vec<u8>,
}

/// A response that was begun.
struct Answering {
    id: u16,
    began: Origin,
    /// Its head so far; `None` once the response was named.
    head: Option<Vec<u8>>,
    /// The end of the head is not before this offset of the growing window.
    searched: usize,
}

struct FastCgi {
    settings: Rc<ParserSettings>,
    asking: Vec<Asking>,
    answering: Vec<Answering>,
    /// The window has to be this long before it is worth another look, client and server.
    wanted: [usize; 2],
    at: Origin,
}

impl FastCgi {
    fn new(settings: &Rc<ParserSettings>) -> Self {
        let settings = settings.clone();
        Self { settings, asking: Vec::new(), answering: Vec::new(), wanted: [0; 2], at: Origin::default() }
    }

    /// `missing`: the window will not grow.
    fn step(&mut self, role: Role, window: &[u8], missing: Option<u64>) -> Step {
        let wanted = &mut self.wanted[usize::from(role == Role::Server)];
        if window.len() < *wanted && missing.is_none() {
            return Step::NeedMore;
        }
        *wanted = 0;
        if window.len() < HEADER {
            let known = window.first().is_none_or(|&version| version == 1);
            return match missing {
                _ if !known => Step::Invalid,
                None => Step::NeedMore,
                Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
            };
        }
        let Some(record) = Record::read(window, role) else {
            return Step::Invalid;
        };
        let needed = match record.kind {
            PARAMS => HEADER + record.content,
            BEGIN_REQUEST | END_REQUEST => HEADER + record.content.min(8),
            _ => HEADER,
        };
        if window.len() < needed && missing.is_none() {
            *wanted = needed;
            return Step::NeedMore;
        }
        let cut = missing.is_some() && window.len() < HEADER + record.content;
        let content = window.get(HEADER..window.len().min(HEADER + record.content)).unwrap_or_default();
        let message = match record.kind {
            BEGIN_REQUEST => {
                // An id is used again only when its last request has ended, seen or unseen.
                self.asking.retain(|asking| asking.id != record.id);
                self.answering.retain(|answering| answering.id != record.id);
                if self.asking.len() >= MAX_OPEN {
                    self.asking.remove(0);
                }
                let (params, part) = (Params::default(), Vec::new());
                self.asking.push(Asking { id: record.id, began: self.at, params, part });
                None
            }
            PARAMS => self.params(&record, content, cut),
            STDOUT => match self.stdout(&record, content, missing.is_some()) {
                Ok(message) => message,
                Err(()) => return Step::NeedMore,
            },
            END_REQUEST => self.end(&record, content),
            _ => None,
        };
        match message {
            Some(message) => Step::Message { consumed: record.total() as u64, message: Box::new(message) },
            None => Step::Skip(record.total() as u64),
        }
    }

    /// A piece of a request's parameters; an empty one ends them, and so does one that is cut.
    fn params(&mut self, record: &Record, content: &[u8], cut: bool) -> Option<Message> {
        let place = self.asking.iter().position(|asking| asking.id == record.id)?;
        let asking = self.asking.get_mut(place)?;
        let joined: Vec<u8>;
        let bytes = if asking.part.is_empty() {
            content
        } else {
            joined = [asking.part.as_slice(), content].concat();
            &joined
        };
        let (params, settings) = (&mut asking.params, &self.settings);
        let taken = head::pairs(bytes, &mut |name, value| params.offer(name, value, settings));
        if record.content > 0 && !cut {
            let rest = bytes.get(taken..).unwrap_or_default();
            asking.part = rest.get(..MAX_PART).unwrap_or(rest).to_vec();
            return None;
        }
        let asking = self.asking.remove(place);
        let mut message = asking.params.message(&self.settings);
        message.began = Some(asking.began);
        message.request_id = Some(u64::from(record.id));
        Some(message)
    }

    /// A piece of a response. `Err`: its head goes on beyond the window.
    fn stdout(&mut self, record: &Record, content: &[u8], last: bool) -> Result<Option<Message>, ()> {
        if record.content == 0 {
            return Ok(None);
        }
        let whole = content.len() == record.content;
        let place = match self.answering.iter().position(|answering| answering.id == record.id) {
            Some(place) => place,
            None => {
                match head::begins(content) {
                    None if !whole && !last => return Err(()),
                    Some(true) => {}
                    // The middle of a body: the connection was not followed from its beginning.
                    _ => return Ok(None),
                }
                if self.answering.len() >= MAX_OPEN {
                    self.answering.remove(0);
                }
                let (began, head) = (self.at, Some(Vec::new()));
                self.answering.push(Answering { id: record.id, began, head, searched: 0 });
                self.answering.len() - 1
            }
        };
        let Some(answering) = self.answering.get_mut(place) else {
            return Ok(None);
        };
        let Some(kept) = &answering.head else {
            return Ok(None);
        };
        if !kept.is_empty() && !whole && !last {
            return Err(());
        }
        let began = answering.began;
        let joined: Vec<u8>;
        let bytes = if kept.is_empty() {
            content
        } else {
            joined = [kept.as_slice(), content].concat();
            &joined
        };
        let bytes = bytes.get(..MAX_PART).unwrap_or(bytes);
        let head = match head::end(bytes, answering.searched) {
            Some(end) => bytes.get(..end).unwrap_or(bytes),
            None if last || bytes.len() >= MAX_PART => bytes,
            None if whole => {
                (answering.head, answering.searched) = (Some(bytes.to_vec()), 0);
                return Ok(None);
            }
            None => {
                answering.searched = bytes.len().saturating_sub(2);
                return Err(());
            }
        };
        let mut message = head::response(head, &self.settings);
        message.began = Some(began);
        message.request_id = Some(u64::from(record.id));
        answering.head = None;
        Ok(Some(message))
    }

    /// The end of a request; one that had no response until then gets it here.
    fn end(&mut self, record: &Record, content: &[u8]) -> Option<Message> {
        let place = self.answering.iter().position(|answering| answering.id == record.id);
        let known = place.map(|place| self.answering.remove(place));
        let refused = match content.get(4) {
            Some(1) => "CANT_MPX_CONN",
            Some(2) => "OVERLOADED",
            Some(3) => "UNKNOWN_ROLE",
            _ => "",
        };
        let mut message = match known {
            Some(Answering { head: None, .. }) => return None,
            Some(Answering { head: Some(head), began, .. }) => {
                Message { began: Some(began), ..head::response(&head, &self.settings) }
            }
            None => Message { kind: Kind::Response, status: Status::Success, ..Message::default() },
        };
        if !refused.is_empty() {
            message.status = Status::ServerError;
            message.response_exception = refused.to_owned();
        }
        message.request_id = Some(u64::from(record.id));
        Some(message)
    }
}

impl Parser for FastCgi {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.wanted = [0; 2];
        match role {
            Role::Client => self.asking.clear(),
            // What is named stays named: the rest of its body is no response.
            Role::Server => self.answering.retain(|answering| answering.head.is_none()),
        }
        let record = |at: usize| window.get(at..).and_then(|rest| Record::read(rest, role));
        memchr_iter(1, window).find(|&at| {
            record(at).is_some_and(|first| {
                let next = at + first.total();
                match window.get(next) {
                    Some(_) => record(next).is_some(),
                    // A lone header is believed where a write begins, or where it ends exactly.
                    None => at == 0 || next == window.len(),
                }
            })
        })
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }
}

fn check(payload: &[u8], port: u16) -> Guess {
    let role = match payload.get(1) {
        None if payload.first() == Some(&1) => return if port == PORT { Guess::Maybe } else { Guess::No },
        Some(&BEGIN_REQUEST) => Role::Client,
        Some(&(STDOUT | STDERR | END_REQUEST)) => Role::Server,
        _ => return Guess::No,
    };
    if payload.first() != Some(&1) {
        return Guess::No;
    }
    if payload.len() < HEADER {
        return if port == PORT || role == Role::Client { Guess::Maybe } else { Guess::No };
    }
    let (Some(record), Some(0)) = (Record::read(payload, role), payload.get(7)) else {
        return Guess::No;
    };
    let content = payload.get(HEADER..).unwrap_or_default();
    let sound = match (record.kind, content) {
        _ if record.id == 0 => false,
        (BEGIN_REQUEST, &[0, 1..=3, 0 | 1, 0, 0, 0, 0, 0, ..]) => record.content == 8,
        (BEGIN_REQUEST, _) if content.len() < 8 && record.content == 8 => return Guess::Maybe,
        (STDOUT, _) => head::begins(content) == Some(true),
        (STDERR, [first, ..]) => port == PORT && record.content > 0 && first.is_ascii_graphic(),
        (END_REQUEST, &[_, _, _, _, 0..=3, 0, 0, 0, ..]) => port == PORT && record.content == 8,
        _ => false,
    };
    if sound { Guess::Yes(role) } else { Guess::No }
}

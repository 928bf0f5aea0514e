//! PostgreSQL frontend/backend protocol 3 (PostgreSQL documentation, chapter "Frontend/Backend Protocol").
//!
//! A row is a simple query, a prepared statement or an execution. What the client asks for is remembered group by group
//! (up to a Sync), so that each completion finds its request and what an error skips is answered too.

mod check;
mod outcome;
mod reply;
mod statements;

use std::collections::VecDeque;
use std::rc::Rc;

use super::{Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql};
use crate::event::Origin;
use check::{begins, check, ends_group};
use statements::{Described, Names};

pub const PROTOCOL: Protocol = Protocol {
    id: 61,
    name: "PostgreSQL",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Postgresql::new(settings.clone())),
    doc: "PostgreSQL protocol 3: simple and extended query, pipelines, COPY, errors with their SQLSTATE. The request \
          type is the letter of the message (Q, P, E); an execution shows the text it was prepared with. Start-up, \
          cancelling and termination are no rows; after an SSL or GSS negotiation that succeeds the connection is \
          recognised anew.",
};

const PORT: u16 = 5432;
/// Letter and length.
const HEADER: usize = 5;
const MAX_AWAITED: usize = 4096;
/// Bytes of a message that hold the names and numbers looked at, when its text is not wanted.
const NAMES: usize = 512;
const TERMINATOR: usize = 64;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What the client waits for.
#[derive(Clone, Copy)]
enum Awaited {
    /// A simple query or a function call: ends with ReadyForQuery.
    Query,
    Unit(Unit),
    /// The client's Sync, which ReadyForQuery answers.
    Sync,
}

/// Parse, Bind and Execute of one statement, as far as they belong together.
#[derive(Clone, Copy)]
struct Unit {
    serial: u64,
    only_parse: bool,
}

/// The unit that the client's next messages may belong to.
struct Open {
    serial: u64,
    statement: Vec<u8>,
    portal: Option<Vec<u8>>,
}

/// A Bind that no Parse precedes: its Execute makes the row.
struct Bound {
    origin: Origin,
    portal: Vec<u8>,
}

/// Responses that one message of the server gives; each takes a byte of it, the last one the rest.
#[derive(Default)]
struct Several {
    left: u64,
    messages: VecDeque<Message>,
}

#[derive(Clone, Copy, PartialEq)]
enum Security {
    None,
    /// Asked for; the server answers with one byte.
    Asked,
    Granted,
}

struct Postgresql {
    settings: Rc<ParserSettings>,
    masked: bool,
    origin: Origin,
    security: Security,
    awaited: VecDeque<Awaited>,
    serial: u64,
    open: Option<Open>,
    bound: Option<Bound>,
    statements: Names,
    portals: Names,
    /// First byte of the response that is on its way.
    began: Option<Origin>,
    rows: Option<u64>,
    /// A statement of the simple query was completed.
    completed: bool,
    /// Status and SQLSTATE of the error that the group ends with.
    failed: Option<(Status, String)>,
    several: Several,
}

impl Postgresql {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("PostgreSQL"),
            settings,
            origin: Origin::default(),
            security: Security::None,
            awaited: VecDeque::new(),
            serial: 0,
            open: None,
            bound: None,
            statements: Names::default(),
            portals: Names::default(),
            began: None,
            rows: None,
            completed: false,
            failed: None,
            several: Several::default(),
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        if self.security == Security::Granted {
            return Step::Switch;
        }
        if role == Role::Server {
            if let Some(message) = self.several.messages.pop_front() {
                let consumed = if self.several.messages.is_empty() { self.several.left } else { 1 };
                self.several.left = self.several.left.saturating_sub(consumed);
                return Step::Message { consumed: consumed.max(1), message: Box::new(message) };
            }
            if self.security == Security::Asked {
                self.security = Security::None;
                match window.first() {
                    Some(b'S' | b'G') => {
                        self.security = Security::Granted;
                        return Step::Skip(1);
                    }
                    Some(b'N') => return Step::Skip(1),
                    _ => {}
                }
            }
        }
        if role == Role::Client && window.first() == Some(&0) {
            return self.start(window, last);
        }
        let Some((letter, length)) = header(window) else {
            return match last {
                None => Step::NeedMore,
                Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
            };
        };
        if length < 4 || !begins(role, letter, length) {
            return Step::Invalid;
        }
        let total = length as u64 + 1;
        let end = window.len().min(length + 1);
        let body = window.get(HEADER..end).unwrap_or_default();
        let wanted = self.wanted(role, letter).min(length - 4);
        if body.len() < wanted && last.is_none() {
            return Step::NeedMore;
        }
        match role {
            Role::Client => self.client(letter, body, total),
            Role::Server => self.server(letter, body, total),
        }
    }

    /// Bytes of the body that name a message.
    fn wanted(&self, role: Role, letter: u8) -> usize {
        let text = self.settings.max_field.saturating_add(TERMINATOR);
        match (role, letter) {
            (Role::Client, b'Q') => text,
            (Role::Client, b'P') => text.saturating_add(NAMES),
            (Role::Client, b'B' | b'E' | b'C') => NAMES,
            (Role::Server, b'E') => text,
            (Role::Server, b'C') => TERMINATOR,
            (Role::Server, b'Z') => 1,
            _ => 0,
        }
    }

    /// Messages without a letter: start-up, cancelling, the wish for TLS or GSS.
    fn start(&mut self, window: &[u8], last: Option<u64>) -> Step {
        let Some((length, code)) = check::start(window) else {
            return match last {
                None if window.len() < 8 => Step::NeedMore,
                _ => Step::Invalid,
            };
        };
        self.forget_group();
        if matches!(code, SSL_REQUEST | GSS_REQUEST) {
            self.security = Security::Asked;
        }
        Step::Skip(u64::from(length))
    }

    fn client(&mut self, letter: u8, body: &[u8], total: u64) -> Step {
        let mut names = Strings(body);
        match letter {
            b'Q' => {
                self.open = None;
                self.bound = None;
                self.expect(Awaited::Query);
                let described = self.describe(names.next());
                return request("Q", &described, None, total);
            }
            b'F' => {
                self.expect(Awaited::Query);
                return request("F", &Described::default(), None, total);
            }
            b'P' => {
                let statement = names.next().to_vec();
                let described = Rc::new(self.describe(names.next()));
                self.statements.keep(&statement, described.clone());
                self.bound = None;
                self.serial += 1;
                self.expect(Awaited::Unit(Unit { serial: self.serial, only_parse: true }));
                self.open = Some(Open { serial: self.serial, statement, portal: None });
                return request("P", &described, None, total);
            }
            b'B' => {
                let (portal, statement) = (names.next().to_vec(), names.next());
                match self.statements.get(statement) {
                    Some(described) => self.portals.keep(&portal, described),
                    None => self.portals.forget(&portal),
                }
                let origin = self.origin;
                match &mut self.open {
                    Some(open) if open.portal.is_none() && open.statement == statement => {
                        open.portal = Some(portal);
                        let serial = open.serial;
                        if let Some(Awaited::Unit(unit)) = self.awaited.back_mut()
                            && unit.serial == serial
                        {
                            unit.only_parse = false;
                        }
                    }
                    _ => {
                        self.open = None;
                        self.bound = Some(Bound { origin, portal });
                    }
                }
            }
            b'E' => {
                let portal = names.next();
                let open = self.open.take();
                if open.is_some_and(|open| open.portal.as_deref() == Some(portal)) {
                    return Step::Skip(total);
                }
                let began = self.bound.take().filter(|bound| bound.portal == portal).map(|bound| bound.origin);
                return self.execution("E", portal, began, total);
            }
            b'S' => {
                self.open = None;
                let step = match self.bound.take() {
                    Some(bound) => self.execution("B", &bound.portal, Some(bound.origin), total),
                    None => Step::Skip(total),
                };
                self.expect(Awaited::Sync);
                return step;
            }
            b'H' => self.open = None,
            b'C' => match body.split_first() {
                Some((b'S', name)) => self.statements.forget(Strings(name).next()),
                Some((b'P', name)) => self.portals.forget(Strings(name).next()),
                _ => {}
            },
            _ => {}
        }
        Step::Skip(total)
    }

    fn execution(&mut self, letter: &str, portal: &[u8], began: Option<Origin>, total: u64) -> Step {
        self.serial += 1;
        self.expect(Awaited::Unit(Unit { serial: self.serial, only_parse: false }));
        let described = self.portals.get(portal).unwrap_or_default();
        request(letter, &described, began, total)
    }

    fn expect(&mut self, awaited: Awaited) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(awaited);
    }

    /// Resource, endpoint and trace ids of a statement.
    fn describe(&self, text: &[u8]) -> Described {
        let text = self.settings.text(text);
        let (trace_id, span_id) = sql::trace(&text, &sql::POSTGRESQL, &self.settings);
        Described {
            endpoint: sql::endpoint(&text, &sql::POSTGRESQL),
            trace_id,
            span_id,
            text: if self.masked { sql::mask(&text, &sql::POSTGRESQL) } else { text },
        }
    }

    /// Forgets the response on its way and everything awaited.
    fn forget_group(&mut self) {
        self.awaited.clear();
        self.open = None;
        self.bound = None;
        self.began = None;
        self.rows = None;
        self.completed = false;
        self.failed = None;
    }
}

impl Parser for Postgresql {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.several = Several::default();
        if self.security == Security::Granted {
            return Some(0);
        }
        self.security = Security::None;
        match role {
            Role::Client => self.forget_group(),
            Role::Server => {
                self.began = None;
                // Which of several groups was answered is not known: the last one, most likely.
                let complete = self.awaited.iter().rev().skip(1);
                let last = complete.take_while(|awaited| matches!(awaited, Awaited::Unit(_))).count() + 1;
                self.awaited.drain(..self.awaited.len().saturating_sub(last));
            }
        }
        if check::chain(role, window).is_some() {
            return Some(0);
        }
        if role == Role::Server { ends_group(window) } else { None }
    }

    fn at(&mut self, origin: Origin) {
        self.origin = origin;
    }
}

fn request(letter: &str, described: &Described, began: Option<Origin>, total: u64) -> Step {
    let message = Message {
        request_type: letter.to_owned(),
        request_resource: described.text.clone(),
        endpoint: described.endpoint.clone(),
        trace_id: described.trace_id.clone(),
        span_id: described.span_id.clone(),
        began,
        ..Message::default()
    };
    Step::Message { consumed: total, message: Box::new(message) }
}

/// Letter, and the length that counts itself but not the letter.
fn header(window: &[u8]) -> Option<(u8, usize)> {
    let &[letter, a, b, c, d] = window.first_chunk::<HEADER>()?;
    Some((letter, u32::from_be_bytes([a, b, c, d]) as usize))
}

/// Strings that end with NUL, one after the other.
struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    fn next(&mut self) -> &'a [u8] {
        let end = memchr::memchr(0, self.0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at_checked(end).unwrap_or_default();
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }
}

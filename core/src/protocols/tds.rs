//! TDS, the protocol of Microsoft SQL Server and Sybase ([MS-TDS] "Tabular Data Stream Protocol").
//!
//! A message is a row of packets; the last one says so. A request is named by what its packets begin with, a response
//! by the tokens its first packet begins with and by those its last one ends with: the rows between are skipped.

mod check;
mod request;
mod tokens;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql};
use crate::event::Origin;
use check::check;
use request::{Call, Handles};
use tokens::Outcome;

pub const PROTOCOL: Protocol = Protocol {
    id: 201,
    name: "TDS",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Tds::new(settings.clone())),
    doc: "Microsoft SQL Server (TDS 7.0 to 7.4): login (never the password), batches, procedures with the text of \
          sp_executesql and of what was prepared, transactions, bulk loads, cancelling; rows and errors from the DONE and \
          ERROR tokens. Where only the login is encrypted, the rest is read; where everything is, the connection is \
          recognised anew.",
};

const PORT: u16 = 1433;
const HEADER: usize = 8;
const END: u8 = 1;
/// Packets that a request is put together from; what more there are is not looked at.
const MAX_PACKETS: usize = 64;
const MAX_AWAITED: usize = 256;
/// Bytes of a packet's end that are kept, as tokens may go on in the next one.
const TAIL: usize = 1024;
/// Headers before the text of a batch (ALL_HEADERS), and what stands before the text in a call.
const PREFIX: usize = 1024;
/// Header of a session multiplexed over the connection (SMP).
const SMP: u8 = 0x53;
const SMP_HEADER: usize = 16;

const BATCH: u8 = 1;
const RPC: u8 = 3;
const RESULT: u8 = 4;
const ATTENTION: u8 = 6;
const BULK: u8 = 7;
const TRANSACTION: u8 = 14;
const LOGIN: u8 = 16;
const PRELOGIN: u8 = 18;

/// How the login was negotiated to be encrypted.
#[derive(Clone, Copy, PartialEq)]
enum Security {
    None,
    /// The client's wish (PRELOGIN option ENCRYPTION).
    Wished(u8),
    LoginOnly,
    Full,
}

/// A request whose response is awaited.
enum Awaited {
    Prelogin,
    /// The text that the handle in the response will stand for.
    Request(Option<String>),
}

struct Tds {
    settings: Rc<ParserSettings>,
    masked: bool,
    origin: Origin,
    version: Cow<'static, str>,
    security: Security,
    awaited: VecDeque<Awaited>,
    handles: Handles,
    /// The next packet goes on with the message of the one before.
    continues: [bool; 2],
    /// The response on its way: where it began, and what its first packet said.
    response: Option<(Origin, Outcome)>,
    /// What the packet before ended with.
    tail: Vec<u8>,
}

struct Packet<'a> {
    kind: u8,
    last: bool,
    length: usize,
    /// What the window holds of it.
    body: &'a [u8],
}

fn packet(window: &[u8]) -> Option<Packet<'_>> {
    let &[kind, status, high, low, ..] = window.first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let body = window.get(HEADER..length.min(window.len()))?;
    Some(Packet { kind, last: status & END != 0, length, body })
}

impl Tds {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("TDS"),
            settings,
            origin: Origin::default(),
            version: Cow::Borrowed(""),
            security: Security::None,
            awaited: VecDeque::new(),
            handles: Handles::default(),
            continues: [false; 2],
            response: None,
            tail: Vec::new(),
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let short = match last {
            None => Step::NeedMore,
            Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
        };
        match window.first() {
            Some(0x14..=0x17) if self.security == Security::Full => return Step::Switch,
            Some(0x14..=0x17) if self.security == Security::LoginOnly => return self.record(role, window, short),
            Some(&SMP) if window.len() < SMP_HEADER => return short,
            Some(&SMP) => return Step::Skip(SMP_HEADER as u64),
            _ => {}
        }
        let Some(packet) = packet(window) else {
            return short;
        };
        if packet.length < HEADER || !check::is_kind(role, packet.kind) {
            return Step::Invalid;
        }
        let side = usize::from(role == Role::Server);
        let continued = self.continues.get(side).copied().unwrap_or(false);
        if role == Role::Client && continued {
            self.go_on(role, !packet.last);
            return Step::Skip(packet.length as u64);
        }
        let wanted = match role {
            Role::Client => 2 * self.settings.max_field + PREFIX,
            // All of it: the last tokens stand at the end, and may begin in the packet before.
            Role::Server => usize::MAX,
        };
        let Some(body) = assemble(window, wanted, last.is_some()) else {
            return short;
        };
        self.go_on(role, !packet.last);
        match role {
            Role::Client => self.client(&packet, body.get(..wanted).unwrap_or(&body)),
            Role::Server => self.server(&packet, continued),
        }
    }

    fn go_on(&mut self, role: Role, more: bool) {
        if let Some(flag) = self.continues.get_mut(usize::from(role == Role::Server)) {
            *flag = more;
        }
    }

    /// A TLS record of a login that alone is encrypted.
    fn record(&mut self, role: Role, window: &[u8], short: Step) -> Step {
        let Some(&[kind, _, _, high, low]) = window.first_chunk() else {
            return short;
        };
        let total = 5 + u64::from(u16::from_be_bytes([high, low]));
        if kind != 0x17 || role == Role::Server || self.awaited.iter().any(|one| matches!(one, Awaited::Request(_))) {
            return Step::Skip(total);
        }
        self.expect(Awaited::Request(None));
        let message = Message { request_type: "LOGIN".to_owned(), ..Message::default() };
        Step::Message { consumed: total, message: Box::new(message) }
    }

    fn client(&mut self, packet: &Packet, body: &[u8]) -> Step {
        let consumed = packet.length as u64;
        let mut message = Message { version: self.version.clone(), ..Message::default() };
        let mut text = None;
        match packet.kind {
            PRELOGIN => {
                if let Some(wish) = request::encryption(body) {
                    self.security = Security::Wished(wish);
                    self.expect(Awaited::Prelogin);
                }
                return Step::Skip(consumed);
            }
            LOGIN => {
                let Some(login) = request::login(body, self.settings.max_field) else {
                    return Step::Invalid;
                };
                self.version = login.version;
                message.version = self.version.clone();
                message.request_type = "LOGIN".to_owned();
                message.request_resource = match login.database.is_empty() {
                    true => format!("Login username: {}", login.user),
                    false => format!("Login username: {} db: {}", login.user, login.database),
                };
                message.endpoint.clone_from(&message.request_resource);
            }
            BATCH => {
                message.request_type = "SQL_BATCH".to_owned();
                let text = request::utf16(request::after_headers(body), self.settings.max_field);
                self.describe(&text, &mut message);
            }
            RPC => {
                message.request_type = "RPC".to_owned();
                match request::call(request::after_headers(body), self.settings.max_field) {
                    Some(Call { procedure, statement: Some(statement), .. }) => {
                        self.describe(&statement, &mut message);
                        message.attributes.push(("procedure".to_owned(), procedure));
                        text = Some(statement);
                    }
                    Some(Call { procedure, handle, .. }) => match handle.and_then(|handle| self.handles.get(handle)) {
                        Some(statement) => {
                            self.describe(&statement, &mut message);
                            message.attributes.push(("procedure".to_owned(), procedure));
                        }
                        None => {
                            message.endpoint.clone_from(&procedure);
                            message.request_resource = procedure;
                        }
                    },
                    None => {}
                }
            }
            TRANSACTION => {
                message.request_type = "TRANSACTION".to_owned();
                message.request_resource = request::transaction(request::after_headers(body)).to_owned();
            }
            BULK => message.request_type = "BULK_LOAD".to_owned(),
            ATTENTION => {
                message.request_type = "ATTENTION".to_owned();
                message.kind = Kind::Session;
                message.status = Status::Success;
            }
            _ => return Step::Skip(consumed),
        }
        if message.kind == Kind::Request {
            self.expect(Awaited::Request(text));
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn expect(&mut self, awaited: Awaited) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(awaited);
    }

    /// Resource, endpoint and trace ids of a statement.
    fn describe(&self, text: &str, message: &mut Message) {
        message.endpoint = sql::endpoint(text, &sql::TSQL);
        (message.trace_id, message.span_id) = sql::trace(text, &sql::TSQL, &self.settings);
        message.request_resource = if self.masked { sql::mask(text, &sql::TSQL) } else { text.to_owned() };
    }

    fn server(&mut self, packet: &Packet, continued: bool) -> Step {
        let consumed = packet.length as u64;
        if packet.kind != RESULT {
            return Step::Skip(consumed);
        }
        if !continued {
            if let Some(Awaited::Prelogin) = self.awaited.front() {
                self.awaited.pop_front();
                self.negotiated(packet.body);
                return Step::Skip(consumed);
            }
            let outcome = Outcome::of_beginning(packet.body, packet.last);
            self.response = Some((self.origin, outcome));
        }
        let whole = packet.body.len() + HEADER == packet.length;
        if !packet.last {
            let from = packet.body.len().saturating_sub(TAIL);
            let end = if whole { packet.body.get(from..) } else { None };
            self.tail = end.unwrap_or_default().to_vec();
            return Step::Skip(consumed);
        }
        let (began, mut outcome) = self.response.take().unwrap_or((self.origin, Outcome::default()));
        let mut end = std::mem::take(&mut self.tail);
        if whole && packet.body.len() < TAIL {
            end.extend_from_slice(packet.body);
            outcome.add_end(&end);
        } else if whole {
            outcome.add_end(packet.body);
        }
        if outcome.acknowledged && self.awaited.is_empty() {
            return Step::Skip(consumed);
        }
        if let Some(Awaited::Request(Some(text))) = self.awaited.pop_front()
            && let Some(handle) = outcome.handle
        {
            self.handles.keep(handle, text);
        }
        let mut message = Message {
            kind: Kind::Response,
            status: Status::Success,
            version: self.version.clone(),
            began: (began != self.origin).then_some(began),
            sql_affected_rows: outcome.rows,
            ..Message::default()
        };
        if let Some(error) = outcome.error {
            message.status = if error.class > 16 { Status::ServerError } else { Status::ClientError };
            message.response_code = Some(error.number);
            let text = request::utf16(&error.text, self.settings.max_field);
            message.response_exception = if self.masked { sql::mask_error(&text) } else { text };
            message.sql_affected_rows = None;
        } else if outcome.failed {
            message.status = Status::ServerError;
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn negotiated(&mut self, body: &[u8]) {
        let Security::Wished(client) = self.security else {
            return;
        };
        self.security = match (client, request::encryption(body)) {
            (2, _) | (_, Some(2) | None) => Security::None,
            (0, Some(0)) => Security::LoginOnly,
            _ => Security::Full,
        };
    }
}

/// The body of the message that begins here, at most `wanted` bytes of it; `None` when the window has to grow.
/// `anyway`: it cannot grow.
fn assemble(window: &[u8], wanted: usize, anyway: bool) -> Option<Cow<'_, [u8]>> {
    let first = packet(window)?;
    let whole = first.length <= window.len();
    if first.body.len() >= wanted || whole && first.last || wanted == usize::MAX && whole {
        return Some(Cow::Borrowed(first.body));
    }
    if !whole || wanted == usize::MAX {
        return anyway.then_some(Cow::Borrowed(first.body));
    }
    // Walked along before anything is copied: the window comes again for each byte that it grows.
    let mut bodies = vec![first.body];
    let mut held = first.body.len();
    let mut rest = window.get(first.length..).unwrap_or_default();
    let enough = loop {
        let Some(next) = packet(rest).filter(|next| next.kind == first.kind && next.length >= HEADER) else {
            break anyway || rest.len() >= HEADER;
        };
        bodies.push(next.body);
        held += next.body.len();
        let complete = next.length <= rest.len();
        if held >= wanted || complete && next.last || bodies.len() >= MAX_PACKETS {
            break true;
        }
        if !complete {
            break anyway;
        }
        rest = rest.get(next.length..).unwrap_or_default();
    };
    enough.then(|| Cow::Owned(bodies.concat()))
}

impl Parser for Tds {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        match role {
            Role::Client => self.awaited.clear(),
            Role::Server => {
                let newest = self.awaited.pop_back();
                self.awaited.clear();
                self.awaited.extend(newest);
            }
        }
        self.response = None;
        self.tail.clear();
        if let Some(flag) = self.continues.get_mut(usize::from(role == Role::Server)) {
            *flag = false;
        }
        check::begins(role, window).then_some(0)
    }

    fn at(&mut self, origin: Origin) {
        self.origin = origin;
    }
}

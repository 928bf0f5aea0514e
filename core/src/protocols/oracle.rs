//! Oracle Net (TNS) and the calls on it (TTC), as far as the client and server of Oracle show them.
//!
//! Oracle publishes no specification; packets follow Oracle's Net Services documentation of packet types and the
//! behaviour of its own drivers. What a row needs stands in places that do not depend on the driver's integer format:
//! statements and error messages carry their length before them, calls their number behind the message's code.

mod check;
mod connect;
mod reply;
mod text;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql};
use crate::event::Origin;
use check::check;

pub const PROTOCOL: Protocol = Protocol {
    id: 62,
    name: "Oracle",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Oracle::new(settings.clone())),
    doc: "Oracle Net (TNS): connect with accept, refuse, redirect and resend; calls with the text of the statement, \
          ORA- errors, rows of statements run by thin drivers. Traffic that Oracle's own network encryption hides gives \
          no rows.",
};

const PORT: u16 = 1521;
const HEADER: usize = 8;
/// Bytes of an answer that are looked through; its last tokens stand at the end of its last packet.
const MAX_REPLY: usize = 32 * 1024;
const PREFIX: usize = 1024;
/// Since this version lengths take four bytes.
const LARGE_LENGTHS: u16 = 315;
const MAX_CURSORS: usize = 512;

const CONNECT: u8 = 1;
const ACCEPT: u8 = 2;
const REFUSE: u8 = 4;
const REDIRECT: u8 = 5;
const DATA: u8 = 6;
const RESEND: u8 = 11;

#[derive(Default)]
enum Awaited {
    #[default]
    Nothing,
    /// The answer to CONNECT.
    Connection,
    /// The answer to a call, and its statement.
    Call(String),
}

struct Oracle {
    settings: Rc<ParserSettings>,
    masked: bool,
    origin: Origin,
    version: u16,
    /// Largest packet (session data unit), 0 unknown: one so large has a successor.
    unit: usize,
    awaited: Awaited,
    /// The client's data go on with the call.
    continues: bool,
    /// Where an answer of several packets began.
    began: Option<Origin>,
    cursors: HashMap<u32, String>,
    order: VecDeque<u32>,
}

struct Packet<'a> {
    kind: u8,
    length: usize,
    body: &'a [u8],
}

fn packet(window: &[u8], large: bool) -> Option<Packet<'_>> {
    let &[a, b, c, d, kind, _, _, _] = window.first_chunk::<HEADER>()?;
    let short = u16::from_be_bytes([a, b]);
    let length = match large || short < HEADER as u16 {
        true => u32::from_be_bytes([a, b, c, d]) as usize,
        false => usize::from(short),
    };
    let body = window.get(HEADER..length.min(window.len()))?;
    Some(Packet { kind, length, body })
}

impl Oracle {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("Oracle"),
            settings,
            origin: Origin::default(),
            version: 0,
            unit: 0,
            awaited: Awaited::Nothing,
            continues: false,
            began: None,
            cursors: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let Some(packet) = packet(window, self.version >= LARGE_LENGTHS && window.get(4) != Some(&CONNECT)) else {
            return match last {
                None => Step::NeedMore,
                Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
            };
        };
        if packet.length < HEADER || packet.length > 1 << 22 || !matches!(packet.kind, 1..=15) {
            return Step::Invalid;
        }
        let wanted = match (role, packet.kind) {
            (Role::Client, CONNECT | DATA) => self.settings.max_field + PREFIX,
            (Role::Server, ACCEPT | REFUSE | REDIRECT | DATA) => MAX_REPLY,
            _ => 0,
        };
        let held = wanted.min(packet.length - HEADER);
        if packet.body.len() < held && last.is_none() {
            return Step::NeedMore;
        }
        let body = packet.body.get(..held).unwrap_or(packet.body);
        match role {
            Role::Client => self.client(&packet, body),
            Role::Server => self.server(&packet, body),
        }
    }

    fn client(&mut self, packet: &Packet, body: &[u8]) -> Step {
        let consumed = packet.length as u64;
        let skip = Step::Skip(consumed);
        let mut message = Message { kind: Kind::Request, ..Message::default() };
        match packet.kind {
            CONNECT => {
                let Some(wish) = connect::read(body) else {
                    return Step::Invalid;
                };
                self.version = 0;
                self.unit = 0;
                self.began = None;
                self.continues = true;
                self.awaited = Awaited::Connection;
                message.request_type = "CONNECT".to_owned();
                message.version = wish.version.to_string().into();
                message.request_resource = self.settings.text(wish.data);
                message.endpoint = self.settings.text(wish.service);
            }
            DATA => {
                let Some(call) = body.get(2..).filter(|data| !data.is_empty()) else {
                    return skip;
                };
                if self.continues {
                    return skip;
                }
                let Some(call) = text::call(call) else {
                    return skip;
                };
                self.continues = true;
                self.began = None;
                message.request_type = call.name.to_owned();
                message.attributes.push(("data_id".to_owned(), format!("{:#04x}", call.data_id)));
                if let Some(number) = call.number {
                    message.attributes.push(("call_id".to_owned(), format!("{number:#04x}")));
                }
                if let Some(user) = call.user {
                    message.request_resource = format!("Login username: {}", self.settings.text(user));
                    message.endpoint.clone_from(&message.request_resource);
                }
                let statement = match call.statement {
                    Some(statement) => self.settings.text(&statement),
                    None => call.cursor.and_then(|cursor| self.cursors.get(&cursor).cloned()).unwrap_or_default(),
                };
                if !statement.is_empty() {
                    message.endpoint = sql::endpoint(&statement, &sql::ORACLE);
                    (message.trace_id, message.span_id) = sql::trace(&statement, &sql::ORACLE, &self.settings);
                    message.request_resource =
                        if self.masked { sql::mask(&statement, &sql::ORACLE) } else { statement.clone() };
                }
                self.awaited = Awaited::Call(statement);
            }
            _ => return skip,
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn server(&mut self, packet: &Packet, body: &[u8]) -> Step {
        let consumed = packet.length as u64;
        let skip = Step::Skip(consumed);
        let mut message = Message { kind: Kind::Response, status: Status::Success, ..Message::default() };
        match packet.kind {
            ACCEPT => {
                (self.version, self.unit) = connect::accepted(body).unwrap_or((0, 0));
                message.version = self.version.to_string().into();
                message.response_result = "ACCEPT".to_owned();
            }
            RESEND => message.response_result = "RESEND".to_owned(),
            REDIRECT => message.response_result = "REDIRECT".to_owned(),
            REFUSE => {
                message.response_result = "REFUSE".to_owned();
                message.status = Status::ServerError;
                message.response_code = connect::refusal(body);
                message.response_exception =
                    message.response_code.map_or(String::new(), |code| format!("ORA-{code:05}"));
            }
            DATA if matches!(self.awaited, Awaited::Call(_)) => {
                self.continues = false;
                if packet.length == self.unit {
                    self.began.get_or_insert(self.origin);
                    return skip;
                }
                let data = body.get(2..).unwrap_or_default();
                self.outcome(data, &mut message);
                message.began = self.began.take().filter(|began| *began != self.origin);
                return Step::Message { consumed, message: Box::new(message) };
            }
            _ => return skip,
        }
        self.continues = false;
        match std::mem::take(&mut self.awaited) {
            Awaited::Connection => Step::Message { consumed, message: Box::new(message) },
            other => {
                self.awaited = other;
                skip
            }
        }
    }

    /// What the last packet of an answer says.
    fn outcome(&mut self, data: &[u8], message: &mut Message) {
        let statement = match std::mem::take(&mut self.awaited) {
            Awaited::Call(statement) => statement,
            _ => String::new(),
        };
        let end = reply::end(data);
        if let Some((code, text)) = reply::error(data) {
            message.response_code = Some(code);
            message.status = if reply::is_clients(code) { Status::ClientError } else { Status::ServerError };
            let text = self.settings.text(text);
            message.response_exception = if self.masked { sql::mask_error(&text) } else { text };
        } else if let Some(end) = end {
            let counts = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH"];
            let verb = sql::first_word(&statement);
            if counts.iter().any(|known| known.eq_ignore_ascii_case(verb)) {
                message.sql_affected_rows = Some(end.rows);
            }
            if end.cursor != 0 && !statement.is_empty() {
                self.remember(end.cursor, statement);
            }
        }
    }

    fn remember(&mut self, cursor: u32, statement: String) {
        if self.cursors.insert(cursor, statement).is_none() {
            self.order.push_back(cursor);
        }
        if self.order.len() > MAX_CURSORS
            && let Some(oldest) = self.order.pop_front()
        {
            self.cursors.remove(&oldest);
        }
    }
}

impl Parser for Oracle {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.began = None;
        if role == Role::Client {
            self.continues = false;
            self.awaited = Awaited::Nothing;
        }
        let packet = packet(window, self.version >= LARGE_LENGTHS)?;
        let sane = matches!(packet.kind, 1..=15) && packet.length >= HEADER && packet.length <= 1 << 22;
        (sane && window.get(6..8) == Some(&[0, 0])).then_some(0)
    }

    fn at(&mut self, origin: Origin) {
        self.origin = origin;
    }
}

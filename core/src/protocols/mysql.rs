//! MySQL and MariaDB client/server protocol (dev.mysql.com "MySQL Internals: Client/Server Protocol").
//!
//! Every packet says its length, so that rows and large values are skipped by count. A response is named by its
//! first packet; the packets after it are told from the next response by their sequence number.

mod check;
mod command;
mod compressed;
mod login;
mod reply;
mod value;

use std::collections::VecDeque;
use std::rc::Rc;

use super::{Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql};
use crate::event::Origin;
use check::{check, u24};
use command::{Statements, name_of, unanswered};
use compressed::Compressed;
use value::u32_at;

pub const PROTOCOL: Protocol = Protocol {
    id: 60,
    name: "MySQL",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Mysql::new(settings.clone())),
    doc: "MySQL and MariaDB: login, text and prepared statements, multiple results, query attributes, LOAD DATA LOCAL, \
          the compressed protocol (zlib, zstd). A connection that turns to TLS is recognised anew from there on.",
};

const PORT: u16 = 3306;
const HEADER: usize = 4;
/// A packet of this length goes on in the next one.
const FULL: usize = 0xff_ffff;
const MAX_PENDING: usize = 256;

const COMPRESS: u64 = 1 << 5;
const ZSTD_COMPRESSION: u64 = 1 << 26;
const QUERY_ATTRIBUTES: u64 = 1 << 27;
const MORE_RESULTS: u16 = 8;
const CURSOR_EXISTS: u16 = 64;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Seen from the middle.
    Unknown,
    Greeted,
    /// Login sent, not yet accepted.
    Authenticating,
    Command,
}

/// What the next packet of the server in a response is.
#[derive(Clone, Copy, PartialEq)]
enum Reply {
    Done,
    /// A further result of the same command.
    Head,
    Definitions(u64),
    AfterDefinitions,
    Rows,
}

/// A command whose response is awaited.
struct Pending {
    command: u8,
    /// Text of a statement being prepared.
    text: String,
    counts_rows: bool,
}

struct Mysql {
    settings: Rc<ParserSettings>,
    masked: bool,
    phase: Phase,
    version: &'static str,
    capabilities: Option<u64>,
    tls: bool,
    /// The first packet has shown whether the protocol is compressed.
    decided: bool,
    compressed: Option<Box<Compressed>>,
    origin: Origin,
    pending: VecDeque<Pending>,
    statements: Statements,
    reply: Reply,
    /// Sequence number that continues the response.
    expected: u8,
    /// The client sends a file until an empty packet.
    file: bool,
    /// The last packet was full: the next one belongs to it.
    continued: [bool; 2],
}

struct Packet<'a> {
    sequence: u8,
    length: usize,
    /// What the window holds of it.
    body: &'a [u8],
}

impl Packet<'_> {
    fn total(&self) -> u64 {
        (HEADER + self.length) as u64
    }
}

fn packet(window: &[u8]) -> Option<Packet<'_>> {
    let &[a, b, c, sequence] = window.first_chunk::<HEADER>()?;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    let end = (HEADER + length).min(window.len());
    Some(Packet { sequence, length, body: window.get(HEADER..end)? })
}

impl Mysql {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("MySQL"),
            settings,
            phase: Phase::Unknown,
            version: "",
            capabilities: None,
            tls: false,
            decided: false,
            compressed: None,
            origin: Origin::default(),
            pending: VecDeque::new(),
            statements: Statements::default(),
            reply: Reply::Done,
            expected: 0,
            file: false,
            continued: [false; 2],
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let Some(packet) = packet(window) else {
            return match last {
                None => Step::NeedMore,
                Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
            };
        };
        let side = usize::from(role == Role::Server);
        let continued = self.continued.get(side).copied().unwrap_or(false);
        if !continued {
            let wanted = self.wanted(role, &packet).min(packet.length);
            if packet.body.len() < wanted && last.is_none() {
                return Step::NeedMore;
            }
        }
        if let Some(flag) = self.continued.get_mut(side) {
            *flag = packet.length == FULL;
        }
        if continued {
            self.expected = packet.sequence.wrapping_add(1);
            return Step::Skip(packet.total());
        }
        match role {
            Role::Client => self.client(&packet),
            Role::Server => self.server(&packet),
        }
    }

    /// Bytes of the packet that name it.
    fn wanted(&self, role: Role, packet: &Packet) -> usize {
        let whole = self.settings.max_field.saturating_add(64);
        match (role, packet.body.first()) {
            (_, None) => 1,
            (Role::Client, _) if self.file => 0,
            (Role::Client, _) => whole,
            (Role::Server, _) if packet.sequence == 0 => 128,
            (Role::Server, Some(0xff)) => whole,
            (Role::Server, _) => 32,
        }
    }

    fn client(&mut self, packet: &Packet) -> Step {
        let skip = Step::Skip(packet.total());
        if self.file {
            self.file = packet.length != 0;
            return skip;
        }
        if packet.sequence != 0 {
            if self.phase == Phase::Greeted || self.phase == Phase::Unknown && login::plausible(packet.body) {
                return self.login(packet);
            }
            return skip;
        }
        let Some((&code, rest)) = packet.body.split_first() else {
            return skip;
        };
        let Some(name) = name_of(code) else {
            return Step::Invalid;
        };
        self.phase = Phase::Command;
        let mut message = Message { request_type: name.to_owned(), version: self.version.into(), ..Message::default() };
        let mut pending = Pending { command: code, text: String::new(), counts_rows: false };
        match code {
            command::QUERY | command::STMT_PREPARE => {
                let text = match code {
                    command::QUERY => command::query_text(rest, self.capabilities.map(|c| c & QUERY_ATTRIBUTES != 0)),
                    _ => rest,
                };
                let text = self.settings.text(text);
                self.describe(&text, &mut message);
                if code == command::STMT_PREPARE {
                    pending.text = text;
                } else {
                    let verb = sql::first_word(&text);
                    pending.counts_rows =
                        ["INSERT", "UPDATE", "DELETE", "REPLACE"].iter().any(|known| known.eq_ignore_ascii_case(verb));
                }
            }
            command::INIT_DB => message.request_resource = self.settings.text(rest),
            command::STMT_EXECUTE => {
                message.request_id = u32_at(rest, 0).map(u64::from);
                let attributes = self.capabilities.is_some_and(|c| c & QUERY_ATTRIBUTES != 0);
                let (text, values) = self.statements.execute(rest, attributes, self.settings.max_field);
                self.describe(&text, &mut message);
                if !values.is_empty() && !self.masked {
                    let joined = match message.request_resource.is_empty() {
                        true => values,
                        false => format!("{} [{values}]", message.request_resource),
                    };
                    message.request_resource = self.settings.text(joined.as_bytes());
                }
            }
            command::STMT_BULK_EXECUTE => {
                message.request_id = u32_at(rest, 0).map(u64::from);
                let text = u32_at(rest, 0).and_then(|id| self.statements.text(id)).unwrap_or_default();
                self.describe(&text, &mut message);
            }
            command::STMT_CLOSE => {
                message.request_id = u32_at(rest, 0).map(u64::from);
                let text = u32_at(rest, 0).and_then(|id| self.statements.close(id)).unwrap_or_default();
                message.request_resource = if self.masked { sql::mask(&text, &sql::MYSQL) } else { text };
            }
            command::STMT_FETCH | command::STMT_RESET | command::STMT_SEND_LONG_DATA => {
                message.request_id = u32_at(rest, 0).map(u64::from);
            }
            command::CHANGE_USER => {
                self.phase = Phase::Authenticating;
                let user = rest.split(|&byte| byte == 0).next().unwrap_or_default();
                message.request_resource = format!("Login username: {}", self.settings.text(user));
                message.endpoint.clone_from(&message.request_resource);
            }
            _ => {}
        }
        if unanswered(code) {
            message.kind = Kind::Session;
            message.status = Status::Success;
        } else {
            if self.pending.len() >= MAX_PENDING {
                self.pending.clear();
            }
            self.pending.push_back(pending);
        }
        Step::Message { consumed: packet.total(), message: Box::new(message) }
    }

    /// Resource, endpoint and trace ids of a statement.
    fn describe(&self, text: &str, message: &mut Message) {
        message.endpoint = sql::endpoint(text, &sql::MYSQL);
        (message.trace_id, message.span_id) = sql::trace(text, &sql::MYSQL, &self.settings);
        message.request_resource = if self.masked { sql::mask(text, &sql::MYSQL) } else { text.to_owned() };
    }

    fn login(&mut self, packet: &Packet) -> Step {
        let Some(login) = login::read(packet.body) else {
            return Step::Invalid;
        };
        self.capabilities = Some(login.capabilities);
        if login.tls && packet.length <= 32 {
            self.tls = true;
            return Step::Skip(packet.total());
        }
        self.phase = Phase::Authenticating;
        let mut resource = format!("Login username: {}", self.settings.text(login.user));
        if !login.database.is_empty() {
            resource = format!("{resource} db: {}", self.settings.text(login.database));
        }
        let message = Message {
            request_type: "LOGIN".to_owned(),
            version: self.version.into(),
            endpoint: resource.clone(),
            request_resource: resource,
            ..Message::default()
        };
        self.pending.push_back(Pending { command: command::SLEEP, text: String::new(), counts_rows: false });
        Step::Message { consumed: packet.total(), message: Box::new(message) }
    }
}

impl Mysql {
    fn walk(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        if self.tls {
            return Step::Switch;
        }
        if !self.decided {
            match compressed::peek(window) {
                Ok(plain) => {
                    self.decided = true;
                    self.compressed = plain.map(|_| Box::default());
                }
                Err(()) if last.is_none() => return Step::NeedMore,
                Err(()) => {}
            }
        }
        if self.compressed.is_some() { self.inflate(role, window, last) } else { self.step(role, window, last) }
    }

    fn resync_plain(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.pending.clear();
        self.reply = Reply::Done;
        self.file = false;
        self.continued = [false; 2];
        if self.phase != Phase::Command {
            self.phase = Phase::Unknown;
        }
        let packet = packet(window)?;
        let begins = match role {
            Role::Client => {
                packet.sequence == 0 && packet.length > 0 && packet.body.first().is_none_or(|&c| name_of(c).is_some())
            }
            Role::Server => packet.sequence <= 1 && packet.length > 0,
        };
        begins.then_some(0)
    }
}

impl Parser for Mysql {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.walk(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.walk(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if self.tls {
            return Some(0);
        }
        match &mut self.compressed {
            Some(compressed) => {
                compressed.lose(role);
                self.pending.clear();
                compressed::peek(window).ok().flatten().map(|_| 0)
            }
            None => self.resync_plain(role, window),
        }
    }

    fn at(&mut self, origin: Origin) {
        self.origin = origin;
    }
}

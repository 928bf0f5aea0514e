//! MySQL and MariaDB client/server protocol (dev.mysql.com "MySQL Internals: Client/Server Protocol").
//!
//! Every packet says its length, so that rows and large values are skipped by count. A response is named by its
//! first packet; the packets after it are told from the next response by their sequence number.

mod command;
mod login;
mod value;

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step, sql};
use command::{Statements, name_of, unanswered};
use value::{Reader, u32_at};

pub const PROTOCOL: Protocol = Protocol {
    id: 60,
    name: "MySQL",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Mysql::new(settings.clone())),
    doc: "MySQL and MariaDB: login, text and prepared statements, multiple results, query attributes, LOAD DATA LOCAL. \
          A connection that turns to TLS or to the compressed protocol is opaque from there on.",
};

const PORT: u16 = 3306;
const HEADER: usize = 4;
/// A packet of this length goes on in the next one.
const FULL: usize = 0xff_ffff;
const MAX_PENDING: usize = 256;

const COMPRESS: u64 = 1 << 5;
const LOCAL_COMPRESS_ZSTD: u64 = 1 << 26;
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
    settings: Arc<ParserSettings>,
    masked: bool,
    phase: Phase,
    version: &'static str,
    capabilities: Option<u64>,
    opaque: bool,
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
    fn new(settings: Arc<ParserSettings>) -> Self {
        Self {
            masked: settings.masks("MySQL"),
            settings,
            phase: Phase::Unknown,
            version: "",
            capabilities: None,
            opaque: false,
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
            command::STMT_CLOSE => {
                message.request_id = u32_at(rest, 0).map(u64::from);
                message.request_resource = u32_at(rest, 0).and_then(|id| self.statements.close(id)).unwrap_or_default();
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
        message.endpoint = sql::endpoint(text);
        (message.trace_id, message.span_id) = sql::trace(text, &self.settings);
        message.request_resource = if self.masked { sql::mask(text) } else { text.to_owned() };
    }

    fn login(&mut self, packet: &Packet) -> Step {
        let Some(login) = login::read(packet.body) else {
            return Step::Invalid;
        };
        self.capabilities = Some(login.capabilities);
        if login.tls && packet.length <= 32 {
            self.opaque = true;
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

    fn server(&mut self, packet: &Packet) -> Step {
        let skip = Step::Skip(packet.total());
        let first = packet.body.first().copied();
        if packet.sequence == 0
            && self.phase != Phase::Authenticating
            && let Some(version) = login::greeting(packet.body)
        {
            self.version = version;
            self.phase = Phase::Greeted;
            self.reply = Reply::Done;
            self.pending.clear();
            return skip;
        }
        if self.phase == Phase::Authenticating {
            return match first {
                Some(0 | 0xff) => {
                    if first == Some(0) {
                        self.phase = Phase::Command;
                        // The payload after this is deflated; nothing here can be read any more.
                        self.opaque = self.capabilities.is_some_and(|c| c & (COMPRESS | LOCAL_COMPRESS_ZSTD) != 0);
                    }
                    self.response(packet)
                }
                _ => skip,
            };
        }
        let awaited = !self.pending.is_empty();
        let continues = packet.sequence == self.expected && (packet.sequence != 1 || self.reply != Reply::Done);
        let begins = packet.sequence == 1 && !continues
            || awaited && self.reply == Reply::Done && !continues
            || packet.sequence == 0 && first == Some(0xff);
        self.expected = packet.sequence.wrapping_add(1);
        if begins {
            return self.response(packet);
        }
        // The end of LOAD DATA LOCAL, or what goes on of a result.
        if self.reply == Reply::Done && awaited && matches!(first, Some(0 | 0xff)) {
            return self.response(packet);
        }
        self.follow(packet);
        skip
    }

    /// The first packet of a response.
    fn response(&mut self, packet: &Packet) -> Step {
        self.expected = packet.sequence.wrapping_add(1);
        if packet.body.first() == Some(&0xfb) && self.pending.front().is_some_and(|p| p.command == command::QUERY) {
            self.file = true;
            self.reply = Reply::Done;
            return Step::Skip(packet.total());
        }
        let pending = self.pending.pop_front();
        let command = pending.as_ref().map_or(command::QUERY, |pending| pending.command);
        let mut message = Message {
            kind: Kind::Response,
            status: Status::Success,
            version: self.version.into(),
            ..Message::default()
        };
        self.reply = Reply::Done;
        let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
        match packet.body.first() {
            Some(0xff) => {
                let code = reader.u16().unwrap_or(0);
                let text = reader.rest();
                // `#` and five characters of SQLSTATE come first since protocol 4.1.
                let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
                message.response_code = Some(i32::from(code));
                message.status = match code {
                    2000..3000 => Status::ClientError,
                    _ => Status::ServerError,
                };
                message.response_exception = self.settings.text(text);
            }
            Some(0) if command == command::STMT_PREPARE => {
                if let (Some(id), Some(_columns), Some(parameters)) = (reader.u32(), reader.u16(), reader.u16()) {
                    message.request_id = Some(u64::from(id));
                    self.statements.prepared(id, pending.map(|p| p.text).unwrap_or_default(), parameters);
                }
            }
            Some(0) if packet.length < FULL && command != command::STMT_FETCH => {
                let rows = reader.length();
                if pending.is_some_and(|pending| pending.counts_rows) {
                    message.sql_affected_rows = rows;
                }
                reader.length();
                if reader.u16().is_some_and(|status| status & MORE_RESULTS != 0) {
                    self.reply = Reply::Head;
                }
            }
            _ if matches!(command, command::STMT_FETCH | command::FIELD_LIST | 0x12 | 0x1e) => {
                self.reply = Reply::Rows;
                self.rows(packet);
            }
            _ if command == command::STATISTICS => {}
            _ => self.head(packet),
        }
        Step::Message { consumed: packet.total(), message: Box::new(message) }
    }

    /// The first packet of a result: what follows it?
    fn head(&mut self, packet: &Packet) {
        self.reply = match packet.body.first() {
            Some(0) => {
                let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
                reader.length();
                reader.length();
                match reader.u16() {
                    Some(status) if status & MORE_RESULTS != 0 => Reply::Head,
                    _ => Reply::Done,
                }
            }
            None | Some(0xff | 0xfe) => Reply::Done,
            _ => {
                let mut reader = Reader::new(packet.body);
                match reader.length() {
                    // MariaDB may leave the definitions out (metadata caching).
                    Some(_) if reader.rest() == [0] => Reply::AfterDefinitions,
                    Some(count) => Reply::Definitions(count),
                    None => Reply::Done,
                }
            }
        };
    }

    /// A packet inside a response.
    fn follow(&mut self, packet: &Packet) {
        match self.reply {
            Reply::Done => {}
            Reply::Head => self.head(packet),
            Reply::Definitions(left) => {
                self.reply = if left > 1 { Reply::Definitions(left - 1) } else { Reply::AfterDefinitions };
            }
            Reply::AfterDefinitions if packet.length == 5 && packet.body.first() == Some(&0xfe) => {
                let status = Reader::new(packet.body.get(3..).unwrap_or_default()).u16().unwrap_or(0);
                self.reply = if status & CURSOR_EXISTS != 0 { Reply::Done } else { Reply::Rows };
            }
            Reply::AfterDefinitions | Reply::Rows => {
                self.reply = Reply::Rows;
                self.rows(packet);
            }
        }
    }

    /// Ends the result at EOF (5 bytes), at the OK that replaces it, or at an error.
    fn rows(&mut self, packet: &Packet) {
        let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
        let status = match packet.body.first() {
            Some(0xff) => Some(0),
            Some(0xfe) if packet.length == 5 => {
                reader.u16();
                Some(reader.u16().unwrap_or(0))
            }
            Some(0xfe) if packet.length < FULL => {
                reader.length();
                reader.length();
                Some(reader.u16().unwrap_or(0))
            }
            _ => None,
        };
        if let Some(status) = status {
            self.reply = if status & MORE_RESULTS != 0 { Reply::Head } else { Reply::Done };
        }
    }
}

impl Parser for Mysql {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        if self.opaque { Step::Skip(window.len() as u64) } else { self.step(role, window, None) }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        if self.opaque {
            return Step::Skip((window.len() as u64).saturating_add(missing));
        }
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if self.opaque {
            return None;
        }
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

/// A packet of the compressed protocol that was sent as it is: behind the longer header lies a whole packet.
fn compressed(packet: &Packet) -> bool {
    let inner = packet.body.get(3..).and_then(u24);
    packet.body.starts_with(&[0; 3]) && inner.is_some_and(|inner| inner + HEADER == packet.length)
}

fn u24(bytes: &[u8]) -> Option<usize> {
    let &[a, b, c] = bytes.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]) as usize)
}

fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    let Some(packet) = packet(payload) else {
        return if ours { Guess::Maybe } else { Guess::No };
    };
    let Some((&first, rest)) = packet.body.split_first() else {
        return if ours && packet.length > 0 { Guess::Maybe } else { Guess::No };
    };
    if compressed(&packet) {
        return Guess::No;
    }
    match packet.sequence {
        0 if login::greeting(packet.body).is_some() => Guess::Yes(Role::Server),
        0 if matches!(first, command::QUERY | command::STMT_PREPARE) => {
            let text = if first == command::QUERY { command::query_text(rest, None) } else { rest };
            let exact = HEADER + packet.length == payload.len() || packet.body.len() < packet.length || ours;
            let statement = sql::is_statement(&super::clip(text, 4096));
            if exact && statement { Guess::Yes(Role::Client) } else { Guess::No }
        }
        0 if ours && name_of(first).is_some() && command::fits(first, packet.length) => Guess::Yes(Role::Client),
        0 if ours && first == 0xff && packet.length > 3 => Guess::Yes(Role::Server),
        1 if login::plausible(packet.body)
            && (ours || packet.length == 32 || HEADER + packet.length == payload.len()) =>
        {
            Guess::Yes(Role::Client)
        }
        1 if ours && (first == 0xff && packet.length > 8 || first == 0 && packet.length >= 7) => {
            Guess::Yes(Role::Server)
        }
        1 if ours && packet.length == 1 && first > 0 && payload.get(8) == Some(&2) => Guess::Yes(Role::Server),
        _ => Guess::No,
    }
}

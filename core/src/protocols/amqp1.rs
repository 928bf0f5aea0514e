//! AMQP 1.0 (OASIS): SASL, connections, sessions, links, transfers and their dispositions.

mod content;
mod state;
mod types;

use std::collections::VecDeque;
use std::rc::Rc;

use super::cursor::Cursor;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use state::{Asked, Links, Sessions, What};
use types::{Items, Value};

pub const PROTOCOL: Protocol = Protocol {
    id: 204,
    name: "AMQP1",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Amqp1::new(settings.clone())),
    doc: "AMQP 1.0. Each performative that opens or ends a connection, session or link waits for the peer's; an \
          unsettled transfer waits for the disposition that covers its delivery id, a settled one stands alone. Flow \
          and heartbeats give no rows. Trace ids come from application properties and message annotations. \
          Connections are recognised at their beginning.",
};

/// Size, offset of the body, type and channel.
const HEAD: usize = 8;
/// Larger frames are no frames.
const MAX_FRAME: u32 = 1 << 26;
/// Begins a TLS record, and no frame.
const TLS_HANDSHAKE: u8 = 0x16;
const VERSION: &str = "1.0";

struct Amqp1 {
    settings: Rc<ParserSettings>,
    host: String,
    sessions: Sessions,
    links: Links,
    asked: Asked,
    /// Further responses that the last frame told.
    more: VecDeque<Message>,
    /// The window has to be this long before it is worth another look, of client and server.
    wanted: [usize; 2],
}

#[derive(Clone, Copy)]
struct Frame {
    total: usize,
    /// Where the body begins.
    body: usize,
    sasl: bool,
    channel: u16,
}

impl Frame {
    fn read(bytes: &[u8]) -> Result<Option<Self>, ()> {
        if bytes.first().is_some_and(|first| *first > (MAX_FRAME >> 24) as u8) {
            return Err(());
        }
        let mut cursor = Cursor(bytes);
        let Some((size, offset)) = cursor.u32().zip(cursor.u8()) else { return Ok(None) };
        let Some((kind, channel)) = cursor.u8().zip(cursor.u16()) else { return Ok(None) };
        let (total, body) = (size as usize, usize::from(offset) * 4);
        if size > MAX_FRAME || body < HEAD || total < body || kind > 1 {
            return Err(());
        }
        Ok(Some(Self { total, body, sasl: kind == 1, channel }))
    }
}

impl Amqp1 {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            settings,
            host: String::new(),
            sessions: Sessions::default(),
            links: Links::default(),
            asked: Asked::default(),
            more: VecDeque::new(),
            wanted: [0; 2],
        }
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        if window.first() == Some(&b'A') {
            return greeting(window, last);
        }
        if window.first() == Some(&TLS_HANDSHAKE) {
            return Step::Switch;
        }
        let side = usize::from(role == Role::Server);
        if window.len() < self.wanted[side] && !last {
            return Step::NeedMore;
        }
        self.wanted[side] = 0;
        self.more.clear();
        let frame = match Frame::read(window) {
            Ok(Some(frame)) => frame,
            Ok(None) if !last => return Step::NeedMore,
            Ok(None) | Err(()) => return Step::Invalid,
        };
        let total = Step::Skip(frame.total as u64);
        let limit = frame.total.min(self.settings.max_field.max(HEAD));
        let body = window.get(frame.body.min(limit)..limit.min(window.len())).unwrap_or_default();
        if frame.total == frame.body {
            return total;
        }
        let mut cursor = Cursor(body);
        let performative = Value::read(&mut cursor);
        let transfer = performative.is_some_and(|value| value.described == 0x14);
        if window.len() < limit && !last && !(transfer && content::described(cursor.0)) {
            self.wanted[side] = limit.min(window.len().saturating_mul(2));
            return Step::NeedMore;
        }
        let Some(performative) = performative else {
            // Cut, or longer than anybody looks.
            return if body.first() == Some(&0) || body.is_empty() { total } else { Step::Invalid };
        };
        let mut message = Message {
            version: VERSION.into(),
            request_id: (!frame.sasl).then_some(u64::from(frame.channel)),
            length: i64::try_from(frame.total).ok(),
            ..Message::default()
        };
        let fields = performative.items();
        let shown = match (frame.sasl, performative.described) {
            (true, code) => self.sasl(role, code, fields, &mut message),
            (false, 0x10) => self.open(role, fields, &mut message),
            (false, 0x11) => self.begin(role, frame.channel, fields, &mut message),
            (false, 0x12) => self.attach(role, frame.channel, fields, &mut message),
            (false, 0x14) => self.transfer(role, frame.channel, fields, cursor.0, &mut message),
            (false, 0x15) => self.disposition(role, frame.channel, fields),
            (false, 0x16) => self.detach(role, frame.channel, fields, &mut message),
            (false, 0x17) => self.end(role, frame.channel, fields, &mut message),
            (false, 0x18) => self.close(role, fields, &mut message),
            // Flow, and extensions.
            _ => false,
        };
        self.more.iter_mut().for_each(|one| one.length = message.length);
        let told = if shown { Some(message) } else { self.more.pop_front() };
        let Some(message) = told else { return total };
        Step::Message { consumed: frame.total as u64, message: Box::new(self.completed(role, message)) }
    }

    fn completed(&self, role: Role, mut message: Message) -> Message {
        message.request_domain.clone_from(&self.host);
        message.is_reversed = role == Role::Server && message.kind != Kind::Response;
        if message.kind != Kind::Request && message.status == Status::Unknown {
            message.status = Status::Success;
        }
        message
    }

    /// A request, or the response to the other side's.
    fn either(&mut self, role: Role, what: What, message: &mut Message) {
        (message.kind, message.pair) = self.asked.either(role, what);
    }

    fn sasl(&mut self, role: Role, code: u64, mut fields: Items<'_>, message: &mut Message) -> bool {
        match (code, role) {
            (0x41, Role::Client) => {
                message.request_type = "sasl-init".to_owned();
                let mechanism = fields.next().and_then(Value::text).unwrap_or_default();
                message.request_resource = self.settings.text(mechanism);
                message.endpoint.clone_from(&message.request_resource);
            }
            (0x44, Role::Server) => {
                message.request_type = "sasl-outcome".to_owned();
                let code = fields.next().and_then(Value::number).unwrap_or(0);
                message.response_code = i32::try_from(code).ok();
                (message.status, message.response_exception) = match code {
                    0 => (Status::Success, String::new()),
                    1 => (Status::ClientError, "authentication failed".to_owned()),
                    _ => (Status::ServerError, "system error".to_owned()),
                };
            }
            // Mechanisms and challenges belong to the exchange that init begins.
            _ => return false,
        }
        self.either(role, What::Sasl, message);
        true
    }

    fn open(&mut self, role: Role, mut fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "open".to_owned();
        let container = fields.next().and_then(Value::text).unwrap_or_default();
        message.attributes.push(("container_id".to_owned(), self.settings.text(container)));
        if role == Role::Client {
            self.host = self.settings.text(fields.next().and_then(Value::text).unwrap_or_default());
        }
        self.either(role, What::Open, message);
        true
    }

    fn begin(&mut self, role: Role, channel: u16, mut fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "begin".to_owned();
        let remote = fields.next().and_then(Value::number).and_then(|number| u16::try_from(number).ok());
        let session = self.sessions.begin(role, channel, remote);
        self.either(role, What::Begin(session), message);
        true
    }

    fn attach(&mut self, role: Role, channel: u16, fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "attach".to_owned();
        let session = self.sessions.of(role, channel);
        let field = |place| fields.clone().nth(place);
        let Some(name) = field(0).and_then(Value::text) else { return false };
        let handle = field(1).and_then(Value::number).unwrap_or_default() as u32;
        let receives = field(2).and_then(Value::truth).unwrap_or_default();
        let terminus = field(if receives { 5 } else { 6 });
        let address = terminus.and_then(|value| value.items().next()).and_then(Value::text).unwrap_or_default();
        let link = Links::link(session, name);
        message.request_resource = self.links.attach((role, session, handle), link, self.settings.text(address));
        message.endpoint.clone_from(&message.request_resource);
        self.either(role, What::Attach(session, link), message);
        true
    }

    fn transfer(&mut self, role: Role, channel: u16, fields: Items<'_>, payload: &[u8], message: &mut Message) -> bool {
        let session = self.sessions.of(role, channel);
        let field = |place| fields.clone().nth(place);
        let handle = field(0).and_then(Value::number).unwrap_or_default() as u32;
        let settled = field(4).and_then(Value::truth).unwrap_or_default();
        let more = field(5).and_then(Value::truth).unwrap_or_default();
        if self.links.continues((role, session, handle), more) {
            return false;
        }
        message.request_type = "transfer".to_owned();
        message.request_resource = self.links.address((role, session, handle)).unwrap_or_default().to_owned();
        message.endpoint.clone_from(&message.request_resource);
        message.request_id = field(1).and_then(Value::number);
        content::describe(payload, message, &self.settings);
        match message.request_id {
            Some(delivery) if !settled => {
                message.pair = Some(self.asked.expect(role, What::Delivery(session, delivery as u32)));
            }
            _ => message.kind = Kind::Session,
        }
        true
    }

    /// Gives the responses to the deliveries that it covers.
    fn disposition(&mut self, role: Role, channel: u16, fields: Items<'_>) -> bool {
        let session = self.sessions.of(role, channel);
        let field = |place| fields.clone().nth(place);
        let Some(first) = field(1).and_then(Value::number) else { return false };
        let last = field(2).and_then(Value::number).unwrap_or(first);
        let state = field(4);
        let (name, error) = match state.map_or(0, |state| state.described) {
            0x24 => ("accepted", None),
            0x25 => {
                let error = state.and_then(|state| state.items().next());
                let error = error.and_then(|error| content::error(error, &self.settings));
                ("rejected", Some(error.unwrap_or_else(|| (Status::ClientError, "rejected".to_owned()))))
            }
            0x26 => ("released", None),
            0x27 => ("modified", None),
            // Settled without an outcome; or received, which is none.
            0 if field(3).and_then(Value::truth) == Some(true) => ("settled", None),
            _ => return false,
        };
        if field(0).and_then(Value::truth) != Some(true) {
            // The sender settles what the receiver has spoken of.
            return false;
        }
        for pair in self.asked.deliveries(role, session, first as u32, last as u32) {
            let (status, text) = error.clone().unwrap_or((Status::Success, String::new()));
            let response = self.respond(pair, status, text);
            self.more.push_back(Message { response_result: name.to_owned(), ..response });
        }
        false
    }

    fn respond(&self, pair: u64, status: Status, exception: String) -> Message {
        Message {
            kind: Kind::Response,
            pair: Some(pair),
            version: VERSION.into(),
            request_domain: self.host.clone(),
            status,
            response_exception: exception,
            ..Message::default()
        }
    }

    /// An error that ends something also answers what waits for it.
    fn failed(&mut self, role: Role, error: Option<Value<'_>>, within: &dyn Fn(What) -> bool, message: &mut Message) {
        let Some((status, text)) = error.and_then(|error| content::error(error, &self.settings)) else {
            return;
        };
        for pair in self.asked.take(role, within) {
            let response = self.respond(pair, status, text.clone());
            self.more.push_back(response);
        }
        (message.status, message.response_exception) = (status, text);
    }

    fn detach(&mut self, role: Role, channel: u16, fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "detach".to_owned();
        let session = self.sessions.of(role, channel);
        let field = |place| fields.clone().nth(place);
        let handle = field(0).and_then(Value::number).unwrap_or_default() as u32;
        let (link, address) = self.links.detach((role, session, handle));
        message.request_resource = address;
        message.endpoint.clone_from(&message.request_resource);
        self.either(role, What::Detach(session, link), message);
        self.failed(role, field(2), &|what| what == What::Attach(session, link), message);
        true
    }

    fn end(&mut self, role: Role, channel: u16, mut fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "end".to_owned();
        let session = self.sessions.of(role, channel);
        self.either(role, What::End(session), message);
        self.failed(role, fields.next(), &|what| what.session() == Some(session), message);
        self.sessions.end(role, channel);
        true
    }

    fn close(&mut self, role: Role, mut fields: Items<'_>, message: &mut Message) -> bool {
        message.request_type = "close".to_owned();
        self.either(role, What::Close, message);
        self.failed(role, fields.next(), &|what| what != What::Close, message);
        true
    }
}

/// A protocol header: of AMQP, of TLS (2) or of SASL (3), version 1.0.0.
fn greeting(window: &[u8], last: bool) -> Step {
    match window.get(..HEAD) {
        Some([b'A', b'M', b'Q', b'P', 0 | 2 | 3, _, _, _]) => Step::Skip(HEAD as u64),
        None if !last => Step::NeedMore,
        _ => Step::Invalid,
    }
}

impl Parser for Amqp1 {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.wanted[usize::from(role == Role::Server)] = 0;
        self.more.clear();
        (0..window.len()).find(|at| begins(window.get(*at..).unwrap_or_default()))
    }

    fn more(&mut self) -> Option<Box<Message>> {
        self.more.pop_front().map(Box::new)
    }
}

/// Does a frame with a performative surely begin here?
fn begins(bytes: &[u8]) -> bool {
    let Ok(Some(frame)) = Frame::read(bytes) else {
        return false;
    };
    let performative = bytes.get(frame.body..frame.body.saturating_add(4));
    match (performative, frame.sasl) {
        (Some([0, 0x53, code, 0x45 | 0xc0 | 0xd0]), false) => (0x10..=0x18).contains(code),
        (Some([0, 0x53, code, 0xc0 | 0xd0]), true) => (0x40..=0x44).contains(code),
        _ => false,
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    for kind in [0, 2, 3] {
        let header = [b'A', b'M', b'Q', b'P', kind, 1, 0, 0];
        if payload.starts_with(&header) {
            return Guess::Yes(Role::Client);
        }
        if header.starts_with(payload) {
            return Guess::Maybe;
        }
    }
    // Of what may come first only SASL tells who wrote it.
    let Ok(Some(frame)) = Frame::read(payload) else { return Guess::No };
    if !frame.sasl || !begins(payload) || payload.len() < frame.total {
        return Guess::No;
    }
    match payload.get(frame.body + 2) {
        Some(0x41 | 0x43) => Guess::Yes(Role::Client),
        Some(0x40 | 0x42 | 0x44) => Guess::Yes(Role::Server),
        _ => Guess::No,
    }
}

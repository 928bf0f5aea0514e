//! AMQP 0-9-1 (RabbitMQ and its kin): methods on channels, and the messages they carry.
//!
//! A message's content header belongs to the method before it; bodies and heartbeats are skipped by count.

mod content;
mod methods;

use std::collections::VecDeque;
use std::rc::Rc;

use super::cursor::Cursor;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::connection::other;
use methods::{Argument, Method, Part, find};

pub const PROTOCOL: Protocol = Protocol {
    id: 102,
    name: "AMQP",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Amqp::new(settings.clone())),
    doc: "AMQP 0-9-1. A method waits for its answer on its channel; publications, deliveries, returns and \
          acknowledgements stand alone, with the trace ids of the message's headers. The request that makes the server \
          close the channel or connection gets the reply code and text, as does the close. Connections that began \
          before the agent are read from the next method on that names its sender.",
};

const PORT: u16 = 5672;
const VERSION: &str = "0-9-1";
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Ends every frame.
const END: u8 = 0xce;
/// Type, channel and length; and the end.
const HEAD: usize = 7;
const FRAME: usize = HEAD + 1;
/// Larger frames are no frames.
const MAX_FRAME: u32 = 1 << 26;
/// The arguments that rows need lie within so many bytes of a method frame.
const MAX_METHOD: usize = 2048;
/// Requests remembered while their answers are awaited.
const MAX_AWAITED: usize = 4096;
/// `AMQP`, then 0 and the version.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Frames that `check` looks at.
const MAX_CHECKED: usize = 64;

/// A request whose answer is awaited.
#[derive(Clone, Copy, PartialEq)]
struct Asked {
    role: Role,
    channel: u16,
    class: u16,
    id: u16,
}

impl Asked {
    fn key(self) -> u64 {
        u64::from(self.role == Role::Server) << 63
            | u64::from(self.channel) << 32
            | u64::from(self.class) << 16
            | u64::from(self.id)
    }
}

struct Amqp {
    settings: Rc<ParserSettings>,
    virtual_host: String,
    awaited: VecDeque<Asked>,
    /// A close whose frame told first how a request failed.
    close: Option<Box<Message>>,
}

/// A frame's type, channel and length with head and end.
#[derive(Clone, Copy)]
struct Frame {
    kind: u8,
    channel: u16,
    total: usize,
}

impl Frame {
    /// `Err`: no frame; `Ok(None)`: too few bytes to tell.
    fn read(bytes: &[u8]) -> Result<Option<Self>, ()> {
        match bytes.first() {
            None => return Ok(None),
            Some(&(METHOD | HEADER | BODY | HEARTBEAT)) => {}
            Some(_) => return Err(()),
        }
        let mut cursor = Cursor(bytes);
        let Some(((kind, channel), length)) = cursor.u8().zip(cursor.u16()).zip(cursor.u32()) else {
            return Ok(None);
        };
        let sane = length <= MAX_FRAME && (kind != HEARTBEAT || length == 0 && channel == 0);
        let total = FRAME + length as usize;
        if !sane || bytes.get(total - 1).is_some_and(|end| *end != END) {
            return Err(());
        }
        Ok(Some(Self { kind, channel, total }))
    }
}

/// What the arguments of a method say.
#[derive(Default)]
struct Arguments<'a> {
    queue: Option<&'a [u8]>,
    exchange: Option<&'a [u8]>,
    routing_key: &'a [u8],
    virtual_host: Option<&'a [u8]>,
    reason: Option<(u16, &'a [u8])>,
    failed: (u16, u16),
    bits: u8,
}

impl<'a> Arguments<'a> {
    /// Reads as far as the bytes go.
    fn read(method: &Method, bytes: &'a [u8]) -> Self {
        let mut found = Self::default();
        let mut cursor = Cursor(bytes);
        for argument in method.arguments {
            if found.argument(*argument, &mut cursor).is_none() {
                break;
            }
        }
        found
    }

    fn argument(&mut self, argument: Argument, cursor: &mut Cursor<'a>) -> Option<()> {
        match argument {
            Argument::Fixed(count) => drop(cursor.take(count)?),
            Argument::Text => drop(cursor.short_bytes()?),
            Argument::Queue => self.queue = Some(cursor.short_bytes()?),
            Argument::Exchange => self.exchange = Some(cursor.short_bytes()?),
            Argument::RoutingKey => self.routing_key = cursor.short_bytes()?,
            Argument::VirtualHost => self.virtual_host = Some(cursor.short_bytes()?),
            Argument::Reason => self.reason = Some((cursor.u16()?, cursor.short_bytes()?)),
            Argument::Failed => self.failed = (cursor.u16()?, cursor.u16()?),
            Argument::Bits => self.bits = cursor.u8()?,
        }
        Some(())
    }

    /// `exchange.routing key`, or the queue; a message to the default exchange goes to the queue of its key.
    fn resource(&self) -> Vec<u8> {
        match self.exchange {
            Some(b"") => self.routing_key.to_vec(),
            Some(exchange) => [exchange, b".", self.routing_key].concat(),
            None => self.queue.unwrap_or_default().to_vec(),
        }
    }
}

impl Amqp {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self { settings, virtual_host: String::new(), awaited: VecDeque::new(), close: None }
    }

    /// `whole`: the window will not grow.
    fn step(&mut self, role: Role, window: &[u8], whole: bool) -> Step {
        self.close = None;
        if window.first() == Some(&b'A') {
            return self.greeting(role, window, whole);
        }
        let frame = match Frame::read(window) {
            Ok(Some(frame)) => frame,
            Ok(None) if !whole => return Step::NeedMore,
            Ok(None) | Err(()) => return Step::Invalid,
        };
        if frame.kind != METHOD {
            return Step::Skip(frame.total as u64);
        }
        if window.len() < frame.total.min(MAX_METHOD) && !whole {
            return Step::NeedMore;
        }
        let end = (frame.total - 1).min(window.len());
        let mut cursor = Cursor(window.get(HEAD..end).unwrap_or_default());
        let Some(method) = cursor.u16().zip(cursor.u16()).and_then(|(class, id)| find(class, id)) else {
            // An extension nobody told us of, or cut before its name.
            return Step::Skip(frame.total as u64);
        };
        if method.writer.is_some_and(|writer| writer != role) {
            return Step::Invalid;
        }
        let arguments = Arguments::read(method, cursor.0);
        let mut message = self.message(role, frame, method, &arguments);
        let mut consumed = frame.total;
        if matches!(method.part, Part::Carries(_)) {
            match self.content(frame, window, whole, &mut message) {
                Ok(length) => consumed += length,
                Err(()) => return Step::NeedMore,
            }
        }
        let asked = |id| Asked { role, channel: frame.channel, class: method.class, id };
        match message.kind {
            Kind::Request => self.expect(asked(method.id)),
            Kind::Response => {
                let place = self.awaited.iter().position(|asked| Some(asked.key()) == message.pair);
                place.and_then(|place| self.awaited.remove(place));
            }
            Kind::Session => {}
        }
        if let Some(host) = arguments.virtual_host {
            self.virtual_host = self.settings.text(host);
            message.request_domain.clone_from(&self.virtual_host);
        }
        if let Some(failure) = self.failure(role, frame, &arguments, &message, window) {
            self.close = Some(Box::new(message));
            return Step::Message { consumed: consumed as u64, message: Box::new(failure) };
        }
        Step::Message { consumed: consumed as u64, message: Box::new(message) }
    }

    /// The protocol header: the client's begins the connection, the server's refuses the client's.
    fn greeting(&mut self, role: Role, window: &[u8], whole: bool) -> Step {
        if window.len() < GREETING.len() && !whole {
            return Step::NeedMore;
        }
        if !window.starts_with(b"AMQP") || window.len() < GREETING.len() {
            return Step::Invalid;
        }
        if role == Role::Client {
            return Step::Skip(GREETING.len() as u64);
        }
        let message = Message {
            kind: Kind::Session,
            is_reversed: true,
            version: VERSION.into(),
            request_type: "ProtocolHeader".to_owned(),
            status: Status::ClientError,
            response_exception: "protocol version not supported".to_owned(),
            ..Message::default()
        };
        Step::Message { consumed: GREETING.len() as u64, message: Box::new(message) }
    }

    fn message(&self, role: Role, frame: Frame, method: &Method, arguments: &Arguments<'_>) -> Message {
        let asker = |id| Asked { role, channel: frame.channel, class: method.class, id };
        let mut message = Message {
            version: VERSION.into(),
            request_id: Some(u64::from(frame.channel)),
            request_type: method.name.to_owned(),
            request_domain: self.virtual_host.clone(),
            request_resource: self.settings.text(&arguments.resource()),
            length: i64::try_from(frame.total).ok(),
            ..Message::default()
        };
        match method.part {
            Part::Asks { no_wait } if arguments.bits & no_wait == 0 => {
                message.pair = Some(asker(method.id).key());
            }
            Part::Answers(id) | Part::Carries(Some(id)) => {
                message.kind = Kind::Response;
                message.status = Status::Success;
                message.pair = Some(Asked { role: other(role), ..asker(id) }.key());
            }
            Part::Asks { .. } | Part::Alone | Part::Carries(None) => {
                message.kind = Kind::Session;
                message.status = Status::Success;
                message.length = None;
            }
        }
        message.is_reversed = role == Role::Server && message.kind != Kind::Response;
        if (method.class, method.id, role) == (60, 120, Role::Server) {
            // The broker could not take a message that was to be confirmed.
            message.status = Status::ServerError;
        }
        if let Some((code, text)) = arguments.reason {
            message.response_code = Some(i32::from(code));
            if !matches!(code, 0 | 200) {
                message.status = blame(code, role);
                message.response_exception = self.settings.text(text);
            }
        }
        message.endpoint.clone_from(&message.request_resource);
        message
    }

    /// Describes the content header that follows a method; its length. `Err`: more bytes are needed.
    fn content(&self, frame: Frame, window: &[u8], whole: bool, message: &mut Message) -> Result<usize, ()> {
        if frame.total > MAX_METHOD {
            return Ok(0);
        }
        let rest = window.get(frame.total..).unwrap_or_default();
        let header = match Frame::read(rest) {
            Ok(Some(header)) if header.kind == HEADER && header.channel == frame.channel => header,
            Ok(None) if !whole => return Err(()),
            _ => return Ok(0),
        };
        let seen = header.total.min(self.settings.max_field.max(MAX_METHOD));
        if rest.len() < seen && !whole {
            return Err(());
        }
        let end = seen.min(header.total - 1).min(rest.len());
        content::describe(rest.get(HEAD..end).unwrap_or_default(), message, &self.settings);
        Ok(header.total)
    }

    fn expect(&mut self, asked: Asked) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(asked);
    }

    /// The response to the request that made the server close the channel or connection.
    fn failure(
        &mut self,
        role: Role,
        frame: Frame,
        arguments: &Arguments<'_>,
        close: &Message,
        window: &[u8],
    ) -> Option<Message> {
        let (class, id) = arguments.failed;
        if role == Role::Client || class == 0 || window.len() < frame.total {
            return None;
        }
        let place = self.awaited.iter().position(|asked| {
            asked.role == Role::Client
                && (asked.class, asked.id) == (class, id)
                && (frame.channel == 0 || asked.channel == frame.channel)
        })?;
        let asked = self.awaited.remove(place)?;
        Some(Message {
            kind: Kind::Response,
            pair: Some(asked.key()),
            version: VERSION.into(),
            status: close.status,
            response_code: close.response_code,
            response_exception: close.response_exception.clone(),
            length: close.length,
            ..Message::default()
        })
    }
}

/// Whose fault the reply code of a close or return is (specification 1.2, "Reply codes").
fn blame(code: u16, writer: Role) -> Status {
    let server = matches!(code, 313 | 320 | 506 | 540 | 541);
    match (writer, server, code) {
        (Role::Server, true, _) | (Role::Client, _, 501..=505) => Status::ServerError,
        _ => Status::ClientError,
    }
}

impl Parser for Amqp {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.awaited.clear();
        (0..window.len()).find(|&at| begins(window.get(at..).unwrap_or_default(), role))
    }

    fn more(&mut self) -> Option<Box<Message>> {
        self.close.take()
    }
}

/// Does a frame surely begin here? Its end has to be in sight, or it is a method of this side.
fn begins(bytes: &[u8], role: Role) -> bool {
    let Ok(Some(frame)) = Frame::read(bytes) else {
        return false;
    };
    if frame.kind == METHOD {
        return method_of(bytes).is_some_and(|method| method.writer.is_none_or(|writer| writer == role));
    }
    bytes.len() >= frame.total && !matches!(Frame::read(bytes.get(frame.total..).unwrap_or_default()), Err(()))
}

/// The method of a method frame.
fn method_of(bytes: &[u8]) -> Option<&'static Method> {
    let mut cursor = Cursor(bytes.get(HEAD..)?);
    find(cursor.u16()?, cursor.u16()?)
}

fn check(payload: &[u8], port: u16) -> Guess {
    if payload.starts_with(GREETING) {
        return Guess::Yes(Role::Client);
    }
    if GREETING.starts_with(payload) {
        return Guess::Maybe;
    }
    let mut rest = payload;
    for _ in 0..MAX_CHECKED {
        let frame = match Frame::read(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) if !rest.is_empty() && rest.first() == Some(&METHOD) => return Guess::Maybe,
            _ => return Guess::No,
        };
        let within = rest.len() >= frame.total;
        if frame.kind == METHOD {
            if !within && frame.total <= MAX_METHOD && rest.len() < HEAD + 4 {
                return Guess::Maybe;
            }
            let Some(method) = method_of(rest) else { return Guess::No };
            return match method.writer {
                Some(writer) if within || port == PORT => Guess::Yes(writer),
                Some(_) if frame.total <= MAX_METHOD => Guess::Maybe,
                _ => Guess::No,
            };
        }
        if !within {
            return Guess::No;
        }
        rest = rest.get(frame.total..).unwrap_or_default();
    }
    Guess::No
}

//! Pulsar's binary protocol.
//!
//! Source: "Pulsar binary protocol specification", PulsarApi.proto.

use std::borrow::Cow;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use self::commands::{
    CLOSE_CONSUMER, CLOSE_PRODUCER, CONNECT, CONNECTED, Class, Command, MESSAGE, PRODUCER, PRODUCER_SUCCESS, SEND,
    SUBSCRIBE,
};
use self::protobuf::{Fields, Value};
use super::cursor::Cursor;
use super::headed::{Bounds, Headed, PREFIX};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

mod commands;
mod protobuf;

pub const PROTOCOL: Protocol = Protocol {
    id: 105,
    name: "Pulsar",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 120,
    check,
    parser: |settings| {
        Box::new(Pulsar {
            settings: settings.clone(),
            producers: FxHashMap::default(),
            consumers: FxHashMap::default(),
            domain: String::new(),
            version: None,
        })
    },
    doc: "Pulsar's binary protocol, plain or through a Pulsar proxy, whose target is the domain. Requests pair by \
          their request id, sent messages by producer and sequence number. The topic is the last part of the name \
          under which producer or consumer were opened on the same connection; lookups carry theirs as an attribute. \
          A delivered message has the message id as its X-Request-ID, trace ids come from message properties. Acks, \
          permits and deliveries are one-way. An error's code and text are those of ServerError.",
};

/// The head of a frame is the command.
const BOUNDS: Bounds = Bounds { head_bits: 32, most_mark: 0, head: 2..=1 << 24, most: 1 << 29 };
/// Producers, and consumers, of one connection whose topics are remembered.
const MAX_OPEN: usize = 4096;
const BROKER_ENTRY: u16 = 0x0e02;
const CHECKSUM: u16 = 0x0e01;

struct Pulsar {
    settings: Rc<ParserSettings>,
    /// Topics of producers and consumers by their numbers.
    producers: FxHashMap<u64, String>,
    consumers: FxHashMap<u64, String>,
    /// Where a proxy was asked to connect to.
    domain: String,
    /// The lower of the protocol versions of the two sides.
    version: Option<u64>,
}

/// Type and fields of a command: a type, and a field of that number which fills the rest.
fn open<'a>(frame: &Headed<'a>) -> Option<(u64, &'static Command, Fields<'a>)> {
    let mut fields = Fields(frame.head);
    let (1, Value::Number(number)) = fields.next()? else { return None };
    let command = commands::by_type(number)?;
    let mut left = fields.0;
    let tag = protobuf::varint(&mut left)?;
    let length = usize::try_from(protobuf::varint(&mut left)?).ok()?;
    let before = frame.head.len() - left.len();
    if tag != number << 3 | 2 || before.checked_add(length)? != frame.head_length {
        return None;
    }
    Some((number, command, Fields(left)))
}

impl Pulsar {
    fn step(&mut self, role: Role, window: &[u8], missing: bool) -> Step {
        let frame = match Headed::read(window, &BOUNDS, missing) {
            Ok(frame) => frame,
            Err(step) => return step,
        };
        let look = self.settings.max_field.max(1024);
        if !missing && window.len() < frame.length.min(look) {
            return Step::NeedMore;
        }
        let consumed = frame.length as u64;
        let seen = frame.length.min(look) - PREFIX;
        let head = frame.head.get(..seen).unwrap_or(frame.head);
        let payload = frame.body.get(..seen.saturating_sub(head.len())).unwrap_or(frame.body);
        let Some((number, command, fields)) = open(&Headed { head, ..frame }) else {
            return if missing { Step::Skip(consumed) } else { Step::Invalid };
        };
        let field = |number: u32| if number == 0 { None } else { fields.find(number) };
        let id = field(command.request_id).and_then(Value::number);
        let mut message = Message {
            request_id: id,
            length: i64::try_from(frame.length - 4).ok(),
            request_domain: self.domain.clone(),
            ..Message::default()
        };
        match command.class {
            Class::Answer | Class::Reply | Class::EitherAnswers => {
                // A producer that waits in a queue is answered a second time, when its turn has come.
                let waits = number == PRODUCER_SUCCESS && fields.find(6).and_then(Value::number) == Some(0);
                if waits {
                    return Step::Skip(consumed);
                }
                message.kind = Kind::Response;
                message.request_domain.clear();
                message.status = Status::Success;
            }
            Class::Tell | Class::Push => message.kind = Kind::Session,
            // The server closes what moved elsewhere; the client does not answer.
            Class::Ask if role == Role::Server => message.kind = Kind::Session,
            Class::Ask | Class::Challenge | Class::EitherAsks => {}
        }
        if message.kind != Kind::Response {
            message.is_reversed = role == Role::Server;
            message.request_type = command.name.to_owned();
        }
        if message.is_reversed && message.kind == Kind::Session {
            message.request_length = message.length.take();
        }
        self.note_versions(number, fields, &mut message);
        message.version = self.version.map_or(Cow::Borrowed(""), |version| Cow::Owned(version.to_string()));
        message.pair = Some(pairing_key(role, command, fields, id));
        self.topic(number, command, fields, &mut message);
        self.error(command, fields, &mut message);
        if let Some(id) = field(command.message_id) {
            message.x_request_id = message_id(Fields(id.bytes()));
        }
        if number == SEND || number == MESSAGE {
            self.properties(payload, &mut message);
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn note_versions(&mut self, number: u64, fields: Fields<'_>, message: &mut Message) {
        let version = match number {
            CONNECT => {
                self.domain = self.settings.text(fields.find(6).map_or(&[], Value::bytes));
                message.request_domain.clone_from(&self.domain);
                self.version = None;
                fields.find(4)
            }
            CONNECTED => fields.find(2),
            _ => return,
        };
        let version = version.and_then(Value::number).unwrap_or(0);
        self.version = Some(self.version.map_or(version, |other| other.min(version)));
    }

    /// Topics are told when a producer or a consumer is opened.
    fn topic(&mut self, number: u64, command: &Command, fields: Fields<'_>, message: &mut Message) {
        let told = if command.topic == 0 { &[][..] } else { fields.find(command.topic).map_or(&[][..], Value::bytes) };
        let of = |number: u32| fields.find(number).filter(|_| number > 0).and_then(Value::number);
        let (producer, consumer) = (of(command.producer), of(command.consumer));
        if !told.is_empty() {
            message.attributes.push(("topic".to_owned(), self.settings.text(told)));
        }
        let (open, id) = match number {
            SUBSCRIBE | CLOSE_CONSUMER => (&mut self.consumers, consumer),
            PRODUCER | CLOSE_PRODUCER => (&mut self.producers, producer),
            _ => {
                let of_producer = producer.and_then(|id| self.producers.get(&id));
                let of_consumer = consumer.and_then(|id| self.consumers.get(&id));
                if let Some(topic) = of_producer.or(of_consumer)
                    && message.kind != Kind::Response
                {
                    message.request_resource.clone_from(topic);
                    message.endpoint.clone_from(topic);
                }
                return;
            }
        };
        let Some(id) = id else { return };
        if number == SUBSCRIBE || number == PRODUCER {
            let tail = told.rsplit(|byte| *byte == b'/').next().unwrap_or(told);
            let topic = self.settings.text(tail);
            if open.len() >= MAX_OPEN && !open.contains_key(&id) {
                open.clear();
            }
            open.insert(id, topic);
        }
        if let Some(topic) = open.get(&id) {
            message.request_resource.clone_from(topic);
            message.endpoint.clone_from(topic);
        }
        if number == CLOSE_CONSUMER || number == CLOSE_PRODUCER {
            open.remove(&id);
        }
    }

    fn error(&self, command: &Command, fields: Fields<'_>, message: &mut Message) {
        if command.error == 0 {
            return;
        }
        if let Some(code) = fields.find(command.error).and_then(Value::number) {
            message.status = Status::ServerError;
            message.response_code = i32::try_from(code).ok();
            message.response_exception = match fields.find(command.text).map_or(&[][..], Value::bytes) {
                [] => commands::error_name(code),
                text => self.settings.text(text),
            };
        }
    }

    /// Properties of the message, or of the first one of a batch that is not compressed.
    fn properties(&self, payload: &[u8], message: &mut Message) {
        let mut found = Propagation::new(&self.settings);
        offer_properties(payload, &mut found);
        let id = std::mem::take(&mut message.x_request_id);
        found.fill(message);
        if message.x_request_id.is_empty() {
            message.x_request_id = id;
        }
    }
}

fn offer_properties(payload: &[u8], found: &mut Propagation<'_>) -> Option<()> {
    let magic = |left: &Cursor<'_>| left.clone().u16();
    let mut left = Cursor(payload);
    if magic(&left) == Some(BROKER_ENTRY) {
        left.u16();
        left.long_bytes()?;
    }
    if magic(&left) == Some(CHECKSUM) {
        left.take(6)?;
    }
    let length = left.u32()? as usize;
    let metadata = Fields(left.up_to(length));
    let offer = |fields: Fields<'_>, number: u32, found: &mut Propagation<'_>| {
        for (_, property) in fields.filter(|(field, _)| *field == number) {
            let property = Fields(property.bytes());
            if let (Some(name), Some(value)) = (property.find(1), property.find(2)) {
                found.offer(name.bytes(), value.bytes());
            }
        }
    };
    offer(metadata, 4, found);
    let is_plain = metadata.find(8).and_then(Value::number).unwrap_or(0) == 0 && metadata.find(13).is_none();
    if metadata.find(11).is_some() && is_plain {
        let length = left.u32()? as usize;
        offer(Fields(left.up_to(length)), 1, found);
    }
    Some(())
}

/// `ledger:entry:partition:index in its batch`.
fn message_id(id: Fields<'_>) -> String {
    let part = |number: u32| id.find(number).and_then(Value::number).map(|value| value as i64);
    let (partition, index) = (part(3).unwrap_or(-1), part(4).unwrap_or(-1));
    format!("{}:{}:{}:{}", part(1).unwrap_or(0), part(2).unwrap_or(0), partition as i32, index as i32)
}

/// Requests of each kind have numbers of their own; the kind stands in the highest byte.
fn pairing_key(role: Role, command: &Command, fields: Fields<'_>, id: Option<u64>) -> u64 {
    let of_kind = |kind: u64, number: u64| kind << 56 | (number & ((1 << 56) - 1));
    let number = |field: u32| fields.find(field).and_then(Value::number).unwrap_or(0);
    match (command.class, id) {
        (_, Some(id)) => of_kind(1, id),
        (Class::EitherAsks, _) => of_kind(2 + u64::from(role == Role::Server), 0),
        (Class::EitherAnswers, _) => of_kind(2 + u64::from(role == Role::Client), 0),
        (Class::Challenge | Class::Reply, _) => of_kind(4, 0),
        _ if command.sequence > 0 => of_kind(5, number(command.producer) << 40 ^ number(command.sequence)),
        _ => of_kind(6, 0),
    }
}

impl Parser for Pulsar {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        (0..window.len().saturating_sub(PREFIX)).find(|at| {
            let found = writer(window.get(*at..).unwrap_or_default());
            found.is_some_and(|writer| writer.is_none_or(|writer| writer == role))
        })
    }
}

/// Is this a command, and which side alone can have written it?
fn writer(payload: &[u8]) -> Option<Option<Role>> {
    let frame = Headed::read(payload, &BOUNDS, false).ok()?;
    let (number, command, _) = open(&frame)?;
    let carries = number == SEND || number == MESSAGE;
    if !carries && frame.length != PREFIX + frame.head_length {
        return None;
    }
    Some(match command.class {
        Class::Ask if number == CLOSE_CONSUMER || number == CLOSE_PRODUCER => None,
        Class::Ask | Class::Tell | Class::Reply => Some(Role::Client),
        Class::Answer | Class::Push | Class::Challenge => Some(Role::Server),
        Class::EitherAsks | Class::EitherAnswers => None,
    })
}

fn check(payload: &[u8], _port: u16) -> Guess {
    match writer(payload) {
        Some(Some(role)) => Guess::Yes(role),
        Some(None) => Guess::Maybe,
        None => Guess::No,
    }
}

//! MQTT 3.1, 3.1.1 and 5 (OASIS). A publication is named by its topic; its payload is skipped by count.

mod packet;
mod reason;

use std::collections::HashMap;
use std::rc::Rc;

use super::cursor::Cursor;
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::connection::other;
use packet::{Head, Property, kind, name, properties, property, writer};

pub const PROTOCOL: Protocol = Protocol {
    id: 101,
    name: "MQTT",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Mqtt::new(settings.clone())),
    doc: "MQTT 3.1, 3.1.1 and 5. A publication waits for its acknowledgement (PUBACK or PUBREC), PUBREL for PUBCOMP; \
          QoS 0, DISCONNECT and AUTH stand alone. Deliveries of the server are reversed. The client's id stays the \
          domain of its connection; the trace ids of MQTT 5 come from user properties. Connections that began before \
          the agent are recognised on port 1883 by a packet that only one side sends.",
};

const PORT: u16 = 1883;
/// Aliases of topics remembered a direction.
const MAX_ALIASES: usize = 1024;
/// Packets that `check` looks at.
const MAX_CHECKED: usize = 256;

struct Mqtt {
    settings: Rc<ParserSettings>,
    /// Protocol level, 0 while the beginning of the connection is not known.
    level: u8,
    client: String,
    /// Topics by alias, of client and server.
    aliases: [HashMap<u16, String>; 2],
}

/// More bytes are needed than there are.
struct Short;

/// A packet, as much of it as is in the window.
struct Packet<'a> {
    head: Head,
    /// What follows the fixed header.
    body: &'a [u8],
    /// The window will not grow, or the packet is all there.
    last: bool,
}

impl<'a> Packet<'a> {
    /// The first `count` bytes of the body, or what there is when no more will come.
    fn first(&self, count: usize, limit: usize) -> Result<&'a [u8], Short> {
        let wanted = count.min(self.head.remaining).min(limit);
        match self.body.get(..wanted) {
            Some(bytes) => Ok(bytes),
            None if self.last => Ok(self.body),
            None => Err(Short),
        }
    }
}

impl Mqtt {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self { settings, level: 0, client: String::new(), aliases: [HashMap::new(), HashMap::new()] }
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let head = match Head::read(window) {
            Ok(Some(head)) => head,
            Ok(None) if !last => return Step::NeedMore,
            Ok(None) | Err(()) => return Step::Invalid,
        };
        if writer(head.kind).is_some_and(|writer| writer != role) {
            return Step::Invalid;
        }
        let end = head.total().min(window.len());
        let packet = Packet { head, body: window.get(head.size..end).unwrap_or_default(), last };
        let mut message = Message {
            request_type: name(head.kind).to_owned(),
            length: i64::try_from(head.remaining).ok(),
            is_reversed: role == Role::Server,
            ..Message::default()
        };
        let read = match head.kind {
            kind::CONNECT => self.connect(&packet, &mut message),
            kind::PUBLISH => self.publish(role, &packet, &mut message),
            kind::SUBSCRIBE | kind::UNSUBSCRIBE => self.topics(&packet, &mut message),
            kind::CONNACK => self.connack(&packet, &mut message),
            kind::SUBACK | kind::UNSUBACK => self.granted(&packet, &mut message),
            kind::DISCONNECT | kind::AUTH => self.parting(&packet, &mut message),
            kind::PINGREQ | kind::PINGRESP => Ok(()),
            _ => self.acknowledgement(role, &packet, &mut message),
        };
        if let Err(Short) = read {
            return Step::NeedMore;
        }
        message.version = match self.level {
            3 => "3".into(),
            4 => "4".into(),
            5 => "5".into(),
            _ => message.version,
        };
        message.request_domain.clone_from(&self.client);
        place(role, head, &mut message);
        Step::Message { consumed: head.total() as u64, message: Box::new(message) }
    }

    /// The body as far as it is looked at.
    fn whole<'a>(&self, packet: &Packet<'a>) -> Result<Cursor<'a>, Short> {
        packet.first(packet.head.remaining, self.settings.max_field).map(Cursor)
    }

    fn connect(&mut self, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        let mut propagation = Propagation::new(&self.settings);
        let level = cursor.medium_bytes().and_then(|_name| cursor.u8());
        let Some(((level, _flags), _keep_alive)) = level.zip(cursor.u8()).zip(cursor.u16()) else {
            return Ok(());
        };
        self.level = level & 0x7f;
        if self.level == 5 {
            let mut properties = properties(&mut cursor);
            while let Some(property) = property(&mut properties) {
                if let Property::User(name, value) = property {
                    propagation.offer(name, value);
                }
            }
        }
        propagation.fill(message);
        self.client = self.settings.text(cursor.medium_bytes().unwrap_or_default());
        Ok(())
    }

    fn connack(&mut self, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        let Some(code) = cursor.u16().map(|flags_and_code| flags_and_code as u8) else {
            return Ok(());
        };
        if self.level == 5 || packet.head.remaining > 2 {
            return self.outcome(code, &mut cursor, message);
        }
        let (status, text) = reason::of_connack(code);
        conclude(message, status, Some(code), text);
        Ok(())
    }

    /// A reason code and the properties that follow it.
    fn outcome(&mut self, code: u8, cursor: &mut Cursor<'_>, message: &mut Message) -> Result<(), Short> {
        let (status, text) = reason::of_reason(code);
        conclude(message, status, Some(code), text);
        let mut properties = properties(cursor);
        while let Some(property) = property(&mut properties) {
            match property {
                Property::AssignedClient(id) => self.client = self.settings.text(id),
                Property::Reason(text) if status != Status::Success => {
                    message.response_exception = self.settings.text(text);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn publish(&mut self, role: Role, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let limit = self.settings.max_field;
        let length = usize::from(Cursor(packet.first(2, limit)?).u16().unwrap_or_default());
        let identified = if packet.head.qos() > 0 { 2 } else { 0 };
        let head = 2 + length + identified;
        let mut cursor = Cursor(packet.first(head, head)?);
        let topic = cursor.medium_bytes().or_else(|| packet.body.get(2..)).unwrap_or_default();
        let mut topic = self.settings.text(topic);
        if identified > 0 {
            message.request_id = cursor.u16().map(u64::from);
        }
        if self.level == 5 {
            let mut described = Cursor(packet.first(head + 4, head + 4)?.get(head..).unwrap_or_default());
            let size = match packet::variable(&mut described) {
                Ok(Some(size)) => size.min(limit) + 4,
                _ => 0,
            };
            let mut cursor = Cursor(packet.first(head + size, head + size)?.get(head..).unwrap_or_default());
            let mut found = properties(&mut cursor);
            let mut propagation = Propagation::new(&self.settings);
            while let Some(property) = property(&mut found) {
                match property {
                    Property::TopicAlias(alias) => {
                        let known = &mut self.aliases[usize::from(role == Role::Server)];
                        if topic.is_empty() {
                            topic = known.get(&alias).cloned().unwrap_or_default();
                        } else if known.len() < MAX_ALIASES || known.contains_key(&alias) {
                            known.insert(alias, topic.clone());
                        }
                    }
                    Property::User(name, value) => propagation.offer(name, value),
                    _ => {}
                }
            }
            propagation.fill(message);
        }
        message.attributes.push(("qos".to_owned(), packet.head.qos().to_string()));
        message.endpoint.clone_from(&topic);
        message.request_resource = topic;
        Ok(())
    }

    fn topics(&mut self, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        message.request_id = cursor.u16().map(u64::from);
        if self.level == 5 {
            let mut propagation = Propagation::new(&self.settings);
            let mut found = properties(&mut cursor);
            while let Some(property) = property(&mut found) {
                if let Property::User(name, value) = property {
                    propagation.offer(name, value);
                }
            }
            propagation.fill(message);
        }
        let mut joined = Vec::new();
        while let Some(topic) = cursor.medium_bytes() {
            if !joined.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(topic);
            if packet.head.kind == kind::SUBSCRIBE {
                cursor.u8();
            }
        }
        message.request_resource = self.settings.text(&joined);
        message.endpoint.clone_from(&message.request_resource);
        Ok(())
    }

    fn granted(&mut self, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        message.request_id = cursor.u16().map(u64::from);
        message.status = Status::Success;
        if self.level == 5 {
            let _ = properties(&mut cursor);
        }
        // Without the level nobody knows whether properties or codes follow.
        let codes = if self.level == 0 { b"" } else { cursor.0 };
        if let Some(code) = codes.iter().copied().find(|code| *code >= 0x80) {
            let (status, text) = reason::of_reason(code);
            conclude(message, status, Some(code), text);
        }
        Ok(())
    }

    fn acknowledgement(&mut self, role: Role, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        message.request_id = cursor.u16().map(u64::from);
        let code = cursor.u8();
        self.outcome(code.unwrap_or(0), &mut cursor, message)?;
        message.response_code = code.map(i32::from);
        if role == Role::Client && message.status == Status::ServerError {
            // The codes are the server's; here the client refuses.
            message.status = Status::ClientError;
        }
        Ok(())
    }

    fn parting(&mut self, packet: &Packet<'_>, message: &mut Message) -> Result<(), Short> {
        let mut cursor = self.whole(packet)?;
        if let Some(code) = cursor.u8() {
            self.outcome(code, &mut cursor, message)?;
        }
        Ok(())
    }
}

fn conclude(message: &mut Message, status: Status, code: Option<u8>, text: &str) {
    message.status = status;
    message.response_code = code.map(i32::from);
    text.clone_into(&mut message.response_exception);
}

/// What a packet is in its exchange, and what it pairs by: who asked, the packet that asks, its identifier.
fn place(role: Role, head: Head, message: &mut Message) {
    let key = |asker: Role, kind: u8| {
        let id = message.request_id.unwrap_or_default();
        Some(u64::from(asker == Role::Server) << 63 | u64::from(kind) << 16 | id)
    };
    let (kind, pair) = match (head.kind, head.qos()) {
        (kind::CONNECT | kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PINGREQ | kind::PUBREL, _) => {
            (Kind::Request, key(role, head.kind))
        }
        (kind::PUBLISH, qos @ 1..) => (Kind::Request, key(role, kind::PUBLISH + 16 * qos)),
        (kind::PUBACK, _) => (Kind::Response, key(other(role), kind::PUBLISH + 16)),
        (kind::PUBREC, _) => (Kind::Response, key(other(role), kind::PUBLISH + 32)),
        (kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP | kind::PUBCOMP, _) => {
            (Kind::Response, key(other(role), head.kind - 1))
        }
        _ => (Kind::Session, None),
    };
    message.kind = kind;
    message.pair = pair;
    message.is_reversed &= kind != Kind::Response;
    if kind != Kind::Request && message.status == Status::Unknown {
        message.status = Status::Success;
    }
    if kind == Kind::Request && message.status == Status::Success {
        // PUBREL may carry a reason code too.
        message.status = Status::Unknown;
    }
}

impl Parser for Mqtt {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.aliases[usize::from(role == Role::Server)].clear();
        // The bytes of a payload look like packets: only the beginning of a write is trusted.
        chain(window).is_some_and(|found| found.is_none_or(|writer| writer == role)).then_some(0)
    }
}

/// Do these bytes consist of packets (the last may be cut)? Then the side that wrote them, if they tell.
fn chain(bytes: &[u8]) -> Option<Option<Role>> {
    let mut rest = bytes;
    let mut known = None;
    for _ in 0..MAX_CHECKED {
        if rest.is_empty() {
            break;
        }
        let Some(head) = Head::read(rest).ok()? else {
            return (rest.len() < bytes.len()).then_some(known);
        };
        let end = head.total().min(rest.len());
        if !plausible(head, rest.get(head.size..end)?) {
            return None;
        }
        match (known, writer(head.kind)) {
            (Some(one), Some(another)) if one != another => return None,
            (None, writer) => known = writer,
            _ => {}
        }
        rest = rest.get(end..)?;
    }
    Some(known)
}

/// Could a packet with this head have this body, as far as it goes?
fn plausible(head: Head, body: &[u8]) -> bool {
    let mut cursor = Cursor(body);
    match head.kind {
        kind::CONNECT => greeting(body) == Some(true),
        kind::CONNACK => cursor.u8().is_none_or(|flags| flags < 2) && head.remaining < 4096,
        kind::PUBLISH => {
            let Some(length) = cursor.u16() else { return true };
            let fits = usize::from(length) + 2 <= head.remaining;
            fits && topic(cursor.up_to(usize::from(length)))
        }
        kind::SUBSCRIBE | kind::UNSUBSCRIBE => head.remaining >= 5 && cursor.u16() != Some(0),
        kind::SUBACK => head.remaining >= 3 && cursor.u16() != Some(0),
        kind::DISCONNECT | kind::AUTH => head.remaining < 4096,
        kind::PINGREQ | kind::PINGRESP => true,
        _ => cursor.u16() != Some(0) && head.remaining < 4096,
    }
}

/// A topic is a text without control characters.
fn topic(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    whole && !bytes.iter().any(u8::is_ascii_control)
}

/// Does the body of a CONNECT begin so? `None`: as far as it goes.
fn greeting(body: &[u8]) -> Option<bool> {
    let known: [(&[u8], &[u8]); 2] = [(b"\x00\x04MQTT", &[4, 5]), (b"\x00\x06MQIsdp", &[3])];
    for (name, levels) in known {
        // The highest bit of the level marks a bridge.
        match body.strip_prefix(name) {
            Some(rest) => return rest.first().map(|level| levels.contains(&(level & 0x7f))),
            None if name.starts_with(body) => return None,
            None => {}
        }
    }
    Some(false)
}

fn check(payload: &[u8], port: u16) -> Guess {
    if payload.first() == Some(&(kind::CONNECT << 4)) {
        let Ok(head) = Head::read(payload) else { return Guess::No };
        let Some(head) = head else { return Guess::Maybe };
        return match greeting(payload.get(head.size..).unwrap_or_default()) {
            Some(true) => Guess::Yes(Role::Client),
            Some(false) => Guess::No,
            None if head.remaining >= 12 => Guess::Maybe,
            None => Guess::No,
        };
    }
    if port != PORT {
        return Guess::No;
    }
    match chain(payload) {
        Some(Some(role)) => Guess::Yes(role),
        _ => Guess::No,
    }
}

//! Kafka's wire protocol: every request by name, topic, partition, offset, group and errors of the usual ones.
//!
//! Sources: "Kafka protocol guide", KIP-482 (flexible versions), KIP-516 (topic ids), KIP-227 (fetch sessions).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use self::apis::{API_VERSIONS, Api, CONTROLLED_SHUTDOWN, FETCH, PRODUCE, SASL_HANDSHAKE};
use self::fields::{Facts, Reader, Stop};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

mod apis;
mod errors;
mod fields;
mod records;

pub const PROTOCOL: Protocol = Protocol {
    id: 100,
    name: "Kafka",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 300,
    check,
    parser: |settings| Box::new(Kafka { settings: settings.clone(), pending: VecDeque::new(), tokens: false }),
    doc: "Kafka up to 4.1, every request by its name and version. The domain is the first topic, the endpoint its \
          partition, the resource adds the offset: of a fetch the one asked for, of a produce request the one given \
          by the broker. The group is an attribute. Any partition's or topic's error makes the response an error of \
          the server, with its name. Trace ids come from the headers of the first record that has some. A produce \
          request that wants no acknowledgement is one-way. Topics that are named by id only show their name once a \
          metadata response told it.",
};

const PORTS: &[u16] = &[9092, 9093, 9094, 19092, 29092];
/// The length before every message.
const PREFIX: usize = 4;
/// Key, version, correlation id.
const HEADER: usize = 8;
/// Brokers refuse more than 100 MiB (socket.request.max.bytes); responses may be larger.
const MAX_REQUEST: usize = 128 << 20;
const MAX_RESPONSE: usize = 1 << 30;
/// Longest name of a topic; clients are named as shortly.
const MAX_NAME: usize = 249;
/// Requests that wait for their response on one connection.
const MAX_PENDING: usize = 1024;
/// A client may be newer than the table by so many versions of a request.
const NEWER: i16 = 2;

/// What a request says that its response needs.
struct Pending {
    id: i32,
    key: i16,
    version: i16,
    /// The request named a topic.
    named: bool,
}

struct Kafka {
    settings: Rc<ParserSettings>,
    pending: VecDeque<Pending>,
    /// After a SASL handshake of version 0 come tokens without header.
    tokens: bool,
}

/// The header of a request.
struct Header {
    key: i16,
    version: i16,
    id: i32,
}

impl Header {
    fn api(&self) -> Option<&'static Api> {
        apis::by_key(self.key)
    }

    fn version_text(&self) -> Cow<'static, str> {
        #[rustfmt::skip]
        const VERSIONS: &[&str] = &[
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20",
        ];
        let known = usize::try_from(self.version).ok().and_then(|version| VERSIONS.get(version));
        known.map_or_else(|| Cow::Owned(self.version.to_string()), |text| Cow::Borrowed(*text))
    }
}

/// Declared length and the body at hand of the first message, at most `look` bytes of it.
fn frame(window: &[u8], look: usize) -> Option<(usize, &[u8])> {
    let length = u32::from_be_bytes(window.get(..PREFIX)?.try_into().ok()?) as usize;
    let body = window.get(PREFIX..)?;
    Some((length, body.get(..length.min(look)).unwrap_or(body)))
}

/// A request as far as it goes.
struct Request<'a> {
    header: Header,
    client: &'a [u8],
    facts: Facts<'a>,
    end: Result<(), Stop>,
}

/// Reads a request; the error says that not even its header is there.
fn request(body: &[u8], length: usize) -> Result<Request<'_>, Stop> {
    let mut reader = Reader::new(body, length);
    let header = Header { key: reader.int16()?, version: reader.int16()?, id: reader.int32()? };
    if header.key < 0 || header.version < 0 {
        return Err(Stop::Wrong);
    }
    let mut facts = Facts::default();
    if header.key == CONTROLLED_SHUTDOWN && header.version == 0 {
        return Ok(Request { header, client: &[], facts, end: Ok(()) });
    }
    let client = match reader.text() {
        Ok(client) => client,
        Err(stop) => return Ok(Request { header, client: &[], facts, end: Err(stop) }),
    };
    let mut end = Ok(());
    if let Some(api) = header.api() {
        reader.flexible = api.is_flexible(header.version);
        if reader.flexible {
            end = reader.tags();
        }
        if end.is_ok() && header.version <= api.newest {
            end = reader.walk(api.request, header.version, &mut facts);
        }
    }
    Ok(Request { header, client, facts, end })
}

impl Kafka {
    fn look(&self) -> usize {
        self.settings.max_field.max(1024)
    }

    fn topic(&self, facts: &Facts<'_>) -> String {
        if facts.topic.is_empty() && facts.topic_id != 0 {
            let known = self.settings.names.get(PROTOCOL.id, facts.topic_id);
            return known.map_or_else(|| printed(facts.topic_id), |name| self.settings.text(&name));
        }
        self.settings.text(facts.topic)
    }

    /// Domain, endpoint and, with an offset, the resource.
    fn place(&self, message: &mut Message, facts: &Facts<'_>, offset: Option<i64>) {
        let topic = self.topic(facts);
        if topic.is_empty() {
            return;
        }
        message.endpoint = match facts.partition {
            Some(partition) => format!("{topic}-{partition}"),
            None => topic.clone(),
        };
        message.request_resource = match offset {
            Some(offset) => format!("{}:{offset}", message.endpoint),
            None => message.endpoint.clone(),
        };
        message.request_domain = topic;
    }

    fn traced(&self, message: &mut Message, records: &[u8]) {
        let mut found = Propagation::new(&self.settings);
        records::headers(records, |name, value| found.offer(name, value));
        found.fill(message);
    }

    fn request(&mut self, window: &[u8], missing: Option<u64>) -> Step {
        let look = self.look();
        let Some((length, body)) = frame(window, look) else {
            return short(window, missing);
        };
        if !(HEADER..=MAX_REQUEST).contains(&length) {
            return self.token(length);
        }
        if missing.is_none() && body.len() < length.min(look) {
            return Step::NeedMore;
        }
        let consumed = (PREFIX + length) as u64;
        let (header, facts) = match request(body, length) {
            Ok(Request { header, facts, .. }) => (header, facts),
            Err(Stop::Cut) if missing.is_some() => return Step::Skip(consumed),
            Err(_) => return self.token(length),
        };
        if header.api().is_none_or(|api| header.version > api.newest + 8) {
            return self.token(length);
        }
        self.tokens = header.key == SASL_HANDSHAKE && header.version == 0;
        let mut message = Message {
            request_id: Some(u64::from(header.id as u32)),
            version: header.version_text(),
            request_type: header.api().map_or_else(String::new, |api| api.name.to_owned()),
            length: i64::try_from(length).ok(),
            ..Message::default()
        };
        self.place(&mut message, &facts, facts.offset);
        let group = facts.group();
        if !group.is_empty() {
            message.attributes.push(("group_id".to_owned(), self.settings.text(group)));
        }
        if header.key == PRODUCE {
            self.traced(&mut message, facts.records);
            if facts.acks == Some(0) {
                message.kind = Kind::Session;
                return Step::Message { consumed, message: Box::new(message) };
            }
            // The broker gives the offset.
            message.request_resource.clear();
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        let named = !message.request_domain.is_empty();
        self.pending.push_back(Pending { id: header.id, key: header.key, version: header.version, named });
        Step::Message { consumed, message: Box::new(message) }
    }

    /// A message that has no header that makes sense: a token of an old login, or nothing of ours.
    fn token(&self, length: usize) -> Step {
        if self.tokens && length <= usize::from(u16::MAX) {
            return Step::Skip((PREFIX + length) as u64);
        }
        Step::Invalid
    }

    fn response(&mut self, window: &[u8], missing: Option<u64>) -> Step {
        let look = self.look();
        let Some((length, body)) = frame(window, look) else {
            return short(window, missing);
        };
        let consumed = (PREFIX + length) as u64;
        let Some(id) = body.first_chunk().copied().map(i32::from_be_bytes) else {
            return match missing {
                _ if length < 4 => self.token(length),
                None => Step::NeedMore,
                Some(_) => Step::Skip(consumed),
            };
        };
        if length > MAX_RESPONSE {
            return Step::Invalid;
        }
        let place = self.pending.iter().position(|pending| pending.id == id);
        if self.tokens && place.is_none() {
            return self.token(length);
        }
        if missing.is_none() && place.is_some() && body.len() < length.min(look) {
            return Step::NeedMore;
        }
        let mut message = Message {
            kind: Kind::Response,
            request_id: Some(u64::from(id as u32)),
            length: i64::try_from(length).ok(),
            ..Message::default()
        };
        // A broker answers in the order of the requests: those before this one will not be answered.
        if let Some(pending) = place.and_then(|place| self.pending.drain(..=place).next_back()) {
            self.read_response(&mut message, &pending, body, length);
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn read_response(&self, message: &mut Message, pending: &Pending, body: &[u8], length: usize) {
        let Some(api) = apis::by_key(pending.key) else {
            return;
        };
        let mut facts = Facts::default();
        let mut reader = Reader::new(body, length);
        reader.flexible = api.is_flexible(pending.version);
        // What a broken or cut body said before its end counts.
        let header = reader
            .int32()
            .and_then(|_| if reader.flexible && pending.key != API_VERSIONS { reader.tags() } else { Ok(()) });
        if header.is_ok() && pending.version <= api.newest {
            _ = reader.walk(api.response, pending.version, &mut facts);
        }
        for (id, name) in &facts.named {
            self.settings.names.learn(PROTOCOL.id, *id, name);
        }
        if !pending.named || pending.key == PRODUCE {
            self.place(message, &facts, facts.offset);
        }
        if pending.key == FETCH {
            self.traced(message, facts.records);
        }
        message.status = Status::Success;
        match facts.error {
            None => {}
            Some(0) => message.response_code = Some(0),
            Some(code) => {
                message.response_code = Some(i32::from(code));
                message.status = Status::ServerError;
                message.response_exception = errors::name(code);
                message.response_result = self.settings.text(facts.error_text);
            }
        }
    }
}

/// A topic's id as Kafka's tools print it: base64url without padding.
fn printed(id: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 22 digits of 6 bits; the last holds the two bits that are left.
    let digit = |place: u32| match 122u32.checked_sub(6 * place) {
        Some(shift) => id >> shift,
        None => id << 4,
    };
    let text = (0..22).filter_map(|place| DIGITS.get((digit(place) & 63) as usize));
    text.map(|digit| char::from(*digit)).collect()
}

/// Not even the length is there.
fn short(window: &[u8], missing: Option<u64>) -> Step {
    match missing {
        None => Step::NeedMore,
        Some(_) => Step::Skip(window.len() as u64),
    }
}

impl Parser for Kafka {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        match role {
            Role::Client => self.request(window, None),
            Role::Server => self.response(window, None),
        }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        match role {
            Role::Client => self.request(window, Some(missing)),
            Role::Server => self.response(window, Some(missing)),
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.tokens = false;
        (0..window.len().saturating_sub(HEADER)).find(|at| {
            let window = window.get(*at..).unwrap_or_default();
            match role {
                Role::Client => sure(window),
                Role::Server => frame(window, 4).is_some_and(|(length, body)| {
                    let id = body.first_chunk().copied().map(i32::from_be_bytes);
                    (4..=MAX_RESPONSE).contains(&length) && self.pending.iter().any(|pending| Some(pending.id) == id)
                }),
            }
        })
    }
}

/// Is a request of ours here, beyond doubt: its fields fit, and one of them is a name?
fn sure(window: &[u8]) -> bool {
    let Some((length, body)) = frame(window, 1024) else {
        return false;
    };
    if !(HEADER + 2..=MAX_REQUEST).contains(&length) {
        return false;
    }
    let Ok(Request { header, client, facts, end }) = request(body, length) else {
        return false;
    };
    let named =
        |name: &[u8]| (1..=MAX_NAME).contains(&name.len()) && name.iter().all(|byte| (b' '..=b'~').contains(byte));
    let legal =
        |name: &[u8]| name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    header.api().is_some_and(|api| header.version <= api.newest + NEWER)
        && end != Err(Stop::Wrong)
        && (client.is_empty() || named(client))
        && legal(facts.topic)
        && facts.partition.is_none_or(|partition| partition >= 0)
        && facts.acks.is_none_or(|acks| (-1..=1).contains(&acks))
        && (named(client) || named(facts.topic) || named(facts.group()))
}

fn check(payload: &[u8], port: u16) -> Guess {
    let ours = PORTS.contains(&port);
    if sure(payload) {
        return Guess::Yes(Role::Client);
    }
    if !ours {
        return Guess::No;
    }
    let Some((length, body)) = frame(payload, 1024) else {
        return Guess::Maybe;
    };
    if !(HEADER + 2..=MAX_REQUEST).contains(&length) {
        return Guess::No;
    }
    // A client without name, and a request that names nothing: all of it has to be there and to fit.
    match request(body, length) {
        Ok(Request { header, client: [], end: Ok(()), .. }) if payload.len() == PREFIX + length => {
            let known = header.api().is_some_and(|api| header.version <= api.newest + NEWER);
            if known { Guess::Yes(Role::Client) } else { Guess::No }
        }
        Ok(_) | Err(Stop::Cut) if payload.len() < PREFIX + HEADER + 2 => Guess::Maybe,
        _ => Guess::No,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_print_like_those_of_kafka_s_tools() {
        let id = [0x6f, 0x3a, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xfd];
        assert_eq!(super::printed(u128::from_be_bytes(id)), "bzr_AAECAwQFBgcICQoL_Q");
    }
}

//! RocketMQ's remoting protocol, with JSON and with RocketMQ's own headers.
//!
//! Sources: org.apache.rocketmq.remoting.protocol (RemotingCommand, RequestCode, ResponseCode), MessageDecoder.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use self::header::Header;
use super::cursor::Cursor;
use super::headed::{Bounds, Headed, PREFIX};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

mod codes;
mod header;

pub const PROTOCOL: Protocol = Protocol {
    id: 107,
    name: "RocketMQ",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 300,
    check,
    parser: |settings| Box::new(RocketMq { settings: settings.clone(), pulls: VecDeque::new() }),
    doc: "RocketMQ's remoting protocol between clients, brokers and name servers. The domain is the group, the \
          resource the topic, the endpoint the topic and its queue. Every code above 0 is an error of the server, but \
          for those that say that nothing was found for now. UNIQ_KEY, else KEYS of a message's properties is its \
          X-Request-ID, trace ids come from the properties too: of a sent message, and of the first of those \
          that were pulled. Commands of the broker to its clients are marked as reversed.",
};

/// Least length of a binary header.
const BINARY: usize = 21;
/// The head of a frame is the command's header, its mark the kind of header.
const BOUNDS: Bounds = Bounds { head_bits: 24, most_mark: 1, head: BINARY..=1 << 20, most: 64 << 20 };
/// Version numbers are ordinals: from this one on, a release and a snapshot for each patch number.
const REGULAR: i32 = 194;
/// `2 * (100 * major + 10 * minor + patch)` less this is the ordinal of a release.
const OFFSET: i32 = 587;
const NEWEST: i32 = 1024;
const RESPONSE: i32 = 1;
const ONE_WAY: i32 = 2;
/// Key of commands that the server sends, beside the opaque number.
const REVERSED: u64 = 1 << 32;
const MAX_PULLS: usize = 256;

const PULL_MESSAGE: i32 = 11;
/// Requests that bring messages: PULL_MESSAGE, LITE_PULL_MESSAGE, POP_MESSAGE.
const PULLS: &[i32] = &[PULL_MESSAGE, 361, 200_050];
/// SEND_MESSAGE_V2, SEND_BATCH_MESSAGE, SEND_REPLY_MESSAGE_V2: fields are named by one letter.
const SHORT_NAMES: &[i32] = &[310, 320, 325];
/// What a broker asks its clients.
const BY_SERVER: &[i32] = &[39, 40, 220, 221, 307, 309, 326, 905];
/// PULL_NOT_FOUND, PULL_RETRY_IMMEDIATELY, NO_MESSAGE, POLLING_FULL, POLLING_TIMEOUT: nothing there for now.
const NOTHING_YET: &[i32] = &[19, 20, 208, 209, 210];

/// Names of fields.
struct Names {
    group: &'static [&'static [u8]],
    topic: &'static [&'static [u8]],
    queue: &'static [u8],
    properties: &'static [u8],
}

const SHORT: Names = Names { group: &[b"a"], topic: &[b"b"], queue: b"e", properties: b"i" };
const LONG: Names = Names {
    group: &[b"producerGroup", b"consumerGroup", b"group"],
    topic: &[b"topic", b"originTopic"],
    queue: b"queueId",
    properties: b"properties",
};

struct RocketMq {
    settings: Rc<ParserSettings>,
    /// Opaque numbers of requests whose responses bring messages.
    pulls: VecDeque<i32>,
}

fn is_json(frame: &Headed<'_>) -> bool {
    frame.mark == 0
}

fn header<'a>(frame: &Headed<'a>) -> Option<Header<'a>> {
    if is_json(frame) { Header::json(frame.head) } else { Header::binary(frame.head, frame.head_length) }
}

impl RocketMq {
    fn step(&mut self, role: Role, window: &[u8], missing: bool) -> Step {
        let frame = match Headed::read(window, &BOUNDS, missing) {
            Ok(frame) => frame,
            Err(step) => return step,
        };
        let look = self.settings.max_field.max(1024);
        let headed = PREFIX + frame.head_length.min(look);
        if !missing && window.len() < headed {
            return Step::NeedMore;
        }
        let (consumed, window) = (frame.length as u64, window.len());
        let header_end = PREFIX + frame.head_length;
        let frame = Headed { head: frame.head.get(..look).unwrap_or(frame.head), ..frame };
        let Some(header) = header(&frame) else {
            return if missing { Step::Skip(consumed) } else { Step::Invalid };
        };
        let (Some(code), Some(opaque)) = (header.code, header.opaque) else {
            return Step::Skip(consumed);
        };
        // Cut before it: fastjson writes the flag before the number that is there.
        let flag = header.flag.unwrap_or(0);
        let mut message = Message {
            request_id: Some(u64::from(opaque as u32)),
            version: header.version.map_or(Cow::Borrowed(""), version),
            length: i64::try_from(frame.length - 4).ok(),
            ..Message::default()
        };
        if flag & RESPONSE != 0 {
            let pull = self.pulls.iter().position(|pull| *pull == opaque).filter(|_| role == Role::Server);
            if let Some(pull) = pull {
                let wanted = frame.length.min(header_end + look);
                if !missing && window < wanted {
                    return Step::NeedMore;
                }
                self.pulls.remove(pull);
                let body = frame.body.get(..look).unwrap_or(frame.body);
                if let Some(properties) = first_properties(body) {
                    self.properties(&mut message, properties);
                }
            }
            message.pair = Some(key(opaque, role == Role::Client));
            self.response(&mut message, code, &header);
        } else {
            message.is_reversed = role == Role::Server;
            message.pair = Some(key(opaque, message.is_reversed));
            self.request(&mut message, code, &header);
            if flag & ONE_WAY != 0 {
                message.kind = Kind::Session;
            } else if PULLS.contains(&code) {
                if self.pulls.len() >= MAX_PULLS {
                    self.pulls.pop_front();
                }
                self.pulls.push_back(opaque);
            }
        }
        Step::Message { consumed, message: Box::new(message) }
    }

    fn request(&self, message: &mut Message, code: i32, header: &Header<'_>) {
        let text = |names: &[&[u8]]| self.settings.text(header.field(names));
        message.request_type = codes::request(code).map_or_else(|| code.to_string(), str::to_owned);
        let names = if SHORT_NAMES.contains(&code) { &SHORT } else { &LONG };
        message.request_domain = text(names.group);
        message.request_resource = text(names.topic);
        let queue = text(&[names.queue]);
        if !message.request_resource.is_empty() && !queue.is_empty() {
            message.endpoint = format!("{}-{queue}", message.request_resource);
        }
        self.properties(message, header.field(&[names.properties]));
    }

    fn response(&self, message: &mut Message, code: i32, header: &Header<'_>) {
        message.kind = Kind::Response;
        message.response_code = Some(code);
        message.status = Status::Success;
        if code != 0 {
            if !NOTHING_YET.contains(&code) {
                message.status = Status::ServerError;
            }
            message.response_exception = match &*header.remark {
                [] => codes::response(code).map_or_else(|| code.to_string(), str::to_owned),
                remark => self.settings.text(remark),
            };
        }
    }

    /// `name 1 value 2 name 1 value`, the digits being control characters.
    fn properties(&self, message: &mut Message, properties: &[u8]) {
        let (mut found, mut unique, mut keys): (_, &[u8], &[u8]) = (Propagation::new(&self.settings), &[], &[]);
        for pair in properties.split(|byte| *byte == 2) {
            let mut parts = pair.splitn(2, |byte| *byte == 1);
            if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                match name {
                    b"UNIQ_KEY" => unique = value,
                    b"KEYS" => keys = value,
                    _ => found.offer(name, value),
                }
            }
        }
        found.fill(message);
        if message.x_request_id.is_empty() {
            message.x_request_id = self.settings.text(if unique.is_empty() { keys } else { unique });
        }
    }
}

/// Pairing key; the two sides count for themselves.
fn key(opaque: i32, reversed: bool) -> u64 {
    u64::from(opaque as u32) | if reversed { REVERSED } else { 0 }
}

fn version(ordinal: i32) -> Cow<'static, str> {
    if !(REGULAR..NEWEST).contains(&ordinal) {
        return Cow::Owned(ordinal.to_string());
    }
    let number = (ordinal + 1 + OFFSET) / 2;
    let kind = if ordinal % 2 == 0 { "_SNAPSHOT" } else { "" };
    Cow::Owned(format!("V{}_{}_{}{kind}", number / 100, number / 10 % 10, number % 10))
}

/// Properties of the first message in the body of a response that brings messages (MessageDecoder).
fn first_properties(body: &[u8]) -> Option<&[u8]> {
    const MAGIC: u32 = 0xdaa3_20a7;
    /// The length of the topic takes two bytes.
    const MAGIC_2: u32 = 0xdaa3_20ab;
    let mut left = Cursor(body);
    left.take(4)?;
    let magic = left.u32()?;
    if magic != MAGIC && magic != MAGIC_2 {
        return None;
    }
    left.take(4 + 4 + 4 + 8 + 8)?;
    let flags = left.u32()?;
    let host = |flag: u32| if flags & flag == 0 { 8 } else { 20 };
    left.take(8 + host(16) + 8 + host(32) + 4 + 8)?;
    left.long_bytes()?;
    if magic == MAGIC {
        left.short_bytes()?
    } else {
        left.medium_bytes()?
    };
    left.medium_bytes()
}

impl Parser for RocketMq {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, _role: Role, window: &[u8]) -> Option<usize> {
        (0..window.len().saturating_sub(PREFIX)).find(|at| {
            let kind = window.get(at + 4);
            kind.is_some_and(|kind| *kind <= 1) && writer(window.get(*at..).unwrap_or_default()).is_some()
        })
    }
}

/// Who wrote this command; `None` when it is none.
fn writer(payload: &[u8]) -> Option<Role> {
    let frame = Headed::read(payload, &BOUNDS, false).ok()?;
    let header = if is_json(&frame) {
        json_begins(frame.head).then(|| header(&frame)).flatten()?
    } else {
        let header = header(&frame)?;
        let known = header.version.is_some_and(|version| (0..=NEWEST).contains(&version))
            && header.flag.is_some_and(|flag| (0..=3).contains(&flag))
            && frame.head.get(2).is_some_and(|language| *language <= 16);
        let texts =
            header.remark.len() + header.fields.iter().map(|(key, value)| key.len() + value.len() + 6).sum::<usize>();
        let whole = frame.head.len() == frame.head_length;
        known.then_some(header).filter(|_| !whole || BINARY + texts == frame.head_length)?
    };
    let code = header.code?;
    let response = match header.flag {
        Some(flag) => flag & RESPONSE != 0,
        None => code == 0,
    };
    let named = if response { code == 0 || codes::response(code).is_some() } else { codes::request(code).is_some() };
    if !is_json(&frame) && !named {
        return None;
    }
    let by_server = BY_SERVER.contains(&code) && !response;
    Some(if response || by_server { Role::Server } else { Role::Client })
}

/// The first key of a header is one of its own; those who write them order them differently.
fn json_begins(header: &[u8]) -> bool {
    let own = [&b"\"opaque\""[..], b"\"language\"", b"\"extFields\"", b"\"serializeTypeCurrentRPC\"", b"\"flag\""];
    header.starts_with(b"{\"")
        && memchr::memmem::find(header, b"\"code\":").is_some()
        && own.iter().any(|name| memchr::memmem::find(header, name).is_some())
}

fn check(payload: &[u8], _port: u16) -> Guess {
    match writer(payload) {
        Some(role) => Guess::Yes(role),
        None => Guess::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordinals() {
        for (ordinal, name) in
            [(194, "V3_9_1_SNAPSHOT"), (293, "V4_4_0"), (401, "V4_9_4"), (477, "V5_3_2"), (100, "100")]
        {
            assert_eq!(version(ordinal), name);
        }
    }
}

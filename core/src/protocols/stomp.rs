//! STOMP 1.0, 1.1 and 1.2 (stomp.github.io). A frame is named by its head; its body is skipped.

mod head;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::rc::Rc;

use memchr::memchr;
use rustc_hash::FxBuildHasher;

use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use head::{Head, Look};

pub const PROTOCOL: Protocol = Protocol {
    id: 203,
    name: "STOMP",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Stomp::new(settings.clone())),
    doc: "STOMP 1.0 to 1.2. CONNECT waits for CONNECTED, and a frame that asks for a receipt for its RECEIPT; an ERROR \
          answers the one that it names. Other frames stand alone; MESSAGE is reversed. Trace ids come from headers.",
};

/// Subscriptions whose destination is remembered.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// Requests remembered while their answers are awaited.
const MAX_AWAITED: usize = 4096;
/// What CONNECT pairs by; receipts pair by the hash of their id.
const CONNECT: u64 = 0;
/// Headers that rows show as attributes.
const ATTRIBUTES: [(&str, &str); 4] = [
    ("message-id", "message_id"),
    ("correlation-id", "correlation_id"),
    ("reply-to", "reply_to"),
    ("transaction", "transaction"),
];

#[derive(Default)]
struct Side {
    /// Bytes of the window that were searched for the end of a head.
    searched: usize,
    /// Inside a body whose end is marked by a zero.
    in_body: bool,
}

struct Stomp {
    settings: Rc<ParserSettings>,
    sides: [Side; 2],
    host: String,
    version: Cow<'static, str>,
    /// Destinations by the id of their subscription.
    subscriptions: HashMap<Vec<u8>, String>,
    awaited: VecDeque<u64>,
}

/// Headers that decide what a frame is.
#[derive(Default)]
struct Known {
    id: Vec<u8>,
    subscription: Vec<u8>,
    receipt: Option<u64>,
    destination: String,
    message: String,
    length: Option<u64>,
}

impl Stomp {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            settings,
            sides: Default::default(),
            host: String::new(),
            version: Cow::Borrowed(""),
            subscriptions: HashMap::new(),
            awaited: VecDeque::new(),
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        &mut self.sides[usize::from(role == Role::Server)]
    }

    fn step(&mut self, role: Role, window: &[u8], last: bool) -> Step {
        let limit = self.settings.max_field;
        let side = self.side(role);
        if side.in_body {
            let end = memchr(0, window);
            side.in_body = end.is_none();
            return Step::Skip(end.map_or(window.len(), |end| end + 1) as u64);
        }
        // Heart-beats, and what some servers write between frames.
        let blank = window.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        if blank > 0 {
            return Step::Skip(blank as u64);
        }
        let shown = window.get(..limit).unwrap_or(window);
        // The blank line ends with a line feed: without a new one the head is as incomplete as before.
        if memchr(b'\n', shown.get(side.searched..).unwrap_or_default()).is_none() && shown.len() < limit && !last {
            let begun = side.searched > 0 || !matches!(Head::read(shown), Look::Wrong);
            side.searched = shown.len();
            return if begun { Step::NeedMore } else { Step::Invalid };
        }
        side.searched = 0;
        let head = match Head::read(shown) {
            Look::Head(head) if head.writer == role => head,
            Look::Short if !last => {
                side.searched = shown.len();
                return Step::NeedMore;
            }
            _ => return Step::Invalid,
        };
        if head.size.is_none() && shown.len() < limit && !last {
            side.searched = shown.len();
            return Step::NeedMore;
        }
        let (message, length) = self.message(role, head);
        let consumed = match (head.size, length) {
            (Some(size), Some(length)) => (size as u64).saturating_add(length).saturating_add(1),
            (size, _) => {
                self.side(role).in_body = true;
                size.unwrap_or(shown.len()) as u64
            }
        };
        Step::Message { consumed, message: Box::new(message) }
    }

    /// The message of a frame, and the length of its body if that is declared.
    fn message(&mut self, role: Role, head: Head<'_>) -> (Message, Option<u64>) {
        let mut message = Message { request_type: head.command.to_owned(), ..Message::default() };
        let known = self.read(head, &mut message);
        match head.command {
            "CONNECTED" if self.version.is_empty() => self.version = Cow::Borrowed("1.0"),
            "SUBSCRIBE" if self.subscriptions.len() < MAX_SUBSCRIPTIONS && !known.id.is_empty() => {
                self.subscriptions.insert(known.id.clone(), known.destination.clone());
            }
            _ => {}
        }
        let subscription = if head.command == "UNSUBSCRIBE" { &known.id } else { &known.subscription };
        message.request_resource = match self.subscriptions.get(subscription) {
            Some(destination) if known.destination.is_empty() => destination.clone(),
            _ => known.destination,
        };
        if head.command == "UNSUBSCRIBE" {
            self.subscriptions.remove(subscription);
        }
        message.endpoint.clone_from(&message.request_resource);
        message.request_domain.clone_from(&self.host);
        message.version = self.version.clone();
        message.length = known.length.and_then(|length| i64::try_from(length).ok());
        match head.command {
            "CONNECT" | "STOMP" => self.expect(CONNECT, &mut message),
            "CONNECTED" => self.answer(Some(CONNECT), &mut message),
            "RECEIPT" => self.answer(known.receipt, &mut message),
            "ERROR" => {
                message.response_exception = known.message;
                self.refuse(known.receipt, &mut message);
            }
            _ => match known.receipt {
                Some(receipt) => self.expect(receipt, &mut message),
                None => (message.kind, message.status) = (Kind::Session, Status::Success),
            },
        }
        message.is_reversed = role == Role::Server && message.kind != Kind::Response;
        (message, known.length)
    }

    fn read(&mut self, head: Head<'_>, message: &mut Message) -> Known {
        let mut known = Known::default();
        let mut propagation = Propagation::new(&self.settings);
        for (name, value) in head.headers() {
            propagation.offer(&name, &value);
            let text = || self.settings.text(&value);
            // The first of a repeated header counts (STOMP 1.2, "Repeated Header Entries").
            match &*name {
                b"host" if head.writer == Role::Client => self.host = text(),
                b"version" if head.command == "CONNECTED" => self.version = Cow::Owned(text()),
                b"id" if known.id.is_empty() => known.id = value.to_vec(),
                b"subscription" if known.subscription.is_empty() => known.subscription = value.to_vec(),
                b"destination" if known.destination.is_empty() => known.destination = text(),
                b"message" if known.message.is_empty() => known.message = text(),
                // Some servers repeat in a MESSAGE what the SEND asked.
                b"receipt" if head.writer == Role::Server => {}
                b"receipt" | b"receipt-id" if known.receipt.is_none() => {
                    // Not 0, which is CONNECT's.
                    known.receipt = Some(FxBuildHasher.hash_one(&*value).max(1));
                }
                b"content-length" if known.length.is_none() => {
                    let digits = std::str::from_utf8(&value).unwrap_or_default().trim();
                    known.length = digits.parse().ok().filter(|length| *length < 1 << 40);
                }
                _ => {}
            }
            if let Some((_, attribute)) = ATTRIBUTES.iter().find(|(header, _)| header.as_bytes() == &*name) {
                message.attributes.push(((*attribute).to_owned(), text()));
            }
        }
        propagation.fill(message);
        known
    }

    fn expect(&mut self, key: u64, message: &mut Message) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(key);
        message.pair = Some(key);
    }

    /// Was this awaited?
    fn awaits(&mut self, key: u64) -> bool {
        let place = self.awaited.iter().position(|one| *one == key);
        place.and_then(|place| self.awaited.remove(place)).is_some()
    }

    fn answer(&mut self, key: Option<u64>, message: &mut Message) {
        if let Some(key) = key {
            self.awaits(key);
        }
        (message.kind, message.status, message.pair) = (Kind::Response, Status::Success, key);
    }

    /// An ERROR answers the frame whose receipt it names, else the only one that waits: the connection ends with it.
    fn refuse(&mut self, receipt: Option<u64>, message: &mut Message) {
        let key = match receipt {
            Some(receipt) => self.awaits(receipt).then_some(receipt),
            None if self.awaited.len() == 1 => self.awaited.pop_front(),
            None => None,
        };
        message.kind = if key.is_some() { Kind::Response } else { Kind::Session };
        message.status = if key == Some(CONNECT) { Status::ClientError } else { Status::ServerError };
        message.pair = key;
    }
}

impl Parser for Stomp {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, false)
    }

    fn truncated(&mut self, role: Role, window: &[u8], _missing: u64) -> Step {
        self.step(role, window, true)
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        *self.side(role) = Side::default();
        self.awaited.clear();
        let begins = |from: usize| {
            let rest = window.get(from..).unwrap_or_default();
            let blank = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
            match Head::read(rest.get(blank..).unwrap_or_default()) {
                Look::Head(head) if head.writer == role && head.is_right() => Some(from + blank),
                _ => None,
            }
        };
        let ends = memchr::memchr_iter(0, window).map(|end| end + 1);
        std::iter::once(0).chain(ends).find_map(begins)
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    let blank = payload.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    let rest = payload.get(blank..).unwrap_or_default();
    if rest.is_empty() {
        return Guess::No;
    }
    match Head::read(rest) {
        Look::Head(head) if head.is_right() => match head.size {
            // A frame without headers has to end at once.
            Some(size) if head.headers().next().is_some() || rest.get(size) == Some(&0) => Guess::Yes(head.writer),
            None => Guess::Maybe,
            Some(_) => Guess::No,
        },
        Look::Head(head) if head.size.is_none() => Guess::Maybe,
        Look::Short => Guess::Maybe,
        _ => Guess::No,
    }
}

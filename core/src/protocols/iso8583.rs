//! ISO 8583:1987, messages of card payments, on TCP with a length before each.

mod fields;

use std::rc::Rc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use fields::{ENCODINGS, Elements, Encoding, read};

pub const PROTOCOL: Protocol = Protocol {
    id: 48,
    name: "ISO8583",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Iso8583 { settings: settings.clone(), dialect: None, wanted: [0, 0] }),
    doc: "ISO 8583:1987 on TCP: a length (two bytes, with or without itself, or four digits), optionally a TPDU, a header \
          ISO… or one of 46 bytes, then the message in digits of text or packed ones, the bitmap as bytes or as \
          hexadecimal digits. A message counts only when all its elements end where its length says. The type of a \
          request is its MTI; responses are paired by class and trace number (element 11). Element 39 is the \
          response code: 00 and its kin are a success, 06, 09, 68, 90, 91, 92, 96 and the like an error of the server, \
          every other an error of the client. Elements without a card or its holder stand in the attributes; the card \
          number, the tracks, the PIN and all others are never shown.",
};

/// Longest message; card systems stay far below.
const MAX_BODY: usize = 4096;
/// Length of the CUPS header, which is its first byte, too.
const LONG_HEADER: u8 = 46;
const FROM_SERVER: u64 = 1 << 63;

/// What precedes every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Two bytes, big endian, of what follows.
    Short,
    /// Two bytes that count themselves.
    Inclusive,
    /// Four digits of what follows.
    Digits,
}

impl Prefix {
    const ALL: [Self; 3] = [Self::Short, Self::Inclusive, Self::Digits];

    fn size(self) -> usize {
        if self == Self::Digits { 4 } else { 2 }
    }

    /// Length of the body.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        let taken = bytes.get(..self.size())?;
        match (self, taken) {
            (Self::Digits, digits) if digits.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(digits).ok()?.parse().ok()
            }
            (Self::Short, [high, low]) => Some(usize::from(*high) << 8 | usize::from(*low)),
            (Self::Inclusive, [high, low]) => (usize::from(*high) << 8 | usize::from(*low)).checked_sub(2),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    prefix: Prefix,
    encoding: Encoding,
    /// A message had binary data: before, nothing says how it is written.
    data_seen: bool,
}

impl Dialect {
    fn allows(&self, encoding: Encoding) -> bool {
        let same_data = !self.data_seen || self.encoding.hex_data == encoding.hex_data;
        same_data && self.encoding.packed == encoding.packed && self.encoding.hex_bitmap == encoding.hex_bitmap
    }
}

struct Iso8583 {
    settings: Rc<ParserSettings>,
    /// Found with the first message.
    dialect: Option<Dialect>,
    /// The window of a side has to be this long before it is worth another look.
    wanted: [usize; 2],
}

enum Look {
    /// The message, its dialect and its whole length.
    Is(Elements, Dialect, usize),
    /// A message without body keeps the connection alive.
    Empty(usize),
    Short(usize),
    Wrong,
}

/// The message at the start of `bytes`, of a dialect that is known or of any.
fn look(bytes: &[u8], known: Option<Dialect>) -> Look {
    let mut result = Look::Wrong;
    for prefix in Prefix::ALL.into_iter().filter(|prefix| known.is_none_or(|known| known.prefix == *prefix)) {
        let size = prefix.size();
        if bytes.len() < size {
            result = Look::Short(size);
            continue;
        }
        let Some(length) = prefix.length(bytes).filter(|length| *length <= MAX_BODY) else { continue };
        if length == 0 && known.is_some() {
            return Look::Empty(size);
        }
        // MTI, bitmap and an element.
        if length < 12 {
            continue;
        }
        let total = size + length;
        let Some(body) = bytes.get(size..total) else {
            if may_begin(bytes.get(size..).unwrap_or_default()) {
                result = Look::Short(total);
            }
            continue;
        };
        let body = without_header(body);
        let encodings = ENCODINGS.into_iter().filter(|encoding| known.is_none_or(|known| known.allows(*encoding)));
        for encoding in encodings {
            if let Some(elements) = read(body, encoding) {
                let data_seen = elements.binary || known.is_some_and(|known| known.data_seen);
                return Look::Is(elements, Dialect { prefix, encoding, data_seen }, total);
            }
        }
    }
    result
}

/// The message behind a TPDU, an `ISO` header or a CUPS header.
fn without_header(body: &[u8]) -> &[u8] {
    let skipped = match body {
        [0x60, ..] => 5,
        [b'I', b'S', b'O', ..] => 12,
        [LONG_HEADER, 1 | 2, ..] => usize::from(LONG_HEADER),
        _ => 0,
    };
    body.get(skipped..).unwrap_or_default()
}

/// Could a message, with or without a header, begin so?
fn may_begin(body: &[u8]) -> bool {
    match body {
        [] | [0x60 | b'I' | LONG_HEADER, ..] => true,
        [b'0'] => true,
        [b'0', class, ..] => (b'1'..=b'8').contains(class),
        [packed, ..] => (1..=8).contains(packed),
    }
}

impl Iso8583 {
    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let side = usize::from(role == Role::Server);
        let wanted = self.wanted.get(side).copied().unwrap_or(0);
        if window.len() < wanted && last.is_none() {
            return Step::NeedMore;
        }
        let (found, wanted) = match look(window, self.dialect) {
            Look::Short(wanted) if last.is_none() => (Step::NeedMore, wanted),
            Look::Is(elements, dialect, total) => {
                self.dialect = Some(dialect);
                let body = total - dialect.prefix.size();
                (Step::Message { consumed: total as u64, message: Box::new(self.message(role, &elements, body)) }, 0)
            }
            Look::Empty(size) => (Step::Skip(size as u64), 0),
            // Its end is known and it is cut: nothing of it is sure.
            Look::Short(total) if self.dialect.is_some() && total > 4 => (Step::Skip(total as u64), 0),
            Look::Short(_) | Look::Wrong => (Step::Invalid, 0),
        };
        if let Some(place) = self.wanted.get_mut(side) {
            *place = wanted;
        }
        found
    }

    fn message(&self, role: Role, elements: &Elements, length: usize) -> Message {
        let asks = is_request(&elements.mti);
        let asked_by_server = asks == (role == Role::Server);
        let class = elements.mti.as_bytes().get(1).copied().unwrap_or(0);
        let number = elements.get(11).and_then(|number| number.parse::<u64>().ok());
        let key = u64::from(class) << 32 | number.unwrap_or(u64::from(u32::MAX));
        let mut message = Message {
            pair: Some(if asked_by_server { key | FROM_SERVER } else { key }),
            length: i64::try_from(length).ok(),
            ..Message::default()
        };
        let shown = elements
            .shown
            .iter()
            .map(|(number, value)| (format!("field_{number}"), self.settings.text(value.as_bytes())));
        if !asks {
            message.kind = Kind::Response;
            let code = elements.get(39).unwrap_or_default();
            message.status = status(code);
            message.response_code = code.parse().ok();
            if message.status != Status::Success && message.status != Status::Unknown {
                message.response_exception = format!("response code {code}");
            }
            message.response_result = code.to_owned();
            message.attributes = shown.filter(|(name, _)| name == "field_38" || name == "field_39").collect();
            return message;
        }
        message.is_reversed = asked_by_server;
        message.version = "1987".into();
        message.request_type.clone_from(&elements.mti);
        message.attributes = shown.collect();
        message.attributes.extend(elements.hidden.iter().map(|number| (format!("field_{number}"), "?".to_owned())));
        // A notification is not answered.
        if elements.mti.as_bytes().get(2) == Some(&b'4') && number.is_none() {
            (message.kind, message.status) = (Kind::Session, Status::Success);
        }
        message
    }
}

/// The function of an MTI is even in what asks, odd in what answers.
fn is_request(mti: &str) -> bool {
    mti.as_bytes().get(2).is_some_and(|function| function % 2 == 0)
}

/// Element 39, ISO 8583:1987 table 25.
fn status(code: &str) -> Status {
    match code {
        "" => Status::Unknown,
        "00" | "08" | "10" | "11" | "16" => Status::Success,
        "06" | "09" | "19" | "20" | "22" | "68" | "80" | "90" | "91" | "92" | "95" | "96" | "98" => Status::ServerError,
        _ => Status::ClientError,
    }
}

impl Parser for Iso8583 {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if let Some(wanted) = self.wanted.get_mut(usize::from(role == Role::Server)) {
            *wanted = 0;
        }
        matches!(look(window, self.dialect), Look::Is(..)).then_some(0)
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    match look(payload, None) {
        Look::Is(elements, ..) => Guess::Yes(if is_request(&elements.mti) { Role::Client } else { Role::Server }),
        Look::Short(_) => Guess::Maybe,
        Look::Empty(_) | Look::Wrong => Guess::No,
    }
}

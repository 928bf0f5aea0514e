//! Dubbo 2 (dubbo.apache.org "Dubbo 2 protocol specification"): a header of 16 bytes, then a serialised call.

mod body;
mod hessian;
mod jsonb;

use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across, pairing_key};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};
use body::Body;

pub const PROTOCOL: Protocol = Protocol {
    id: 40,
    name: "Dubbo",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(Dubbo { settings: settings.clone() })),
    doc: "Dubbo 2, with calls in Hessian2, Fastjson, Fastjson2 or Kryo; of a call in another serialisation only what \
          the header says. Trace ids come from the attachments, which follow the arguments. Heartbeats and other \
          events are skipped; a call without the two-way flag awaits no response.",
};

const MAGIC: [u8; 2] = [0xda, 0xbb];
const HEADER: usize = 16;
/// Attachments follow the arguments; in a call longer than this they are not looked for.
const LOOK: usize = 32 * 1024;
/// Longer bodies than any configured `payload` (8 MiB by default) are taken for noise.
const MAX_BODY: u32 = 256 << 20;

const REQUEST: u8 = 0x80;
const TWO_WAY: u8 = 0x40;
const EVENT: u8 = 0x20;
const SERIALISATION: u8 = 0x1f;
const OK: u8 = 20;

struct Header {
    flags: u8,
    status: u8,
    id: u64,
    length: u32,
}

impl Header {
    /// `None`: too short. What is no header is caught by [`Header::is_sound`].
    fn read(window: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(window);
        cursor.take(MAGIC.len())?;
        Some(Self { flags: cursor.u8()?, status: cursor.u8()?, id: cursor.u64()?, length: cursor.u32()? })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is_sound(&self) -> bool {
        let status =
            if self.has(REQUEST) { self.status == 0 } else { self.status == OK || failure(self.status).is_some() };
        let known = matches!(self.flags & SERIALISATION, 2..=4 | 6..=12 | 16 | 21..=23 | 25 | 31);
        status && known && self.length <= MAX_BODY
    }
}

/// Name of a status other than 20 (org.apache.dubbo.remoting.exchange.Response), and whose fault it is.
fn failure(status: u8) -> Option<(&'static str, Status)> {
    Some(match status {
        25 => ("SERIALIZATION_ERROR", Status::ServerError),
        30 => ("CLIENT_TIMEOUT", Status::ClientError),
        31 => ("SERVER_TIMEOUT", Status::ServerError),
        35 => ("CHANNEL_INACTIVE", Status::ServerError),
        40 => ("BAD_REQUEST", Status::ClientError),
        50 => ("BAD_RESPONSE", Status::ServerError),
        60 => ("SERVICE_NOT_FOUND", Status::ServerError),
        70 => ("SERVICE_ERROR", Status::ServerError),
        80 => ("SERVER_ERROR", Status::ServerError),
        90 => ("CLIENT_ERROR", Status::ClientError),
        100 => ("SERVER_THREADPOOL_EXHAUSTED_ERROR", Status::ServerError),
        _ => return None,
    })
}

/// Does the window begin like a header, as far as it goes?
fn looks_right(window: &[u8]) -> bool {
    let shown = window.get(..MAGIC.len()).unwrap_or(window);
    MAGIC.starts_with(shown) && Header::read(window).is_none_or(|header| header.is_sound())
}

struct Dubbo {
    settings: Rc<ParserSettings>,
}

impl Dubbo {
    fn request(&self, role: Role, header: &Header, body: &[u8]) -> Message {
        let mut body = Body::new(header.flags & SERIALISATION, body, self.settings.max_field);
        let mut propagation = Propagation::new(&self.settings);
        let mut text = || body.text().unwrap_or_default();
        let (version, service, _, method, parameters) = (text(), text(), text(), text(), text());
        body.attachments(&parameters, &self.settings, &mut propagation);
        let two_way = header.has(TWO_WAY);
        let endpoint = match (service.is_empty(), method.is_empty()) {
            (false, false) => format!("{service}/{method}"),
            _ => format!("{service}{method}"),
        };
        let mut message = Message {
            kind: if two_way { Kind::Request } else { Kind::Session },
            status: if two_way { Status::Unknown } else { Status::Success },
            request_id: Some(header.id),
            pair: pairing_key(header.id, role),
            is_reversed: role == Role::Server,
            version: version.into(),
            request_type: method,
            endpoint,
            length: Some(i64::from(header.length)),
            ..Message::default()
        };
        if !service.is_empty() {
            message.attributes.push(("rpc_service".to_owned(), service.clone()));
        }
        message.request_resource = service;
        propagation.fill(&mut message);
        message
    }

    fn response(&self, role: Role, header: &Header, body: &[u8]) -> Message {
        let (exception, status) = match failure(header.status) {
            None => (String::new(), Status::Success),
            Some((name, status)) => {
                let said = Body::new(header.flags & SERIALISATION, body, self.settings.max_field).text();
                (said.filter(|said| !said.is_empty()).unwrap_or_else(|| name.to_owned()), status)
            }
        };
        Message {
            kind: Kind::Response,
            request_id: Some(header.id),
            pair: pairing_key(header.id, across(role)),
            status,
            response_code: Some(i32::from(header.status)),
            response_exception: exception,
            length: Some(i64::from(header.length)),
            ..Message::default()
        }
    }
}

impl Frames for Dubbo {
    fn size(&mut self, _role: Role, window: &[u8]) -> Size {
        if !looks_right(window) {
            return Size::Wrong;
        }
        let Some(header) = Header::read(window) else {
            return Size::Short;
        };
        let whole = !header.has(EVENT) && (header.has(REQUEST) || header.status != OK);
        Size::Of { size: HEADER as u64 + u64::from(header.length), look: if whole { LOOK } else { HEADER } }
    }

    fn read(&mut self, role: Role, frame: &[u8], _size: u64) -> Said {
        let Some(header) = Header::read(frame) else {
            return Said::Wrong;
        };
        let body = frame.get(HEADER..).unwrap_or_default();
        if header.has(EVENT) {
            Said::Nothing
        } else if header.has(REQUEST) {
            self.request(role, &header, body).into()
        } else {
            self.response(role, &header, body).into()
        }
    }

    fn begins(&self, _role: Role, window: &[u8]) -> bool {
        looks_right(window) && Header::read(window).is_some()
    }
}

/// Events come from both sides, so they say nothing of the writer: what follows them does.
fn check(mut payload: &[u8], _port: u16) -> Guess {
    while looks_right(payload) {
        match Header::read(payload) {
            Some(header) if header.has(EVENT) => {
                payload = payload.get(HEADER + header.length as usize..).unwrap_or_default();
            }
            Some(header) => return Guess::Yes(if header.has(REQUEST) { Role::Client } else { Role::Server }),
            None => return Guess::Maybe,
        }
    }
    Guess::No
}

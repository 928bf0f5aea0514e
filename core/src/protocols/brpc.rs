//! bRPC's own protocol, baidu_std (brpc.apache.org "baidu_std"): `PRPC`, two lengths, RpcMeta in Protocol Buffers, data.

use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across, pairing_key};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};

pub const PROTOCOL: Protocol = Protocol {
    id: 45,
    name: "bRPC",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(Brpc { settings: settings.clone() })),
    doc: "baidu_std. request_id is the upper half of the correlation id, as DeepFlow shows it, or all of it where the \
          upper half is zero (brpc-java); all of it pairs. x_request_id is the log id. Trace ids come from the \
          user fields.",
};

const MAGIC: [u8; 4] = *b"PRPC";
const HEADER: usize = 12;
/// The meta; the data is never looked at.
const LOOK: usize = 32 * 1024;
/// Well above bRPC's own bound (`max_body_size`, 64 MiB by default).
const MAX_BODY: u32 = 1 << 30;

struct Header {
    body: u32,
    meta: u32,
}

impl Header {
    fn read(window: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(window);
        cursor.take(MAGIC.len())?;
        Some(Self { body: cursor.u32()?, meta: cursor.u32()? })
    }
}

fn looks_right(window: &[u8]) -> bool {
    let shown = window.get(..MAGIC.len()).unwrap_or(window);
    let sound = |header: Header| header.meta <= header.body && header.body <= MAX_BODY;
    MAGIC.starts_with(shown) && Header::read(window).is_none_or(sound)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(cursor: &mut Cursor<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = cursor.u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Fields of a Protocol Buffers message; ends where they are damaged or cut.
fn fields(bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut cursor = Cursor(bytes);
    std::iter::from_fn(move || {
        let tag = varint(&mut cursor)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut cursor)?),
            1 => Value::Bytes(cursor.take(8)?),
            2 => {
                let length = usize::try_from(varint(&mut cursor)?).ok()?;
                Value::Bytes(cursor.take(length)?)
            }
            5 => Value::Bytes(cursor.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

/// `RpcMeta` of baidu_rpc_meta.proto.
#[derive(Default)]
struct Meta<'a> {
    request: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    correlation: u64,
    user_fields: Vec<&'a [u8]>,
}

impl<'a> Meta<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut meta = Self::default();
        for field in fields(bytes) {
            match field {
                (1, Value::Bytes(request)) => meta.request = Some(request),
                (2, Value::Bytes(response)) => meta.response = Some(response),
                (4, Value::Number(id)) => meta.correlation = id,
                (9, Value::Bytes(entry)) => meta.user_fields.push(entry),
                _ => {}
            }
        }
        meta
    }

    fn shown_id(&self) -> u64 {
        match self.correlation >> 32 {
            0 => self.correlation,
            upper => upper,
        }
    }
}

struct Brpc {
    settings: Rc<ParserSettings>,
}

impl Brpc {
    fn request(&self, role: Role, meta: &Meta<'_>, length: u32) -> Message {
        let text = |bytes: &[u8]| self.settings.text(bytes);
        let mut message = Message {
            request_id: Some(meta.shown_id()),
            pair: pairing_key(meta.correlation, role),
            is_reversed: role == Role::Server,
            length: Some(i64::from(length)),
            ..Message::default()
        };
        let mut propagation = Propagation::new(&self.settings);
        for entry in &meta.user_fields {
            let (mut name, mut value) = (&[][..], &[][..]);
            for field in fields(entry) {
                match field {
                    (1, Value::Bytes(bytes)) => name = bytes,
                    (2, Value::Bytes(bytes)) => value = bytes,
                    _ => {}
                }
            }
            propagation.offer(name, value);
        }
        propagation.fill(&mut message);
        for field in fields(meta.request.unwrap_or_default()) {
            match field {
                (1, Value::Bytes(service)) => message.request_resource = text(service),
                (2, Value::Bytes(method)) => message.request_type = text(method),
                (3, Value::Number(log)) if log != 0 => message.x_request_id = log.cast_signed().to_string(),
                (7, Value::Bytes(id)) if message.x_request_id.is_empty() => message.x_request_id = text(id),
                _ => {}
            }
        }
        message.endpoint = format!("{}/{}", message.request_resource, message.request_type);
        message
    }

    fn response(&self, role: Role, meta: &Meta<'_>, length: u32) -> Message {
        let (mut code, mut exception) = (0, String::new());
        for field in fields(meta.response.unwrap_or_default()) {
            match field {
                // int32: a negative one is written with its sign extended.
                (1, Value::Number(number)) => code = number as i32,
                (2, Value::Bytes(said)) => exception = self.settings.text(said),
                _ => {}
            }
        }
        Message {
            kind: Kind::Response,
            request_id: Some(meta.shown_id()),
            pair: pairing_key(meta.correlation, across(role)),
            status: if code == 0 { Status::Success } else { Status::ServerError },
            response_code: Some(code),
            response_exception: exception,
            length: Some(i64::from(length)),
            ..Message::default()
        }
    }
}

impl Frames for Brpc {
    fn size(&mut self, _role: Role, window: &[u8]) -> Size {
        if !looks_right(window) {
            return Size::Wrong;
        }
        match Header::read(window) {
            Some(header) => Size::Of {
                size: HEADER as u64 + u64::from(header.body),
                look: (HEADER + header.meta as usize).min(LOOK),
            },
            None => Size::Short,
        }
    }

    fn read(&mut self, role: Role, frame: &[u8], _size: u64) -> Said {
        let Some(header) = Header::read(frame) else {
            return Said::Wrong;
        };
        let meta = Meta::read(frame.get(HEADER..).unwrap_or_default());
        match (meta.request, meta.response) {
            (Some(_), _) => self.request(role, &meta, header.body).into(),
            (None, Some(_)) => self.response(role, &meta, header.body).into(),
            // Cut before either, or with neither of them: what this side would send.
            (None, None) if role == Role::Server => self.response(role, &meta, header.body).into(),
            (None, None) => Said::Nothing,
        }
    }

    fn begins(&self, _role: Role, window: &[u8]) -> bool {
        looks_right(window) && Header::read(window).is_some()
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    if !looks_right(payload) {
        return Guess::No;
    }
    // The first field of the meta is the request or the response.
    match payload.get(HEADER) {
        None => Guess::Maybe,
        Some(0x0a) => Guess::Yes(Role::Client),
        Some(0x12) => Guess::Yes(Role::Server),
        Some(_) => Guess::Either,
    }
}

//! ZMTP 3.x, ZeroMQ's protocol (RFC 23/ZMTP and 37/ZMTP of rfc.zeromq.org), and the frames of 2.0 (15/ZMTP).

use std::borrow::Cow;
use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across};
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};
use crate::event::Origin;

pub const PROTOCOL: Protocol = Protocol {
    id: 106,
    name: "ZMTP",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(Zmtp::new(settings.clone()))),
    doc: "ZMTP 2.0 and 3.x. The messages of a REQ or REP socket are requests and their responses, whichever end \
          connected; all other messages are one-way. A message of several frames is one. Names of commands, socket \
          types and mechanisms are attributes; under CURVE every message is a command that cannot be read.",
};

/// 0xff, eight bytes, 0x7f.
const SIGNATURE: usize = 10;
const GREETING: usize = 64;
/// Signature, revision, socket type: what version 2.0 sends.
const OLD_GREETING: usize = 12;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// Bytes of a command that are looked at: its name, the metadata of READY, a subscription.
const LOOK: usize = 4096;
const MAX_FRAME: u64 = 1 << 40;
/// Frames that are followed to tell whether a place is the beginning of one.
const MAX_CHAIN: usize = 64;

/// Socket types, numbered as in version 2.0.
const SOCKETS: [&str; 9] = ["PAIR", "PUB", "SUB", "REQ", "REP", "DEALER", "ROUTER", "PULL", "PUSH"];

#[derive(Default)]
struct Side {
    greeted: bool,
    /// Version 2.0: the next frame is the identity.
    introduces: bool,
    version: Cow<'static, str>,
    socket: String,
    /// Bytes in the frames of the current message so far, and where it began.
    parts: Option<(u64, Origin)>,
}

struct Zmtp {
    settings: Rc<ParserSettings>,
    sides: [Side; 2],
    origin: Origin,
}

struct Header {
    flags: u8,
    header: usize,
    body: u64,
}

enum Look {
    Header(Header),
    Short,
    Wrong,
}

fn frame(window: &[u8]) -> Look {
    let mut cursor = Cursor(window);
    let Some(flags) = cursor.u8() else {
        return Look::Short;
    };
    // A command is never one of several frames.
    if flags > (COMMAND | LONG | MORE) || flags & (COMMAND | MORE) == COMMAND | MORE {
        return Look::Wrong;
    }
    let body = if flags & LONG == 0 { cursor.u8().map(u64::from) } else { cursor.u64() };
    match body {
        Some(body) if body <= MAX_FRAME => Look::Header(Header { flags, header: window.len() - cursor.0.len(), body }),
        Some(_) => Look::Wrong,
        None => Look::Short,
    }
}

/// Does a signature begin here, as far as the window goes? Before the last byte stands the length of an identity and
/// its flags, as version 1.0 would write them.
fn signed(window: &[u8]) -> bool {
    let byte = |at: usize, wanted: u8| window.get(at).is_none_or(|byte| *byte == wanted);
    byte(0, 0xff) && (1..8).all(|at| byte(at, 0)) && byte(9, 0x7f)
}

/// Properties: a name after its length (a byte), a value after its length (four bytes).
fn property<'a>(metadata: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut cursor = Cursor(metadata);
    loop {
        let (name, value) = (cursor.short_bytes()?, cursor.long_bytes()?);
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
}

impl Zmtp {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self { settings, sides: Default::default(), origin: Origin::default() }
    }

    fn side(&self, role: Role) -> &Side {
        let [client, server] = &self.sides;
        if role == Role::Client { client } else { server }
    }

    fn side_mut(&mut self, role: Role) -> &mut Side {
        let [client, server] = &mut self.sides;
        if role == Role::Client { client } else { server }
    }

    fn message(&self, role: Role, request_type: &str) -> Message {
        Message {
            kind: Kind::Session,
            status: Status::Success,
            is_reversed: role == Role::Server,
            version: self.side(role).version.clone(),
            request_type: request_type.to_owned(),
            ..Message::default()
        }
    }

    fn greeting(&mut self, role: Role, window: &[u8]) -> Said {
        let revision = window.get(SIGNATURE).copied().unwrap_or_default();
        let (old, next) = (revision < 3, window.get(SIGNATURE + 1).copied());
        let side = self.side_mut(role);
        side.greeted = true;
        side.introduces = old;
        let mut mechanism = String::new();
        if old {
            side.version = "2.0".into();
            side.socket = next.and_then(|kind| SOCKETS.get(usize::from(kind))).unwrap_or(&"").to_string();
        } else {
            side.version = next.map_or_else(|| revision.to_string(), |minor| format!("{revision}.{minor}")).into();
            let name = window.get(SIGNATURE + 2..SIGNATURE + 22).unwrap_or_default();
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            mechanism = self.settings.text(name.get(..end).unwrap_or_default());
        }
        let mut message = self.message(role, "Greeting");
        let socket = &self.side(role).socket;
        for (name, value) in [("mechanism", mechanism), ("socket_type", socket.clone())] {
            if !value.is_empty() {
                message.attributes.push((name.to_owned(), value));
            }
        }
        message.into()
    }

    fn command(&mut self, role: Role, body: &[u8], length: u64) -> Said {
        let mut cursor = Cursor(body);
        let Some(name) = cursor.short_bytes() else {
            return Said::Wrong;
        };
        if !name.iter().all(u8::is_ascii_graphic) {
            return Said::Wrong;
        }
        let data = cursor.0;
        let text = |bytes: &[u8]| self.settings.text(bytes);
        let mut message = self.message(role, "Command");
        message.length = i64::try_from(length).ok();
        message.attributes.push(("command_name".to_owned(), text(name)));
        match name {
            b"READY" | b"INITIATE" => {
                let socket = property(data, b"Socket-Type").map(text).unwrap_or_default();
                if !socket.is_empty() {
                    message.attributes.push(("socket_type".to_owned(), socket.clone()));
                    self.side_mut(role).socket = socket;
                }
            }
            b"SUBSCRIBE" | b"CANCEL" => {
                message.request_domain = text(data);
                message.request_resource = message.request_domain.clone();
            }
            b"ERROR" => {
                message.kind = Kind::Response;
                message.status = Status::ServerError;
                message.response_exception = text(Cursor(data).short_bytes().unwrap_or(data));
            }
            _ => {}
        }
        message.into()
    }

    /// The last frame of a message of `length` bytes.
    fn data(&self, role: Role, body: &[u8], length: u64, began: Origin, alone: bool) -> Said {
        let mut message = self.message(role, "Message");
        message.length = i64::try_from(length).ok();
        message.began = Some(began);
        let (mine, theirs) = (self.side(role).socket.as_str(), self.side(across(role)).socket.as_str());
        match (mine, theirs) {
            ("REQ", _) | (_, "REP") => {
                message.kind = Kind::Request;
                message.status = Status::Unknown;
            }
            ("REP", _) | (_, "REQ") => {
                message.kind = Kind::Response;
                message.is_reversed = false;
            }
            // Until version 3.0 subscriptions are messages of their own.
            ("SUB" | "XSUB", _) if alone && self.side(role).version != "3.1" => {
                if let Some((1 | 0, topic)) = body.split_first() {
                    message.request_domain = self.settings.text(topic);
                    message.request_resource = message.request_domain.clone();
                }
            }
            _ => {}
        }
        message.into()
    }
}

impl Frames for Zmtp {
    fn size(&mut self, role: Role, window: &[u8]) -> Size {
        if !self.side(role).greeted && window.first() == Some(&0xff) {
            return match window.get(SIGNATURE) {
                _ if !signed(window) => Size::Wrong,
                None => Size::Short,
                Some(0) => Size::Wrong,
                Some(1 | 2) => Size::Of { size: OLD_GREETING as u64, look: OLD_GREETING },
                Some(_) => Size::Of { size: GREETING as u64, look: GREETING },
            };
        }
        match frame(window) {
            Look::Header(header) => {
                let look = if header.flags & COMMAND == 0 { LOOK / 8 } else { LOOK };
                Size::Of { size: header.header as u64 + header.body, look: header.header + look }
            }
            Look::Short => Size::Short,
            Look::Wrong => Size::Wrong,
        }
    }

    fn read(&mut self, role: Role, window: &[u8], _size: u64) -> Said {
        if !self.side(role).greeted && window.first() == Some(&0xff) {
            return self.greeting(role, window);
        }
        let Look::Header(header) = frame(window) else {
            return Said::Wrong;
        };
        let body = window.get(header.header..).unwrap_or_default();
        let origin = self.origin;
        let side = self.side_mut(role);
        side.greeted = true;
        if std::mem::take(&mut side.introduces) {
            return Said::Nothing;
        }
        if header.flags & COMMAND != 0 {
            return self.command(role, body, header.body);
        }
        let (before, began) = side.parts.unwrap_or((0, origin));
        let length = before.saturating_add(header.body);
        if header.flags & MORE != 0 {
            side.parts = Some((length, began));
            return Said::Nothing;
        }
        let alone = side.parts.take().is_none();
        self.data(role, body, length, began, alone)
    }

    fn begins(&self, _role: Role, mut window: &[u8]) -> bool {
        for _ in 0..MAX_CHAIN {
            let Look::Header(header) = frame(window) else {
                return false;
            };
            let size = usize::try_from(header.body).unwrap_or(usize::MAX).saturating_add(header.header);
            match window.get(size..) {
                Some([]) => return true,
                Some(rest) => window = rest,
                None => return false,
            }
        }
        true
    }

    /// Nothing marks a frame; a segment that frames fill exactly begins with one.
    fn find(&self, role: Role, window: &[u8]) -> Option<usize> {
        self.begins(role, window).then_some(0)
    }

    fn lost(&mut self, role: Role) {
        let side = self.side_mut(role);
        side.greeted = true;
        side.parts = None;
    }

    fn at(&mut self, origin: Origin) {
        self.origin = origin;
    }
}

/// A greeting, or one of the commands after it; messages alone have no sign of their own.
fn check(payload: &[u8], _port: u16) -> Guess {
    if payload.first() == Some(&0xff) {
        return match payload.get(SIGNATURE) {
            _ if !signed(payload) => Guess::No,
            _ if payload.len() < SIGNATURE => Guess::Maybe,
            Some(0) => Guess::No,
            _ => Guess::Either,
        };
    }
    match frame(payload) {
        Look::Header(header) if header.flags & COMMAND != 0 => {
            let mut body = Cursor(payload.get(header.header..).unwrap_or_default());
            match body.short_bytes() {
                Some(b"READY" | b"SUBSCRIBE" | b"CANCEL" | b"HELLO" | b"WELCOME" | b"INITIATE" | b"ERROR") => {
                    Guess::Either
                }
                Some(_) => Guess::No,
                None if payload.len() < 16 => Guess::Maybe,
                None => Guess::No,
            }
        }
        _ => Guess::No,
    }
}

//! WebSocket (RFC 6455) after an upgrade of HTTP/1.1: heads of frames are read, contents are skipped by count.

use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::event::Origin;

pub const PROTOCOL: Protocol = Protocol {
    id: 208,
    name: "WebSocket",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    // A frame says too little of itself: only the upgrade tells.
    check: |_, _| Guess::No,
    parser: |settings| Box::new(WebSocket::new(settings.clone(), Asked::default())),
    doc: "WebSocket (RFC 6455) on connections whose upgrade was seen. Each text or binary message is a one-way session \
          with its length, counted once however it is fragmented; a ping is paired with its pong and a close with the \
          close that answers it (the code is the response code). What the server sends of its own accord is reversed. \
          Host, path and endpoint are those of the upgrade.",
};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Longest content of a control frame.
const MAX_CONTROL: u64 = 125;
/// Pairing key of a close; those of pings differ in the lowest bits.
const CLOSING: u64 = 2;

/// Of the request that asked for the upgrade.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    domain: String,
    resource: String,
    endpoint: String,
}

impl Asked {
    pub fn of(request: &Message) -> Self {
        Self {
            domain: request.request_domain.clone(),
            resource: request.request_resource.clone(),
            endpoint: request.endpoint.clone(),
        }
    }
}

/// A message of several frames.
struct Fragments {
    opcode: u8,
    length: u64,
    began: Origin,
}

pub struct WebSocket {
    settings: Rc<ParserSettings>,
    asked: Asked,
    /// Messages under way of the client and of the server.
    fragments: [Option<Fragments>; 2],
    /// Who closed first, and with what code.
    closed: Option<(Role, u16)>,
    at: Origin,
}

/// The head of a frame (RFC 6455 section 5.2).
struct Frame {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    head: usize,
    length: u64,
}

impl Frame {
    /// `Ok(None)`: more bytes are needed; `Err`: no frame of this side.
    fn read(role: Role, bytes: &[u8]) -> Result<Option<Self>, ()> {
        let &[first, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        let (last, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let control = opcode >= CLOSE;
        // The first reserved bit says that a message is compressed (RFC 7692).
        if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG)
            || reserved & 0x30 != 0
            || control && (!last || reserved != 0)
        {
            return Err(());
        }
        let Some(&second) = rest.first() else {
            return Ok(None);
        };
        let masked = second & 0x80 != 0;
        if masked != (role == Role::Client) || control && u64::from(second & 0x7f) > MAX_CONTROL {
            return Err(());
        }
        let (size, length) = match second & 0x7f {
            126 => (2, bytes.get(2..4).map(|two| two.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))),
            127 => (8, bytes.get(2..10).map(|eight| eight.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))),
            short => (0, Some(u64::from(short))),
        };
        let head = 2 + size + if masked { 4 } else { 0 };
        let (Some(length), Some(whole)) = (length, bytes.get(..head)) else {
            return Ok(None);
        };
        if length >> 63 != 0 {
            return Err(());
        }
        let mask = if masked { whole.last_chunk().copied().unwrap_or_default() } else { [0; 4] };
        Ok(Some(Self { last, opcode, mask, head, length }))
    }

    /// The content of a control frame, unmasked.
    fn content(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let content = bytes.get(self.head..self.head.checked_add(usize::try_from(self.length).ok()?)?)?;
        Some(content.iter().zip(self.mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
    }
}

impl WebSocket {
    pub fn new(settings: Rc<ParserSettings>, asked: Asked) -> Self {
        Self { settings, asked, fragments: [None, None], closed: None, at: Origin::default() }
    }

    fn request(&self, kind: Kind, role: Role, name: &str, length: u64) -> Message {
        Message {
            kind,
            is_reversed: role == Role::Server,
            version: "13".into(),
            request_type: name.to_owned(),
            request_domain: self.asked.domain.clone(),
            request_resource: self.asked.resource.clone(),
            endpoint: self.asked.endpoint.clone(),
            length: Some(i64::try_from(length).unwrap_or(i64::MAX)),
            ..Message::default()
        }
    }

    /// A frame of a text or binary message: the message when it ends.
    fn content(&mut self, role: Role, frame: &Frame) -> Option<Message> {
        let place = usize::from(role == Role::Server);
        let before = self.fragments.get_mut(place)?.take();
        let under_way = match (before, frame.opcode) {
            (Some(mut before), CONTINUATION) => {
                before.length = before.length.saturating_add(frame.length);
                before
            }
            // The beginning was not seen.
            (None, CONTINUATION) => return None,
            (_, opcode) => Fragments { opcode, length: frame.length, began: self.at },
        };
        if !frame.last {
            *self.fragments.get_mut(place)? = Some(under_way);
            return None;
        }
        let name = if under_way.opcode == TEXT { "TEXT" } else { "BINARY" };
        let mut message = self.request(Kind::Session, role, name, under_way.length);
        message.status = Status::Success;
        message.began = Some(under_way.began);
        Some(message)
    }

    /// A ping, a pong or a close.
    fn control(&mut self, role: Role, frame: &Frame, content: &[u8]) -> Option<Message> {
        let key = |pinger: Role| {
            let mut hasher = rustc_hash::FxBuildHasher.build_hasher();
            hasher.write(content);
            (hasher.finish() & !3) | u64::from(pinger == Role::Server)
        };
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        match frame.opcode {
            PING => {
                let mut message = self.request(Kind::Request, role, "PING", frame.length);
                message.pair = Some(key(role));
                Some(message)
            }
            PONG => Some(Message {
                kind: Kind::Response,
                pair: Some(key(other)),
                status: Status::Success,
                is_reversed: role == Role::Client,
                version: "13".into(),
                length: i64::try_from(frame.length).ok(),
                ..Message::default()
            }),
            _ => self.close(role, frame, content),
        }
    }

    fn close(&mut self, role: Role, frame: &Frame, content: &[u8]) -> Option<Message> {
        // 1005: no code is given (RFC 6455 section 7.4.1).
        let code = content.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        match self.closed {
            None => {
                self.closed = Some((role, code));
                let mut message = self.request(Kind::Request, role, "CLOSE", frame.length);
                message.pair = Some(CLOSING);
                Some(message)
            }
            Some((closer, _)) if closer == role => None,
            Some((closer, given)) => {
                let code = if given == 1005 { code } else { given };
                let status = match code {
                    1000 | 1001 | 1005 => Status::Success,
                    1011..=1015 => Status::ServerError,
                    _ => Status::ClientError,
                };
                let reason = content.get(2..).unwrap_or_default();
                Some(Message {
                    kind: Kind::Response,
                    pair: Some(CLOSING),
                    status,
                    response_code: Some(i32::from(code)),
                    response_exception: match status {
                        Status::Success => String::new(),
                        _ if reason.is_empty() => code_name(code).to_owned(),
                        _ => self.settings.text(reason),
                    },
                    is_reversed: closer == Role::Server,
                    version: "13".into(),
                    length: i64::try_from(frame.length).ok(),
                    ..Message::default()
                })
            }
        }
    }
}

impl Parser for WebSocket {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        let frame = match Frame::read(role, window) {
            Err(()) => return Step::Invalid,
            Ok(None) => return Step::NeedMore,
            Ok(Some(frame)) => frame,
        };
        let message = if frame.opcode >= CLOSE {
            let Some(content) = frame.content(window) else {
                return Step::NeedMore;
            };
            self.control(role, &frame, &content)
        } else {
            self.content(role, &frame)
        };
        let consumed = (frame.head as u64).saturating_add(frame.length);
        match message {
            Some(message) => Step::Message { consumed, message: Box::new(message) },
            None => Step::Skip(consumed),
        }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        match self.parse(role, window) {
            Step::NeedMore => Step::Skip((window.len() as u64).saturating_add(missing)),
            step => step,
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if let Some(under_way) = self.fragments.get_mut(usize::from(role == Role::Server)) {
            *under_way = None;
        }
        // A frame begins a segment, as a rule; nowhere else is one to be told from contents.
        let mut at = 0usize;
        while at < window.len() {
            match Frame::read(role, window.get(at..)?) {
                Ok(Some(frame)) => at = at.checked_add(frame.head)?.checked_add(usize::try_from(frame.length).ok()?)?,
                Ok(None) => break,
                Err(()) => return None,
            }
        }
        (at > 0 && at <= window.len()).then_some(0)
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }
}

/// RFC 6455 section 7.4.1 and the registry of IANA.
fn code_name(code: u16) -> &'static str {
    match code {
        1002 => "Protocol error",
        1003 => "Unsupported Data",
        1007 => "Invalid frame payload data",
        1008 => "Policy Violation",
        1009 => "Message Too Big",
        1010 => "Mandatory Ext.",
        1011 => "Internal Error",
        1012 => "Service Restart",
        1013 => "Try Again Later",
        1014 => "Bad Gateway",
        _ => "",
    }
}

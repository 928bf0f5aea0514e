//! HTTP/2 (RFC 9113): header blocks are decoded, everything else is skipped by count. Carries gRPC and Triple.

mod detect;
mod frame;
mod head;
mod hpack;
mod huffman;
mod streams;

use std::rc::Rc;

use super::{Late, Message, Pairing, Parser, ParserSettings, Protocol, Role, Step};
use crate::event::Origin;
use frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADER, HEADERS, PADDED, PREFACE, PUSH_PROMISE, RST_STREAM,
    SETTINGS, fragment,
};
use head::Head;
use hpack::Decoder;
use streams::Streams;

pub const PROTOCOL: Protocol = Protocol {
    id: 21,
    name: "HTTP2",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check: detect::check,
    parser: |settings| Box::new(Http2::new(settings.clone())),
    doc: "HTTP/2 in clear text (RFC 9113), with prior knowledge or after an upgrade of HTTP/1.1: header blocks with \
          their dynamic tables (RFC 7541), continuations, padding, trailers; paired by stream. What refers to headers \
          sent before the agent saw the connection stays empty. Interim responses and server pushes are left out; a \
          stream that is reset before its response has the reason as its exception.",
};

/// Header blocks longer than this are not put together from their continuations.
const MAX_BLOCK: usize = 64 * 1024;

/// A header block that goes on in continuations.
struct Block {
    frame: Frame,
    bytes: Vec<u8>,
    began: Origin,
    complete: bool,
}

/// Payload of a DATA frame that is looked at.
#[derive(Clone, Copy)]
struct Body {
    stream: u32,
    left: u64,
    padding: u64,
    ends: bool,
}

#[derive(Default)]
struct Side {
    begun: bool,
    decoder: Decoder,
    block: Option<Block>,
    body: Option<Body>,
}

struct Http2 {
    settings: Rc<ParserSettings>,
    client: Side,
    server: Side,
    streams: Streams,
    at: Origin,
}

impl Http2 {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            settings,
            client: Side::default(),
            server: Side::default(),
            streams: Streams::default(),
            at: Origin::default(),
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// `cut`: bytes that follow the window unseen, when it will not grow.
    fn step(&mut self, role: Role, window: &[u8], cut: Option<u64>) -> Step {
        if let Some(body) = self.side(role).body {
            return self.body(role, body, window);
        }
        if role == Role::Client && window.first() == PREFACE.first() {
            let shared = window.len().min(PREFACE.len());
            if window.get(..shared) == PREFACE.get(..shared) && shared == PREFACE.len() {
                self.client.begun = true;
                self.client.decoder.begin();
                if !self.server.begun {
                    self.server.decoder.begin();
                }
                return Step::Skip(shared as u64);
            }
            if window.get(..shared) == PREFACE.get(..shared) {
                return Step::NeedMore;
            }
        }
        let Some(frame) = Frame::read(window) else {
            return Step::NeedMore;
        };
        if !frame.is_valid() {
            return Step::Invalid;
        }
        let expected = self.side(role).block.as_ref().map(|block| block.frame.stream);
        if (frame.kind == CONTINUATION) != expected.is_some() || expected.is_some_and(|stream| stream != frame.stream) {
            return Step::Invalid;
        }
        if role == Role::Server && !self.server.begun && frame.kind == SETTINGS && !frame.has(frame::ACK) {
            self.server.decoder.begin();
        }
        self.side(role).begun = true;
        let payload = window.get(HEADER..).unwrap_or_default();
        let whole = payload.get(..frame.length as usize);
        match frame.kind {
            DATA => self.data(role, frame, payload),
            HEADERS | PUSH_PROMISE | CONTINUATION => match (whole, cut) {
                (Some(payload), _) => self.headers(role, frame, payload, true),
                (None, None) => Step::NeedMore,
                (None, Some(_)) => self.headers(role, frame, payload, false),
            },
            RST_STREAM => match whole.and_then(|code| code.first_chunk()) {
                Some(code) => {
                    let message = self.streams.reset(role, frame.stream, u32::from_be_bytes(*code), self.at);
                    taken(frame, message)
                }
                None => Step::NeedMore,
            },
            _ => Step::Skip(frame.size() as u64),
        }
    }

    fn headers(&mut self, role: Role, frame: Frame, payload: &[u8], whole: bool) -> Step {
        let Some(part) = fragment(frame, payload) else {
            self.side(role).decoder.lose();
            return Step::Skip(frame.size() as u64);
        };
        let at = self.at;
        let side = self.side(role);
        let block = match side.block.take() {
            Some(mut block) => {
                block.complete &= whole && block.bytes.len() + part.len() <= MAX_BLOCK;
                if block.complete {
                    block.bytes.extend_from_slice(part);
                }
                Some(block)
            }
            None if frame.has(END_HEADERS) || !whole => None,
            None => Some(Block { frame, bytes: part.to_vec(), began: at, complete: whole }),
        };
        let message = match block {
            // What follows was not seen to the end: only this much is known.
            Some(block) if frame.has(END_HEADERS) || !block.complete => {
                let ended = block.complete && frame.has(END_HEADERS);
                self.block(role, block.frame, &block.bytes, ended, Some(block.began))
            }
            Some(block) => {
                side.block = Some(block);
                Ok(None)
            }
            None => self.block(role, frame, part, whole, None),
        };
        match message {
            Ok(message) => taken(frame, message),
            Err(hpack::Malformed) => Step::Invalid,
        }
    }

    /// A header block, whole as far as it could be seen.
    fn block(
        &mut self,
        role: Role,
        frame: Frame,
        bytes: &[u8],
        complete: bool,
        began: Option<Origin>,
    ) -> Result<Option<Box<Message>>, hpack::Malformed> {
        let settings = self.settings.clone();
        let head = Head::read(&mut self.side(role).decoder, bytes, complete, &settings)?;
        if frame.kind == PUSH_PROMISE {
            return Ok(None);
        }
        let ends = frame.has(END_STREAM);
        let at = began.unwrap_or(self.at);
        let message = match role {
            Role::Client => self.streams.client_head(frame.stream, ends, head, &settings),
            Role::Server => self.streams.server_head(frame.stream, ends, head, at),
        };
        Ok(message.map(|mut message| {
            message.began = message.began.or(began);
            Box::new(message)
        }))
    }

    fn data(&mut self, role: Role, frame: Frame, payload: &[u8]) -> Step {
        let padding = match (frame.has(PADDED), payload.first()) {
            (false, _) => 0,
            (true, Some(&padding)) => u64::from(padding) + 1,
            (true, None) if frame.length == 0 => return Step::Invalid,
            (true, None) => return Step::NeedMore,
        };
        let Some(length) = u64::from(frame.length).checked_sub(padding) else {
            return Step::Invalid;
        };
        let ends = frame.has(END_STREAM);
        self.streams.data(role, frame.stream, length);
        if role == Role::Server && length > 0 && self.streams.reads_body(frame.stream) {
            let behind = padding.saturating_sub(1);
            self.server.body = Some(Body { stream: frame.stream, left: length, padding: behind, ends });
            return Step::Skip((HEADER + usize::from(padding > 0)) as u64);
        }
        let message = if ends { self.streams.end(role, frame.stream, &self.settings) } else { None };
        taken(frame, message.map(Box::new))
    }

    /// Bytes of a response in which trailers are looked for.
    fn body(&mut self, role: Role, mut body: Body, window: &[u8]) -> Step {
        let here = body.left.min(window.len() as u64);
        let part = window.get(..here as usize).unwrap_or(window);
        self.streams.feed(body.stream, part);
        body.left -= here;
        if body.left > 0 {
            self.side(role).body = Some(body);
            return Step::Skip(here);
        }
        self.side(role).body = None;
        let consumed = here + body.padding;
        let message = if body.ends { self.streams.end(role, body.stream, &self.settings) } else { None };
        match message {
            Some(message) => Step::Message { consumed, message: Box::new(message) },
            None => Step::Skip(consumed),
        }
    }
}

/// The frame is done with.
fn taken(frame: Frame, message: Option<Box<Message>>) -> Step {
    let consumed = frame.size() as u64;
    match message {
        Some(message) => Step::Message { consumed, message },
        None => Step::Skip(consumed),
    }
}

impl Parser for Http2 {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        match self.step(role, window, None) {
            Step::Skip(consumed) if role == Role::Client => match self.streams.given_up(self.at.time_us) {
                Some(message) => Step::Message { consumed, message: Box::new(message) },
                None => Step::Skip(consumed),
            },
            step => step,
        }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        match self.step(role, window, Some(missing)) {
            Step::NeedMore => {
                self.lose(role);
                Step::Skip((window.len() as u64).saturating_add(missing))
            }
            step => step,
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        self.lose(role);
        detect::find(role, window)
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }

    fn finish(&mut self) -> Option<(Role, Box<Message>)> {
        self.streams.take_held(&self.settings).map(|message| (Role::Server, Box::new(message)))
    }

    fn late(&mut self, key: Option<u64>) -> Late {
        key.map_or(Late::Unanswered, |key| self.streams.late(key))
    }
}

impl Http2 {
    fn lose(&mut self, role: Role) {
        let side = self.side(role);
        side.decoder.lose();
        side.block = None;
        if let Some(body) = side.body.take() {
            self.streams.lose_body(body.stream);
        }
        self.side(role).begun = true;
    }
}

//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): heads are read, bodies are skipped by count.

mod detect;
pub(super) mod head;
pub mod recent;

use std::collections::VecDeque;
use std::rc::Rc;

use memchr::memchr;

use super::grpc::web::Body;
use super::websocket::{self, Asked, WebSocket};
use super::{Late, Message, Pairing, Parser, ParserSettings, Protocol, Role, Step, http2};
use crate::event::Origin;
use detect::{check, find_start, plausible_start, status_line};
use head::{Awaited, Framing, Head, Start, head_end};
use recent::{Known, Sought};

pub const PROTOCOL: Protocol = Protocol {
    id: 20,
    name: "HTTP",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Http1::new(settings.clone())),
    doc: "HTTP/1.0 and 1.1 (RFC 9112): pipelining, keep-alive, chunked bodies with trailers, responses until close. \
          Interim responses (1xx) are skipped. A connection upgraded to WebSocket or HTTP/2 (h2c) goes on as that; after \
          another upgrade or a successful CONNECT it is opaque. Path segments that are ids fold to `*` in the endpoint \
          (http_endpoint.fold_ids). Trace ids are read from traceparent, sw8, sw6, sw3, b3, uber-trace-id and any header listed in the settings.",
};

/// Requests remembered while their responses are awaited; more are pipelined by nobody.
const MAX_AWAITED: usize = 1024;
/// A chunk-size line longer than this is no chunk-size line.
const MAX_CHUNK_LINE: usize = 4096;
#[derive(Clone, Copy, Default, PartialEq)]
enum Next {
    /// A start line.
    #[default]
    Start,
    ChunkSize,
    /// So many bytes of a body, or of a chunk, that is looked at.
    Inside {
        left: u64,
        chunk: bool,
    },
    /// So many bytes of chunk data have been skipped; its line end follows.
    ChunkEnd,
    Trailers,
    /// A body of so many bytes, unless the request was HEAD, which was not seen.
    PerhapsBody(u64),
    UntilClose,
    /// The end of a message was not seen: look for the next start line.
    Lost,
}

#[derive(Default)]
struct Side {
    next: Next,
    /// The end of the head is not before this offset of the growing window.
    scanned: usize,
}

struct Http1 {
    settings: Rc<ParserSettings>,
    client: Side,
    server: Side,
    awaited: VecDeque<Awaited>,
    /// What the last request with an upgrade asked for, for those who take over the connection.
    asked: Asked,
    after: After,
    /// A response whose status stands at the end of its body.
    held: Option<(Box<Message>, Body)>,
    at: Origin,
}

/// What follows on the connection.
#[derive(Clone, Copy, Default, PartialEq)]
enum After {
    #[default]
    Http,
    /// Upgraded or tunnelled: another protocol.
    Opaque,
    WebSocket,
    Http2,
}

impl Http1 {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self {
            settings,
            client: Side::default(),
            server: Side::default(),
            awaited: VecDeque::new(),
            asked: Asked::default(),
            after: After::default(),
            held: None,
            at: Origin::default(),
        }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn go_on(&mut self, role: Role, next: Next) {
        *self.side(role) = Side { next, scanned: 0 };
    }

    fn start(&mut self, role: Role, window: &[u8]) -> Step {
        let blank = window.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        if blank > 0 {
            return Step::Skip(blank as u64);
        }
        let from = self.side(role).scanned.min(window.len());
        let mut sought = None;
        if from == 0 {
            match self.settings.recent_heads.find(role, window, &self.settings) {
                Ok((bytes, known)) => return self.plain(role, &known.framing, known.message, bytes),
                Err(new) => sought = new,
            }
        }
        if !plausible_start(role, window) {
            return Step::Invalid;
        }
        if from == 0
            && let Some(step) = self.whole(role, window, sought)
        {
            return step;
        }
        match head_end(window, from) {
            Ok(end) => self.message(role, window.get(..end).unwrap_or(window), None),
            Err(scanned) => {
                self.side(role).scanned = scanned;
                Step::NeedMore
            }
        }
    }

    /// A head of which all is there, and which is kept when it was `sought`.
    fn whole(&mut self, role: Role, window: &[u8], sought: Option<Sought<'_>>) -> Option<Step> {
        let settings = Rc::clone(&self.settings);
        let head = Head::read(window, true, role, &settings)?;
        let end = head.end?;
        let Some(sought) = sought.filter(|sought| head.is_plain() && sought.bytes.len() == end) else {
            return Some(self.named(role, head, end, None, &settings));
        };
        let framing = head.framing;
        let message = Rc::new(head.message(&settings));
        settings.recent_heads.keep(&sought, Known { framing, message: Rc::clone(&message) });
        Some(self.plain(role, &framing, message, end))
    }

    /// The message of a plain head of so many bytes.
    #[inline(always)]
    fn plain(&mut self, role: Role, framing: &Framing, message: Rc<Message>, bytes: usize) -> Step {
        let mut consumed = bytes as u64;
        let next = self.follow(framing, b"", None, &mut consumed);
        self.go_on(role, next);
        Step::Known { consumed, message }
    }

    /// A head; `cut` is how many bytes follow it unseen when its end was not found.
    fn message(&mut self, role: Role, bytes: &[u8], cut: Option<u64>) -> Step {
        let settings = Rc::clone(&self.settings);
        match Head::read(bytes, cut.is_none(), role, &settings) {
            Some(head) => self.named(role, head, bytes.len(), cut, &settings),
            None => Step::Invalid,
        }
    }

    /// What comes behind a head, which changes who is awaited; adds a body of known length to `consumed`.
    #[inline(always)]
    fn follow(&mut self, framing: &Framing, upgrade: &[u8], cut: Option<u64>, consumed: &mut u64) -> Next {
        let next = match framing.start {
            _ if cut.is_some() => Next::Lost,
            Start::Request(request) => Self::body_of_request(request, framing, consumed),
            Start::Response(code) => self.body_of_response(code, framing, consumed),
        };
        match framing.start {
            Start::Request(request) => self.await_response(request),
            Start::Response(_) if framing.is_interim() => {}
            Start::Response(code) => {
                let request = self.awaited.pop_front();
                let tunnel = request == Some(Awaited::Connect) && (200..300).contains(&code);
                self.after = match upgrade {
                    _ if tunnel => After::Opaque,
                    _ if code != 101 => After::Http,
                    upgrade if upgrade.eq_ignore_ascii_case(b"websocket") => After::WebSocket,
                    b"h2c" => After::Http2,
                    _ => After::Opaque,
                };
            }
        }
        next
    }

    /// The message of a head of so many bytes.
    fn named(&mut self, role: Role, head: Head<'_>, bytes: usize, cut: Option<u64>, settings: &ParserSettings) -> Step {
        let mut consumed = bytes as u64;
        let next = self.follow(&head.framing, head.upgrade, cut, &mut consumed);
        if head.framing.is_interim() {
            self.go_on(role, next);
            return Step::Skip(consumed.saturating_add(cut.unwrap_or(0)));
        }
        let upgrades = role == Role::Client && !head.upgrade.is_empty();
        let body = (role == Role::Server && head.call.is_web()).then(|| Body::new(head.call));
        let mut message = Box::new(head.message(settings));
        if upgrades {
            self.asked = Asked::of(&message);
        }
        if let Some(body) = body {
            let end = bytes as u64;
            let left = consumed.saturating_sub(end);
            let inside = match next {
                Next::Start if left > 0 => Some(Next::Inside { left, chunk: false }),
                Next::ChunkSize | Next::UntilClose => Some(next),
                _ => None,
            };
            if let Some(next) = inside {
                self.go_on(role, next);
                message.began = Some(self.at);
                self.held = Some((message, body));
                return Step::Skip(end);
            }
        }
        self.go_on(role, next);
        Step::Message { consumed: consumed.saturating_add(cut.unwrap_or(0)), message }
    }

    /// The response that was held back, with what its body said.
    fn release(&mut self) -> Option<Box<Message>> {
        let (mut message, body) = self.held.take()?;
        body.fill(&mut message, &self.settings);
        Some(message)
    }

    fn holds(&self, role: Role) -> bool {
        role == Role::Server && self.held.is_some()
    }

    /// Bytes of a body in which trailers are looked for.
    fn inside(&mut self, role: Role, left: u64, chunk: bool, window: &[u8]) -> Step {
        let here = left.min(window.len() as u64);
        if let Some((_, body)) = &mut self.held {
            body.feed(window.get(..here as usize).unwrap_or(window));
        }
        if here < left {
            self.go_on(role, Next::Inside { left: left - here, chunk });
        } else if chunk {
            self.go_on(role, Next::ChunkEnd);
        } else {
            self.go_on(role, Next::Start);
            if let Some(message) = self.release() {
                return Step::Message { consumed: here, message };
            }
        }
        Step::Skip(here)
    }

    fn await_response(&mut self, request: Awaited) {
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.clear();
        }
        self.awaited.push_back(request);
    }

    /// RFC 9112 section 6.3 for requests.
    fn body_of_request(request: Awaited, framing: &Framing, consumed: &mut u64) -> Next {
        if framing.chunked {
            return Next::ChunkSize;
        }
        if request != Awaited::Connect {
            *consumed = consumed.saturating_add(framing.content_length.unwrap_or(0));
        }
        Next::Start
    }

    /// RFC 9112 section 6.3 for responses.
    fn body_of_response(&self, code: u16, framing: &Framing, consumed: &mut u64) -> Next {
        let request = self.awaited.front();
        if matches!(code, 100..200 | 204 | 304) || request == Some(&Awaited::Head) {
            return Next::Start;
        }
        if framing.chunked {
            return Next::ChunkSize;
        }
        match framing.content_length {
            _ if framing.encoded => Next::UntilClose,
            None => Next::UntilClose,
            Some(0) => Next::Start,
            Some(length) if request.is_none() => Next::PerhapsBody(length),
            Some(length) => {
                *consumed = consumed.saturating_add(length);
                Next::Start
            }
        }
    }

    /// Chunk by chunk (RFC 9112 section 7.1) as far as the window goes.
    fn chunks(&mut self, role: Role, window: &[u8]) -> Step {
        let mut at = 0usize;
        let mut next = self.side(role).next;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            let line = match next {
                Next::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => 2,
                    [b'\n', ..] => 1,
                    [] | [b'\r'] => break,
                    _ => {
                        next = Next::Lost;
                        break;
                    }
                },
                Next::ChunkSize | Next::Trailers => match memchr(b'\n', rest) {
                    Some(end) => end + 1,
                    None if rest.len() > MAX_CHUNK_LINE && next == Next::ChunkSize => {
                        next = Next::Lost;
                        break;
                    }
                    None => break,
                },
                _ => break,
            };
            let text = rest.get(..line).unwrap_or_default();
            match next {
                Next::ChunkEnd => next = Next::ChunkSize,
                Next::Trailers => {
                    if text.trim_ascii().is_empty() {
                        next = Next::Start;
                    }
                }
                _ => match chunk_size(text) {
                    Some(0) => next = Next::Trailers,
                    Some(left) if self.holds(role) => {
                        self.go_on(role, Next::Inside { left, chunk: true });
                        return Step::Skip((at + line) as u64);
                    }
                    Some(size) => {
                        self.go_on(role, Next::ChunkEnd);
                        let skipped = (at + line) as u64;
                        let Some(past) = usize::try_from(size).ok().and_then(|size| size.checked_add(at + line)) else {
                            return Step::Skip(skipped.saturating_add(size));
                        };
                        if past >= window.len() {
                            return Step::Skip(skipped.saturating_add(size));
                        }
                        next = Next::ChunkEnd;
                        at = past;
                        continue;
                    }
                    // The body of a response to HEAD that was not seen: the next message already.
                    None if at == 0 && plausible_start(role, rest) => {
                        self.go_on(role, Next::Start);
                        return self.start(role, window);
                    }
                    None => {
                        next = Next::Lost;
                        break;
                    }
                },
            }
            at += line;
            if next == Next::Start {
                break;
            }
        }
        if at == 0 {
            if next == Next::Lost {
                self.go_on(role, Next::Lost);
                return self.lost(role, window);
            }
            return Step::NeedMore;
        }
        self.go_on(role, next);
        if next == Next::Start
            && self.holds(role)
            && let Some(message) = self.release()
        {
            return Step::Message { consumed: at as u64, message };
        }
        Step::Skip(at as u64)
    }

    fn lost(&mut self, role: Role, window: &[u8]) -> Step {
        match find_start(role, window) {
            Some(0) => {
                self.go_on(role, Next::Start);
                self.start(role, window)
            }
            Some(at) => {
                self.go_on(role, Next::Start);
                Step::Skip(at as u64)
            }
            None => Step::Skip(window.len() as u64),
        }
    }
}

impl Parser for Http1 {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        match self.after {
            After::Http => {}
            After::Opaque => return Step::Skip(window.len() as u64),
            After::WebSocket => return Step::SwitchTo(websocket::PROTOCOL.id),
            After::Http2 => return Step::SwitchTo(http2::PROTOCOL.id),
        }
        match self.side(role).next {
            Next::Start => self.start(role, window),
            Next::Inside { left, chunk } => self.inside(role, left, chunk, window),
            Next::ChunkSize | Next::ChunkEnd | Next::Trailers => self.chunks(role, window),
            Next::PerhapsBody(length) => {
                let prefix = b"HTTP/1.";
                if window.len() < prefix.len() && (window.len() as u64) < length && prefix.starts_with(window) {
                    return Step::NeedMore;
                }
                self.go_on(role, Next::Start);
                if status_line(window) { self.start(role, window) } else { Step::Skip(length) }
            }
            Next::UntilClose => {
                // A server that announced no length but went on to the next request after all.
                if role == Role::Server && !self.awaited.is_empty() && status_line(window) {
                    self.go_on(role, Next::Start);
                    return self.start(role, window);
                }
                if let Some((_, body)) = &mut self.held {
                    body.feed(window);
                }
                Step::Skip(window.len() as u64)
            }
            Next::Lost => self.lost(role, window),
        }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        let all = (window.len() as u64).saturating_add(missing);
        if self.after != After::Http {
            return Step::Skip(all);
        }
        match self.side(role).next {
            Next::Start => self.message(role, window, Some(missing)),
            Next::PerhapsBody(length) => {
                self.go_on(role, Next::Start);
                Step::Skip(length)
            }
            Next::UntilClose => Step::Skip(all),
            Next::Inside { left, chunk } => self.inside(role, left, chunk, window),
            Next::ChunkSize | Next::ChunkEnd | Next::Trailers | Next::Lost => {
                self.go_on(role, Next::Lost);
                Step::Skip(all)
            }
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        if self.after != After::Http {
            return None;
        }
        self.awaited.clear();
        if role == Role::Server {
            self.held = None;
        }
        self.go_on(role, Next::Lost);
        let start = find_start(role, window);
        if start.is_some() {
            self.go_on(role, Next::Start);
        }
        start
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }

    fn finish(&mut self) -> Option<(Role, Box<Message>)> {
        self.release().map(|message| (Role::Server, message))
    }

    fn late(&mut self, _key: Option<u64>) -> Late {
        if self.held.is_some() { Late::Begun } else { Late::Unanswered }
    }

    fn successor(&mut self) -> Option<Box<dyn Parser>> {
        (self.after == After::WebSocket).then(|| {
            Box::new(WebSocket::new(self.settings.clone(), std::mem::take(&mut self.asked))) as Box<dyn Parser>
        })
    }
}

/// Hexadecimal size before an optional extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |size, &digit| Some(size << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

//! The open streams of a connection, and the responses that wait for their trailers.

use std::collections::{BTreeMap, VecDeque};

use super::frame::error_name;
use super::head::Head;
use crate::event::Origin;
use crate::protocols::grpc::Call;
use crate::protocols::grpc::web::Body;
use crate::protocols::{Kind, Late, Message, ParserSettings, Role, Status};

/// Streams that are followed at a time; servers allow some 100 to 250.
const MAX_OPEN: usize = 1024;
const NO_ERROR: u32 = 0;
/// How long a response may be under way when the client gives the request up, µs.
const CROSSING_US: u64 = 1_000_000;

#[derive(Debug, Default)]
struct Stream {
    call: Call,
    /// The request was given out and has no response yet.
    waits: bool,
    answered: bool,
    /// The response, until the status at its end is known.
    held: Option<Box<Message>>,
    /// The body of a response whose trailers are in it.
    body: Option<Box<Body>>,
    /// The client gave the request up: with what code, and where.
    given_up: Option<(u32, Origin)>,
    /// Bytes of DATA, of the request and of the response.
    sent: Option<u64>,
    received: Option<u64>,
}

impl Stream {
    /// The response with what is known of it at its end.
    fn complete(mut self, settings: Option<&ParserSettings>) -> Option<Message> {
        let mut message = *self.held.take()?;
        if let (Some(body), Some(settings)) = (&self.body, settings) {
            body.fill(&mut message, settings);
        }
        self.measure(&mut message);
        Some(message)
    }

    fn measure(&self, message: &mut Message) {
        let length = |bytes: Option<u64>| bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        message.request_length = length(self.sent);
        if self.call != Call::None {
            message.length = message.length.or(length(self.received));
        }
    }
}

#[derive(Debug, Default)]
pub struct Streams {
    open: BTreeMap<u32, Stream>,
    /// Streams that the client gave up before their response.
    given_up: VecDeque<u32>,
    /// Streams that ended before all of their response had come: what is still under way of it is no response.
    cut_off: VecDeque<u32>,
    /// Highest stream that the client opened.
    newest: u32,
}

impl Streams {
    fn enter(&mut self, id: u32) -> &mut Stream {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&id) {
            self.open.pop_first();
        }
        self.open.entry(id).or_default()
    }

    /// A header block of the client.
    pub fn client_head(&mut self, id: u32, _ends: bool, head: Head<'_>, settings: &ParserSettings) -> Option<Message> {
        // A server's number, or trailers: they have no pseudo-headers, and their stream is known or not the newest.
        if id.is_multiple_of(2) || id <= self.newest || !head.asks && !head.unknown {
            return None;
        }
        self.newest = id;
        let call = head.call;
        let stream = self.enter(id);
        stream.call = call;
        stream.waits = true;
        Some(head.request(id, settings))
    }

    /// A header block of the server that began at `at`.
    pub fn server_head(&mut self, id: u32, ends: bool, head: Head<'_>, at: Origin) -> Option<Message> {
        if id.is_multiple_of(2) || head.code.is_some_and(|code| code < 200) {
            return None;
        }
        let known = self.open.contains_key(&id);
        if !known && self.cut_off.contains(&id) {
            return None;
        }
        if head.code.is_none() {
            return self.trailers(id, ends, known, head);
        }
        let stream = self.enter(id);
        if stream.answered {
            return None;
        }
        if stream.call == Call::None {
            stream.call = head.call;
        }
        let (call, web) = (stream.call, head.call.is_web());
        let said = head.outcome.status.is_some();
        let mut message = head.response(id);
        if call != Call::None {
            message.l7_protocol = call.l7_protocol();
        }
        stream.answered = true;
        stream.waits = false;
        if let Some((code, _)) = stream.given_up {
            if !said && call != Call::None {
                blame(&mut message, Role::Client, code);
            }
            self.cut_off(id);
            return Some(message);
        }
        if ends || said || call == Call::None {
            stream.measure(&mut message);
            if ends {
                self.open.remove(&id);
            }
            return Some(message);
        }
        message.began = Some(at);
        stream.body = web.then(|| Box::new(Body::new(call)));
        stream.held = Some(Box::new(message));
        None
    }

    /// A header block without a status: the end of a response.
    fn trailers(&mut self, id: u32, ends: bool, known: bool, head: Head<'_>) -> Option<Message> {
        if !ends && !known {
            return None;
        }
        let said = head.outcome.status.is_some();
        let stream = self.open.remove(&id).unwrap_or_default();
        if stream.held.is_some() {
            let unknown = head.unknown && !said;
            let mut message = stream.complete(None)?;
            head.outcome.fill(&mut message);
            if unknown && message.status == Status::Success {
                // The status is there, but refers to what was not seen.
                message.status = Status::Unknown;
            }
            return Some(message);
        }
        // The beginning of the response was not seen, or given out before.
        if !stream.answered && (said || stream.waits) {
            let call = if stream.call == Call::None && said { Call::Grpc } else { stream.call };
            let mut message = head.response(id);
            message.l7_protocol = call.l7_protocol();
            stream.measure(&mut message);
            return Some(message);
        }
        None
    }

    /// The end of a direction of a stream, in DATA.
    pub fn end(&mut self, role: Role, id: u32, settings: &ParserSettings) -> Option<Message> {
        if role == Role::Client {
            return None;
        }
        self.open.remove(&id)?.complete(Some(settings))
    }

    /// RST_STREAM, at `at`.
    pub fn reset(&mut self, role: Role, id: u32, code: u32, at: Origin) -> Option<Box<Message>> {
        let stream = self.open.get_mut(&id)?;
        if role == Role::Client && stream.waits && stream.given_up.is_none() {
            stream.given_up = Some((code, at));
            self.given_up.push_back(id);
            if self.given_up.len() > MAX_OPEN {
                self.given_up.pop_front();
            }
            return None;
        }
        let stream = self.cut_off(id)?;
        let waits = stream.waits;
        let call = stream.call;
        let mut message = match stream.complete(None) {
            Some(message) => message,
            None if waits => unanswered(id, call),
            None => return None,
        };
        // A client need not read on what HTTP refused: the refusal is the outcome.
        let refused = matches!(message.status, Status::ClientError | Status::ServerError);
        if (code != NO_ERROR || waits) && !refused {
            blame(&mut message, role, code);
        }
        Some(Box::new(message))
    }

    fn end_of_given_up(&mut self, id: u32) -> Option<Message> {
        let stream = self.open.get(&id)?;
        let (code, at) = stream.given_up?;
        let mut message = unanswered(id, stream.call);
        blame(&mut message, Role::Client, code);
        message.began = Some(at);
        self.cut_off(id);
        Some(message)
    }

    fn cut_off(&mut self, id: u32) -> Option<Stream> {
        self.cut_off.push_back(id);
        if self.cut_off.len() > MAX_OPEN {
            self.cut_off.pop_front();
        }
        self.open.remove(&id)
    }

    /// A request that the client gave up so long before `now_us` that no response is under way.
    pub fn given_up(&mut self, now_us: u64) -> Option<Message> {
        while let Some(&id) = self.given_up.front() {
            match self.open.get(&id).and_then(|stream| stream.given_up) {
                Some((_, at)) if at.time_us.saturating_add(CROSSING_US) > now_us => return None,
                Some(_) => {
                    self.given_up.pop_front();
                    return self.end_of_given_up(id);
                }
                None => {
                    self.given_up.pop_front();
                }
            }
        }
        None
    }

    /// So many bytes of content in a DATA frame.
    pub fn data(&mut self, role: Role, id: u32, bytes: u64) {
        if let Some(stream) = self.open.get_mut(&id) {
            let counted = if role == Role::Client { &mut stream.sent } else { &mut stream.received };
            *counted = Some(counted.unwrap_or(0).saturating_add(bytes));
        }
    }

    /// The trailers of this stream are in its body.
    pub fn reads_body(&self, id: u32) -> bool {
        self.open.get(&id).is_some_and(|stream| stream.body.is_some())
    }

    pub fn feed(&mut self, id: u32, bytes: &[u8]) {
        if let Some(body) = self.open.get_mut(&id).and_then(|stream| stream.body.as_mut()) {
            body.feed(bytes);
        }
    }

    pub fn lose_body(&mut self, id: u32) {
        if let Some(body) = self.open.get_mut(&id).and_then(|stream| stream.body.as_mut()) {
            body.lose();
        }
    }

    /// A response of which nothing more will be seen.
    pub fn take_held(&mut self, settings: &ParserSettings) -> Option<Message> {
        while let Some(id) = self.given_up.pop_front() {
            if let Some(message) = self.end_of_given_up(id) {
                return Some(message);
            }
        }
        let id = *self.open.iter().find(|(_, stream)| stream.held.is_some())?.0;
        self.open.remove(&id)?.complete(Some(settings))
    }

    /// The time of this request is over.
    pub fn late(&mut self, key: u64) -> Late {
        let Ok(id) = u32::try_from(key) else {
            return Late::Unanswered;
        };
        match self.open.get(&id) {
            Some(stream) if stream.held.is_some() => Late::Begun,
            Some(_) => self.end_of_given_up(id).map_or(Late::Unanswered, |message| Late::Ended(Box::new(message))),
            None => Late::Unanswered,
        }
    }
}

/// The response that a stream never had.
fn unanswered(id: u32, call: Call) -> Message {
    Message {
        kind: Kind::Response,
        request_id: Some(u64::from(id)),
        version: "2".into(),
        l7_protocol: call.l7_protocol(),
        ..Message::default()
    }
}

/// `role` ended the stream with this code.
fn blame(message: &mut Message, role: Role, code: u32) {
    message.status = if role == Role::Client { Status::ClientError } else { Status::ServerError };
    error_name(code).clone_into(&mut message.response_exception);
}

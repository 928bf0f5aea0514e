//! Apache Thrift: binary and compact encoding; framed, unframed and header transport.

mod head;
mod value;

use std::rc::Rc;

use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use head::{CALL, EXCEPTION, Head, ONEWAY, REPLY};
use value::{Outcome, Trouble, Walk, exception, outcome};

pub const PROTOCOL: Protocol = Protocol {
    id: 200,
    name: "Thrift",
    pairing: Pairing::Id,
    transports: &[6, 17],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Thrift::new(settings.clone())),
    doc: "Apache Thrift in the binary (with and without version) and the compact encoding, framed, unframed, on UDP and \
          with the header transport. The type of a request is its method, the resource the service of a multiplexed \
          connection. A declared exception and TApplicationException are errors: the text is their first string, the \
          code the type of the latter; an unknown method or a wrong protocol is the client's error. Trace context comes \
          from the pairs of the header transport. Of a message that the header transport compresses only the \
          sequence number is known.",
};

#[derive(Default)]
struct Side {
    /// The struct of an unframed message that is being passed over.
    walk: Option<Walk>,
    lost: bool,
    framed: bool,
    /// The window has to be this long before it is worth another look.
    wanted: usize,
}

struct Thrift {
    settings: Rc<ParserSettings>,
    datagrams: bool,
    client: Side,
    server: Side,
}

impl Thrift {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self { settings, datagrams: false, client: Side::default(), server: Side::default() }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// `last` = the window will not grow, so many bytes are missing.
    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let side = self.side(role);
        if side.lost {
            let start = find_start(role, window, side.framed);
            side.lost = start.is_none();
            match start {
                Some(0) => {}
                Some(at) => return Step::Skip(at as u64),
                None => return Step::Skip(window.len() as u64),
            }
        }
        if let Some(walk) = &mut side.walk {
            let passed = walk.run(window);
            if walk.is_done() {
                side.walk = None;
            }
            return match passed {
                Ok(passed) if passed > 0 => Step::Skip(passed),
                Ok(_) if last.is_none() => Step::NeedMore,
                _ => {
                    *side = Side { lost: true, framed: side.framed, ..Side::default() };
                    Step::Skip((window.len() as u64).saturating_add(last.unwrap_or(0)))
                }
            };
        }
        if window.len() < side.wanted && last.is_none() {
            return Step::NeedMore;
        }
        side.wanted = 0;
        let head = match Head::read(window) {
            Ok(head) => head,
            Err(Trouble::Short(wanted)) if last.is_none() => {
                side.wanted = wanted;
                return Step::NeedMore;
            }
            Err(_) => return Step::Invalid,
        };
        if writer(head.kind).is_some_and(|writer| writer != role) {
            return Step::Invalid;
        }
        side.framed = head.total.is_some();
        let message = match self.message(role, &head, window, last) {
            Ok(message) => message,
            Err(wanted) => {
                self.side(role).wanted = wanted;
                return Step::NeedMore;
            }
        };
        let consumed =
            if self.datagrams { Some((window.len() as u64).saturating_add(last.unwrap_or(0))) } else { head.total };
        let consumed = consumed.unwrap_or_else(|| {
            let mut walk = Walk::new(head.encoding);
            let passed = walk.run(window.get(head.size..).unwrap_or_default());
            let side = self.side(role);
            if passed.is_ok() && !walk.is_done() {
                side.walk = Some(walk);
            }
            side.lost = passed.is_err();
            head.size as u64 + passed.unwrap_or(0)
        });
        Step::Message { consumed, message: Box::new(message) }
    }

    /// What a row keeps; `Err`: so many bytes are needed to tell.
    fn message(&self, role: Role, head: &Head<'_>, window: &[u8], last: Option<u64>) -> Result<Message, usize> {
        let (service, method) = match memchr::memrchr(b':', head.name) {
            Some(colon) => (head.name.get(..colon).unwrap_or_default(), head.name.get(colon + 1..).unwrap_or_default()),
            None => (&b""[..], head.name),
        };
        let mut message = Message {
            kind: match (head.kind, role) {
                (CALL, _) | (0, Role::Client) => Kind::Request,
                (ONEWAY, _) => Kind::Session,
                _ => Kind::Response,
            },
            request_id: Some(u64::from(head.sequence)),
            pair: Some(pair(method, head.sequence)),
            length: head.total.and_then(|total| i64::try_from(total - 4).ok()),
            ..Message::default()
        };
        if message.kind != Kind::Response {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            message.version = head.version.into();
            (message.request_type, message.request_resource) = (text(method), text(service));
            message.endpoint =
                if service.is_empty() { text(method) } else { format!("{}/{}", text(service), text(method)) };
            if message.kind == Kind::Session {
                message.status = Status::Success;
            }
            let mut propagation = Propagation::new(&self.settings);
            head.pairs.iter().for_each(|(name, value)| propagation.offer(name, value));
            propagation.fill(&mut message);
            return Ok(message);
        }
        let end = head.total.and_then(|total| usize::try_from(total).ok()).unwrap_or(usize::MAX).min(window.len());
        let body = window.get(head.size..end).unwrap_or_default();
        // A frame that is whole, or bytes that will not come, can be asked no more.
        let ends = last.is_some() || self.datagrams || head.total.is_some_and(|total| window.len() as u64 >= total);
        let said = match head.kind {
            REPLY => outcome(head.encoding, body, self.settings.max_field).map(|outcome| match outcome {
                Outcome::Value => (Status::Success, None, String::new()),
                Outcome::Declared(field, b"") => (Status::ServerError, None, format!("exception {field}")),
                Outcome::Declared(_, text) => (Status::ServerError, None, self.settings.text(text)),
            }),
            EXCEPTION => exception(head.encoding, body, 0, self.settings.max_field).map(|(text, code)| {
                let text = if text.is_empty() { exception_name(code).to_owned() } else { self.settings.text(text) };
                (if by_client(code) { Status::ClientError } else { Status::ServerError }, code, text)
            }),
            _ => Ok((Status::Unknown, None, String::new())),
        };
        (message.status, message.response_code, message.response_exception) = match said {
            Ok(said) => said,
            Err(Trouble::Short(wanted)) if !ends => return Err(head.size + wanted),
            Err(Trouble::Short(_)) => (Status::Unknown, None, String::new()),
            Err(Trouble::Wrong) => (Status::ParseFailed, None, String::new()),
        };
        Ok(message)
    }
}

impl Parser for Thrift {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        let side = self.side(role);
        *side = Side { framed: side.framed, ..Side::default() };
        find_start(role, window, side.framed)
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.datagrams = ip_protocol == 17;
    }
}

/// Who writes messages of this kind.
fn writer(kind: u8) -> Option<Role> {
    match kind {
        CALL | ONEWAY => Some(Role::Client),
        REPLY | EXCEPTION => Some(Role::Server),
        _ => None,
    }
}

/// Many clients number every call 0, so the method takes part. A reply to a multiplexed call names the method alone.
fn pair(method: &[u8], sequence: u32) -> u64 {
    let hash = method.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    u64::from(if method.is_empty() { 0 } else { hash }) << 32 | u64::from(sequence)
}

/// Types of TApplicationException (thrift/lib: TApplicationExceptionType).
fn exception_name(code: Option<i32>) -> &'static str {
    match code {
        Some(1) => "Unknown method",
        Some(2) => "Invalid message type",
        Some(3) => "Wrong method name",
        Some(4) => "Bad sequence id",
        Some(5) => "Missing result",
        Some(6) => "Internal error",
        Some(7) => "Protocol error",
        Some(8) => "Invalid transform",
        Some(9) => "Invalid protocol",
        Some(10) => "Unsupported client type",
        _ => "Unknown exception",
    }
}

fn by_client(code: Option<i32>) -> bool {
    matches!(code, Some(1..=3 | 7..=10))
}

/// Offset of the first message in bytes that begin anywhere. Only messages with a version are found within.
fn find_start(role: Role, window: &[u8], framed: bool) -> Option<usize> {
    let begins = |at: usize| {
        let bytes = window.get(at..).unwrap_or_default();
        Head::read(bytes).is_ok_and(|head| {
            writer(head.kind).is_none_or(|writer| writer == role)
                && head.total.is_some() == framed
                && head.is_sure(bytes)
        })
    };
    if begins(0) {
        return Some(0);
    }
    let versions = memchr::memchr2_iter(0x80, 0x82, window);
    let mut starts = versions
        .filter(|&at| framed || window.get(at) == Some(&0x80))
        .filter_map(|at| if framed { at.checked_sub(4) } else { Some(at) });
    starts.find(|&at| begins(at))
}

fn check(payload: &[u8], _port: u16) -> Guess {
    match Head::read(payload) {
        Ok(head) if head.is_sure(payload) => Guess::Yes(writer(head.kind).unwrap_or(Role::Client)),
        Err(Trouble::Short(_)) => Guess::Maybe,
        _ => Guess::No,
    }
}

//! The registry of application protocols: one file a protocol, one line in [`REGISTRY`].
//!
//! A parser sees, for each direction of a connection, a contiguous window of the stream. It names one message at
//! a time and says how many bytes of the stream the message takes; bytes that were not captured (beyond the
//! capture length) or that a parser does not need (a body) are skipped by count, never copied.

use std::borrow::Cow;
use std::rc::Rc;

use memchr::{memchr_iter, memchr2};

use self::http1::recent::Recent;
use self::names::Names;
use self::propagation::Configured;
pub use self::told::Told;
use crate::event::Origin;

pub mod amqp;
pub mod amqp1;
pub mod ber;
pub mod brpc;
pub mod cassandra;
pub mod compressed;
pub mod cursor;
pub mod dns;
pub mod dubbo;
pub mod fastcgi;
pub mod frame;
pub mod grpc;
pub mod headed;
pub mod http1;
pub mod http2;
mod inflate;
pub mod iso8583;
pub mod kafka;
pub mod ldap;
pub mod memcached;
pub mod mongodb;
pub mod mqtt;
pub mod mysql;
pub mod names;
pub mod nats;
pub mod openwire;
pub mod oracle;
mod path_template;
pub mod ping;
pub mod postgresql;
pub mod propagation;
pub mod pulsar;
pub mod quic;
pub mod redis;
pub mod rocketmq;
pub mod sip;
pub mod sofarpc;
pub mod someip;
pub mod sql;
pub mod stomp;
pub mod tars;
pub mod tds;
pub mod thrift;
pub mod tls;
pub mod told;
pub mod trace_context;
pub mod websocket;
pub mod zmtp;

/// Which side of the connection wrote the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Client,
    Server,
}

/// `response_status` of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    Success = 0,
    Timeout = 2,
    ServerError = 3,
    ClientError = 4,
    #[default]
    Unknown = 5,
    ParseFailed = 6,
}

/// What a message is in its exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Waits for a response.
    #[default]
    Request,
    Response,
    /// A request that no response answers (one-way, publish, QUIT).
    Session,
}

/// One message; a request and its response merge into one row. A response fills the response_* fields, and of domain,
/// resource and endpoint what only it can know: the request's text goes before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub kind: Kind,
    /// Pairing key where the protocol pairs by id, unless `pair` is set; otherwise only reported.
    pub request_id: Option<u64>,
    /// Pairing key where it is not the id that is reported (a channel and a method, a hash of a text). Requests of the
    /// two sides must not share keys.
    pub pair: Option<u64>,
    /// Number of the protocol when it is not the connection's (gRPC in HTTP/2); 0 the connection's.
    pub l7_protocol: u8,
    /// The message began here, not where it was completed (a response whose status comes in its trailers): what
    /// [`Parser::at`] said then.
    pub began: Option<Origin>,
    /// Silence answers this request too (a quiet command): one that gets no response is a session of its own.
    pub may_be_silent: bool,
    /// The server sent this request (a push, a delivery).
    pub is_reversed: bool,
    pub version: Cow<'static, str>,
    pub request_type: String,
    pub request_domain: String,
    pub request_resource: String,
    pub endpoint: String,
    pub status: Status,
    pub response_code: Option<i32>,
    pub response_exception: String,
    pub response_result: String,
    /// Declared length of this message's body, bytes.
    pub length: Option<i64>,
    /// Length of the request's body, bytes, where only the response knows it: it came after the request was named. Or of
    /// what a server pushes, where that counts as a request.
    pub request_length: Option<i64>,
    pub sql_affected_rows: Option<u64>,
    pub trace_id: String,
    pub span_id: String,
    pub x_request_id: String,
    pub http_proxy_client: String,
    pub attributes: Vec<(String, String)>,
}

impl Message {
    /// What a response and its request have in common.
    pub fn pairing_key(&self) -> Option<u64> {
        self.pair.or(self.request_id)
    }
}

/// What a parser made of the window.
#[derive(Debug)]
pub enum Step {
    /// A message that takes `consumed` bytes of the stream, which may be more than the window holds.
    Message { consumed: u64, message: Box<Message> },
    /// The same, shared with others that were told in the same words; nothing follows it by [`Parser::more`].
    Known { consumed: u64, message: Rc<Message> },
    /// Bytes that are no message of their own (a body chunk, a 100-continue, rows of a result).
    Skip(u64),
    /// The message goes on beyond the window; ask again when it has grown. When it cannot grow (bytes lost or not
    /// captured, or the window's bound reached) the stream calls [`Parser::truncated`].
    NeedMore,
    /// These bytes are not this protocol or make no sense here.
    Invalid,
    /// From here on, both directions speak another protocol (TLS after a negotiation, an upgrade): it is recognised
    /// anew, beginning with this window.
    Switch,
    /// The same, where it is known which protocol takes over: its number.
    SwitchTo(u8),
}

/// What a parser knows of a request whose time is over.
#[derive(Debug)]
pub enum Late {
    Unanswered,
    /// Its response has begun, and is held back until its end: the request goes on waiting.
    Begun,
    /// This is how it ended.
    Ended(Box<Message>),
}

/// State of one connection; both directions go through it in the order of time.
pub trait Parser {
    /// Parse at the start of `window`. `role` wrote it. `window` is never empty.
    fn parse(&mut self, role: Role, window: &[u8]) -> Step;

    /// The window will not grow although the message needs more: name what can be named.
    /// `missing` bytes follow the window unseen (0 when only the bound was reached).
    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step;

    /// Bytes of this direction were lost: forget what depends on them. Returns how far into `window` the next
    /// recognisable message begins, if any.
    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize>;

    /// Where the first byte of the next window came from.
    fn at(&mut self, _origin: Origin) {}

    /// A further message that the bytes of the last one told (one answer to many requests); asked until there is none.
    fn more(&mut self) -> Option<Box<Message>> {
        None
    }

    /// The connection is over, or all that is known is asked for: a message that was held back, one a call.
    fn finish(&mut self) -> Option<(Role, Box<Message>)> {
        None
    }

    /// The request with this pairing key (the first that waits when there is none) has waited for its time: is there
    /// more to know?
    fn late(&mut self, _key: Option<u64>) -> Late {
        Late::Unanswered
    }

    /// No further message will come of this connection, whatever it brings (all of it is encrypted from here on).
    fn is_done(&self) -> bool {
        false
    }

    /// The parser that takes over after `SwitchTo`, when it has to know what was said before.
    fn successor(&mut self) -> Option<Box<dyn Parser>> {
        None
    }

    /// The IP protocol under this connection, told before the first byte when it is known. Only protocols framed
    /// differently on datagrams care.
    fn transport(&mut self, _ip_protocol: u8) {}
}

/// How responses find their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    Fifo,
    Id,
    /// In the order of the requests, some of which go without a response: the parser says which one is answered
    /// ([`Message::pair`]), and those before it that may be silent were.
    Ordered,
}

/// Result of inference on a first payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    No,
    /// It is ours, and this side wrote it.
    Yes(Role),
    /// It is ours, and either side could have written it (a greeting that both send).
    Either,
    /// Could become ours with more bytes.
    Maybe,
}

/// Settings that parsers read; one immutable copy an engine.
#[derive(Clone, Debug)]
pub struct ParserSettings {
    /// Header names (lower case, `_` and `-` alike) read as x_request_id, trace id, span id, real client.
    pub x_request_id: Vec<String>,
    pub apm_trace_id: Vec<String>,
    pub apm_span_id: Vec<String>,
    pub http_real_client: Vec<String>,
    /// Path segments kept in an HTTP endpoint.
    pub http_endpoint_segments: usize,
    /// Domains under which a name that does not exist (NXDOMAIN) is no error: search lists of clusters ask for many.
    pub unconcerned_dns_nxdomain_response_suffixes: Vec<String>,
    /// Segments of a path that are ids become `*` in its endpoint.
    pub http_endpoint_fold_ids: bool,
    /// Protocols whose values are masked ("Redis", "MySQL").
    pub obfuscate_protocols: Vec<String>,
    /// Longest text kept in one field, bytes.
    pub max_field: usize,
    /// Names that the connections of an engine learn for each other.
    pub names: Names,
    pub context_headers: Configured,
    pub recent_heads: Recent,
}

impl Default for ParserSettings {
    fn default() -> Self {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            x_request_id: own(&["x-request-id"]),
            apm_trace_id: own(&["traceparent", "sw8"]),
            apm_span_id: own(&["traceparent", "sw8"]),
            http_real_client: own(&["x-forwarded-for"]),
            http_endpoint_segments: 2,
            unconcerned_dns_nxdomain_response_suffixes: Vec::new(),
            http_endpoint_fold_ids: true,
            obfuscate_protocols: own(&["Redis"]),
            max_field: 8192,
            names: Names::default(),
            context_headers: Configured::default(),
            recent_heads: Recent::default(),
        }
    }
}

impl ParserSettings {
    /// Are the values of this protocol masked?
    pub fn masks(&self, protocol: &str) -> bool {
        self.obfuscate_protocols.iter().any(|name| name.eq_ignore_ascii_case(protocol))
    }

    /// The endpoint of an HTTP path: its first segments, ids as `*`.
    pub fn endpoint(&self, path: &str) -> String {
        let mut endpoint = String::new();
        self.endpoint_into(path, &mut endpoint);
        endpoint
    }

    /// The same, in the place of another one.
    pub fn endpoint_into(&self, path: &str, endpoint: &mut String) {
        let kept = first_segments(path, self.http_endpoint_segments);
        endpoint.clear();
        if self.http_endpoint_fold_ids {
            path_template::fold(kept, endpoint);
        } else {
            endpoint.extend(["/", kept]);
        }
    }

    /// `bytes` as text of at most `max_field` bytes.
    pub fn text(&self, bytes: &[u8]) -> String {
        clip(bytes, self.max_field)
    }
}

/// A line of the registry.
pub struct Protocol {
    /// DeepFlow's l7_protocol number; ours from 200 up.
    pub id: u8,
    pub name: &'static str,
    pub pairing: Pairing,
    /// IP protocols it runs on.
    pub transports: &'static [u8],
    /// Default time a request waits for its response, s.
    pub timeout_s: u32,
    /// Is this payload, the first seen of its direction, ours? `port` is the remote or local port that is not ephemeral, 0 unknown.
    pub check: fn(payload: &[u8], port: u16) -> Guess,
    pub parser: fn(&Rc<ParserSettings>) -> Box<dyn Parser>,
    /// A paragraph for docs/protocols.md.
    pub doc: &'static str,
}

/// Every protocol, in the order of inference (the strictest check first).
// A line each: branches that add one merge.
#[rustfmt::skip]
pub static REGISTRY: &[Protocol] = &[
    dubbo::PROTOCOL,
    brpc::PROTOCOL,
    openwire::PROTOCOL,
    zmtp::PROTOCOL,
    tls::PROTOCOL,
    fastcgi::PROTOCOL,
    sip::PROTOCOL,
    quic::PROTOCOL,
    ldap::PROTOCOL,
    amqp::PROTOCOL,
    amqp1::PROTOCOL,
    sofarpc::PROTOCOL,
    tars::PROTOCOL,
    pulsar::PROTOCOL,
    rocketmq::PROTOCOL,
    kafka::PROTOCOL,
    http2::PROTOCOL,
    grpc::GRPC,
    grpc::TRIPLE,
    grpc::WEB,
    websocket::PROTOCOL,
    mqtt::PROTOCOL,
    nats::PROTOCOL,
    stomp::PROTOCOL,
    mysql::PROTOCOL,
    mongodb::PROTOCOL,
    memcached::PROTOCOL,
    cassandra::PROTOCOL,
    postgresql::PROTOCOL,
    tds::PROTOCOL,
    oracle::PROTOCOL,
    http1::PROTOCOL,
    redis::PROTOCOL,
    thrift::PROTOCOL,
    someip::PROTOCOL,
    iso8583::PROTOCOL,
    dns::PROTOCOL,
    ping::PROTOCOL,
];

/// The registry's line of an id.
pub fn by_id(id: u8) -> Option<&'static Protocol> {
    REGISTRY.iter().find(|protocol| protocol.id == id)
}

/// What [`infer`] made of a payload.
#[derive(Clone, Copy)]
pub enum Inference {
    Known(&'static Protocol, Role),
    /// No protocol says yes, at least one could with more bytes.
    Maybe,
    Foreign,
}

/// Which protocol is this, the first payload seen of its direction, and which side wrote it?
///
/// `role_hint` is who wrote it if that is certain (the side that connected is the client); a protocol whose own
/// reading contradicts it is passed over. `port` is the port that is not ephemeral, 0 unknown. `transport` is the
/// IP protocol number.
pub fn infer(payload: &[u8], role_hint: Option<Role>, port: u16, transport: u8) -> Inference {
    let mut result = Inference::Foreign;
    for protocol in REGISTRY.iter().filter(|protocol| protocol.transports.contains(&transport)) {
        match (protocol.check)(payload, port) {
            Guess::Yes(role) if role_hint.is_none_or(|hint| hint == role) => {
                return Inference::Known(protocol, role);
            }
            Guess::Either => return Inference::Known(protocol, role_hint.unwrap_or(Role::Client)),
            Guess::Maybe => result = Inference::Maybe,
            Guess::Yes(_) | Guess::No => {}
        }
    }
    result
}

/// The first `segments` segments of a path, without the `/` that it begins with, query and fragment.
fn first_segments(path: &str, segments: usize) -> &str {
    let end = memchr2(b'?', b'#', path.as_bytes()).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or(path);
    let inner = path.strip_prefix('/').unwrap_or(path);
    let kept = match segments.checked_sub(1).map(|last| memchr_iter(b'/', inner.as_bytes()).nth(last)) {
        None => "",
        Some(Some(end)) => inner.get(..end).unwrap_or_default(),
        Some(None) => inner,
    };
    kept.trim_end_matches('/')
}

/// At most `max` bytes of `bytes` as text; what is not UTF-8 becomes U+FFFD, a character cut by the bound is left out.
pub fn clip(bytes: &[u8], max: usize) -> String {
    let kept = bytes.get(..max).unwrap_or(bytes);
    match std::str::from_utf8(kept) {
        Ok(text) => text.to_owned(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(kept.get(..error.valid_up_to()).unwrap_or_default()).into_owned()
        }
        Err(_) => {
            let mut text = String::from_utf8_lossy(kept).into_owned();
            let end = text.char_indices().map(|(at, _)| at).take_while(|&at| at <= max).last().unwrap_or(0);
            if text.len() > max {
                text.truncate(end);
            }
            text
        }
    }
}

/// An error message without what stands in quotes or braces.
pub fn without_quoted(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut inside = None;
    for byte in message {
        match (inside, byte) {
            (None, b'"' | b'\'') => inside = Some(*byte),
            (None, b'{') => inside = Some(b'}'),
            (None, _) => {
                kept.push(*byte);
                continue;
            }
            (Some(end), byte) if *byte == end => inside = None,
            _ => continue,
        }
        if inside.is_some() {
            kept.push(b'?');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_fold_paths() {
        for (path, segments, expected) in [
            ("", 2, "/"),
            ("/", 2, "/"),
            ("api/v1/users", 2, "/api/v1"),
            ("/api/v1/users/123?query=456", 3, "/api/v1/users"),
            ("/api?x=/a/b/c", 2, "/api"),
            ("/api/", 2, "/api"),
            ("/a/b/c", 0, "/"),
            ("/a/b/c", 9, "/a/b/c"),
        ] {
            assert_eq!(format!("/{}", first_segments(path, segments)), expected, "{path} {segments}");
        }
    }

    #[test]
    fn clipping_keeps_whole_characters_and_the_bound() {
        assert_eq!(clip("héllo".as_bytes(), 2), "h");
        assert_eq!(clip("héllo".as_bytes(), 3), "hé");
        assert_eq!(clip(b"a\xffb", 10), "a\u{fffd}b");
        assert!(clip(&[0xff; 100], 10).len() <= 10);
    }

    #[test]
    fn ids_and_names_are_unique() {
        for (at, protocol) in REGISTRY.iter().enumerate() {
            assert!(!protocol.doc.is_empty() && !protocol.transports.is_empty(), "{}", protocol.name);
            for other in REGISTRY.iter().skip(at + 1) {
                assert!(other.id != protocol.id && other.name != protocol.name, "{}", protocol.name);
            }
        }
    }
}

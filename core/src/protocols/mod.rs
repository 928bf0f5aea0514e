//! The registry of application protocols: one file a protocol, one line in [`REGISTRY`].
//!
//! A parser sees, for each direction of a connection, a contiguous window of the stream. It names one message at
//! a time and says how many bytes of the stream the message takes; bytes that were not captured (beyond the
//! capture length) or that a parser does not need (a body) are skipped by count, never copied.

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

/// One message; a request and its response merge into one row. A response fills the response_* fields only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub kind: Kind,
    /// Pairing key where the protocol pairs by id; otherwise only reported.
    pub request_id: Option<u64>,
    pub version: &'static str,
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
    pub sql_affected_rows: Option<u64>,
    pub trace_id: String,
    pub span_id: String,
    pub x_request_id: String,
    pub http_proxy_client: String,
    pub attributes: Vec<(String, String)>,
}

/// What a parser made of the window.
#[derive(Debug)]
pub enum Step {
    /// A message that takes `consumed` bytes of the stream, which may be more than the window holds.
    Message {
        consumed: u64,
        message: Box<Message>,
    },
    /// Bytes that are no message of their own (a body chunk, a 100-continue, rows of a result).
    Skip(u64),
    /// The message goes on beyond the window; ask again when it has grown. When it cannot grow (bytes lost or not
    /// captured, or the window's bound reached) the stream calls [`Parser::truncated`].
    NeedMore,
    /// These bytes are not this protocol or make no sense here.
    Invalid,
}

/// State of one connection; both directions go through it in the order of time.
pub trait Parser: Send {
    /// Parse at the start of `window`. `role` wrote it. `window` is never empty.
    fn parse(&mut self, role: Role, window: &[u8]) -> Step;

    /// The window will not grow although the message needs more: name what can be named.
    /// `missing` bytes follow the window unseen (0 when only the bound was reached).
    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step;

    /// Bytes of this direction were lost: forget what depends on them. Returns how far into `window` the next
    /// recognisable message begins, if any.
    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize>;
}

/// How responses find their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    Fifo,
    Id,
}

/// Result of inference on a first payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    No,
    /// It is ours, and this side wrote it.
    Yes(Role),
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
    /// Protocols whose values are masked ("Redis", "MySQL").
    pub obfuscate_protocols: Vec<String>,
    /// Longest text kept in one field, bytes.
    pub max_field: usize,
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
            obfuscate_protocols: own(&["Redis"]),
            max_field: 8192,
        }
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
    pub parser: fn(&std::sync::Arc<ParserSettings>) -> Box<dyn Parser>,
    /// A paragraph for docs/protocols.md.
    pub doc: &'static str,
}

/// Every protocol, in the order of inference (the strictest check first).
pub static REGISTRY: &[Protocol] = &[];

//! The head of a message: start line and the few header fields that a row keeps.

use std::ops::Range;

use memchr::{memchr, memchr_iter};

use crate::protocols::grpc::{Call, Outcome};
use crate::protocols::propagation::{Propagation, Shapes};
use crate::protocols::{Kind, Message, ParserSettings, Role, Status};

/// The fields that a head keeps, besides those that say something of the call's context.
static FIELDS: Shapes = {
    let mut shapes = Shapes::none();
    shapes.add(b"host");
    shapes.add(b"referer");
    shapes.add(b"upgrade");
    shapes.add(b"user-agent");
    shapes.add(b"grpc-status");
    shapes.add(b"grpc-message");
    shapes.add(b"content-type");
    shapes.add(b"content-length");
    shapes.add(b"transfer-encoding");
    shapes
};

enum Line<'a> {
    Request { method: &'a [u8], target: &'a [u8] },
    Response { code: u16, phrase: &'a [u8] },
}

/// What of a request decides how its response ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Awaited {
    Head,
    Connect,
    Other,
}

/// What a start line says of the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    Request(Awaited),
    /// The status code.
    Response(u16),
}

/// How the message goes on behind its head.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    pub start: Start,
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// Some transfer coding was applied (chunked or not).
    pub encoded: bool,
}

impl Framing {
    /// The request still waits (1xx, but for the change to another protocol).
    pub fn is_interim(&self) -> bool {
        matches!(self.start, Start::Response(code) if (100..200).contains(&code) && code != 101)
    }
}

pub struct Head<'a> {
    line: Line<'a>,
    version: &'static str,
    pub framing: Framing,
    pub upgrade: &'a [u8],
    pub call: Call,
    host: &'a [u8],
    user_agent: &'a [u8],
    referer: &'a [u8],
    context: Propagation<'a>,
    /// What gRPC-Web says in headers when there is no body.
    outcome: Outcome,
    /// Behind the empty line that ends it, when that was seen.
    pub end: Option<usize>,
}

impl<'a> Head<'a> {
    /// Reads a head; of an incomplete one the last, cut line is left out (but not a cut start line).
    pub fn read(bytes: &'a [u8], complete: bool, role: Role, settings: &'a ParserSettings) -> Option<Self> {
        let end = memchr(b'\n', bytes);
        let first = bytes.get(..end.unwrap_or(bytes.len()))?;
        let (line, version) = match role {
            Role::Client => request_line(first.trim_ascii_end(), complete || end.is_some())?,
            Role::Server => status_line(first.trim_ascii_end())?,
        };
        let start = match line {
            Line::Request { method: b"HEAD", .. } => Start::Request(Awaited::Head),
            Line::Request { method: b"CONNECT", .. } => Start::Request(Awaited::Connect),
            Line::Request { .. } => Start::Request(Awaited::Other),
            Line::Response { code, .. } => Start::Response(code),
        };
        let mut head = Self {
            line,
            version,
            framing: Framing { start, content_length: None, chunked: false, encoded: false },
            upgrade: b"",
            call: Call::None,
            host: b"",
            user_agent: b"",
            referer: b"",
            context: Propagation::new(settings),
            outcome: Outcome::default(),
            end: None,
        };
        let mut rest = end.and_then(|end| bytes.get(end + 1..)).unwrap_or_default();
        let context = settings.context_headers();
        while let Some((length, first)) = field_line(rest) {
            let (line, after) = rest.split_at(length);
            if FIELDS.begins(first) || context.begins(first) || first.is_ascii_whitespace() {
                head.field(line, settings);
            }
            rest = after;
        }
        head.end = match rest {
            [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => Some(bytes.len() - after.len()),
            _ => None,
        };
        Some(head)
    }

    fn field(&mut self, line: &'a [u8], settings: &ParserSettings) {
        let Some(colon) = memchr(b':', line) else {
            return;
        };
        let (name, value) = line.split_at(colon);
        let name = name.trim_ascii();
        let context = settings.context_headers().may_be(name);
        if !context && !FIELDS.may_be(name) {
            return;
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("host") => self.host = value,
            7 if is("referer") => self.referer = value,
            7 if is("upgrade") => self.upgrade = value,
            10 if is("user-agent") => self.user_agent = value,
            11 | 12 if is("grpc-status") || is("grpc-message") => self.outcome.read(name, value, settings),
            12 if is("content-type") => self.call = Call::of(value),
            14 if is("content-length") && self.framing.content_length.is_none() => {
                self.framing.content_length = decimal(value);
            }
            17 if is("transfer-encoding") => {
                let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
                self.framing.chunked = last.eq_ignore_ascii_case(b"chunked");
                self.framing.encoded = self.framing.chunked || !last.eq_ignore_ascii_case(b"identity");
            }
            _ => {}
        }
        if !context {
            return;
        }
        if value.contains(&b'\n') {
            self.context.offer_http(name, unfold(value, settings).as_bytes());
        } else {
            self.context.offer_http(name, value);
        }
    }

    /// Nothing but the framing of its message changes what the parser does next.
    pub fn is_plain(&self) -> bool {
        self.upgrade.is_empty() && !self.call.is_web() && !self.framing.is_interim()
    }

    pub fn message(self, settings: &ParserSettings) -> Message {
        let text = |value: &[u8]| unfold(value, settings);
        let length = self.framing.content_length.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
        let mut message = Message { version: self.version.into(), length, ..Message::default() };
        self.context.fill(&mut message);
        match self.line {
            Line::Request { method, target } => {
                let (authority, resource) = split_target(method, target);
                message.kind = Kind::Request;
                message.request_type = settings.text(method);
                message.request_domain = text(authority.unwrap_or(self.host));
                message.request_resource = settings.text(resource);
                message.endpoint = match resource {
                    b"*" => "*".to_owned(),
                    _ if method == b"CONNECT" => message.request_resource.clone(),
                    _ => settings.endpoint(&message.request_resource),
                };
                if self.call.is_web() {
                    let path = std::mem::take(&mut message.request_resource);
                    self.call.name_request(&path, &mut message);
                }
                for (name, value) in [("user_agent", self.user_agent), ("referer", self.referer)] {
                    if !value.is_empty() {
                        message.attributes.push((name.to_owned(), text(value)));
                    }
                }
            }
            Line::Response { code, phrase } => {
                message.kind = Kind::Response;
                message.response_code = Some(i32::from(code));
                message.status = status_of(code);
                if self.call.is_web() {
                    message.l7_protocol = self.call.l7_protocol();
                }
                if code >= 400 {
                    message.response_exception = reason(code).map_or_else(|| settings.text(phrase), ToOwned::to_owned);
                }
                if self.call.is_web() {
                    self.outcome.fill(&mut message);
                }
            }
        }
        message
    }
}

/// Offset behind the empty line that ends a head, or from where to look on when there is more.
pub fn head_end(window: &[u8], from: usize) -> Result<usize, usize> {
    let mut resume = window.len();
    for at in memchr_iter(b'\n', window.get(from..).unwrap_or_default()) {
        let at = from + at;
        match window.get(at + 1..).unwrap_or_default() {
            [b'\n', ..] => return Ok(at + 2),
            [b'\r', b'\n', ..] => return Ok(at + 3),
            [] | [b'\r'] => resume = at,
            _ => {}
        }
    }
    Err(resume)
}

/// Length of a header field with its continuation lines (obsolete folding, RFC 9112 section 5.2), and its first byte;
/// `None` at the end of the head or when the field's end was not seen.
fn field_line(rest: &[u8]) -> Option<(usize, u8)> {
    let mut end = memchr(b'\n', rest)? + 1;
    let first = *rest.first()?;
    if first.is_ascii_whitespace() && rest.get(..end)?.trim_ascii().is_empty() {
        return None;
    }
    while matches!(rest.get(end), Some(b' ' | b'\t')) {
        end += memchr(b'\n', rest.get(end..)?)? + 1;
    }
    Some((end, first))
}

/// Text of a field value; a fold becomes one blank.
fn unfold(value: &[u8], settings: &ParserSettings) -> String {
    let text = settings.text(value);
    if !value.contains(&b'\n') {
        return text;
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = value.first().filter(|byte| byte.is_ascii_digit()).map(|_| 0u64)?;
    for digit in digits {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(number)
}

fn version(text: &[u8]) -> Option<&'static str> {
    match text.strip_prefix(b"HTTP/1.")? {
        b"0" => Some("1.0"),
        [b'1'..=b'9', ..] => Some("1.1"),
        _ => None,
    }
}

/// `METHOD target HTTP/1.x`; blanks inside the target are tolerated, a cut line lacks its version.
fn request_line(line: &[u8], complete: bool) -> Option<(Line<'_>, &'static str)> {
    let blank = memchr(b' ', line)?;
    let (method, rest) = line.split_at(blank);
    let rest = rest.trim_ascii();
    if method.is_empty() || !method.iter().all(|&byte| super::detect::is_token(byte)) {
        return None;
    }
    let last = rest.iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
    let (target, end) = rest.split_at(last);
    match version(end) {
        Some(version) => Some((Line::Request { method, target: target.trim_ascii() }, version)),
        None if complete => None,
        None => Some((Line::Request { method, target: rest }, "")),
    }
}

/// Where a whole head of a request has its target, when another [`plain_target`] there would change nothing else.
pub fn target(head: &[u8]) -> Option<Range<usize>> {
    let line = head.get(..memchr(b'\n', head)?)?.strip_suffix(b"\r")?;
    let start = memchr(b' ', line)? + 1;
    let end = start + memchr(b' ', line.get(start..)?)?;
    let last = line.get(end + 1..)?; // with another blank the target would go on behind this one
    let ends = memchr(b' ', last).is_none() && version(last).is_some() && line.get(..start - 1)? != b"CONNECT";
    (ends && line.get(start) == Some(&b'/')).then_some(start..end)
}

/// A path that is kept as it is (origin-form, RFC 9112 section 3.2.1).
pub fn plain_target<'a>(target: &'a [u8], settings: &ParserSettings) -> Option<&'a str> {
    let plain = target.first() == Some(&b'/') && target.len() <= settings.max_field;
    let text = std::str::from_utf8(target).ok().filter(|_| plain)?;
    (!target.iter().any(u8::is_ascii_whitespace)).then_some(text)
}

fn status_line(line: &[u8]) -> Option<(Line<'_>, &'static str)> {
    let blank = memchr(b' ', line)?;
    let (protocol, rest) = line.split_at(blank);
    let version = version(protocol)?;
    let rest = rest.trim_ascii();
    let digits = rest.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || rest.get(3).is_some_and(|&byte| byte != b' ') {
        return None;
    }
    let code = u16::try_from(decimal(digits)?).ok().filter(|code| *code >= 100)?;
    Some((Line::Response { code, phrase: rest.get(3..)?.trim_ascii() }, version))
}

/// The authority of an absolute-form target (RFC 9112 section 3.2.2) and the path with its query.
fn split_target<'a>(method: &[u8], target: &'a [u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    if method == b"CONNECT" {
        return (None, target);
    }
    let scheme = ["http://", "https://", "ws://", "wss://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme.as_bytes())));
    let Some(rest) = scheme.and_then(|scheme| target.get(scheme.len()..)) else {
        return (None, target);
    };
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, resource) = rest.split_at(end);
    let host = authority.rsplit(|&byte| byte == b'@').next().unwrap_or(authority);
    (Some(host), if resource.is_empty() { b"/" } else { resource })
}

pub fn status_of(code: u16) -> Status {
    match code {
        400..500 => Status::ClientError,
        500.. => Status::ServerError,
        _ => Status::Success,
    }
}

/// Reason phrases of the error codes (IANA HTTP Status Code Registry).
pub fn reason(code: u16) -> Option<&'static str> {
    Some(match code {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

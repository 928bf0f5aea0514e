//! What a row keeps of the parameters of a request and of the head of a response (RFC 3875).

use memchr::memchr;

use crate::protocols::propagation::Propagation;
use crate::protocols::trace_context::same_header;
use crate::protocols::{Kind, Message, ParserSettings, Status};

/// Most headers of a request that are kept until it is named.
const MAX_HEADERS: usize = 32;

/// Parameters of a request as they come.
#[derive(Default)]
pub struct Params {
    message: Message,
    script: String,
    user_agent: String,
    referer: String,
    /// Headers that the settings name, with their values.
    headers: Vec<(Vec<u8>, String)>,
}

impl Params {
    pub fn offer(&mut self, name: &[u8], value: &[u8], settings: &ParserSettings) {
        let message = &mut self.message;
        match name {
            b"REQUEST_METHOD" => message.request_type = settings.text(value),
            b"HTTP_HOST" => message.request_domain = settings.text(value),
            b"REQUEST_URI" => message.request_resource = settings.text(value),
            b"DOCUMENT_URI" => message.endpoint = settings.text(value),
            b"SCRIPT_NAME" => self.script = settings.text(value),
            b"CONTENT_LENGTH" => message.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            b"HTTP_USER_AGENT" => self.user_agent = settings.text(value),
            b"HTTP_REFERER" => self.referer = settings.text(value),
            _ => {}
        }
        if let Some(header) = name.strip_prefix(b"HTTP_") {
            let lists =
                [&settings.x_request_id, &settings.http_real_client, &settings.apm_trace_id, &settings.apm_span_id];
            let named = lists.into_iter().flatten().any(|known| same_header(header, known));
            if named && self.headers.len() < MAX_HEADERS {
                // The formats of trace contexts go by the header's own spelling.
                self.headers.push((header.to_ascii_lowercase(), settings.text(value)));
            }
        }
    }

    /// The request, when something was said of it.
    pub fn message(mut self, settings: &ParserSettings) -> Message {
        let mut message = std::mem::take(&mut self.message);
        message.kind = Kind::Request;
        if message.request_resource.is_empty() {
            message.request_resource.clone_from(&self.script);
        }
        if message.endpoint.is_empty() {
            message.endpoint = self.script;
        }
        if message.endpoint.is_empty() {
            message.endpoint = settings.endpoint(&message.request_resource);
        }
        let mut propagation = Propagation::new(settings);
        for (name, value) in &self.headers {
            propagation.offer_http(name, value.as_bytes());
        }
        propagation.fill(&mut message);
        for (name, value) in [("user_agent", self.user_agent), ("referer", self.referer)] {
            if !value.is_empty() {
                message.attributes.push((name.to_owned(), value));
            }
        }
        message
    }
}

/// Calls `each` for every whole name-value pair; returns how many bytes the pairs took.
pub fn pairs(bytes: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> usize {
    let mut at = 0;
    loop {
        let Some((name_length, after)) = length(bytes, at) else {
            return at;
        };
        let Some((value_length, from)) = length(bytes, after) else {
            return at;
        };
        let middle = from.saturating_add(name_length);
        let end = middle.saturating_add(value_length);
        let (Some(name), Some(value)) = (bytes.get(from..middle), bytes.get(middle..end)) else {
            return at;
        };
        each(name, value);
        at = end;
    }
}

/// A length of one byte, or of four when its highest bit is set, and the offset behind it.
fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((usize::from(first), at + 1));
    }
    let four = bytes.get(at..at + 4)?;
    Some((four.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)) & 0x7fff_ffff, at + 4))
}

/// Does a response begin so? `Name:` of a header field, or what could become it.
pub fn begins(bytes: &[u8]) -> Option<bool> {
    let name = bytes.iter().take(64).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    match bytes.get(name) {
        Some(b':') if name > 0 => Some(true),
        None if name < 64 => None,
        _ => Some(false),
    }
}

/// Offset behind the empty line that ends a head, from `from` on.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(line) = memchr(b'\n', bytes.get(at..)?) {
        at += line + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The response that a head describes; 200 when it names no status.
pub fn response(head: &[u8], settings: &ParserSettings) -> Message {
    let mut message = Message { kind: Kind::Response, ..Message::default() };
    let (mut code, mut phrase) = (200, "");
    let mut propagation = Propagation::new(settings);
    for line in head.split(|&byte| byte == b'\n') {
        let Some(colon) = memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        propagation.offer(name, value);
        let text = std::str::from_utf8(value).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"status") {
            let (digits, rest) = text.split_once(' ').unwrap_or((text, ""));
            if let Some(found) = digits.parse().ok().filter(|code| (100..1000).contains(code)) {
                (code, phrase) = (found, rest);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            message.length = text.parse().ok();
        }
    }
    propagation.fill(&mut message);
    message.response_code = Some(code);
    message.status = match code {
        400..500 => Status::ClientError,
        500.. => Status::ServerError,
        _ => Status::Success,
    };
    if code >= 400 {
        message.response_exception = settings.text(phrase.as_bytes());
    }
    message
}

//! gRPC and its relatives: calls that HTTP carries. Their messages come from the parsers of HTTP/1 and HTTP/2.
//!
//! Sources: "gRPC over HTTP2" and "gRPC Web" (grpc/doc), the Triple specification of Dubbo 3.

pub mod web;

use super::{Guess, Message, Pairing, ParserSettings, Protocol, Status};

pub const GRPC: Protocol = Protocol {
    id: 41,
    name: "gRPC",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check: |_, _| Guess::No,
    parser: super::http2::PROTOCOL.parser,
    doc: "Calls on HTTP/2 whose content type is application/grpc. The service is the resource, the path the endpoint, \
          grpc-status the response code and grpc-message the exception, also of calls that fail before they answer \
          (trailers only). A streaming call is one row: it is timed to the first byte of the response and reported \
          with the status at its end.",
};

pub const TRIPLE: Protocol = Protocol {
    id: 49,
    name: "Triple",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check: |_, _| Guess::No,
    parser: super::http2::PROTOCOL.parser,
    doc: "Dubbo 3 calls on HTTP/2: gRPC whose headers are Dubbo's (tri-service-version, tri-req-id and others, or the \
          content type application/triple). Fields are those of gRPC.",
};

pub const WEB: Protocol = Protocol {
    id: 209,
    name: "gRPC-Web",
    pairing: Pairing::Fifo,
    transports: &[6],
    timeout_s: 60,
    check: |_, _| Guess::No,
    parser: super::http1::PROTOCOL.parser,
    doc: "gRPC calls of browsers on HTTP/1.1 or HTTP/2 (content type application/grpc-web, application/grpc-web-text). \
          The status is read from the trailers, which are the end of the response's body, also when gzip compresses \
          them; it is unknown when another compression does. Fields are those of gRPC.",
};

/// Which of them a message belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    #[default]
    None,
    Grpc,
    Triple,
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl Call {
    /// By the content type.
    pub fn of(content_type: &[u8]) -> Self {
        let kind = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &[u8]| {
            kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
                && matches!(kind.get(name.len()), None | Some(b'+'))
        };
        if is(b"application/grpc") {
            Self::Grpc
        } else if is(b"application/grpc-web") {
            Self::Web
        } else if is(b"application/grpc-web-text") {
            Self::WebText
        } else if is(b"application/triple") {
            Self::Triple
        } else {
            Self::None
        }
    }

    pub fn is_web(self) -> bool {
        matches!(self, Self::Web | Self::WebText)
    }

    /// `Message::l7_protocol`.
    pub fn l7_protocol(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Grpc => GRPC.id,
            Self::Triple => TRIPLE.id,
            Self::Web | Self::WebText => WEB.id,
        }
    }

    /// Fills what a request of this kind has besides HTTP's fields.
    pub fn name_request(self, path: &str, message: &mut Message) {
        if self == Self::None {
            return;
        }
        message.l7_protocol = self.l7_protocol();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let (service, _) = path.rsplit_once('/').unwrap_or_default();
        let service = service.trim_start_matches('/');
        path.clone_into(&mut message.endpoint);
        service.clone_into(&mut message.request_resource);
        if !service.is_empty() {
            message.attributes.push(("rpc_service".to_owned(), service.to_owned()));
        }
    }
}

/// What trailers say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub status: Option<i32>,
    pub message: String,
}

impl Outcome {
    /// Takes a trailer (or header) into account.
    pub fn read(&mut self, name: &[u8], value: &[u8], settings: &ParserSettings) {
        if name.eq_ignore_ascii_case(b"grpc-status") {
            self.status = std::str::from_utf8(value).ok().and_then(|digits| digits.trim().parse().ok());
        } else if name.eq_ignore_ascii_case(b"grpc-message") {
            self.message = settings.text(&unescape(value.get(..settings.max_field).unwrap_or(value)));
        }
    }

    /// Puts it into the response; nothing when the status is not known.
    pub fn fill(self, message: &mut Message) {
        let Some(code) = self.status else {
            return;
        };
        message.response_code = Some(code);
        message.status = status_of(code);
        message.response_exception = match self.message {
            _ if code == 0 => String::new(),
            text if text.is_empty() => name_of(code).to_owned(),
            text => text,
        };
    }
}

fn status_of(code: i32) -> Status {
    match code {
        0 => Status::Success,
        1 | 3 | 5 | 6 | 7 | 9 | 11 | 16 => Status::ClientError,
        _ => Status::ServerError,
    }
}

/// Names of the status codes (grpc/doc/statuscodes.md).
fn name_of(code: i32) -> &'static str {
    match code {
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "",
    }
}

/// grpc-message is percent-encoded; what is no encoding stays as it is.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |place: usize| after.get(place).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (text, expected) in [
            ("application/grpc", Call::Grpc),
            ("application/grpc+proto; charset=utf-8", Call::Grpc),
            ("Application/gRPC-Web+proto", Call::Web),
            ("application/grpc-web-text", Call::WebText),
            ("application/triple+wrapper", Call::Triple),
            ("application/grpcish", Call::None),
            ("text/html", Call::None),
        ] {
            assert_eq!(Call::of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_unescaped() {
        assert_eq!(unescape(b"no%20such%20key%"), b"no such key%");
        assert_eq!(unescape(b"%zz%41"), b"%zzA");
    }
}

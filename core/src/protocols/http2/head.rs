//! A header block: the few fields that a row keeps.

use super::hpack::{Decoder, Malformed};
use crate::protocols::grpc::{Call, Outcome};
use crate::protocols::http1::head::{reason, status_of};
use crate::protocols::propagation::Propagation;
use crate::protocols::{Kind, Message, ParserSettings};

pub struct Head<'s> {
    method: String,
    path: String,
    authority: String,
    host: String,
    user_agent: String,
    referer: String,
    pub code: Option<u16>,
    content_length: Option<i64>,
    pub call: Call,
    pub outcome: Outcome,
    context: Propagation<'s>,
    /// A header of Dubbo 3 is among the fields.
    triple: bool,
    /// Pseudo-headers of a request are among them.
    pub asks: bool,
    /// Some fields refer to what was said before the capture.
    pub unknown: bool,
}

impl<'s> Head<'s> {
    pub fn read(
        decoder: &mut Decoder,
        block: &[u8],
        complete: bool,
        settings: &'s ParserSettings,
    ) -> Result<Self, Malformed> {
        let mut head = Self {
            method: String::new(),
            path: String::new(),
            authority: String::new(),
            host: String::new(),
            user_agent: String::new(),
            referer: String::new(),
            code: None,
            content_length: None,
            call: Call::None,
            outcome: Outcome::default(),
            context: Propagation::new(settings),
            triple: false,
            asks: false,
            unknown: false,
        };
        decoder.decode(block, complete, &mut |name, value| match (name, value) {
            (Some(name), Some(value)) => head.field(name, value, settings),
            _ => head.unknown = true,
        })?;
        head.unknown |= !complete;
        if head.triple && head.call == Call::Grpc {
            head.call = Call::Triple;
        }
        Ok(head)
    }

    fn field(&mut self, name: &[u8], value: &[u8], settings: &ParserSettings) {
        let text = || settings.text(value);
        self.asks |= matches!(name, b":method" | b":path" | b":scheme" | b":authority");
        match name {
            b":method" => self.method = text(),
            b":path" => self.path = text(),
            b":authority" => {
                // The name of a user, and a password, belong to nobody's row.
                let host = value.rsplit(|&byte| byte == b'@').next().unwrap_or(value);
                self.authority = settings.text(host);
            }
            b":status" => self.code = number(value).filter(|code| (100..1000).contains(code)),
            b"host" => self.host = text(),
            b"user-agent" => self.user_agent = text(),
            b"referer" => self.referer = text(),
            b"content-length" => self.content_length = number(value),
            b"content-type" => self.call = Call::of(value),
            b"grpc-status" | b"grpc-message" => self.outcome.read(name, value, settings),
            _ => self.triple |= name.starts_with(b"tri-"),
        }
        self.context.offer_http(name, value);
    }

    pub fn request(self, id: u32, settings: &ParserSettings) -> Message {
        let mut message = Message {
            kind: Kind::Request,
            request_id: Some(u64::from(id)),
            version: "2".into(),
            request_domain: if self.authority.is_empty() { self.host } else { self.authority },
            length: self.content_length,
            ..Message::default()
        };
        self.context.fill(&mut message);
        for (name, value) in [("user_agent", self.user_agent), ("referer", self.referer)] {
            if !value.is_empty() {
                message.attributes.push((name.to_owned(), value));
            }
        }
        if self.call != Call::None {
            self.call.name_request(&self.path, &mut message);
        } else if self.path.is_empty() {
            // CONNECT has no path; of others it is unknown.
            if self.method == "CONNECT" {
                message.request_resource.clone_from(&message.request_domain);
                message.endpoint.clone_from(&message.request_domain);
            }
        } else {
            message.endpoint = if self.path == "*" { "*".to_owned() } else { settings.endpoint(&self.path) };
            message.request_resource = self.path;
        }
        message.request_type = self.method;
        message
    }

    pub fn response(self, id: u32) -> Message {
        let mut message = Message {
            kind: Kind::Response,
            request_id: Some(u64::from(id)),
            version: "2".into(),
            length: self.content_length,
            l7_protocol: self.call.l7_protocol(),
            response_code: self.code.map(i32::from),
            ..Message::default()
        };
        if let Some(code) = self.code {
            message.status = status_of(code);
            if code >= 400 {
                message.response_exception = reason(code).unwrap_or_default().to_owned();
            }
        }
        self.context.fill(&mut message);
        self.outcome.fill(&mut message);
        message
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

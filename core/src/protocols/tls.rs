//! The TLS handshake (RFC 5246, RFC 8446): what it says before it is encrypted.

mod certificate;
pub mod hello;
pub mod names;

use std::rc::Rc;

use memchr::memchr2_iter;

use super::{Guess, Kind, Late, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use crate::event::Origin;
use hello::{ServerHello, u16_at};

pub const PROTOCOL: Protocol = Protocol {
    id: 121,
    name: "TLS",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 15,
    check,
    parser: |settings| Box::new(Tls::new(settings)),
    doc: "The handshake of TLS 1.0 to 1.3 and SSL 3.0: a ClientHello and what the server makes of it, one row. The domain \
          is the server name that the client asks for; version, cipher suite and ALPN are those that the server chose. \
          Dates of certificates are read up to TLS 1.2; in TLS 1.3 certificates and later alerts are encrypted. A fatal \
          alert is an error of the side that sent it. What follows the handshake is opaque and is not looked at.",
};

/// DeepFlow gives all messages of a handshake this session id.
const HANDSHAKE: u64 = 0xff;
const HEADER: usize = 5;
/// A record holds at most 2^14 bytes; encryption may add 2048 (RFC 5246 section 6.2.3).
const MAX_RECORD: usize = (1 << 14) + 2048;
/// Most bytes kept of a handshake message that goes on in the next record.
const MAX_PART: usize = 16 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;
const HEARTBEAT: u8 = 24;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const FATAL: u8 = 2;

/// A handshake message that began in an earlier record.
#[derive(Default)]
struct Part {
    kept: Vec<u8>,
    /// Bytes of it that were seen.
    seen: usize,
    began: Origin,
}

#[derive(Default)]
struct Side {
    part: Part,
    /// What this side writes from here on is encrypted.
    opaque: bool,
    /// The window has to be this long before it is worth another look.
    wanted: usize,
}

struct Tls {
    settings: Rc<ParserSettings>,
    client: Side,
    server: Side,
    /// A ServerHello was seen that was no HelloRetryRequest.
    agreed: bool,
    /// The response to the ClientHello; it is complete when the server goes over to encryption.
    held: Option<Box<Message>>,
    at: Origin,
}

impl Tls {
    fn new(settings: &Rc<ParserSettings>) -> Self {
        let (client, server) = (Side::default(), Side::default());
        Self { settings: settings.clone(), client, server, agreed: false, held: None, at: Origin::default() }
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// One record of `total` bytes, of which `body` was captured.
    fn record(&mut self, role: Role, kind: u8, body: &[u8], total: u64, cut: bool) -> Step {
        let message = match kind {
            HANDSHAKE_RECORD => self.handshake(role, body, cut),
            ALERT if body.len() == 2 => self.alert(role, body),
            CHANGE_CIPHER_SPEC if self.agreed => {
                self.side(role).opaque = true;
                if role == Role::Server { self.held.take() } else { None }
            }
            _ => None,
        };
        match message {
            Some(message) => Step::Message { consumed: total, message },
            None => Step::Skip(total),
        }
    }

    /// Messages of one handshake record. `cut`: the record is not whole, so its last message is not either.
    fn handshake(&mut self, role: Role, mut body: &[u8], cut: bool) -> Option<Box<Message>> {
        let mut found = None;
        while !body.is_empty() {
            let at = self.at;
            let part = &mut self.side(role).part;
            let continued = part.seen > 0;
            if !continued {
                part.began = at;
            }
            let length = match (continued, body) {
                (true, _) => message_length(&part.kept),
                (false, _) => message_length(body),
            };
            let taken = match length {
                Some(length) => (length - part.seen).min(body.len()),
                // Not even the header is whole: a byte at a time, as headers are rarely cut.
                None => 1,
            };
            let (piece, rest) = body.split_at(taken);
            body = rest;
            let complete = length.is_some_and(|length| part.seen + taken == length);
            let began = part.began;
            if complete && !continued {
                self.side(role).part = Part::default();
                found = self.message(role, piece, None).or(found);
                continue;
            }
            let room = MAX_PART.saturating_sub(part.kept.len());
            part.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
            part.seen += taken;
            if complete || (cut && body.is_empty()) {
                let whole = std::mem::take(&mut self.side(role).part).kept;
                found = self.message(role, &whole, Some(began)).or(found);
            }
        }
        found
    }

    /// A handshake message; `began` when its first byte was in an earlier record.
    fn message(&mut self, role: Role, bytes: &[u8], began: Option<Origin>) -> Option<Box<Message>> {
        let body = bytes.get(4..)?;
        match (bytes.first().copied()?, role) {
            (CLIENT_HELLO, Role::Client) if !self.agreed => {
                let hello = hello::client(body)?;
                let mut message = Box::new(Message { pair: Some(HANDSHAKE), began, ..Message::default() });
                message.request_type = "ClientHello".to_owned();
                message.request_domain = self.settings.text(hello.server_name.as_bytes());
                if !hello.alpn.is_empty() {
                    message.attributes.push(("alpn_offered".to_owned(), self.settings.text(hello.alpn.as_bytes())));
                }
                Some(message)
            }
            (SERVER_HELLO, Role::Server) if !self.agreed => {
                let hello = hello::server(body)?;
                let mut message = response(began.unwrap_or(self.at));
                message.status = Status::Success;
                self.describe(&hello, &mut message);
                if hello.retry {
                    return Some(message);
                }
                self.agreed = true;
                if hello.is_1_3() {
                    self.client.opaque = true;
                    self.server.opaque = true;
                    return Some(message);
                }
                self.held = Some(message);
                None
            }
            (CERTIFICATE, role) => {
                let held = self.held.as_mut()?;
                let side = if role == Role::Client { "client" } else { "server" };
                // The length of the list and that of the first, the side's own certificate.
                if let Some((before, after)) = certificate::validity(body.get(6..)?) {
                    held.attributes.push((format!("{side}_cert_not_before"), before));
                    held.attributes.push((format!("{side}_cert_not_after"), after));
                }
                None
            }
            _ => None,
        }
    }

    fn describe(&self, hello: &ServerHello, message: &mut Message) {
        message.version = names::version(hello.version).into();
        if hello.retry {
            message.response_result = "HelloRetryRequest".to_owned();
        }
        if let Some(suite) = hello.cipher_suite {
            message.attributes.push(("cipher_suite".to_owned(), names::cipher_suite(suite).into_owned()));
        }
        if !hello.alpn.is_empty() {
            message.attributes.push(("alpn".to_owned(), self.settings.text(hello.alpn.as_bytes())));
        }
    }

    fn alert(&mut self, role: Role, body: &[u8]) -> Option<Box<Message>> {
        let &[FATAL, number] = body else {
            return None;
        };
        let mut message = self.held.take().unwrap_or_else(|| response(self.at));
        message.status = if role == Role::Client { Status::ClientError } else { Status::ServerError };
        message.response_code = Some(i32::from(number));
        message.response_exception = names::alert(number).into_owned();
        self.client.opaque = true;
        self.server.opaque = true;
        Some(message)
    }
}

fn response(began: Origin) -> Box<Message> {
    let (kind, began, pair) = (Kind::Response, Some(began), Some(HANDSHAKE));
    Box::new(Message { kind, began, pair, ..Message::default() })
}

impl Parser for Tls {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        let side = self.side(role);
        if side.opaque {
            return Step::Skip(window.len() as u64);
        }
        if window.len() < side.wanted {
            return Step::NeedMore;
        }
        side.wanted = 0;
        match record_length(window) {
            Length::Is(length) => {
                let total = HEADER + length;
                match window.get(HEADER..total) {
                    Some(body) => self.record(role, window.first().copied().unwrap_or(0), body, total as u64, false),
                    None => {
                        side.wanted = total;
                        Step::NeedMore
                    }
                }
            }
            Length::Cut => Step::NeedMore,
            Length::Wrong => Step::Invalid,
        }
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        let side = self.side(role);
        side.wanted = 0;
        let all = (window.len() as u64).saturating_add(missing);
        if side.opaque {
            return Step::Skip(all);
        }
        match record_length(window) {
            Length::Is(length) => {
                let body = window.get(HEADER..window.len().min(HEADER + length)).unwrap_or_default();
                self.record(role, window.first().copied().unwrap_or(0), body, (HEADER + length) as u64, true)
            }
            Length::Cut => Step::Skip(all),
            Length::Wrong => Step::Invalid,
        }
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        let side = self.side(role);
        side.part = Part::default();
        side.wanted = 0;
        if side.opaque {
            return Some(0);
        }
        memchr2_iter(CHANGE_CIPHER_SPEC, HANDSHAKE_RECORD, window)
            .find(|&at| window.get(at..).is_some_and(sure_record))
            .or_else(|| matches!(record_length(window), Length::Is(_)).then_some(0))
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }

    fn finish(&mut self) -> Option<(Role, Box<Message>)> {
        self.held.take().map(|message| (Role::Server, message))
    }

    fn late(&mut self, _key: Option<u64>) -> Late {
        self.held.take().map_or(Late::Unanswered, Late::Ended)
    }

    fn is_done(&self) -> bool {
        self.client.opaque && self.server.opaque && self.held.is_none()
    }
}

/// Bytes of a handshake message with its header.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..4)?;
    Some(4 + length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
}

enum Length {
    Is(usize),
    Cut,
    Wrong,
}

/// Length of the record that begins here, without its header.
fn record_length(window: &[u8]) -> Length {
    let kind = window.first().is_some_and(|kind| (CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(kind));
    let version = window.get(1).is_none_or(|&major| major == 3) && window.get(2).is_none_or(|&minor| minor <= 4);
    match u16_at(window, 3).map(usize::from) {
        _ if !kind || !version => Length::Wrong,
        None => Length::Cut,
        Some(length) if length <= MAX_RECORD => Length::Is(length),
        Some(_) => Length::Wrong,
    }
}

/// A ChangeCipherSpec, or a handshake message of a sensible length.
fn sure_record(window: &[u8]) -> bool {
    match window {
        [CHANGE_CIPHER_SPEC, 3, 0..=4, 0, 1, 1, ..] => true,
        [HANDSHAKE_RECORD, 3, 0..=4, _, _, kind, high, ..] => {
            matches!(record_length(window), Length::Is(length) if length >= 4) && *kind <= 24 && *high == 0
        }
        _ => false,
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    let record = match record_length(payload) {
        _ if payload.first().is_none_or(|&kind| kind != HANDSHAKE_RECORD) => return Guess::No,
        Length::Is(length) if length > 0 => length,
        Length::Cut => return Guess::Maybe,
        Length::Is(_) | Length::Wrong => return Guess::No,
    };
    let message = payload.get(HEADER..payload.len().min(HEADER + record)).unwrap_or_default();
    let role = match message.first() {
        None => return Guess::Maybe,
        Some(&CLIENT_HELLO) => Role::Client,
        Some(&SERVER_HELLO) => Role::Server,
        Some(_) => return Guess::No,
    };
    // Version, random, session id, one cipher suite, one compression method; drafts had less. No hello is longer than
    // 64 KiB, and its version begins with 3 (in drafts 7f).
    let sensible = message.get(1).is_none_or(|&high| high == 0)
        && message_length(message).is_none_or(|length| length >= 40)
        && message.get(4).is_none_or(|&major| major == 3 || major == 0x7f);
    match payload.get(HEADER + record..) {
        _ if !sensible => Guess::No,
        _ if message.len() > 4 => Guess::Yes(role),
        // A record that holds less than that is followed by another.
        Some(next @ [HANDSHAKE_RECORD, 3, ..]) if matches!(record_length(next), Length::Is(_)) => Guess::Yes(role),
        Some([_, _, _, _, _, ..]) => Guess::No,
        _ => Guess::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_recognised_from_either_side_and_nothing_else_is() {
        let hello = |kind: u8| [&[22, 3, 1, 0, 60, kind, 0, 0, 56, 3, 3][..], &[9; 54]].concat();
        assert_eq!(check(&hello(CLIENT_HELLO), 0), Guess::Yes(Role::Client));
        assert_eq!(check(&hello(SERVER_HELLO), 0), Guess::Yes(Role::Server));
        assert_eq!(check(&hello(16), 443), Guess::No);
        assert!((1..10).all(|end| check(&hello(CLIENT_HELLO)[..end], 0) == Guess::Maybe));
        let pieces = [22, 3, 1, 0, 3, 1, 0, 0, 22, 3, 1, 0, 3, 56, 3, 3];
        assert_eq!(check(&pieces, 0), Guess::Yes(Role::Client));
        assert_eq!(check(&pieces[..10], 0), Guess::Maybe);
        for other in [
            &[22, 3, 1, 0, 3, 1, 0, 0, 5, 5, 5, 5, 5, 5][..],
            &[22, 3, 1, 0, 60, 1, 0, 0, 20, 3, 3],
            &[22, 3, 1, 0, 60, 1, 0, 0, 56, 8, 3],
            &[22, 3, 1, 0xff, 0xff, 1, 0, 0, 56, 3, 3],
            &[23, 3, 3, 0, 60, 1, 0, 0, 56, 3, 3],
            b"",
        ] {
            assert_eq!(check(other, 443), Guess::No, "{other:?}");
        }
    }
}

//! QUIC (RFC 9000): the client's Initial packets, whose keys everybody can derive.

mod packet;

use std::rc::Rc;

use super::tls::hello;
use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Step};
use crate::event::Origin;
use packet::{Packet, Version, varint};

pub const PROTOCOL: Protocol = Protocol {
    id: 207,
    name: "QUIC",
    pairing: Pairing::Fifo,
    transports: &[17],
    timeout_s: 15,
    check,
    parser: |settings| Box::new(Quic::new(settings)),
    doc: "QUIC 1 and 2 (and drafts from 29): one row a connection, from the ClientHello in the client's first packets to the \
          server's first answer to it (a Retry is none). The domain is the server name that the client asks for; the \
          protocols that it offers are an attribute. All else is encrypted and not looked at, HTTP/3 included.",
};

/// A ClientHello that is longer is read as far as this.
const MAX_HELLO: usize = 16 * 1024;
/// Pieces of a ClientHello that came out of order.
const MAX_PIECES: usize = 64;
/// Packets of one datagram, and datagrams of a side until a connection is let be.
const MAX_PACKETS: usize = 8;
const MAX_DATAGRAMS: u32 = 16;
const CLIENT_HELLO: u8 = 1;

struct Quic {
    settings: Rc<ParserSettings>,
    /// The connection id that the client chose first: the keys come of it.
    destination: Option<Vec<u8>>,
    hello: Vec<u8>,
    /// Bytes of the hello that are known, as ranges.
    known: Vec<(usize, usize)>,
    version: Option<Version>,
    began: Origin,
    at: Origin,
    /// Datagrams of the client until the hello was whole, then those of the server until it answered.
    datagrams: u32,
    stage: Stage,
    /// The server has spoken before the hello was whole: that may have been its answer, if a part was missed here.
    spoken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Hello,
    Answer,
    Done,
}

impl Quic {
    fn new(settings: &Rc<ParserSettings>) -> Self {
        Self {
            settings: settings.clone(),
            destination: None,
            hello: Vec::new(),
            known: Vec::new(),
            version: None,
            began: Origin::default(),
            at: Origin::default(),
            datagrams: 0,
            stage: Stage::Hello,
            spoken: false,
        }
    }

    fn datagram(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        let all = (window.len() as u64).saturating_add(missing);
        match (self.stage, role) {
            (Stage::Hello, Role::Client) => self.client_hello(window, all),
            (Stage::Answer, Role::Server) => self.answer(window, all),
            _ => {
                self.spoken |= role == Role::Server && packets(window).next().is_some();
                Step::Skip(all)
            }
        }
    }

    fn answer(&mut self, window: &[u8], all: u64) -> Step {
        self.datagrams += 1;
        let answers = packets(window).next().is_some();
        if answers || self.datagrams >= MAX_DATAGRAMS {
            self.stage = Stage::Done;
        }
        if answers {
            Step::Message { consumed: all, message: Box::new(Message { kind: Kind::Response, ..Message::default() }) }
        } else {
            Step::Skip(all)
        }
    }

    fn client_hello(&mut self, window: &[u8], all: u64) -> Step {
        self.datagrams += 1;
        let mut cut = false;
        for packet in packets(window).filter(|packet| packet.is_initial) {
            let first = self.destination.is_none();
            if first {
                self.destination = Some(packet.destination.to_vec());
                self.began = self.at;
            }
            // After a Retry the keys come of the connection id that the server chose.
            let own = self.destination.as_deref().and_then(|destination| frames(&packet, destination));
            let found = own.or_else(|| frames(&packet, packet.destination).filter(|_| !first));
            for (offset, data) in found.unwrap_or_default() {
                self.piece(offset, &data);
                self.version = Some(packet.version);
            }
            cut |= packet.is_cut();
        }
        let length =
            self.hello.get(1..4).map(|length| 4 + length.iter().fold(0, |l, &byte| l << 8 | usize::from(byte)));
        let here = self.here();
        let complete = here >= 4 && length.is_some_and(|length| here >= length.min(MAX_HELLO));
        let over = complete || (cut && here > 0) || self.datagrams >= MAX_DATAGRAMS;
        match self.version.filter(|_| over && here > 0) {
            Some(version) => {
                (self.stage, self.datagrams) = (Stage::Answer, 0);
                Step::Message { consumed: all, message: Box::new(self.message(version, here)) }
            }
            None if over => {
                self.stage = Stage::Done;
                Step::Skip(all)
            }
            None => Step::Skip(all),
        }
    }

    /// Bytes of the hello that are known from its beginning on.
    fn here(&self) -> usize {
        self.known.first().filter(|(from, _)| *from == 0).map_or(0, |(_, to)| *to)
    }

    fn piece(&mut self, offset: usize, data: &[u8]) {
        let end = offset.saturating_add(data.len()).min(MAX_HELLO);
        let Some(length) = end.checked_sub(offset).filter(|length| *length > 0) else {
            return;
        };
        if self.known.len() >= MAX_PIECES {
            return;
        }
        if self.hello.len() < end {
            self.hello.resize(end, 0);
        }
        if let (Some(place), Some(data)) = (self.hello.get_mut(offset..end), data.get(..length)) {
            place.copy_from_slice(data);
        }
        self.known.push((offset, end));
        self.known.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for &(from, to) in &self.known {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.known = joined;
    }

    fn message(&mut self, version: Version, here: usize) -> Message {
        let mut message = Message { kind: Kind::Request, began: Some(self.began), ..Message::default() };
        message.version = version.name.into();
        message.request_type = "Initial".to_owned();
        message.may_be_silent = self.spoken;
        let body = self.hello.get(4..here).unwrap_or_default();
        if let Some(hello) = hello::client(body).filter(|_| self.hello.first() == Some(&CLIENT_HELLO)) {
            message.request_domain = self.settings.text(hello.server_name.as_bytes());
            if !hello.alpn.is_empty() {
                message.attributes.push(("alpn_offered".to_owned(), self.settings.text(hello.alpn.as_bytes())));
            }
        }
        (self.hello, self.known) = (Vec::new(), Vec::new());
        message
    }
}

impl Parser for Quic {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        // A cut datagram is asked for again, with the number of bytes that are missing.
        if self.stage == Stage::Hello && role == Role::Client && packets(window).any(|packet| packet.is_cut()) {
            return Step::NeedMore;
        }
        self.datagram(role, window, 0)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.datagram(role, window, missing)
    }

    fn resync(&mut self, _role: Role, _window: &[u8]) -> Option<usize> {
        Some(0)
    }

    fn at(&mut self, origin: Origin) {
        self.at = origin;
    }

    fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }
}

/// Packets with a long header in a datagram.
fn packets(window: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    let mut rest = window;
    std::iter::from_fn(move || {
        let packet = Packet::read(rest)?;
        rest = rest.get(packet.end..).unwrap_or_default();
        Some(packet)
    })
    .take(MAX_PACKETS)
}

/// Offset and bytes of a CRYPTO frame.
type Crypto = (usize, Vec<u8>);

/// The CRYPTO frames of an Initial packet; `None` when the frames make no sense: the keys were others.
fn frames(packet: &Packet<'_>, destination: &[u8]) -> Option<Vec<Crypto>> {
    let text = packet.decrypt(destination)?;
    let (mut at, mut found) = (0, Vec::new());
    while let Some(&kind) = text.get(at) {
        let next = match kind {
            // PADDING, PING.
            0 | 1 => Some(at + 1),
            // ACK, with and without ECN counts.
            2 | 3 => acknowledgement(&text, at + 1, kind == 3),
            6 => match varint(&text, at + 1).and_then(|(offset, at)| Some((offset, varint(&text, at)?))) {
                Some((offset, (length, from))) => {
                    let end = from.checked_add(usize::try_from(length).ok()?)?;
                    let data = text.get(from..end.min(text.len()))?;
                    found.push((usize::try_from(offset).ok()?, data.to_vec()));
                    (end <= text.len()).then_some(end)
                }
                None => None,
            },
            // CONNECTION_CLOSE: what it says is of no use here.
            0x1c => return Some(found),
            _ => return None,
        };
        match next {
            Some(next) => at = next,
            None if packet.is_cut() => break,
            None => return None,
        }
    }
    Some(found)
}

/// Offset behind an ACK frame whose fields begin at `at`.
fn acknowledgement(text: &[u8], at: usize, ecn: bool) -> Option<usize> {
    let (_, at) = varint(text, at)?;
    let (_, at) = varint(text, at)?;
    let (ranges, at) = varint(text, at)?;
    let fields = 1 + 2 * ranges.min(256) + if ecn { 3 } else { 0 };
    (0..fields).try_fold(at, |at, _| varint(text, at).map(|(_, next)| next))
}

fn check(payload: &[u8], _port: u16) -> Guess {
    let ours = packets(payload)
        .filter(|packet| packet.is_initial)
        .any(|packet| frames(&packet, packet.destination).is_some_and(|found| !found.is_empty()));
    if ours { Guess::Yes(Role::Client) } else { Guess::No }
}

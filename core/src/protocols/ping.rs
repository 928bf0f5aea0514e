//! ICMP echo (RFC 792, RFC 4443 section 4).

use std::rc::Rc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

pub const PROTOCOL: Protocol = Protocol {
    id: 122,
    name: "Ping",
    pairing: Pairing::Id,
    transports: &[1, 58],
    timeout_s: 10,
    check,
    parser: |_: &Rc<ParserSettings>| Box::new(Ping),
    doc: "ICMP and ICMPv6 echo in capture files; sockets of the kernel do not show it. The resource is the identifier, \
          the request id the sequence number. A request without a reply ends with a time-out.",
};

/// Keys of requests that the server's side sends: the two sides choose their identifiers independently.
const REVERSED: u64 = 1 << 32;

struct Ping;

/// Is it a request, its identifier, its sequence number.
fn read(packet: &[u8]) -> Option<(bool, u16, u16)> {
    let &[kind, 0, _, _, id_high, id_low, high, low, ..] = packet else {
        return None;
    };
    let request = match kind {
        8 | 128 => true,
        0 | 129 => false,
        _ => return None,
    };
    Some((request, u16::from_be_bytes([id_high, id_low]), u16::from_be_bytes([high, low])))
}

impl Ping {
    fn message(role: Role, packet: &[u8], missing: u64) -> Step {
        let Some((request, identifier, sequence)) = read(packet) else {
            return Step::Invalid;
        };
        let reversed = (role == Role::Server) == request;
        let key = u64::from(identifier) << 16 | u64::from(sequence) | if reversed { REVERSED } else { 0 };
        let mut message = Message { pair: Some(key), request_id: Some(u64::from(sequence)), ..Message::default() };
        if request {
            message.is_reversed = reversed;
            message.request_resource = identifier.to_string();
        } else {
            (message.kind, message.status) = (Kind::Response, Status::Success);
        }
        Step::Message { consumed: (packet.len() as u64).saturating_add(missing), message: Box::new(message) }
    }
}

impl Parser for Ping {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        Self::message(role, window, 0)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        Self::message(role, window, missing)
    }

    fn resync(&mut self, _role: Role, window: &[u8]) -> Option<usize> {
        read(window).map(|_| 0)
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    match read(payload) {
        Some((true, ..)) => Guess::Yes(Role::Client),
        Some((false, ..)) => Guess::Yes(Role::Server),
        None => Guess::No,
    }
}

//! Messages per second of one core, by protocol: a JSON object. `cargo run --release --no-default-features --example parse_rate`.

#[path = "../tests/driver/mod.rs"]
mod driver;

use std::sync::Arc;
use std::time::{Duration, Instant};

use _core::event::{Direction, Origin};
use _core::protocols::{ParserSettings, Protocol, REGISTRY, Role, Step};
use _core::stream::{Piece, Report, Stream};
use driver::conversations::{Conversation, conversations};

/// A request and its response, as a demo shop has them. Other protocols show a recorded conversation, connection and all.
fn exchange(name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    Some(match name {
        "HTTP" => (
            b"GET /api/v1/orders/17?full=1 HTTP/1.1\r\nHost: shop:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Request-ID: 8f14e45f\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}".to_vec(),
        ),
        "Redis" => (b"*3\r\n$3\r\nSET\r\n$6\r\ncart:7\r\n$5\r\nitems\r\n".to_vec(), b"+OK\r\n".to_vec()),
        "MySQL" => (
            b"\x28\0\0\0\x03select name from items where id = 17001".to_vec(),
            b"\x01\0\0\x01\x01\x05\0\0\x02\x03def\0\x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x01a\x05\0\0\x05\xfe\0\0\x02\0".to_vec(),
        ),
        "DNS" => (
            b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01".to_vec(),
            b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01".to_vec(),
        ),
        _ => return None,
    })
}

/// Messages of the exchange, parsed again and again on one connection for a second.
fn repeated(protocol: &Protocol, settings: &Arc<ParserSettings>, request: &[u8], response: &[u8]) -> f64 {
    let mut parser = (protocol.parser)(settings);
    parser.transport(protocol.transports.first().copied().unwrap_or(6));
    let (mut messages, start) = (0u64, Instant::now());
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..1000 {
            for (role, bytes) in [(Role::Client, request), (Role::Server, response)] {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let consumed = match parser.parse(role, rest) {
                        Step::Message { consumed, message } => {
                            messages += 1;
                            std::hint::black_box(&message);
                            consumed
                        }
                        Step::Skip(consumed) => consumed,
                        _ => panic!("{} cannot read its own sample", protocol.name),
                    };
                    rest = rest.get(consumed as usize..).unwrap_or_default();
                }
            }
        }
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Messages of a recorded conversation, each time on a new connection, for a second.
fn recorded(conversation: &Conversation, settings: &Arc<ParserSettings>) -> f64 {
    let (mut messages, start) = (0u64, Instant::now());
    let mut seen = Vec::new();
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..100 {
            let mut parser = (conversation.protocol.parser)(settings);
            parser.transport(conversation.transport);
            let mut streams = [Stream::default(), Stream::default()];
            for (role, payload) in &conversation.writes {
                let (side, direction) = match role {
                    Role::Client => (0, Direction::Ingress),
                    Role::Server => (1, Direction::Egress),
                };
                let piece = Piece { origin: Origin::default(), length: payload.len() as u64, payload };
                let (datagram, mut report) = (conversation.transport != 6, Report::default());
                streams[side].feed(parser.as_mut(), (*role, direction), piece, datagram, &mut seen, &mut report);
                messages += seen.len() as u64;
                std::hint::black_box(&seen);
                seen.clear();
            }
        }
    }
    messages as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let settings = Arc::new(ParserSettings::default());
    let mut rates = serde_json::Map::new();
    for protocol in REGISTRY {
        let is_short = |one: &&Conversation| one.writes.iter().all(|(_, bytes)| bytes.len() < 1 << 14);
        let mut own = conversations().iter().filter(|one| one.protocol.id == protocol.id).filter(is_short);
        let rate = match (exchange(protocol.name), own.next()) {
            (Some((request, response)), _) => repeated(protocol, &settings, &request, &response),
            (None, Some(conversation)) => recorded(conversation, &settings),
            (None, None) => continue,
        };
        rates.insert(protocol.name.to_owned(), (rate.round() as u64).into());
    }
    println!("{}", serde_json::json!({ "unit": "messages/s/core", "rates": rates }));
}

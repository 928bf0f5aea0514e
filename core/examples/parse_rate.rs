//! Messages per second of one core and bytes allocated per message, by protocol: a JSON object. `cargo run --release --no-default-features --example parse_rate`.

#[path = "../tests/driver/mod.rs"]
mod driver;

use std::alloc::{GlobalAlloc, Layout, System};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use _core::event::{Direction, Origin};
use _core::protocols::http1::recent::Recent;
use _core::protocols::{ParserSettings, Protocol, REGISTRY, Role, Step};
use _core::stream::{Piece, Report, Stream};
use driver::conversations::{Conversation, conversations};

/// Bytes asked of the allocator so far.
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages a second, and bytes allocated a message.
struct Figures {
    rate: f64,
    allocated: u64,
}

impl Figures {
    fn since(start: Instant, allocated: u64, messages: u64) -> Self {
        let rate = messages as f64 / start.elapsed().as_secs_f64();
        Self { rate, allocated: (ALLOCATED.load(Ordering::Relaxed) - allocated) / messages.max(1) }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "messages_per_s_and_core": self.rate.round() as u64,
            "allocated_bytes_per_message": self.allocated,
        })
    }
}

/// A request and its response, as a demo shop has them.
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
fn repeated(protocol: &Protocol, settings: &Rc<ParserSettings>, request: &[u8], response: &[u8]) -> Figures {
    let mut parser = (protocol.parser)(settings);
    parser.transport(protocol.transports.first().copied().unwrap_or(6));
    let (mut messages, start, before) = (0u64, Instant::now(), ALLOCATED.load(Ordering::Relaxed));
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
                        Step::Known { consumed, message } => {
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
    Figures::since(start, before, messages)
}

/// Messages of recorded conversations, each time on a new connection, for a second.
fn recorded(conversations: &[&Conversation], settings: &Rc<ParserSettings>) -> Figures {
    let (mut messages, start, before) = (0u64, Instant::now(), ALLOCATED.load(Ordering::Relaxed));
    let mut seen = Vec::new();
    while start.elapsed() < Duration::from_secs(1) {
        for conversation in conversations {
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
                streams[side].feed(parser.as_mut(), (*role, direction), &piece, datagram, &mut seen, &mut report);
                messages += seen.len() as u64;
                std::hint::black_box(&seen);
                seen.clear();
            }
        }
    }
    Figures::since(start, before, messages)
}

fn main() {
    // The samples come again and again; what is measured is how fast they are read.
    let settings = Rc::new(ParserSettings { recent_heads: Recent::off(), ..ParserSettings::default() });
    let (mut one_connection, mut recordings) = (serde_json::Map::new(), serde_json::Map::new());
    for protocol in REGISTRY {
        let own: Vec<_> = conversations().iter().filter(|one| one.protocol.id == protocol.id).collect();
        if let Some((request, response)) = exchange(protocol.name) {
            let figures = repeated(protocol, &settings, &request, &response);
            one_connection.insert(protocol.name.to_owned(), figures.json());
        }
        if !own.is_empty() {
            recordings.insert(protocol.name.to_owned(), recorded(&own, &settings).json());
        }
    }
    println!("{}", serde_json::json!({ "one_connection": one_connection, "recordings": recordings }));
}

//! Feeds parsers as the stream of the core does, and reads captures.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use _core::protocols::{Inference, Message, Parser, ParserSettings, Protocol, Role, Step, infer};

pub mod conversations;
pub mod skipped;

pub const WINDOW: usize = 64 * 1024;

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    window: Vec<u8>,
    /// Bytes of the stream to skip before the window goes on.
    skip: u64,
    failed: bool,
    gap: bool,
}

pub struct Connection {
    pub parser: Box<dyn Parser>,
    directions: [Direction; 2],
    pub messages: Vec<(Role, Message)>,
    pub invalid: usize,
}

impl Connection {
    pub fn new(protocol: &Protocol, settings: &Rc<ParserSettings>, transport: u8) -> Self {
        let mut parser = (protocol.parser)(settings);
        parser.transport(transport);
        Self { parser, directions: Default::default(), messages: Vec::new(), invalid: 0 }
    }

    /// The connection ends.
    pub fn finish(&mut self) {
        self.messages.extend(self.parser.finish().map(|(role, message)| (role, *message)));
    }

    /// Bytes of the stream, and how many after them were not captured.
    pub fn feed(&mut self, role: Role, bytes: &[u8], missing: u64, datagram: bool) {
        let side = &mut self.directions[usize::from(role == Role::Server)];
        let cut = side.skip.min(bytes.len() as u64) as usize;
        side.skip -= cut as u64;
        if side.gap && cut < bytes.len() {
            match self.parser.resync(role, &bytes[cut..]) {
                Some(at) => side.window.extend_from_slice(&bytes[cut + at..]),
                None => return,
            }
            side.gap = false;
        } else if !side.failed {
            side.window.extend_from_slice(&bytes[cut..]);
        }
        let mut missing = missing;
        let skipped = side.skip.min(missing);
        if side.window.is_empty() {
            side.skip -= skipped;
            missing -= skipped;
        }
        let mut steps = 0u64;
        while !side.window.is_empty() {
            steps += 1;
            assert!(steps < 20_000_000, "no end");
            let shown = side.window.len().min(WINDOW);
            let mut step = self.parser.parse(role, &side.window[..shown]);
            if matches!(step, Step::NeedMore) {
                if missing == 0 && shown < WINDOW && !datagram {
                    break;
                }
                step = self.parser.truncated(role, &side.window[..shown], missing);
                assert!(!matches!(step, Step::NeedMore), "truncated asks for more");
            }
            let consumed = match step {
                Step::Message { consumed, message } => {
                    self.messages.push((role, *message));
                    while let Some(message) = self.parser.more() {
                        self.messages.push((role, *message));
                    }
                    consumed
                }
                Step::Known { consumed, message } => {
                    self.messages.push((role, Message::clone(&message)));
                    consumed
                }
                Step::Skip(consumed) => consumed,
                // The driver follows one protocol: what another one says is not looked at.
                Step::Switch | Step::SwitchTo(_) => side.window.len() as u64,
                Step::NeedMore | Step::Invalid => {
                    self.invalid += 1;
                    side.window.clear();
                    side.failed = !datagram;
                    break;
                }
            };
            assert!(consumed > 0, "no progress");
            let taken = consumed.min(side.window.len() as u64) as usize;
            side.window.drain(..taken);
            let beyond = consumed - taken as u64;
            let hole = beyond.min(missing);
            missing -= hole;
            side.skip = beyond - hole;
            if datagram {
                side.skip = 0;
            }
        }
        side.gap = missing > 0 && !datagram;
        if side.gap {
            side.window.clear();
        }
    }
}

/// All data files of one kind: `tests/data/KIND/*.json`, one a protocol or family, in the order of their names.
pub fn families(kind: &str) -> Vec<serde_json::Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().map(read).collect()
}

/// Where sample data lies, if there is any; `make test-rust` asks tests/conftest.py.
pub fn fixtures() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("DEEPFLOW_FIXTURES").unwrap_or_default());
    if path.join("deepflow").is_dir() {
        return Some(path);
    }
    skipped::skipped(&format!("no fixtures at {:?} (DEEPFLOW_FIXTURES)", path.display().to_string()));
    None
}

pub struct Packet {
    pub transport: u8,
    pub source: (Vec<u8>, u16),
    pub target: (Vec<u8>, u16),
    pub sequence: u32,
    pub payload: Vec<u8>,
    /// Bytes of the payload that were not captured.
    pub missing: u64,
}

/// Packets with a payload of a classic pcap file (Ethernet, VLAN, loopback, raw IP, Linux cooked); empty for others.
pub fn packets(file: &std::path::Path) -> Vec<Packet> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let Some(magic) = bytes.get(..4) else {
        return Vec::new();
    };
    let big = match magic {
        [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1] => false,
        [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d] => true,
        _ => return Vec::new(),
    };
    let word = |at: usize| -> Option<u32> {
        let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    };
    let link = word(20).unwrap_or(1);
    let (mut at, mut found) = (24, Vec::new());
    while let Some(length) = word(at + 8) {
        let Some(frame) = bytes.get(at + 16..at + 16 + length as usize) else {
            break;
        };
        at += 16 + length as usize;
        found.extend(packet(link, frame));
    }
    found
}

fn packet(link: u32, frame: &[u8]) -> Option<Packet> {
    let be16 = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let ip = match link {
        0 => frame.get(4..)?,
        12 | 101 => frame,
        113 => frame.get(16..)?,
        _ => {
            let mut at = 12;
            while matches!(be16(frame, at)?, 0x8100 | 0x88a8) {
                at += 4;
            }
            frame.get(at + 2..)?
        }
    };
    let (declared, transport, source, target, rest) = match ip.first()? >> 4 {
        4 => {
            let header = usize::from(ip[0] & 15) * 4;
            let total = usize::from(be16(ip, 2)?);
            let declared = if total == 0 { ip.len() } else { total };
            let total = declared.min(ip.len());
            (declared, *ip.get(9)?, ip.get(12..16)?, ip.get(16..20)?, ip.get(header..total)?)
        }
        6 => {
            let declared = 40 + usize::from(be16(ip, 4)?);
            let total = declared.min(ip.len());
            (declared, *ip.get(6)?, ip.get(8..24)?, ip.get(24..40)?, ip.get(40..total)?)
        }
        _ => return None,
    };
    let payload = match transport {
        6 => rest.get(usize::from(rest.get(12)? >> 4) * 4..)?,
        17 => rest.get(8..)?,
        1 | 58 => rest,
        _ => return None,
    };
    if payload.is_empty() {
        return None;
    }
    let port = |at: usize| if matches!(transport, 6 | 17) { be16(rest, at) } else { Some(0) };
    Some(Packet {
        transport,
        source: (source.to_vec(), port(0)?),
        target: (target.to_vec(), port(2)?),
        sequence: if transport == 6 { u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?) } else { 0 },
        payload: payload.to_vec(),
        missing: declared.saturating_sub(ip.len()) as u64,
    })
}

/// Servers' ports that some captures use above the ephemeral ones of their clients.
const WELL_KNOWN: [u16; 5] = [53, 5353, 80, 3306, 6379];

type Flow = (Vec<u8>, u16, Vec<u8>, u16, u8);

pub struct Seen {
    pub protocol: Option<&'static Protocol>,
    pub messages: Vec<(Role, Message)>,
    pub invalid: usize,
}

/// Every flow of a capture: inferred, then parsed in the order of the packets; retransmissions are left out.
/// `unfinished`: something is missing after every packet.
pub fn walk(packets: &[Packet], settings: &Rc<ParserSettings>, unfinished: bool) -> Vec<Seen> {
    struct Open {
        connection: Option<(Connection, Role)>,
        protocol: Option<&'static Protocol>,
        next: [Option<u32>; 2],
    }
    let mut order: Vec<Flow> = Vec::new();
    let mut flows: HashMap<Flow, Open> = HashMap::new();
    for packet in packets {
        let (a, b) = (&packet.source, &packet.target);
        let there = (a.0.clone(), a.1, b.0.clone(), b.1, packet.transport);
        let back = (b.0.clone(), b.1, a.0.clone(), a.1, packet.transport);
        let (key, reverse) = if flows.contains_key(&back) { (back, true) } else { (there, false) };
        let flow = flows.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Open { connection: None, protocol: None, next: [None; 2] }
        });
        let mut payload = packet.payload.as_slice();
        if packet.transport == 6 {
            let expected = &mut flow.next[usize::from(reverse)];
            let behind = expected.map_or(0, |next| next.wrapping_sub(packet.sequence) as i32).max(0) as usize;
            payload = payload.get(behind..).unwrap_or_default();
            *expected = Some(packet.sequence.wrapping_add((packet.payload.len().max(behind)) as u32));
            if payload.is_empty() {
                continue;
            }
        }
        if flow.connection.is_none() {
            let ports = [a.1, b.1];
            let port = ports.into_iter().find(|port| WELL_KNOWN.contains(port)).unwrap_or(a.1.min(b.1));
            if let Inference::Known(protocol, role) = infer(payload, None, port, packet.transport) {
                // The role that the first direction of the flow has.
                let forward = match (reverse, role) {
                    (false, role) => role,
                    (true, Role::Client) => Role::Server,
                    (true, Role::Server) => Role::Client,
                };
                flow.connection = Some((Connection::new(protocol, settings, packet.transport), forward));
                flow.protocol = Some(protocol);
            }
        }
        if let Some((connection, forward)) = &mut flow.connection {
            let role = match (reverse, *forward) {
                (false, role) => role,
                (true, Role::Client) => Role::Server,
                (true, Role::Server) => Role::Client,
            };
            let missing = packet.missing + u64::from(unfinished);
            connection.feed(role, payload, missing, packet.transport != 6);
        }
    }
    order
        .into_iter()
        .filter_map(|key| flows.remove(&key))
        .map(|flow| match flow.connection {
            Some((mut connection, _)) => {
                connection.finish();
                Seen { protocol: flow.protocol, messages: connection.messages, invalid: connection.invalid }
            }
            None => Seen { protocol: None, messages: Vec::new(), invalid: 0 },
        })
        .collect()
}

//! Conversations in `tests/data/conversations`: what the two sides wrote, and the messages that are in it.

use std::sync::LazyLock;

use _core::protocols::{Protocol, REGISTRY, Role};
use serde_json::Value;

use super::families;

/// Lines `C` or `S` and the bytes as Latin-1 text; a number behind appends so many `x`, a text behind it is a tail.
/// `transport`: 6 (TCP, the default), 17 or another of datagrams.
#[derive(Clone)]
pub struct Conversation {
    pub name: String,
    pub protocol: &'static Protocol,
    /// IP protocol; on another than TCP every write is a datagram.
    pub transport: u8,
    pub writes: Vec<(Role, Vec<u8>)>,
    pub expected: Vec<Value>,
}

pub fn protocol(name: &str) -> &'static Protocol {
    REGISTRY.iter().find(|protocol| protocol.name == name).expect(name)
}

fn unescape(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect()
}

/// One line.
pub fn write(line: &Value) -> (Role, Vec<u8>) {
    let role = if line[0] == "C" { Role::Client } else { Role::Server };
    let mut bytes = unescape(line[1].as_str().expect("bytes"));
    if let Some(fill) = line[2].as_u64() {
        bytes.extend(std::iter::repeat_n(b'x', fill as usize));
    }
    if let Some(tail) = line[3].as_str() {
        bytes.extend(unescape(tail));
    }
    (role, bytes)
}

/// All conversations, read once.
pub fn conversations() -> &'static [Conversation] {
    static ALL: LazyLock<Vec<Conversation>> = LazyLock::new(|| {
        let files = families("conversations");
        let cases = files.iter().flat_map(|file| file.as_array().expect("array"));
        cases
            .map(|case| Conversation {
                name: case["name"].as_str().expect("name").to_owned(),
                protocol: protocol(case["protocol"].as_str().expect("protocol")),
                transport: case["transport"].as_u64().map_or(6, |number| number as u8),
                writes: case["writes"].as_array().expect("writes").iter().map(write).collect(),
                expected: case["messages"].as_array().expect("messages").clone(),
            })
            .collect()
    });
    &ALL
}

//! Headers of the binary protocol.

use super::super::{Guess, Role, Status};

pub const REQUEST: u8 = 0x80;
pub const RESPONSE: u8 = 0x81;
pub const HEADER: usize = 24;
pub const STAT: u8 = 0x10;
pub const QUITQ: u8 = 0x17;
/// Largest item that a server can be told to keep, and its key.
const MAX_BODY: usize = (1 << 30) + 512;
const MAX_KEY: usize = 250;

pub struct Header {
    pub opcode: u8,
    pub key: usize,
    pub extras: usize,
    /// Of a response; the vbucket of a request.
    pub status: u16,
    pub body: usize,
    pub opaque: u32,
}

impl Header {
    /// `None` for what is no header.
    pub fn read(window: &[u8]) -> Option<Self> {
        let header = window.get(..HEADER)?;
        let half = |at: usize| Some(u16::from_be_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let read = Self {
            opcode: *header.get(1)?,
            key: usize::from(half(2)?),
            extras: usize::from(*header.get(4)?),
            status: half(6)?,
            body: word(8)? as usize,
            opaque: word(12)?,
        };
        let sound = matches!(header.first(), Some(&(REQUEST | RESPONSE)))
            && name(read.opcode).is_some()
            && read.key <= MAX_KEY
            && read.extras <= 24
            && *header.get(5)? == 0
            && read.key + read.extras <= read.body
            && read.body <= MAX_BODY;
        sound.then_some(read)
    }
}

/// Could these fewer than 24 bytes begin a message?
pub fn plausible(bytes: &[u8]) -> bool {
    bytes.get(1).is_none_or(|opcode| name(*opcode).is_some())
        && bytes.get(4).is_none_or(|extras| *extras <= 24)
        && bytes.get(5).is_none_or(|kind| *kind == 0)
}

pub fn name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        0x00 => "get",
        0x01 => "set",
        0x02 => "add",
        0x03 => "replace",
        0x04 => "delete",
        0x05 => "increment",
        0x06 => "decrement",
        0x07 => "quit",
        0x08 => "flush",
        0x09 => "getq",
        0x0a => "noop",
        0x0b => "version",
        0x0c => "getk",
        0x0d => "getkq",
        0x0e => "append",
        0x0f => "prepend",
        STAT => "stat",
        0x11 => "setq",
        0x12 => "addq",
        0x13 => "replaceq",
        0x14 => "deleteq",
        0x15 => "incrementq",
        0x16 => "decrementq",
        QUITQ => "quitq",
        0x18 => "flushq",
        0x19 => "appendq",
        0x1a => "prependq",
        0x1b => "verbosity",
        0x1c => "touch",
        0x1d => "gat",
        0x1e => "gatq",
        0x20 => "sasl_list",
        0x21 => "sasl_auth",
        0x22 => "sasl_step",
        0x23 => "gatk",
        0x24 => "gatkq",
        _ => return None,
    })
}

pub fn is_quiet(opcode: u8) -> bool {
    matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
}

/// Name of a status, as the server says it.
pub fn status_name(status: u16) -> &'static str {
    match status {
        0x00 => "No error",
        0x01 => "Key not found",
        0x02 => "Key exists",
        0x03 => "Value too large",
        0x04 => "Invalid arguments",
        0x05 => "Item not stored",
        0x06 => "Incr/Decr on non-numeric value",
        0x07 => "The vbucket belongs to another server",
        0x20 => "Authentication error",
        0x21 => "Authentication continue",
        0x81 => "Unknown command",
        0x82 => "Out of memory",
        0x83 => "Not supported",
        0x84 => "Internal error",
        0x85 => "Busy",
        0x86 => "Temporary failure",
        _ => "",
    }
}

/// What kind of failure a status is. A key that is not there, or there already, is an answer, as in the text protocol.
pub fn failure(status: u16) -> Option<Status> {
    match status {
        0x00..=0x02 | 0x05 | 0x21 => None,
        0x03 | 0x04 | 0x06..=0x20 | 0x81 | 0x83 => Some(Status::ClientError),
        _ => Some(Status::ServerError),
    }
}

/// Do key and extras fit the command? Strict enough to know the protocol by one header.
fn fits(header: &Header, is_request: bool) -> bool {
    let value = header.body - header.key - header.extras;
    if !is_request {
        let message = !status_name(header.status).is_empty();
        return message && matches!(header.extras, 0 | 4) && (header.status == 0 || header.extras == 0);
    }
    let keyed = header.key > 0;
    match header.opcode {
        0x00 | 0x09 | 0x0c | 0x0d | 0x04 | 0x14 => keyed && header.extras == 0 && value == 0,
        0x01..=0x03 | 0x11..=0x13 => keyed && header.extras == 8,
        0x05 | 0x06 | 0x15 | 0x16 => keyed && header.extras == 20 && value == 0,
        0x07 | 0x0a | 0x0b | QUITQ | 0x20 => header.body == 0,
        0x08 | 0x18 => header.body == header.extras && matches!(header.extras, 0 | 4),
        0x0e | 0x0f | 0x19 | 0x1a => keyed && header.extras == 0,
        STAT => header.extras == 0 && value == 0,
        0x1c..=0x1e | 0x23 | 0x24 => keyed && header.extras == 4 && value == 0,
        0x1b => header.extras == 4,
        _ => keyed && header.extras == 0,
    }
}

pub fn check(payload: &[u8]) -> Guess {
    let is_request = payload.first() == Some(&REQUEST);
    match Header::read(payload) {
        Some(header) if fits(&header, is_request) => Guess::Yes(if is_request { Role::Client } else { Role::Server }),
        None if payload.len() < HEADER && plausible(payload) => Guess::Maybe,
        _ => Guess::No,
    }
}

//! Commands of the client, and the statements it prepared.

use std::collections::{HashMap, VecDeque};

use super::value::{Reader, Type, u32_at};

pub const SLEEP: u8 = 0;
pub const INIT_DB: u8 = 2;
pub const QUERY: u8 = 3;
pub const FIELD_LIST: u8 = 4;
pub const STATISTICS: u8 = 9;
pub const CHANGE_USER: u8 = 17;
pub const STMT_PREPARE: u8 = 22;
pub const STMT_EXECUTE: u8 = 23;
pub const STMT_SEND_LONG_DATA: u8 = 24;
pub const STMT_CLOSE: u8 = 25;
pub const STMT_RESET: u8 = 26;
pub const STMT_FETCH: u8 = 28;
pub const STMT_BULK_EXECUTE: u8 = 0xfa;

const NAMES: [&str; 32] = [
    "SLEEP",
    "QUIT",
    "INIT_DB",
    "QUERY",
    "FIELD_LIST",
    "CREATE_DB",
    "DROP_DB",
    "REFRESH",
    "SHUTDOWN",
    "STATISTICS",
    "PROCESS_INFO",
    "CONNECT",
    "PROCESS_KILL",
    "DEBUG",
    "PING",
    "TIME",
    "DELAYED_INSERT",
    "CHANGE_USER",
    "BINLOG_DUMP",
    "TABLE_DUMP",
    "CONNECT_OUT",
    "REGISTER_SLAVE",
    "STMT_PREPARE",
    "STMT_EXECUTE",
    "STMT_SEND_LONG_DATA",
    "STMT_CLOSE",
    "STMT_RESET",
    "SET_OPTION",
    "STMT_FETCH",
    "DAEMON",
    "BINLOG_DUMP_GTID",
    "RESET_CONNECTION",
];

pub fn name_of(code: u8) -> Option<&'static str> {
    match code {
        STMT_BULK_EXECUTE => Some("STMT_BULK_EXECUTE"),
        _ => NAMES.get(usize::from(code)).copied(),
    }
}

/// Commands that the server never answers.
pub fn unanswered(code: u8) -> bool {
    matches!(code, 1 | STMT_SEND_LONG_DATA | STMT_CLOSE)
}

/// Has a command of this code this length?
pub fn fits(code: u8, length: usize) -> bool {
    match code {
        1 | 9 | 10 | 13 | 14 | 31 => length == 1,
        STMT_CLOSE | STMT_RESET => length == 5,
        STMT_FETCH => length == 9,
        INIT_DB => length > 1 && length < 256,
        STMT_EXECUTE => length >= 10,
        _ => false,
    }
}

/// The statement behind the query attributes (`attributes`: negotiated; `None`: not known, guessed by their form).
pub fn query_text(body: &[u8], attributes: Option<bool>) -> &[u8] {
    let present = attributes.unwrap_or(matches!(body, [0..=250, 1, ..]) && !matches!(body, [b' '..=b'~', ..]));
    if !present {
        return body;
    }
    after_attributes(body).unwrap_or(body)
}

fn after_attributes(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.length()?).ok()?;
    reader.length()?;
    if count > 0 {
        let nulls = reader.take(count.div_ceil(8))?;
        reader.u8()?;
        let mut types = Vec::new();
        for _ in 0..count.min(body.len()) {
            types.push(Type { code: reader.u8()?, unsigned: reader.u8()? & 0x80 != 0 });
            reader.string()?;
        }
        for (index, kind) in types.iter().enumerate() {
            if !is_null(nulls, index) {
                reader.value(*kind)?;
            }
        }
    }
    Some(reader.rest())
}

fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

/// Bytes of statement text kept a connection; the oldest statements go first.
const MAX_TEXT: usize = 256 * 1024;
const MAX_STATEMENTS: usize = 512;

struct Statement {
    text: String,
    parameters: u16,
    types: Vec<Type>,
}

#[derive(Default)]
pub struct Statements {
    by_id: HashMap<u32, Statement>,
    order: VecDeque<u32>,
    bytes: usize,
}

impl Statements {
    pub fn prepared(&mut self, id: u32, text: String, parameters: u16) {
        self.close(id);
        self.bytes += text.len();
        self.order.push_back(id);
        self.by_id.insert(id, Statement { text, parameters, types: Vec::new() });
        while self.bytes > MAX_TEXT || self.by_id.len() > MAX_STATEMENTS {
            let Some(&oldest) = self.order.front() else {
                break;
            };
            self.close(oldest);
        }
    }

    /// Forgets a statement and returns its text.
    pub fn close(&mut self, id: u32) -> Option<String> {
        let statement = self.by_id.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(statement.text.len());
        self.order.retain(|&kept| kept != id);
        Some(statement.text)
    }

    pub fn text(&self, id: u32) -> Option<String> {
        self.by_id.get(&id).map(|statement| statement.text.clone())
    }

    /// Text and values of an execution; empty what is not known.
    pub fn execute(&mut self, body: &[u8], attributes: bool, max: usize) -> (String, String) {
        let Some(statement) = u32_at(body, 0).and_then(|id| self.by_id.get_mut(&id)) else {
            return Default::default();
        };
        let values = statement.values(body, attributes, max).unwrap_or_default();
        (statement.text.clone(), values)
    }
}

impl Statement {
    /// Values rendered `a , b`, as many as the bytes hold.
    fn values(&mut self, body: &[u8], attributes: bool, max: usize) -> Option<String> {
        let flags = *body.get(4)?;
        let mut reader = Reader::new(body.get(9..)?);
        let mut count = usize::from(self.parameters);
        let named = attributes && flags & 8 != 0;
        if named {
            count = usize::try_from(reader.length()?).ok()?.min(body.len());
        }
        if count == 0 {
            return None;
        }
        let nulls = reader.take(count.div_ceil(8))?;
        if reader.u8()? == 1 {
            let mut types = Vec::with_capacity(count);
            for _ in 0..count {
                types.push(Type { code: reader.u8()?, unsigned: reader.u8()? & 0x80 != 0 });
                if named {
                    reader.string()?;
                }
            }
            self.types = types;
        }
        let mut text = String::new();
        for (index, kind) in self.types.iter().take(usize::from(self.parameters)).enumerate() {
            let value = if is_null(nulls, index) { Some("NULL".to_owned()) } else { reader.value(*kind) };
            let Some(value) = value else { break };
            if index > 0 {
                text.push_str(" , ");
            }
            text.push_str(&value);
            if text.len() > max {
                break;
            }
        }
        Some(text)
    }
}

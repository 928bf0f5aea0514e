//! What the client asks for: logins, batches, calls of procedures.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use crate::protocols::clip;

/// Reads little-endian numbers from the front; `None` when the bytes end first.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// UTF-16 as text of at most `max` bytes.
pub fn utf16(bytes: &[u8], max: usize) -> String {
    let units = bytes.chunks_exact(2).filter_map(<[u8]>::first_chunk).copied().map(u16::from_le_bytes);
    let mut text = String::with_capacity((bytes.len() / 2).min(max));
    for unit in char::decode_utf16(units) {
        let character = unit.unwrap_or(char::REPLACEMENT_CHARACTER);
        if text.len() + character.len_utf8() > max {
            break;
        }
        text.push(character);
    }
    text
}

/// The option ENCRYPTION of a PRELOGIN; `None` when this is none.
pub fn encryption(body: &[u8]) -> Option<u8> {
    let mut rest = body;
    while let Some((&token, entry)) = rest.split_first() {
        if token == 0xff {
            return None;
        }
        let &[high, low, _, length] = entry.first_chunk()?;
        if token == 1 && length == 1 {
            return body.get(usize::from(u16::from_be_bytes([high, low]))).copied();
        }
        rest = entry.get(4..)?;
    }
    None
}

pub struct Login {
    pub version: Cow<'static, str>,
    pub user: String,
    pub database: String,
}

/// LOGIN7; the password is not looked at.
pub fn login(body: &[u8], max: usize) -> Option<Login> {
    let field = |at: usize| {
        let mut reader = Reader(body.get(at..)?);
        let (from, count) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        Some(utf16(body.get(from..)?.get(..2 * count)?, max))
    };
    let &[_, _, middle, major] = body.get(4..)?.first_chunk()?;
    let version = match (major, middle) {
        (0x70, _) => "7.0".into(),
        (0x71, _) => "7.1".into(),
        (0x72, _) => "7.2".into(),
        (0x73, _) => "7.3".into(),
        (0x74, _) => "7.4".into(),
        _ => Cow::Owned(format!("{}.{}", major >> 4, major & 15)),
    };
    Some(Login { version, user: field(40)?, database: field(68).unwrap_or_default() })
}

/// What follows ALL_HEADERS, which protocol 7.2 and later puts before requests.
pub fn after_headers(body: &[u8]) -> &[u8] {
    let mut reader = Reader(body);
    let (Some(total), Some(first), Some(kind)) = (reader.u32(), reader.u32(), reader.u16()) else {
        return body;
    };
    let sane = (10..=512).contains(&total) && first >= 6 && first <= total - 4 && (1..=3).contains(&kind);
    if sane { body.get(total as usize..).unwrap_or_default() } else { body }
}

/// Procedures that are called by number, from 1.
const PROCEDURES: [&str; 15] = [
    "sp_cursor",
    "sp_cursoropen",
    "sp_cursorprepare",
    "sp_cursorexecute",
    "sp_cursorprepexec",
    "sp_cursorunprepare",
    "sp_cursorfetch",
    "sp_cursoroption",
    "sp_cursorclose",
    "sp_executesql",
    "sp_prepare",
    "sp_execute",
    "sp_prepexec",
    "sp_prepexecrpc",
    "sp_unprepare",
];

pub struct Call {
    pub procedure: String,
    pub statement: Option<String>,
    /// Handle of a prepared statement.
    pub handle: Option<i32>,
}

/// A call of a procedure; the first one where several are sent together.
pub fn call(body: &[u8], max: usize) -> Option<Call> {
    let mut reader = Reader(body);
    let procedure = match usize::from(reader.u16()?) {
        0xffff => {
            let number = usize::from(reader.u16()?);
            match number.checked_sub(1).and_then(|at| PROCEDURES.get(at)) {
                Some(name) => (*name).to_owned(),
                None => number.to_string(),
            }
        }
        length => utf16(reader.take(2 * length)?, 512),
    };
    reader.u16();
    let name = procedure.rsplit('.').next().unwrap_or_default().trim_matches(['[', ']']);
    // Place of the parameter that holds the statement.
    let place = match name {
        "sp_executesql" => Some(0),
        "sp_cursoropen" => Some(1),
        "sp_prepare" | "sp_prepexec" => Some(2),
        "sp_cursorprepexec" | "sp_cursorprepare" => Some(3),
        _ => None,
    };
    let holds_handle = matches!(name, "sp_execute" | "sp_cursorexecute" | "sp_unprepare" | "sp_cursorunprepare");
    let mut statement = None;
    let mut handle = None;
    for at in 0..=place.unwrap_or(0) {
        let Some(value) = parameter(&mut reader) else { break };
        if place == Some(at) {
            statement = Some(match value.wide {
                true => utf16(&value.bytes, max),
                false => clip(&value.bytes, max),
            });
        }
        if holds_handle && at == 0 {
            handle = value.bytes.as_ref().first_chunk().map(|four| i32::from_le_bytes(*four));
        }
    }
    Some(Call { procedure, statement, handle })
}

struct Value<'a> {
    bytes: Cow<'a, [u8]>,
    wide: bool,
}

/// A parameter of the types that texts and handles have.
fn parameter<'a>(reader: &mut Reader<'a>) -> Option<Value<'a>> {
    let name = reader.u8()?;
    reader.take(2 * usize::from(name))?;
    reader.u8()?;
    value(reader)
}

/// Type and value.
fn value<'a>(reader: &mut Reader<'a>) -> Option<Value<'a>> {
    let kind = reader.u8()?;
    let bytes = match kind {
        0x26 | 0x68 => {
            reader.u8()?;
            let length = reader.u8()?;
            Cow::Borrowed(reader.take(usize::from(length))?)
        }
        0x30 | 0x32 => Cow::Borrowed(reader.take(1)?),
        0x34 => Cow::Borrowed(reader.take(2)?),
        0x38 => Cow::Borrowed(reader.take(4)?),
        0xa7 | 0xaf | 0xe7 | 0xef => {
            let largest = reader.u16()?;
            reader.take(5)?;
            if largest == 0xffff { parts(reader)? } else { short(reader)? }
        }
        0x23 | 0x63 => {
            reader.u32()?;
            reader.take(5)?;
            let length = reader.u32()? as usize;
            let held = reader.0.len().min(if length == 0xffff_ffff { 0 } else { length });
            Cow::Borrowed(reader.take(held)?)
        }
        _ => return None,
    };
    Some(Value { bytes, wide: matches!(kind, 0xe7 | 0xef | 0x63) })
}

fn short<'a>(reader: &mut Reader<'a>) -> Option<Cow<'a, [u8]>> {
    let length = usize::from(reader.u16()?);
    let held = reader.0.len().min(if length == 0xffff { 0 } else { length });
    Some(Cow::Borrowed(reader.take(held)?))
}

/// A value in parts (PLP), as far as it is held.
fn parts<'a>(reader: &mut Reader<'a>) -> Option<Cow<'a, [u8]>> {
    if reader.u64()? == u64::MAX {
        return Some(Cow::Borrowed(b""));
    }
    let mut bytes = Cow::Borrowed(&b""[..]);
    while let Some(length) = reader.u32().filter(|length| *length > 0) {
        let part = reader.take(reader.0.len().min(length as usize))?;
        match bytes.is_empty() {
            true => bytes = Cow::Borrowed(part),
            false => bytes.to_mut().extend_from_slice(part),
        }
    }
    Some(bytes)
}

/// Name of a request to the transaction manager.
pub fn transaction(body: &[u8]) -> &'static str {
    match Reader(body).u16() {
        Some(0) => "GET_DTC_ADDRESS",
        Some(1) => "PROPAGATE",
        Some(5) => "BEGIN",
        Some(6) => "PROMOTE",
        Some(7) => "COMMIT",
        Some(8) => "ROLLBACK",
        Some(9) => "SAVE",
        _ => "",
    }
}

/// Bytes of text kept a connection; the oldest go first.
const MAX_TEXT: usize = 256 * 1024;
const MAX_HANDLES: usize = 512;

/// Texts of prepared statements by their handles.
#[derive(Default)]
pub struct Handles {
    texts: HashMap<i32, String>,
    order: VecDeque<i32>,
    bytes: usize,
}

impl Handles {
    pub fn keep(&mut self, handle: i32, text: String) {
        self.forget(handle);
        self.bytes += text.len();
        self.texts.insert(handle, text);
        self.order.push_back(handle);
        while self.bytes > MAX_TEXT || self.order.len() > MAX_HANDLES {
            let Some(&oldest) = self.order.front() else { break };
            self.forget(oldest);
        }
    }

    pub fn get(&self, handle: i32) -> Option<String> {
        self.texts.get(&handle).cloned()
    }

    fn forget(&mut self, handle: i32) {
        if let Some(text) = self.texts.remove(&handle) {
            self.bytes = self.bytes.saturating_sub(text.len());
            self.order.retain(|kept| *kept != handle);
        }
    }
}

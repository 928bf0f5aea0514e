//! Calls of the client (TTC): name, statement, cursor.

use std::borrow::Cow;

use crate::protocols::{clip, sql};

const PROTOCOL: u8 = 1;
const DATA_TYPES: u8 = 2;
pub const FUNCTION: u8 = 3;
const PIGGYBACK: u8 = 17;
const FAST_AUTHENTICATION: u8 = 34;
const NETWORK_SERVICES: &[u8] = b"\xde\xad\xbe\xef";

const REEXECUTE: u8 = 4;
const REEXECUTE_AND_FETCH: u8 = 78;
pub const EXECUTE: u8 = 94;

/// A length of this value means that parts with lengths of their own follow.
const IN_PARTS: u8 = 0xfe;

pub struct Call<'a> {
    pub name: &'static str,
    pub data_id: u8,
    pub number: Option<u8>,
    pub statement: Option<Cow<'a, [u8]>>,
    pub cursor: Option<u32>,
    pub user: Option<&'a [u8]>,
}

/// Name of a call.
pub fn name_of(number: u8) -> Option<&'static str> {
    Some(match number {
        2 => "OPEN",
        3 => "PARSE",
        REEXECUTE => "REEXECUTE",
        5 => "FETCH",
        8 => "CLOSE",
        9 => "LOGOFF",
        12 => "AUTOCOMMIT_ON",
        13 => "AUTOCOMMIT_OFF",
        14 => "COMMIT",
        15 => "ROLLBACK",
        20 => "CANCEL",
        43 | 98 | 119 => "DESCRIBE",
        59 => "VERSION",
        71 => "EXECUTE_7",
        REEXECUTE_AND_FETCH => "REEXECUTE_AND_FETCH",
        EXECUTE => "EXECUTE",
        96 => "LOB_OPERATION",
        103 => "TRANSACTION_START_STOP",
        104 => "TRANSACTION_CHANGE_STATE",
        105 => "CLOSE_CURSORS",
        115 => "AUTH_PHASE_2",
        118 => "AUTH_PHASE_1",
        121 => "AQ_ENQUEUE",
        122 => "AQ_DEQUEUE",
        135 => "SET_END_TO_END",
        147 => "PING",
        152 => "SET_SCHEMA",
        162 => "SESSION_GET",
        163 => "SESSION_RELEASE",
        _ => return None,
    })
}

pub fn call(data: &[u8]) -> Option<Call<'_>> {
    let blank = |name, data_id| Call { name, data_id, number: None, statement: None, cursor: None, user: None };
    match *data.first()? {
        _ if data.starts_with(NETWORK_SERVICES) => Some(blank("NETWORK_SERVICES", 0xef)),
        PROTOCOL if data.len() < 512 => Some(blank("SET_PROTOCOL", PROTOCOL)),
        DATA_TYPES => Some(blank("SET_DATATYPES", DATA_TYPES)),
        FAST_AUTHENTICATION => Some(blank("FAST_AUTH", FAST_AUTHENTICATION)),
        FUNCTION => function(data),
        PIGGYBACK => {
            // The call itself comes behind, with the next number.
            let next = data.get(2)?.wrapping_add(1);
            let begins = |at: &usize| {
                data.get(*at..)
                    .and_then(<[u8]>::first_chunk)
                    .is_some_and(|&[_, number, serial]| serial == next && name_of(number).is_some())
            };
            let at = memchr::memchr_iter(FUNCTION, data.get(..4096).unwrap_or(data)).find(begins)?;
            function(data.get(at..)?)
        }
        _ => None,
    }
}

fn function(data: &[u8]) -> Option<Call<'_>> {
    let &[data_id, number, _] = data.first_chunk()?;
    let name = name_of(number)?;
    let body = data.get(3..)?;
    let mut call = Call { name, data_id, number: Some(number), statement: None, cursor: None, user: None };
    match number {
        EXECUTE | 71 | 3 => {
            call.statement = statement(body);
            // Options, then the cursor, as thin drivers write them.
            call.cursor = number_at(body).and_then(|(_, rest)| number_at(rest)).map(|(cursor, _)| cursor);
        }
        REEXECUTE | REEXECUTE_AND_FETCH | 5 => call.cursor = number_at(body).map(|(cursor, _)| cursor),
        115 | 118 => call.user = user(body),
        _ => {}
    }
    Some(call)
}

/// A number with its length before it, and what follows.
pub fn number_at(data: &[u8]) -> Option<(u32, &[u8])> {
    let (&length, rest) = data.split_first()?;
    let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f)).filter(|_| length & 0x7f <= 8)?;
    let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Some((u32::try_from(value).ok()?, rest))
}

fn printable(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| byte >= b' ' && byte != 0x7f || byte.is_ascii_whitespace())
}

/// The statement in the body of a call: a text with its length before it that begins as statements do.
fn statement(body: &[u8]) -> Option<Cow<'_, [u8]>> {
    let starts = body.get(..4096).unwrap_or(body);
    (1..starts.len()).find_map(|at| {
        let first = *body.get(at)?;
        if !(first.is_ascii_alphabetic() || matches!(first, b'/' | b'-' | b'(' | b' ' | b'\n' | b'\r' | b'\t')) {
            return None;
        }
        let text = counted(body, at)?;
        let begins = clip(text.get(..256).unwrap_or(&text), 256);
        let words = sql::is_statement(&begins) || sql::first_word(&begins).eq_ignore_ascii_case("declare");
        (words && printable(text.get(..16).unwrap_or(&text))).then_some(text)
    })
}

/// Reads a length, and what follows it.
type Length = fn(&[u8]) -> Option<(u32, &[u8])>;

/// The text that begins at `at`, if a length stands before it.
fn counted(body: &[u8], at: usize) -> Option<Cow<'_, [u8]>> {
    let rest = body.get(at..)?;
    let before = |back: usize| at.checked_sub(back).and_then(|place| body.get(place)).copied();
    let length = usize::from(before(1)?);
    // Parts whose lengths are one byte, or numbers with a length of their own.
    if before(2) == Some(IN_PARTS) && length > 0 {
        return Some(parts(body.get(at - 1..)?, |rest| rest.split_first().map(|(&n, rest)| (u32::from(n), rest))));
    }
    for width in 1..=3u8 {
        let back = usize::from(width);
        if before(back + 1) == Some(width) && before(back + 2) == Some(IN_PARTS) {
            return Some(parts(body.get(at - back - 1..)?, number_at));
        }
    }
    if length >= 4 && length < usize::from(IN_PARTS) && rest.len() >= length {
        return rest.get(..length).filter(|text| printable(text)).map(Cow::Borrowed);
    }
    None
}

fn parts(mut rest: &[u8], length: Length) -> Cow<'_, [u8]> {
    let mut text = Vec::new();
    while let Some((count, behind)) = length(rest).filter(|(count, _)| *count > 0) {
        let (part, behind) = behind.split_at(behind.len().min(count as usize));
        text.extend_from_slice(part);
        rest = behind;
    }
    Cow::Owned(text)
}

/// The name before the first of the keys AUTH_….
fn user(body: &[u8]) -> Option<&[u8]> {
    let keys = memchr::memmem::find(body.get(..1024).unwrap_or(body), b"AUTH_")?;
    (0..keys).find_map(|at| {
        let length = usize::from(*body.get(at)?);
        let name = body.get(at + 1..at + 1 + length)?;
        let near = (at + 1 + length..at + 9 + length).contains(&keys);
        let sane = name.iter().all(|byte| byte.is_ascii_graphic());
        (length > 0 && length <= 128 && near && sane).then_some(name)
    })
}

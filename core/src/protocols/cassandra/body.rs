//! Bodies of frames.

use super::super::cursor::Cursor;
use super::super::{ParserSettings, Status};
use super::frame;

/// What a request asks.
#[derive(Default)]
pub struct Asked {
    pub text: String,
    pub is_statement: bool,
    pub consistency: Option<&'static str>,
    /// Statements of a batch.
    pub statements: usize,
    pub compression: Option<super::Algorithm>,
}

/// What a response says.
#[derive(Default)]
pub struct Said<'a> {
    pub result: &'static str,
    pub keyspace: &'a [u8],
    /// Id of a statement that was prepared.
    pub prepared: Option<&'a [u8]>,
    pub code: Option<i32>,
    pub failure: Option<Status>,
    pub message: &'a [u8],
    pub warnings: String,
}

const CONSISTENCIES: [&str; 11] = [
    "ANY",
    "ONE",
    "TWO",
    "THREE",
    "QUORUM",
    "ALL",
    "LOCAL_QUORUM",
    "EACH_QUORUM",
    "SERIAL",
    "LOCAL_SERIAL",
    "LOCAL_ONE",
];
/// Most entries of a list that are read.
const MAX_LIST: u16 = 256;

fn consistency(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    CONSISTENCIES.get(usize::from(cursor.u16()?)).copied()
}

/// [bytes]: a length below zero is a null.
fn skip_bytes(cursor: &mut Cursor<'_>) -> Option<()> {
    let length = cursor.u32()? as i32;
    if length > 0 {
        cursor.take(length as usize)?;
    }
    Some(())
}

/// [bytes map], the custom payload.
fn skip_payload(cursor: &mut Cursor<'_>) -> Option<()> {
    for _ in 0..cursor.u16()? {
        cursor.medium_bytes()?;
        skip_bytes(cursor)?;
    }
    Some(())
}

fn joined(cursor: &mut Cursor<'_>, separator: &str) -> Option<String> {
    let mut text = String::new();
    for _ in 0..cursor.u16()?.min(MAX_LIST) {
        let one = cursor.medium_bytes()?;
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(&String::from_utf8_lossy(one));
    }
    Some(text)
}

/// [long string], as far as it is at hand.
fn statement(cursor: &mut Cursor<'_>, settings: &ParserSettings) -> Option<String> {
    let length = cursor.u32()? as usize;
    Some(settings.text(cursor.up_to(length)))
}

/// Reads a request; `known` finds the text of a prepared statement.
pub fn asked<'k>(
    header: &frame::Header,
    body: &[u8],
    settings: &ParserSettings,
    known: &dyn Fn(&[u8]) -> Option<&'k str>,
) -> Asked {
    let mut asked = Asked::default();
    // What is cut leaves the fields that were read.
    let _ = read_request(header, Cursor(body), settings, known, &mut asked);
    asked
}

fn read_request<'k>(
    header: &frame::Header,
    mut cursor: Cursor<'_>,
    settings: &ParserSettings,
    known: &dyn Fn(&[u8]) -> Option<&'k str>,
    asked: &mut Asked,
) -> Option<()> {
    if header.flags & 4 != 0 {
        skip_payload(&mut cursor)?;
    }
    let cursor = &mut cursor;
    match header.opcode {
        frame::STARTUP => {
            for _ in 0..cursor.u16()?.min(MAX_LIST) {
                let (name, value) = (cursor.medium_bytes()?, cursor.medium_bytes()?);
                asked.compression = match (name, value) {
                    (b"COMPRESSION", b"lz4") => Some(super::Algorithm::Lz4),
                    (b"COMPRESSION", b"snappy") => Some(super::Algorithm::Snappy),
                    _ => asked.compression,
                };
                let blank = if asked.text.is_empty() { "" } else { " " };
                let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                asked.text.push_str(&format!("{blank}{name}={value}"));
            }
        }
        frame::REGISTER => asked.text = joined(cursor, ", ")?,
        frame::QUERY | frame::PREPARE => {
            asked.is_statement = true;
            asked.text = statement(cursor, settings)?;
            if header.opcode == frame::QUERY {
                asked.consistency = consistency(cursor);
            }
        }
        frame::EXECUTE => {
            asked.is_statement = true;
            asked.text = known(cursor.medium_bytes()?).unwrap_or_default().to_owned();
            if header.version >= 5 {
                cursor.medium_bytes()?;
            }
            asked.consistency = consistency(cursor);
        }
        frame::BATCH => {
            asked.is_statement = true;
            cursor.u8()?;
            let count = cursor.u16()?;
            asked.statements = usize::from(count);
            for _ in 0..count {
                let is_prepared = cursor.u8()? == 1;
                let text = if is_prepared {
                    known(cursor.medium_bytes()?).unwrap_or_default().to_owned()
                } else {
                    statement(cursor, settings)?
                };
                if asked.text.len() < settings.max_field {
                    asked.text.push_str(if asked.text.is_empty() { "" } else { "; " });
                    asked.text.push_str(&text);
                }
                for _ in 0..cursor.u16()? {
                    skip_bytes(cursor)?;
                }
            }
            asked.consistency = consistency(cursor);
        }
        _ => {}
    }
    Some(())
}

/// Reads a response.
pub fn said<'a>(header: &frame::Header, body: &'a [u8]) -> Said<'a> {
    let mut said = Said { result: frame::name(header.opcode).unwrap_or_default(), ..Said::default() };
    let _ = read_response(header, Cursor(body), &mut said);
    said
}

fn read_response<'a>(header: &frame::Header, mut cursor: Cursor<'a>, said: &mut Said<'a>) -> Option<()> {
    if header.flags & 2 != 0 {
        cursor.take(16)?;
    }
    if header.flags & 8 != 0 {
        said.warnings = joined(&mut cursor, "; ")?;
    }
    if header.flags & 4 != 0 {
        skip_payload(&mut cursor)?;
    }
    let cursor = &mut cursor;
    match header.opcode {
        frame::ERROR => {
            said.failure = Some(Status::ServerError);
            let code = cursor.u32()?;
            said.code = Some(code as i32);
            said.failure = Some(match code {
                0x000a | 0x0100 | 0x2000..=0x2fff => Status::ClientError,
                _ => Status::ServerError,
            });
            let length = cursor.u16()?;
            said.message = cursor.up_to(usize::from(length));
        }
        frame::RESULT => match cursor.u32()? {
            1 => said.result = "Void",
            2 => said.result = "Rows",
            3 => {
                said.result = "SetKeyspace";
                said.keyspace = cursor.medium_bytes()?;
            }
            4 => {
                said.result = "Prepared";
                said.prepared = Some(cursor.medium_bytes()?);
            }
            5 => said.result = "SchemaChange",
            _ => {}
        },
        _ => {}
    }
    Some(())
}

/// What an event says: its strings, without addresses.
pub fn event(body: &[u8]) -> String {
    let mut cursor = Cursor(body);
    let mut words: Vec<String> = Vec::new();
    let schema = body.get(2..).is_some_and(|name| name.starts_with(b"SCHEMA_CHANGE"));
    while words.len() < if schema { 5 } else { 2 }
        && let Some(word) = cursor.medium_bytes()
    {
        words.push(String::from_utf8_lossy(word).into_owned());
    }
    words.join(" ")
}

//! A call's body: the texts in front, and the attachments behind the arguments.

use serde_json::Value;

use super::super::ParserSettings;
use super::super::clip;
use super::super::cursor::Cursor;
use super::super::propagation::Propagation;
use super::hessian::Hessian;
use super::jsonb;

/// Kryo's number of the class String, as it stands before a string in a map.
const KRYO_STRING: u8 = 3;
/// What stands before an object that was not written before, where Kryo follows references (as it does by default).
const KRYO_NEW: u8 = 1;

pub enum Body<'a> {
    Hessian(Hessian<'a>),
    /// A line of JSON for each value.
    Lines(&'a [u8], usize),
    /// Length and JSONB of each value.
    Jsonb(Cursor<'a>, usize),
    Kryo(Cursor<'a>, usize),
    Foreign,
}

impl<'a> Body<'a> {
    pub fn new(serialisation: u8, bytes: &'a [u8], max_text: usize) -> Self {
        match serialisation {
            2 => Self::Hessian(Hessian::new(bytes, max_text)),
            6 => Self::Lines(bytes, max_text),
            8 | 25 => Self::Kryo(Cursor(bytes), max_text),
            23 => Self::Jsonb(Cursor(bytes), max_text),
            _ => Self::Foreign,
        }
    }

    /// The next value, a text.
    pub fn text(&mut self) -> Option<String> {
        match self {
            Self::Hessian(hessian) => hessian.string(),
            Self::Lines(rest, max) => {
                let (line, left) = split_line(rest)?;
                *rest = left;
                let text: String = serde_json::from_slice(line).ok()?;
                Some(clip(text.as_bytes(), *max))
            }
            Self::Jsonb(cursor, max) => {
                let mut value = Cursor(cursor.long_bytes()?);
                Some(clip(jsonb::string(&mut value)?, *max))
            }
            Self::Kryo(cursor, max) => Some(clip(&kryo_string(cursor)?, *max)),
            Self::Foreign => None,
        }
    }

    /// Passes over the arguments (their types are in `parameters`) and offers every attachment.
    pub fn attachments(
        &mut self,
        parameters: &str,
        settings: &ParserSettings,
        found: &mut Propagation<'_>,
    ) -> Option<()> {
        match self {
            Self::Hessian(hessian) => {
                for _ in 0..count(parameters) {
                    hessian.skip()?;
                }
                hessian.map(|name, value| found.offer(name.as_bytes(), value.as_bytes()))
            }
            Self::Lines(rest, _) => {
                for _ in 0..count(parameters) {
                    *rest = split_line(rest)?.1;
                }
                let line = split_line(rest)?.0;
                let Ok(Value::Object(attachments)) = serde_json::from_slice(line) else {
                    return None;
                };
                for (name, value) in &attachments {
                    found.offer(name.as_bytes(), value.as_str().unwrap_or_default().as_bytes());
                }
                Some(())
            }
            Self::Jsonb(cursor, _) => {
                for _ in 0..count(parameters) {
                    cursor.long_bytes()?;
                }
                let mut value = Cursor(cursor.long_bytes()?);
                jsonb::object(&mut value, |name, value| found.offer(name, value))
            }
            Self::Kryo(cursor, _) => {
                // The arguments cannot be passed over without their classes: the names are looked for.
                let names = settings.apm_trace_id.iter().chain(&settings.apm_span_id).chain(&settings.x_request_id);
                for name in names {
                    if let Some(value) = kryo_value(cursor.0, name.as_bytes()) {
                        found.offer(name.as_bytes(), &value);
                    }
                }
                Some(())
            }
            Self::Foreign => None,
        }
    }
}

/// Number of types in a JVM descriptor: `Ljava/lang/String;[I` has two.
fn count(parameters: &str) -> usize {
    let (mut count, mut in_name) = (0, false);
    for byte in parameters.bytes() {
        match byte {
            b';' => in_name = false,
            _ if in_name => {}
            b'[' => {}
            _ => {
                count += 1;
                in_name = byte == b'L';
            }
        }
    }
    count
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..end)?.trim_ascii();
    (!bytes.is_empty()).then(|| (line, bytes.get(end + 1..).unwrap_or_default()))
}

/// A string as Kryo's `Output.writeString` writes it: ASCII whose last byte has bit 7 set, or length and UTF-8.
fn kryo_string(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let first = *cursor.0.first()?;
    if first & 0x80 == 0 {
        let last = cursor.0.iter().position(|byte| byte & 0x80 != 0)?;
        let mut text = cursor.take(last + 1)?.to_vec();
        if let Some(end) = text.last_mut() {
            *end &= 0x7f;
        }
        return Some(text);
    }
    cursor.u8()?;
    let mut length = u32::from(first & 0x3f);
    let (mut more, mut shift) = (first & 0x40 != 0, 6);
    while more {
        let byte = cursor.u8()?;
        length |= u32::from(byte & 0x7f).checked_shl(shift)?;
        more = byte & 0x80 != 0;
        shift += 7;
    }
    // One more than the number of characters; 0 is null.
    let ahead = *cursor;
    let mut size = 0;
    for _ in 1..length {
        size += match ahead.0.get(size)? {
            0..=0x7f => 1,
            0xc0..=0xdf => 2,
            _ => 3,
        };
    }
    cursor.take(size).map(<[u8]>::to_vec)
}

/// The string that follows the string `name` in a map.
fn kryo_value(bytes: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (last, first) = name.split_last()?;
    memchr::memmem::find_iter(bytes, first).find_map(|at| {
        let mut cursor = Cursor(bytes.get(at + first.len()..)?);
        if cursor.u8()? != last | 0x80 || cursor.u8()? != KRYO_STRING {
            return None;
        }
        if cursor.0.first() == Some(&KRYO_NEW) {
            cursor.u8()?;
        }
        kryo_string(&mut cursor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        for (parameters, expected) in
            [("", 0), ("I", 1), ("Ljava/lang/String;[I", 2), ("[[Ljava/lang/Object;JZ", 3), ("Lunfinished", 1)]
        {
            assert_eq!(count(parameters), expected, "{parameters}");
        }
    }

    #[test]
    fn kryo_strings_of_all_forms() {
        let long = [&[0xbd, b'-'][..], &[b'x'; 59]].concat();
        for (bytes, expected) in [
            (&b"dubb\xef"[..], &b"dubbo"[..]),
            (b"\x81", b""),
            (b"\x80", b""),
            (b"\x82a", b"a"),
            (b"\x83\xc3\xa9a", "\u{e9}a".as_bytes()),
            (&long, long.get(1..).unwrap_or_default()),
        ] {
            assert_eq!(kryo_string(&mut Cursor(bytes)).as_deref(), Some(expected), "{bytes:?}");
        }
        assert_eq!(kryo_string(&mut Cursor(b"\xff\xff\xff\xff\xff\xff\xff")), None);
        for entry in [&b"..traceparen\xf4\x03valu\xe5"[..], b"\x01traceparen\xf4\x03\x01valu\xe5"] {
            assert_eq!(kryo_value(entry, b"traceparent").as_deref(), Some(&b"value"[..]));
        }
    }
}

//! BSON (bsonspec.org, version 1.1): elements of a document, and a document as text.
//!
//! The text is that of DeepFlow's MongoDB rows: `{ "find": "orders", "_id": ObjectId("…"), "n": 1 }`. A document that
//! is cut gives the text of its beginning.

use std::io::Write;

/// Documents in documents shown; deeper ones stand as `{…}`.
const MAX_DEPTH: usize = 24;

pub const DOUBLE: u8 = 0x01;
pub const STRING: u8 = 0x02;
pub const DOCUMENT: u8 = 0x03;
pub const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
pub const BOOLEAN: u8 = 0x08;
pub const INT32: u8 = 0x10;
pub const INT64: u8 = 0x12;

/// One element. `value` ends where the bytes at hand end.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    pub kind: u8,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Walks the elements of a document, as far as the bytes at hand go.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

pub fn int32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))
}

pub fn int64(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

fn double(bytes: &[u8]) -> Option<f64> {
    Some(f64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// Up to the zero byte, and what follows it.
pub fn cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Length that a document, an array or a code with scope declares, when it is possible.
pub fn declared(bytes: &[u8]) -> Option<usize> {
    usize::try_from(int32(bytes)?).ok().filter(|length| *length >= 5)
}

/// Bytes of a value: `Err(true)` when more are needed to tell, `Err(false)` for no BSON.
fn size(kind: u8, rest: &[u8]) -> Result<usize, bool> {
    let counted = |extra: usize, least: i32| match int32(rest) {
        None => Err(true),
        Some(length) if length < least => Err(false),
        Some(length) => Ok(length as usize + extra),
    };
    Ok(match kind {
        0x06 | 0x0a | 0x7f | 0xff => 0,
        BOOLEAN => 1,
        INT32 => 4,
        DOUBLE | 0x09 | 0x11 | INT64 => 8,
        0x07 => 12,
        0x13 => 16,
        STRING | 0x0d | 0x0e => counted(4, 1)?,
        DOCUMENT | ARRAY => counted(0, 5)?,
        0x0f => counted(0, 14)?,
        BINARY => counted(5, 0)?,
        0x0c => counted(16, 1)?,
        0x0b => {
            let (pattern, rest) = cstring(rest).ok_or(true)?;
            let (options, _) = cstring(rest).ok_or(true)?;
            pattern.len() + options.len() + 2
        }
        _ => return Err(false),
    })
}

impl<'a> Elements<'a> {
    /// Of a document that begins with its length.
    pub fn of(document: &'a [u8]) -> Self {
        let end = declared(document).unwrap_or(document.len()).min(document.len());
        Self { rest: document.get(4..end).unwrap_or_default() }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (kind, rest) = self.rest.split_first().filter(|(kind, _)| **kind != 0)?;
        let (key, rest) = cstring(rest)?;
        let length = match size(*kind, rest) {
            Ok(length) => length,
            Err(true) => rest.len(),
            Err(false) => {
                self.rest = &[];
                return None;
            }
        };
        let value = rest.get(..length).unwrap_or(rest);
        self.rest = rest.get(length..).unwrap_or_default();
        Some(Element { kind: *kind, key, value })
    }
}

impl<'a> Element<'a> {
    /// A number as a whole number, a boolean as 0 or 1.
    pub fn number(&self) -> Option<i64> {
        match self.kind {
            DOUBLE => double(self.value).map(|value| value as i64),
            INT32 => int32(self.value).map(i64::from),
            INT64 => int64(self.value),
            BOOLEAN => self.value.first().map(|value| i64::from(*value != 0)),
            _ => None,
        }
    }

    /// A string, as far as it is at hand.
    pub fn text(&self) -> Option<&'a [u8]> {
        (self.kind == STRING).then(|| string(self.value))
    }
}

/// The bytes of a counted string, without the zero byte.
fn string(value: &[u8]) -> &[u8] {
    let length = int32(value).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let text = value.get(4..).unwrap_or_default();
    text.get(..length.saturating_sub(1)).unwrap_or(text)
}

/// Does a document begin here? `None` when more bytes are needed to tell. `most`: bytes that it may take.
pub fn begins(bytes: &[u8], most: usize) -> Option<bool> {
    let length = int32(bytes)?;
    if length < 5 || length as usize > most {
        return Some(false);
    }
    let (Some(&kind), rest) = (bytes.get(4), bytes.get(5..).unwrap_or_default()) else {
        return None;
    };
    if kind == 0 {
        return Some(length == 5);
    }
    let known = matches!(kind, 0x01..=0x13 | 0x7f | 0xff);
    let seen = rest.get(..64).unwrap_or(rest);
    let key = cstring(seen).map(|(key, _)| key);
    let plain = !key.unwrap_or(seen).iter().any(u8::is_ascii_control);
    if !known || !plain || key.is_none() && rest.len() >= 64 {
        return Some(false);
    }
    key.map(|_| true)
}

/// Which values a text leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    All,
    /// What a login carries stands as `?`.
    NoSecrets,
    /// Names of fields, and the values that name a command, a place or a result.
    Names,
}

/// Fields of the outer document that hold no data of the user.
const NAMED: [&[u8]; 9] =
    [b"$db", b"collection", b"ok", b"n", b"nModified", b"code", b"codeName", b"ordered", b"batchSize"];
const SECRETS: [&[u8]; 4] = [b"payload", b"pwd", b"key", b"nonce"];
/// A login inside another command; never shown.
const LOGIN: &[u8] = b"speculativeAuthenticate";

/// Documents as text of at most `max` bytes.
pub struct Text {
    text: Vec<u8>,
    max: usize,
}

impl Text {
    pub fn new(max: usize) -> Self {
        Self { text: Vec::new(), max }
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        self.text.truncate(self.max);
        self.text
    }

    pub fn is_full(&self) -> bool {
        self.text.len() >= self.max
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = self.max.saturating_sub(self.text.len());
        self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn print(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        drop(self.text.write_fmt(arguments));
        self.text.truncate(self.max);
    }

    /// A document, and `lists` of documents as further fields of it (sections of kind 1 of OP_MSG).
    pub fn document(&mut self, document: &[u8], lists: &[(&[u8], &[u8])], shown: Shown) {
        self.put(b"{");
        let mut count = 0;
        for (index, element) in Elements::of(document).enumerate() {
            let named = index == 0 && matches!(element.kind, STRING | INT32 | DOUBLE) || NAMED.contains(&element.key);
            self.field(&mut count, element.key);
            match shown {
                Shown::Names if named => self.value(&element, Shown::All, 1),
                _ => self.value(&element, shown, 1),
            }
            if self.is_full() {
                return;
            }
        }
        for (name, documents) in lists {
            self.field(&mut count, name);
            self.put(b"[");
            self.sequence(documents, shown);
            self.put(b"]");
        }
        self.put(if count > 0 { b" }" } else { b"}" });
    }

    /// Documents one after the other.
    pub fn sequence(&mut self, mut documents: &[u8], shown: Shown) {
        let mut first = true;
        while let Some(length) = declared(documents)
            && !self.is_full()
        {
            if !std::mem::take(&mut first) {
                self.put(b", ");
            }
            self.nested(documents, shown, 1, false);
            documents = documents.get(length..).unwrap_or_default();
        }
    }

    fn field(&mut self, count: &mut usize, key: &[u8]) {
        self.put(if *count == 0 { b" \"" } else { b", \"" });
        self.put(key);
        self.put(b"\": ");
        *count += 1;
    }

    fn nested(&mut self, document: &[u8], shown: Shown, depth: usize, is_array: bool) {
        let (open, close) = if is_array { (b"[", b"]") } else { (b"{", b"}") };
        if depth > MAX_DEPTH {
            self.put(open);
            self.put("…".as_bytes());
            self.put(close);
            return;
        }
        self.put(open);
        let mut count = 0;
        for element in Elements::of(document) {
            if is_array {
                self.put(if count == 0 { b"" } else { b", " });
                count += 1;
            } else {
                self.field(&mut count, element.key);
            }
            self.value(&element, shown, depth + 1);
            if self.is_full() {
                return;
            }
        }
        if count > 0 && !is_array {
            self.put(b" ");
        }
        self.put(close);
    }

    fn value(&mut self, element: &Element<'_>, shown: Shown, depth: usize) {
        let value = element.value;
        if element.key == LOGIN || shown == Shown::NoSecrets && SECRETS.contains(&element.key) {
            return self.put(b"?");
        }
        match element.kind {
            DOCUMENT | ARRAY => return self.nested(value, shown, depth, element.kind == ARRAY),
            _ if shown == Shown::Names => return self.put(b"?"),
            STRING => {
                self.put(b"\"");
                self.put(string(value));
                return self.put(b"\"");
            }
            BINARY => return self.binary(value),
            0x0a => return self.put(b"null"),
            0x06 => return self.put(b"undefined"),
            0x7f => return self.put(b"MaxKey"),
            0xff => return self.put(b"MinKey"),
            0x0d => return self.put(string(value)),
            0x0f => return self.put(string(value.get(4..).unwrap_or_default())),
            0x0e => {
                self.put(b"Symbol(\"");
                self.put(string(value));
                return self.put(b"\")");
            }
            _ => {}
        }
        if self.scalar(element).is_none() {
            self.put("…".as_bytes());
        }
    }

    /// A value of fixed size; `None` when it is cut.
    fn scalar(&mut self, element: &Element<'_>) -> Option<()> {
        let value = element.value;
        match element.kind {
            DOUBLE => self.print(format_args!("{}", double(value)?)),
            INT32 => self.print(format_args!("{}", int32(value)?)),
            INT64 => self.print(format_args!("{}", int64(value)?)),
            BOOLEAN => self.print(format_args!("{}", *value.first()? != 0)),
            0x07 => {
                self.put(b"ObjectId(\"");
                self.hex(value.get(..12)?);
                self.put(b"\")");
            }
            0x09 => self.date(int64(value)?),
            0x11 => {
                let (increment, time) = (int32(value)? as u32, int32(value.get(4..)?)? as u32);
                self.print(format_args!("Timestamp({time}, {increment})"));
            }
            0x13 => self.decimal(u128::from_le_bytes(value.get(..16)?.try_into().ok()?)),
            0x0b => {
                let (pattern, rest) = cstring(value)?;
                let (options, _) = cstring(rest)?;
                self.put(b"/");
                self.put(pattern);
                self.put(b"/");
                self.put(options);
            }
            _ => {
                let name = string(value);
                let id = value.get(name.len() + 5..)?.get(..12)?;
                self.put(b"DbPointer(");
                self.put(name);
                self.put(b", ");
                self.hex(id);
                self.put(b")");
            }
        }
        Some(())
    }

    fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.print(format_args!("{byte:02x}"));
        }
    }

    fn binary(&mut self, value: &[u8]) {
        let Some((&subtype, bytes)) = value.get(4..).and_then(<[u8]>::split_first) else {
            return self.put("…".as_bytes());
        };
        // Subtype 2 repeats its length.
        let bytes = if subtype == 2 { bytes.get(4..).unwrap_or_default() } else { bytes };
        self.print(format_args!("Binary({subtype:#x}, "));
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for group in bytes.chunks(3) {
            let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for place in 0..4 {
                let digit = DIGITS.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
                self.put(&[if place > group.len() { b'=' } else { digit }]);
            }
            if self.is_full() {
                return;
            }
        }
        self.put(b")");
    }

    /// Milliseconds since 1970, in UTC.
    fn date(&mut self, millis: i64) {
        let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        // Years from 1 March 0000, in eras of 400 years (the proleptic Gregorian calendar).
        let shifted = days + 719_468;
        let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
        let fraction = format!("{:03}", rest % 1000);
        let trimmed = fraction.trim_end_matches('0');
        let fraction = if trimmed.is_empty() { "0" } else { trimmed };
        self.print(format_args!(
            "DateTime(\"{year:04}-{month:02}-{of_month:02} {hour}:{minute:02}:{second:02}.{fraction} +00:00:00\")"
        ));
    }

    /// IEEE 754-2008 decimal128 in its binary integer encoding.
    fn decimal(&mut self, bits: u128) {
        let sign = if bits >> 127 == 1 { "-" } else { "" };
        let top = (bits >> 122 & 31) as u8;
        if top >= 30 {
            return self.print(format_args!("{}", if top == 31 { "NaN".into() } else { format!("{sign}Infinity") }));
        }
        let (exponent, mut digits) = if top >> 3 == 3 {
            // A coefficient of this form exceeds 34 digits, which counts as zero.
            (bits >> 111 & 0x3fff, 0)
        } else {
            (bits >> 113 & 0x3fff, bits & ((1 << 113) - 1))
        };
        if digits >= 10u128.pow(34) {
            digits = 0;
        }
        let exponent = exponent as i32 - 6176;
        let text = digits.to_string();
        let adjusted = exponent + text.len() as i32 - 1;
        if exponent > 0 || adjusted < -6 {
            let (first, rest) = text.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            self.print(format_args!("{sign}{first}{point}{rest}E{adjusted:+}"));
        } else if exponent == 0 {
            self.print(format_args!("{sign}{text}"));
        } else {
            let text = format!("{text:0>width$}", width = exponent.unsigned_abs() as usize + 1);
            let (whole, fraction) = text.split_at(text.len() - exponent.unsigned_abs() as usize);
            self.print(format_args!("{sign}{whole}.{fraction}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(elements: &[u8]) -> String {
        let mut document = (elements.len() as i32 + 5).to_le_bytes().to_vec();
        document.extend_from_slice(elements);
        document.push(0);
        let mut text = Text::new(1000);
        text.document(&document, &[], Shown::All);
        String::from_utf8(text.into_bytes()).expect("text")
    }

    #[test]
    fn values_have_their_text() {
        for (element, expected) in [
            (&b"\x01a\0\0\0\0\0\0\0\xf0\x3f"[..], "{ \"a\": 1 }"),
            (b"\x01a\0\x9a\x99\x99\x99\x99\x99\xb9\x3f", "{ \"a\": 0.1 }"),
            (b"\x02a\0\x03\0\0\0hi\0", "{ \"a\": \"hi\" }"),
            (b"\x03a\0\x05\0\0\0\0", "{ \"a\": {} }"),
            (b"\x04a\0\x0c\0\0\0\x100\0\x07\0\0\0\0", "{ \"a\": [7] }"),
            (b"\x05a\0\x02\0\0\0\x00hi", "{ \"a\": Binary(0x0, aGk=) }"),
            (b"\x06a\0\x0ab\0\x7fc\0\xffd\0", "{ \"a\": undefined, \"b\": null, \"c\": MaxKey, \"d\": MinKey }"),
            (b"\x09a\0\0\0\0\0\0\0\0\0", "{ \"a\": DateTime(\"1970-01-01 0:00:00.0 +00:00:00\") }"),
            (b"\x09a\0\x40\x6b\x16\xe0\x92\x01\0\0", "{ \"a\": DateTime(\"2024-10-31 1:00:18.624 +00:00:00\") }"),
            (b"\x09a\0\xff\xff\xff\xff\xff\xff\xff\xff", "{ \"a\": DateTime(\"1969-12-31 23:59:59.999 +00:00:00\") }"),
            (b"\x0ba\0^x\0i\0", "{ \"a\": /^x/i }"),
            (b"\x0da\0\x04\0\0\0f()\0", "{ \"a\": f() }"),
            (b"\x11a\0\x02\0\0\0\x01\0\0\0", "{ \"a\": Timestamp(1, 2) }"),
            (b"\x13a\0\x7b\0\0\0\0\0\0\0\0\0\0\0\0\0\x3c\x30", "{ \"a\": 1.23 }"),
            (b"\x13a\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x46\xb0", "{ \"a\": -1E+3 }"),
            (b"\x13a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x78", "{ \"a\": Infinity }"),
            (b"", "{}"),
        ] {
            assert_eq!(shown(element), expected);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut element = b"\x10a\0\x01\0\0\0".to_vec();
        for _ in 0..200 {
            let mut outer = b"\x03a\0".to_vec();
            outer.extend((element.len() as i32 + 5).to_le_bytes());
            outer.extend(element);
            outer.push(0);
            element = outer;
        }
        assert_eq!(shown(&element).matches('{').count(), MAX_DEPTH + 2);
    }
}

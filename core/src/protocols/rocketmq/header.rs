//! The header of a RocketMQ command, as JSON or in RocketMQ's own form; a cut one gives what its beginning holds.
//!
//! Source: org.apache.rocketmq.remoting.protocol (RemotingCommand, RocketMQSerializable).

use std::borrow::Cow;

use crate::protocols::cursor::Cursor;

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 16;

type Text<'a> = Cow<'a, [u8]>;

#[derive(Debug, Default)]
pub struct Header<'a> {
    pub code: Option<i32>,
    pub version: Option<i32>,
    pub opaque: Option<i32>,
    pub flag: Option<i32>,
    pub remark: Text<'a>,
    pub fields: Vec<(Text<'a>, Text<'a>)>,
}

impl<'a> Header<'a> {
    /// `None` when this is no header.
    pub fn json(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Self::default();
        let mut json = Json { bytes, at: 0 };
        json.object(&mut |key, value, json| {
            match key {
                b"code" => header.code = number(&value),
                b"version" => header.version = number(&value),
                b"opaque" => header.opaque = number(&value),
                b"flag" => header.flag = number(&value),
                b"remark" => header.remark = value,
                b"extFields" => {
                    return json.object(&mut |key, value, _| {
                        header.fields.push((Cow::Borrowed(key), value));
                        Some(())
                    });
                }
                _ => {}
            }
            Some(())
        });
        header.code.is_some().then_some(header)
    }

    /// `length` bytes, of which the first are at hand.
    pub fn binary(bytes: &'a [u8], length: usize) -> Option<Self> {
        let mut left = Cursor(bytes);
        let mut header = Self {
            code: Some(i32::from(left.u16()? as i16)),
            version: {
                left.u8()?;
                Some(i32::from(left.u16()? as i16))
            },
            opaque: Some(left.u32()? as i32),
            flag: Some(left.u32()? as i32),
            ..Self::default()
        };
        let remark = left.u32()? as usize;
        if remark > length {
            return None;
        }
        header.remark = Cow::Borrowed(left.up_to(remark));
        let Some(size) = left.u32() else { return Some(header) };
        if size as usize > length {
            return None;
        }
        let mut fields = Cursor(left.up_to(size as usize));
        while let (Some(key), Some(value)) = (fields.medium_bytes(), fields.long_bytes()) {
            header.fields.push((Cow::Borrowed(key), Cow::Borrowed(value)));
        }
        Some(header)
    }

    /// The first of the fields with these names.
    pub fn field(&self, names: &[&[u8]]) -> &[u8] {
        let of = |name: &[u8]| self.fields.iter().find(|(key, value)| **key == *name && !value.is_empty());
        names.iter().find_map(|name| of(name)).map_or(&[], |(_, value)| value)
    }
}

fn number(value: &[u8]) -> Option<i32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Just as much JSON as the header needs.
struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Is told the key and the value of a member: a text, the digits of a number, all of an object or an array.
type Member<'m, 'a> = &'m mut dyn FnMut(&'a [u8], Text<'a>, &mut Json<'a>) -> Option<()>;

impl<'a> Json<'a> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, expected: u8) -> Option<()> {
        if self.peek()? != expected {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// `None` when it ends early or is wrong.
    fn object(&mut self, each: Member<'_, 'a>) -> Option<()> {
        self.eat(b'{')?;
        if self.peek()? == b'}' {
            return self.eat(b'}');
        }
        loop {
            self.peek()?;
            let (key, _) = self.string()?;
            self.eat(b':')?;
            let value = match self.peek()? {
                b'"' => {
                    let (raw, escaped) = self.string()?;
                    if escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
                }
                b'{' if key == b"extFields" => {
                    // Read where it stands, so that a cut one gives what it holds.
                    each(key, Cow::Borrowed(&[]), self)?;
                    Cow::Borrowed(&[][..])
                }
                _ => Cow::Borrowed(self.other().map(|value| if value == b"null" { &[] } else { value })?),
            };
            if key != b"extFields" {
                each(key, value, self)?;
            }
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.eat(b'}'),
            }
        }
    }

    /// A string without its quotes, and whether it has escapes.
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        self.eat(b'"')?;
        let (from, mut escaped) = (self.at, false);
        loop {
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        let text = self.bytes.get(from..self.at)?;
        self.at += 1;
        Some((text, escaped))
    }

    /// A number, a literal, an object or an array.
    fn other(&mut self) -> Option<&'a [u8]> {
        let from = self.at;
        let mut depth = 0;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' if depth < MAX_DEPTH => depth += 1,
                b'{' | b'[' => return None,
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        Some(self.bytes.get(from..self.at)?.trim_ascii())
    }
}

/// Escapes of RFC 8259; halves of surrogate pairs become U+FFFD.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let Some((&kind, after)) = rest.split_first() else { break };
        rest = after;
        match kind {
            b'n' => text.push(b'\n'),
            b't' => text.push(b'\t'),
            b'r' => text.push(b'\r'),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'u' => {
                let digits = rest.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let char = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = rest.get(4..).unwrap_or_default();
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &[u8] =
        br#"{"code":310,"x":[{"a":"]"}],"extFields":{"b":"t\"1","i":"K\u0001v\u0002"},"flag":2,"opaque":-7}"#;

    #[test]
    fn json_is_read_as_far_as_it_goes() {
        let header = Header::json(SEND).expect("a header");
        assert_eq!((header.code, header.flag, header.opaque), (Some(310), Some(2), Some(-7)));
        assert_eq!(header.field(&[b"b"]), b"t\"1");
        assert_eq!(header.field(&[b"none", b"i"]), b"K\x01v\x02");
        for cut in 0..SEND.len() {
            if let Some(header) = Header::json(&SEND[..cut]) {
                assert_eq!(header.code, Some(310));
            }
        }
        let cut = Header::json(&SEND[..60]).expect("a header");
        assert_eq!(cut.field(&[b"b"]), b"t\"1");
        assert!(Header::json(b"{\"other\":1}").is_none());
    }
}

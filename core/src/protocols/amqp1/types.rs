//! The type system of AMQP 1.0 (OASIS, part 1): constructors and what they construct.

use crate::protocols::cursor::Cursor;

/// Descriptions within descriptions.
const MAX_DEPTH: usize = 4;

/// A value: its constructor, the code that describes it (0 none), and its bytes (of a compound: count and items).
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    code: u8,
    pub described: u64,
    pub bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// The next value; `None` where the bytes end or make no sense.
    pub fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let mut described = 0;
        for _ in 0..MAX_DEPTH {
            let code = cursor.u8()?;
            if code != 0 {
                let bytes = body(code, cursor)?;
                return Some(Self { code, described, bytes });
            }
            // Descriptors are numbers or symbols; of the symbols none is known here.
            let descriptor = cursor.u8()?;
            let bytes = body(descriptor, cursor)?;
            described = Self { code: descriptor, described: 0, bytes }.number().unwrap_or(u64::MAX);
        }
        None
    }

    pub fn truth(self) -> Option<bool> {
        match self.code {
            0x41 => Some(true),
            0x42 => Some(false),
            0x56 => Some(self.bytes != [0]),
            _ => None,
        }
    }

    /// An unsigned integer of any width.
    pub fn number(self) -> Option<u64> {
        match self.code {
            0x43 | 0x44 => Some(0),
            0x50 | 0x52 | 0x53 | 0x60 | 0x70 | 0x80 => {
                Some(self.bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            _ => None,
        }
    }

    /// A string, symbol or binary.
    pub fn text(self) -> Option<&'a [u8]> {
        matches!(self.code, 0xa0 | 0xa1 | 0xa3 | 0xb0 | 0xb1 | 0xb3).then_some(self.bytes)
    }

    /// The items of a list or map.
    pub fn items(self) -> Items<'a> {
        let mut cursor = Cursor(self.bytes);
        let left = match self.code {
            0xc0 | 0xc1 => cursor.u8().map(u32::from),
            0xd0 | 0xd1 => cursor.u32(),
            _ => None,
        };
        Items { cursor, left: left.unwrap_or(0) }
    }
}

/// Items of a compound; those that the sender left out are null.
#[derive(Clone, Copy)]
pub struct Items<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read(&mut self.cursor)
    }
}

/// What follows a constructor; a compound keeps its count, not its size.
fn body<'a>(code: u8, cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    match code >> 4 {
        4 => Some(b""),
        5 => cursor.take(1),
        6 => cursor.take(2),
        7 => cursor.take(4),
        8 => cursor.take(8),
        9 => cursor.take(16),
        0xa | 0xc | 0xe => cursor.short_bytes(),
        0xb | 0xd | 0xf => cursor.long_bytes(),
        _ => None,
    }
}

//! Values in OpenWire's two encodings (activemq.apache.org "OpenWire version 2 specification").
//!
//! Loose: a boolean is a byte, a long eight bytes. Tight: all booleans of a command stand as bits in front of it, and
//! say how long the longs are.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::cursor::Cursor;
use super::objects::{Field, Slot, fields, is_message};

/// Nesting of objects.
const MAX_DEPTH: usize = 8;
/// Names of destinations that are remembered by number.
const MAX_CACHED: usize = 4096;
/// Bytes of one of them.
const MAX_CACHED_NAME: usize = 512;

/// How the two sides agreed to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    pub version: u32,
    pub tight: bool,
    pub cached: bool,
    pub unprefixed: bool,
}

/// Destinations that one side has sent, by their numbers. Other objects are not remembered.
pub type Cache = HashMap<u16, Vec<u8>>;

/// What a command says that a row shows.
#[derive(Debug, Default)]
pub struct Said<'a> {
    pub destination: Cow<'a, [u8]>,
    pub broker_url: &'a [u8],
    pub correlation: &'a [u8],
    pub properties: &'a [u8],
    pub exception_class: &'a [u8],
    pub exception: &'a [u8],
    pub response_to: Option<u32>,
}

pub struct Wire<'a, 'c> {
    cursor: Cursor<'a>,
    /// The booleans of a tight command that are left: bytes, and bits used of the first.
    bits: (&'a [u8], u32),
    format: Format,
    cache: &'c mut Cache,
    /// Objects that were read whole: a measure of certainty.
    pub objects: usize,
    pub said: Said<'a>,
}

impl<'a, 'c> Wire<'a, 'c> {
    /// `bytes` follow the type of the command.
    pub fn new(bytes: &'a [u8], format: Format, cache: &'c mut Cache) -> Option<Self> {
        let mut wire = Self { cursor: Cursor(bytes), bits: (&[], 0), format, cache, objects: 0, said: Said::default() };
        if format.tight {
            wire.bit_field()?;
        }
        Some(wire)
    }

    fn bit_field(&mut self) -> Option<()> {
        let size = match self.cursor.u8()? {
            0x80 => usize::from(self.cursor.u16()?),
            0xc0 => usize::from(self.cursor.u8()?),
            size if size < 64 => usize::from(size),
            _ => return None,
        };
        self.bits = (self.cursor.take(size)?, 0);
        Some(())
    }

    pub fn flag(&mut self) -> Option<bool> {
        if !self.format.tight {
            return match self.cursor.u8()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
        }
        let (bytes, used) = self.bits;
        let (first, rest) = bytes.split_first()?;
        self.bits = if used == 7 { (rest, 0) } else { (bytes, used + 1) };
        Some(first >> used & 1 == 1)
    }

    pub fn int(&mut self) -> Option<u32> {
        self.cursor.u32()
    }

    fn long(&mut self) -> Option<()> {
        let width = if !self.format.tight {
            8
        } else {
            match (self.flag()?, self.flag()?) {
                (true, true) => 8,
                (true, false) => 4,
                (false, true) => 2,
                (false, false) => 0,
            }
        };
        self.cursor.take(width).map(drop)
    }

    /// Null is empty.
    fn text(&mut self) -> Option<&'a [u8]> {
        if !self.flag()? {
            return Some(&[]);
        }
        if self.format.tight {
            // ASCII or modified UTF-8; the lengths are written alike.
            self.flag()?;
        }
        self.cursor.medium_bytes()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        if self.flag()? { self.cursor.long_bytes() } else { Some(&[]) }
    }

    fn nested(&mut self, depth: usize) -> Option<&'a [u8]> {
        if !self.flag()? {
            return Some(&[]);
        }
        let kind = self.cursor.u8()?;
        let mut outer = None;
        if self.format.tight && is_message(kind) && self.flag()? {
            // Marshalled on its own: its size, its type once more, its own booleans.
            self.cursor.take(5)?;
            outer = Some(self.bits);
            self.bit_field()?;
        }
        let name = self.object(kind, depth)?;
        if let Some(bits) = outer {
            self.bits = bits;
        }
        Some(name)
    }

    /// The name of an object that has one.
    fn object(&mut self, kind: u8, depth: usize) -> Option<&'a [u8]> {
        if depth > MAX_DEPTH {
            return None;
        }
        if is_message(kind) {
            self.int()?;
            self.flag()?;
        }
        let name = self.read(fields(kind, self.format.version)?, depth)?;
        self.objects += 1;
        Some(name)
    }

    /// An object that is sent once and then by its number.
    fn cached(&mut self, depth: usize, keep: bool) -> Option<Cow<'a, [u8]>> {
        if !self.format.cached {
            return self.nested(depth).map(Cow::Borrowed);
        }
        let new = self.flag()?;
        let number = self.cursor.u16()?;
        if !new {
            return Some(Cow::Owned(self.cache.get(&number).cloned().unwrap_or_default()));
        }
        let name = self.nested(depth)?;
        // The numbers are given anew when they are used up: what had this one before is gone.
        self.cache.remove(&number);
        if keep && name.len() <= MAX_CACHED_NAME && self.cache.len() < MAX_CACHED {
            self.cache.insert(number, name.to_vec());
        }
        Some(Cow::Borrowed(name))
    }

    fn throwable(&mut self) -> Option<()> {
        if self.flag()? {
            self.said.exception_class = self.text()?;
            self.said.exception = self.text()?;
        }
        Some(())
    }

    /// Reads these fields; `None`: the bytes end before the last, or are none. Gives the text of a name field.
    pub fn read(&mut self, fields: &[Field], depth: usize) -> Option<&'a [u8]> {
        let mut name: &[u8] = &[];
        for field in fields {
            match field {
                Field::Flag => drop(self.flag()?),
                Field::Byte => drop(self.cursor.u8()?),
                Field::Int => drop(self.int()?),
                Field::Long => self.long()?,
                Field::Text => drop(self.text()?),
                Field::Name => name = self.text()?,
                Field::Bytes => drop(self.bytes()?),
                Field::Nested => drop(self.nested(depth + 1)?),
                Field::Cached => drop(self.cached(depth + 1, false)?),
                Field::Throwable => self.throwable()?,
                Field::Keep(slot) => self.keep(*slot, depth)?,
            }
        }
        Some(name)
    }

    fn keep(&mut self, slot: Slot, depth: usize) -> Option<()> {
        match slot {
            Slot::Destination => {
                let name = self.cached(depth + 1, true)?;
                if self.said.destination.is_empty() {
                    self.said.destination = name;
                }
            }
            Slot::NestedDestination => self.said.destination = Cow::Borrowed(self.nested(depth + 1)?),
            Slot::OtherDestination => drop(self.cached(depth + 1, true)?),
            Slot::BrokerUrl => self.said.broker_url = self.text()?,
            Slot::Correlation => self.said.correlation = self.text()?,
            Slot::Properties => self.said.properties = self.bytes()?,
            Slot::ResponseTo => self.said.response_to = Some(self.int()?),
        }
        Some(())
    }
}

/// A value of a map of primitives.
pub enum Value<'a> {
    Flag(bool),
    Text(&'a [u8]),
    Other,
}

/// Entries of a map of primitives (wire format, message properties). Ends where they are damaged or cut.
pub fn entries<'a>(map: &'a [u8]) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
    let mut cursor = Cursor(map);
    let mut left = cursor.u32().unwrap_or(0);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        Some((cursor.medium_bytes()?, value(&mut cursor, 0)?))
    })
}

fn value<'a>(cursor: &mut Cursor<'a>, depth: usize) -> Option<Value<'a>> {
    if depth > MAX_DEPTH {
        return None;
    }
    let width = match cursor.u8()? {
        0 => 0,
        1 => return Some(Value::Flag(cursor.u8()? != 0)),
        2 => 1,
        3 | 4 => 2,
        5 | 8 => 4,
        6 | 7 => 8,
        9 => return Some(Value::Text(cursor.medium_bytes()?)),
        10 => {
            cursor.long_bytes()?;
            0
        }
        13 => return Some(Value::Text(cursor.long_bytes()?)),
        11 => {
            for _ in 0..cursor.u32()? {
                cursor.medium_bytes()?;
                value(cursor, depth + 1)?;
            }
            0
        }
        12 => {
            for _ in 0..cursor.u32()? {
                value(cursor, depth + 1)?;
            }
            0
        }
        _ => return None,
    };
    cursor.take(width).map(|_| Value::Other)
}

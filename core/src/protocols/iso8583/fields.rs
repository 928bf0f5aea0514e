//! The data elements of ISO 8583:1987 and how an encoding writes them.

/// How a message writes its digits and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Numbers and length indicators as packed digits, binary data as bytes; else as text.
    pub packed: bool,
    /// The bitmap as hexadecimal digits.
    pub hex_bitmap: bool,
    /// Binary data as hexadecimal digits.
    pub hex_data: bool,
}

pub const ENCODINGS: [Encoding; 4] = [
    Encoding { packed: true, hex_bitmap: false, hex_data: false },
    Encoding { packed: false, hex_bitmap: false, hex_data: false },
    Encoding { packed: false, hex_bitmap: true, hex_data: true },
    Encoding { packed: false, hex_bitmap: false, hex_data: true },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Digits.
    Number,
    /// Digits that a sign precedes (x+n).
    Signed,
    /// Printable characters.
    Text,
    /// Digits and `=` or `D`: packed as nibbles.
    Track,
    /// Bytes.
    Bytes,
}

#[derive(Clone, Copy)]
enum Length {
    Fixed(usize),
    /// Digits of the length indicator and the greatest length.
    Var(usize, usize),
}

use Kind::{Bytes, Number, Signed, Text, Track};
use Length::{Fixed, Var};

/// Element by its number, ISO 8583:1987 section 4.4; what is left to national or private use counts as LLL.
fn element(number: u8) -> Option<(Kind, Length)> {
    Some(match number {
        2 => (Number, Var(2, 19)),
        3 | 11 | 12 | 73 => (Number, Fixed(6)),
        4..=6 | 82..=85 => (Number, Fixed(12)),
        7 | 74..=81 => (Number, Fixed(10)),
        8..=10 => (Number, Fixed(8)),
        13..=18 | 71 | 72 => (Number, Fixed(4)),
        19..=24 | 68..=70 => (Number, Fixed(3)),
        25 | 26 | 67 => (Number, Fixed(2)),
        27 | 66 => (Number, Fixed(1)),
        28..=31 => (Signed, Fixed(9)),
        32 | 33 | 99 | 100 => (Number, Var(2, 11)),
        34 => (Text, Var(2, 28)),
        35 => (Track, Var(2, 37)),
        36 => (Track, Var(3, 104)),
        37 => (Text, Fixed(12)),
        38 => (Text, Fixed(6)),
        39 | 92 => (Text, Fixed(2)),
        40 | 49..=51 => (Text, Fixed(3)),
        41 => (Text, Fixed(8)),
        42 => (Text, Fixed(15)),
        43 => (Text, Fixed(40)),
        44 => (Text, Var(2, 25)),
        45 => (Text, Var(2, 76)),
        46..=48 | 54..=63 | 105..=127 => (Text, Var(3, 999)),
        52 | 64 | 96 | 128 => (Bytes, Fixed(8)),
        53 | 86..=89 => (Number, Fixed(16)),
        65 => (Bytes, Fixed(1)),
        90 | 95 => (if number == 90 { Number } else { Text }, Fixed(42)),
        91 => (Text, Fixed(1)),
        93 => (Text, Fixed(5)),
        94 => (Text, Fixed(7)),
        97 => (Signed, Fixed(17)),
        98 => (Text, Fixed(25)),
        101 => (Text, Var(2, 17)),
        102 | 103 => (Text, Var(2, 28)),
        104 => (Text, Var(3, 100)),
        _ => return None,
    })
}

/// A message that was read to its end.
pub struct Elements {
    /// Message type indicator.
    pub mti: String,
    /// Elements whose value may be shown.
    pub shown: Vec<(u8, String)>,
    /// Elements that are there and never shown.
    pub hidden: Vec<u8>,
    /// Some are binary data.
    pub binary: bool,
}

impl Elements {
    pub fn get(&self, number: u8) -> Option<&str> {
        self.shown.iter().find(|(at, _)| *at == number).map(|(_, value)| value.as_str())
    }
}

/// Elements that say nothing of a card or its holder: amounts, times, numbers of the exchange, codes, terminals.
const SHOWN: &[u8] = &[3, 4, 7, 11, 12, 13, 18, 22, 24, 25, 32, 33, 37, 39, 41, 42, 49, 70];

/// Reads a message that takes all of `body`; anything else is no message of this encoding.
pub fn read(body: &[u8], encoding: Encoding) -> Option<Elements> {
    let mut cursor = Cursor { rest: body, encoding };
    let mti = cursor.number(4)?;
    if !is_type(&mti) {
        return None;
    }
    let mut map = [0u8; 16];
    map.get_mut(..8)?.copy_from_slice(&cursor.bitmap()?);
    if map[0] & 0x80 != 0 {
        map.get_mut(8..)?.copy_from_slice(&cursor.bitmap()?);
    }
    let mut elements = Elements { mti, shown: Vec::new(), hidden: Vec::new(), binary: false };
    for number in 2..=128u8 {
        let bit = usize::from(number - 1);
        if map.get(bit / 8)? & (0x80 >> (bit % 8)) == 0 {
            continue;
        }
        let value = cursor.element(number)?;
        elements.binary |= matches!(element(number), Some((Bytes, _)));
        if SHOWN.contains(&number) {
            elements.shown.push((number, value));
        } else {
            elements.hidden.push(number);
        }
    }
    (cursor.rest.is_empty() && elements.shown.len() >= 2).then_some(elements)
}

/// Version 0 (1987), a class, a function and an origin that exist.
fn is_type(mti: &str) -> bool {
    matches!(mti.as_bytes(), [b'0', b'1'..=b'8', b'0'..=b'5', b'0'..=b'5'])
}

struct Cursor<'a> {
    rest: &'a [u8],
    encoding: Encoding,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.rest.get(..count)?;
        self.rest = self.rest.get(count..)?;
        Some(taken)
    }

    /// So many digits.
    fn number(&mut self, digits: usize) -> Option<String> {
        if !self.encoding.packed {
            let taken = self.take(digits)?;
            return taken.iter().all(u8::is_ascii_digit).then(|| String::from_utf8_lossy(taken).into_owned());
        }
        let text = nibbles(self.take(digits.div_ceil(2))?);
        // An odd count is filled with a zero on the left (amounts) or a sign on the right (card numbers).
        let text = if digits % 2 == 1 && text.ends_with(['F', '0']) && !text.starts_with('0') {
            text.get(..digits)?.to_owned()
        } else {
            text.get(text.len() - digits..)?.to_owned()
        };
        text.bytes().all(|digit| digit.is_ascii_digit()).then_some(text)
    }

    fn bitmap(&mut self) -> Option<[u8; 8]> {
        if !self.encoding.hex_bitmap {
            return self.take(8)?.try_into().ok();
        }
        let digits = self.take(16)?;
        let mut map = [0; 8];
        for (byte, pair) in map.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(map)
    }

    fn element(&mut self, number: u8) -> Option<String> {
        let (kind, length) = element(number)?;
        let length = match length {
            Fixed(length) => length,
            Var(digits, most) => {
                let digits = if self.encoding.packed { digits + digits % 2 } else { digits };
                self.number(digits)?.parse().ok().filter(|length| *length <= most)?
            }
        };
        match kind {
            Number => self.number(length),
            Signed => {
                let sign = self.take(1)?;
                let digits = self.number(length - 1)?;
                matches!(sign, b"C" | b"D").then_some(digits)
            }
            Track if self.encoding.packed => Some(nibbles(self.take(length.div_ceil(2))?)),
            Track | Text => {
                let taken = self.take(length)?;
                // Chip data and private elements are bytes of any kind.
                let free = matches!(number, 46..=48 | 54..=63 | 105..=127);
                let printable = taken.iter().all(|byte| (b' '..=b'~').contains(byte));
                (free || printable).then(|| String::from_utf8_lossy(taken).trim_end().to_owned())
            }
            Bytes => self.take(if self.encoding.hex_data { length * 2 } else { length }).map(|_| String::new()),
        }
    }
}

fn nibbles(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(b"0123456789ABCDEF"[usize::from(nibble)]))
        .collect()
}

//! Hessian 2.0 (hessian.caucho.com "Hessian 2.0 Serialization Protocol"): strings are read, other values skipped.

use super::super::cursor::Cursor;

/// Nesting of values.
const MAX_DEPTH: usize = 64;
/// Classes that a message defines.
const MAX_CLASSES: usize = 1024;

pub struct Hessian<'a> {
    pub cursor: Cursor<'a>,
    /// Number of fields of each class that was defined so far.
    classes: Vec<u32>,
    max_text: usize,
}

impl<'a> Hessian<'a> {
    pub fn new(bytes: &'a [u8], max_text: usize) -> Self {
        Self { cursor: Cursor(bytes), classes: Vec::new(), max_text }
    }

    /// A string, cut after the longest text that is kept; null is empty. `None`: another value, or the end.
    pub fn string(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let ahead = self.cursor;
        let done = self.chunks(|bytes, max| {
            let room = max.saturating_sub(text.len());
            text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        });
        if done.is_none() {
            self.cursor = ahead;
            return None;
        }
        Some(super::super::clip(&text, self.max_text))
    }

    fn chunks(&mut self, mut keep: impl FnMut(&[u8], usize)) -> Option<()> {
        loop {
            let tag = self.cursor.u8()?;
            let (units, last) = match tag {
                0..=0x1f => (usize::from(tag), true),
                0x30..=0x33 => (usize::from(tag & 3) << 8 | usize::from(self.cursor.u8()?), true),
                b'R' => (usize::from(self.cursor.u16()?), false),
                b'S' => (usize::from(self.cursor.u16()?), true),
                b'N' => return Some(()),
                _ => return None,
            };
            let bytes = self.units(units)?;
            keep(bytes, self.max_text);
            if last {
                return Some(());
            }
        }
    }

    /// So many UTF-16 units, each (or each pair) written as the UTF-8 of its value.
    fn units(&mut self, mut units: usize) -> Option<&'a [u8]> {
        let mut ahead = self.cursor;
        let mut size = 0;
        while units > 0 {
            let (width, took) = match ahead.u8()? {
                0..=0x7f => (1, 1),
                0xc0..=0xdf => (2, 1),
                0xe0..=0xef => (3, 1),
                0xf0..=0xf7 => (4, 2),
                _ => return None,
            };
            ahead.take(width - 1)?;
            size += width;
            units = units.saturating_sub(took);
        }
        self.cursor.take(size)
    }

    pub fn int(&mut self) -> Option<i64> {
        let tag = self.cursor.u8()?;
        Some(match tag {
            0x80..=0xbf => i64::from(tag) - 0x90,
            0xc0..=0xcf => (i64::from(tag) - 0xc8) << 8 | i64::from(self.cursor.u8()?),
            0xd0..=0xd7 => (i64::from(tag) - 0xd4) << 16 | i64::from(self.cursor.u16()?),
            b'I' => i64::from(self.cursor.u32()?.cast_signed()),
            _ => return None,
        })
    }

    /// A type: its name, or the number of one that was named before.
    fn kind(&mut self) -> Option<()> {
        match *self.cursor.0.first()? {
            0x80..=0xd7 | b'I' => self.int().map(drop),
            _ => self.chunks(|_, _| ()),
        }
    }

    fn class(&mut self) -> Option<()> {
        self.chunks(|_, _| ())?;
        let fields = u32::try_from(self.int()?).ok()?;
        for _ in 0..fields {
            self.chunks(|_, _| ())?;
        }
        (self.classes.len() < MAX_CLASSES).then(|| self.classes.push(fields))
    }

    pub fn skip(&mut self) -> Option<()> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let tag = *self.cursor.0.first()?;
        match tag {
            0..=0x1f | 0x30..=0x33 | b'R' | b'S' | b'N' => return self.chunks(|_, _| ()),
            0x80..=0xd7 | b'I' => return self.int().map(drop),
            _ => {}
        }
        self.cursor.u8()?;
        let width = match tag {
            b'T' | b'F' | 0x5b | 0x5c | 0xd8..=0xef => 0,
            0x5d | 0xf0..=0xff => 1,
            0x38..=0x3f | 0x5e => 2,
            0x59 | 0x5f | b'K' => 4,
            b'D' | b'J' | b'L' => 8,
            0x20..=0x2f => usize::from(tag & 15),
            0x34..=0x37 => usize::from(tag & 3) << 8 | usize::from(self.cursor.u8()?),
            b'B' => usize::from(self.cursor.u16()?),
            b'A' => {
                // The next chunk of a binary value.
                let length = usize::from(self.cursor.u16()?);
                self.cursor.take(length)?;
                return self.skip_binary();
            }
            b'Q' => return self.int().map(drop),
            b'C' => {
                self.class()?;
                return self.skip_at(depth);
            }
            b'O' | 0x60..=0x6f => {
                let class = if tag == b'O' { usize::try_from(self.int()?).ok()? } else { usize::from(tag & 15) };
                let fields = *self.classes.get(class)?;
                return self.values(u64::from(fields), depth);
            }
            b'H' => return self.until_end(depth),
            b'M' => {
                self.kind()?;
                return self.until_end(depth);
            }
            b'U' => {
                self.kind()?;
                return self.until_end(depth);
            }
            b'W' => return self.until_end(depth),
            b'V' => {
                self.kind()?;
                let count = u64::try_from(self.int()?).ok()?;
                return self.values(count, depth);
            }
            b'X' => {
                let count = u64::try_from(self.int()?).ok()?;
                return self.values(count, depth);
            }
            0x70..=0x77 => {
                self.kind()?;
                return self.values(u64::from(tag & 7), depth);
            }
            0x78..=0x7f => return self.values(u64::from(tag & 7), depth),
            _ => return None,
        };
        self.cursor.take(width).map(drop)
    }

    fn skip_binary(&mut self) -> Option<()> {
        loop {
            let tag = self.cursor.u8()?;
            let length = match tag {
                b'A' | b'B' => usize::from(self.cursor.u16()?),
                0x20..=0x2f => usize::from(tag & 15),
                0x34..=0x37 => usize::from(tag & 3) << 8 | usize::from(self.cursor.u8()?),
                _ => return None,
            };
            self.cursor.take(length)?;
            if tag != b'A' {
                return Some(());
            }
        }
    }

    fn values(&mut self, count: u64, depth: usize) -> Option<()> {
        for _ in 0..count {
            self.skip_at(depth + 1)?;
        }
        Some(())
    }

    fn until_end(&mut self, depth: usize) -> Option<()> {
        while *self.cursor.0.first()? != b'Z' {
            self.skip_at(depth + 1)?;
        }
        self.cursor.u8().map(drop)
    }

    /// A map of texts to texts; other values are passed over. What was read before damage counts.
    pub fn map(&mut self, mut each: impl FnMut(&str, &str)) -> Option<()> {
        match self.cursor.u8()? {
            b'H' => {}
            b'M' => self.kind()?,
            _ => return None,
        }
        while *self.cursor.0.first()? != b'Z' {
            let Some(name) = self.string() else {
                self.values(2, 0)?;
                continue;
            };
            match self.string() {
                Some(value) => each(&name, &value),
                None => self.skip()?,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Option<usize> {
        let mut hessian = Hessian::new(bytes, 100);
        hessian.skip()?;
        Some(bytes.len() - hessian.cursor.0.len())
    }

    /// Every example of the specification's sections 4 and 5, followed by a byte that is not its own.
    #[test]
    fn values_of_the_specification_are_skipped_whole() {
        let cases: &[&[u8]] = &[
            b"\x20",
            b"\x23\x01\x02\x03",
            b"\x34\x02ab",
            b"A\x00\x02abB\x00\x01c",
            b"A\x00\x02ab\x21c",
            b"T",
            b"F",
            b"J\x00\x00\x00\xd0\x4b\x92\x84\xb8",
            b"K\x00\xe3\x83\x8f",
            b"\x5b",
            b"\x5c",
            b"\x5d\x80",
            b"\x5e\x7f\xff",
            b"\x5f\x00\x00\x2f\xda",
            b"D\x40\x28\x80\x00\x00\x00\x00\x00",
            b"\x90",
            b"\xc8\x30",
            b"\xd4\x00\x00",
            b"I\x7f\xff\xff\xff",
            b"\xe0",
            b"\xf8\x00",
            b"\x3c\x00\x00",
            b"\x59\x80\x00\x00\x00",
            b"L\x00\x00\x00\x00\x00\x00\x00\x00",
            b"V\x04[int\x92\x90\x91",
            b"U\x04[int\x90\x91Z",
            b"W\x90\x91Z",
            b"X\x92\x90\x91",
            b"\x72\x04[int\x90\x91",
            b"\x7a\x90\x91",
            b"\x72\x90\x90\x91",
            b"M\x13com.caucho.test.Car\x05color\x0aaquamarine\x05model\x06BeetleZ",
            b"H\x91\x03fee\x92\x03fieZ",
            b"N",
            b"C\x0bexample.Car\x92\x05color\x05model\x60\x03red\x08corvette",
            b"C\x0bexample.Car\x92\x05color\x05modelO\x90\x03red\x08corvette",
            b"Q\x90",
            b"\x05hello",
            b"\x01\xc3\x83",
            b"S\x00\x05hello",
            b"\x30\x21abcdefghijklmnopqrstuvwxyz0123456",
            b"R\x00\x07hello, \x05world",
        ];
        for case in cases {
            let mut bytes = case.to_vec();
            bytes.push(b'T');
            assert_eq!(skipped(&bytes), Some(case.len()), "{case:?}");
            for cut in 0..case.len() {
                assert_eq!(skipped(&case[..cut]), None, "{case:?} cut after {cut}");
            }
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for bytes in [&b"@"[..], b"\x60", b"O\x95", b"C\x01a\x8f\x60", b"Z", b"\x01\x80"] {
            assert_eq!(skipped(bytes), None, "{bytes:?}");
        }
        assert_eq!(skipped(&[b'W'; 100_000]), None);
    }
}

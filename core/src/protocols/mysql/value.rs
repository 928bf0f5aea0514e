//! Length-encoded integers and binary values ("Binary Protocol Value").

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Type of a parameter.
#[derive(Clone, Copy)]
pub struct Type {
    pub code: u8,
    pub unsigned: bool,
}

/// Reads from the front; `None` when the bytes end first.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length-encoded integer.
    pub fn length(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfc => self.u16().map(u64::from),
            0xfd => self.array::<3>().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            0xfe => self.array().map(u64::from_le_bytes),
            0xfb | 0xff => None,
            small => Some(u64::from(small)),
        }
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// Up to a NUL, which is taken too, or to the end.
    pub fn until_nul(&mut self) -> &'a [u8] {
        let end = memchr::memchr(0, self.bytes);
        let text = self.take(end.unwrap_or(self.bytes.len())).unwrap_or_default();
        if end.is_some() {
            self.take(1);
        }
        text
    }

    /// A binary value as text, numbers with the name of their type.
    pub fn value(&mut self, kind: Type) -> Option<String> {
        Some(match (kind.code, kind.unsigned) {
            (0x06, _) => "NULL".to_owned(),
            (0x01, true) => format!("Tiny({})", self.u8()?),
            (0x01, false) => format!("Tiny({})", i8::from_le_bytes(self.array()?)),
            (0x02, true) => format!("Short({})", self.u16()?),
            (0x02, false) => format!("Short({})", i16::from_le_bytes(self.array()?)),
            (0x0d, _) => format!("Year({})", self.u16()?),
            (0x03, true) => format!("Long({})", self.u32()?),
            (0x03, false) => format!("Long({})", i32::from_le_bytes(self.array()?)),
            (0x09, true) => format!("Int24({})", self.u32()?),
            (0x09, false) => format!("Int24({})", i32::from_le_bytes(self.array()?)),
            (0x08, true) => format!("LongLong({})", u64::from_le_bytes(self.array()?)),
            (0x08, false) => format!("LongLong({})", i64::from_le_bytes(self.array()?)),
            (0x04, _) => format!("Float({})", f32::from_le_bytes(self.array()?)),
            (0x05, _) => format!("Double({})", f64::from_le_bytes(self.array()?)),
            (0x07 | 0x0a | 0x0c, _) => self.datetime()?,
            (0x0b, _) => self.time()?,
            _ => crate::protocols::clip(self.string()?, 4096),
        })
    }

    fn datetime(&mut self) -> Option<String> {
        let length = self.u8()?;
        let mut reader = Reader::new(self.take(usize::from(length))?);
        if length == 0 {
            return Some("datetime 0000-00-00".to_owned());
        }
        let (year, month, day) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let date = format!("datetime {year:04}-{month:02}-{day:02}");
        Some(match length {
            4 => date,
            _ => format!("{date} {}", reader.clock()?),
        })
    }

    fn time(&mut self) -> Option<String> {
        let length = self.u8()?;
        let mut reader = Reader::new(self.take(usize::from(length))?);
        if length == 0 {
            return Some("time 0d 00:00:00".to_owned());
        }
        let sign = if reader.u8()? == 1 { "-" } else { "" };
        let days = reader.u32()?;
        Some(format!("time {sign}{days}d {}", reader.clock()?))
    }

    fn clock(&mut self) -> Option<String> {
        let (hour, minute, second) = (self.u8()?, self.u8()?, self.u8()?);
        Some(match self.u32() {
            Some(micros) => format!("{hour:02}:{minute:02}:{second:02}.{micros:06}"),
            None => format!("{hour:02}:{minute:02}:{second:02}"),
        })
    }
}

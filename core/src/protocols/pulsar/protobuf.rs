//! Protocol buffers, as far as reading a few fields asks: a walk along the fields of a message at hand.
//!
//! Source: "Protocol Buffers: Encoding".

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Of a width that nobody here reads.
    Fixed,
}

impl<'a> Value<'a> {
    pub fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    pub fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }
}

/// The fields of a message with their numbers, until it ends, is cut or is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            1 => self.fixed(8)?,
            5 => self.fixed(4)?,
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                let (taken, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(taken)
            }
            _ => return None,
        };
        Some((number, value))
    }
}

impl<'a> Fields<'a> {
    fn fixed(&mut self, width: usize) -> Option<Value<'a>> {
        self.0 = self.0.get(width..)?;
        Some(Value::Fixed)
    }

    /// The first field with a number.
    pub fn find(self, number: u32) -> Option<Value<'a>> {
        let mut fields = self;
        fields.find_map(|(found, value)| (found == number).then_some(value))
    }
}

pub fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_walked_until_the_end() {
        let message =
            [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x32, 9, b'c'];
        let fields = Fields(&message);
        assert_eq!(fields.find(1), Some(Value::Number(150)));
        assert_eq!(fields.find(2), Some(Value::Bytes(b"hi")));
        assert_eq!(fields.find(4), Some(Value::Fixed));
        assert_eq!(fields.find(6), None, "cut");
        assert_eq!(fields.count(), 4);
        assert_eq!(Fields(&[0x0f, 1]).count(), 0);
        assert_eq!(Fields(&[0x08, 0xff]).count(), 0);
    }
}

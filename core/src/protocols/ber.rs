//! Elements of the Basic Encoding Rules (X.690), definite lengths, one-byte tags.

/// One element; `end` may lie beyond the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    pub tag: u8,
    /// Where its contents begin.
    pub from: usize,
    pub end: usize,
}

impl Element {
    /// Contents as far as they are at hand.
    pub fn contents<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.from..self.end.min(bytes.len())).unwrap_or_default()
    }
}

/// What stands at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Is(Element),
    /// Its header is not whole.
    Cut,
    Wrong,
}

/// Reads the header of the element at `at`.
pub fn header(bytes: &[u8], at: usize) -> Header {
    let rest = bytes.get(at..).unwrap_or_default();
    let (Some(&tag), first) = (rest.first(), rest.get(1)) else {
        return Header::Cut;
    };
    let Some(&first) = first else {
        return if tag & 0x1f == 0x1f { Header::Wrong } else { Header::Cut };
    };
    let digits = usize::from(first & 0x7f);
    let (length, taken) = match first {
        0..=0x7f => (digits, 0),
        0x81..=0x84 => match rest.get(2..2 + digits) {
            Some(bytes) => (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), digits),
            None => return Header::Cut,
        },
        _ => return Header::Wrong,
    };
    let from = at + 2 + taken;
    match from.checked_add(length) {
        Some(end) if tag & 0x1f != 0x1f => Header::Is(Element { tag, from, end }),
        _ => Header::Wrong,
    }
}

/// The element at `at`, when its header is whole and sound.
pub fn element(bytes: &[u8], at: usize) -> Option<Element> {
    match header(bytes, at) {
        Header::Is(element) => Some(element),
        Header::Cut | Header::Wrong => None,
    }
}

/// A non-negative INTEGER or ENUMERATED.
pub fn number(contents: &[u8]) -> Option<u32> {
    if contents.is_empty() || contents.len() > 5 {
        return None;
    }
    u32::try_from(contents.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_form() {
        let is = |tag, from, end| Header::Is(Element { tag, from, end });
        for (bytes, expected) in [
            (&[0x02, 0x01, 0x05][..], is(2, 2, 3)),
            (&[0x30, 0x81, 0x80], is(0x30, 3, 131)),
            (&[0x30, 0x84, 0, 0, 1, 0], is(0x30, 6, 262)),
            (&[0x30, 0x82, 1], Header::Cut),
            (&[0x30], Header::Cut),
            (&[], Header::Cut),
            (&[0x30, 0x80], Header::Wrong),
            (&[0x3f, 0x01], Header::Wrong),
            (&[0x30, 0x85, 0, 0, 0, 0, 1], Header::Wrong),
        ] {
            assert_eq!(header(bytes, 0), expected, "{bytes:?}");
        }
        assert_eq!(number(&[1, 0]), Some(256));
        assert_eq!(number(&[0xff; 5]), None);
        assert_eq!(number(&[]), None);
    }
}

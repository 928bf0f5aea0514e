//! The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: the lengths of the codes say everything.

/// Bits of the code of each byte; the last is the end mark, which never appears.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
const LONGEST: usize = 30;
const SHORTEST: usize = 5;

struct Code {
    /// First code of a length, how many there are, and the place of its symbol.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    place: [u16; LONGEST + 1],
    symbols: [u16; 257],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut code =
            Self { first: [0; LONGEST + 1], count: [0; LONGEST + 1], place: [0; LONGEST + 1], symbols: [0; 257] };
        let (mut length, mut next, mut place) = (1, 0u32, 0u16);
        while length <= LONGEST {
            next <<= 1;
            code.first[length] = next;
            code.place[length] = place;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[place as usize] = symbol as u16;
                    place += 1;
                    next += 1;
                    code.count[length] += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        code
    }

    /// The symbol that the top bits of `window` (32 bits) begin with, and the bits it takes.
    fn symbol(&self, window: u32) -> Option<(u16, usize)> {
        for length in SHORTEST..=LONGEST {
            let above = (window >> (32 - length)).wrapping_sub(*self.first.get(length)?);
            if above < *self.count.get(length)? {
                let place = usize::from(*self.place.get(length)?) + above as usize;
                return Some((*self.symbols.get(place)?, length));
            }
        }
        None
    }
}

/// Appends the text of `coded` to `out`; `None` when it is no such code (wrong padding, the end mark).
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut held, mut bits) = (0u64, 0usize);
    let mut rest = coded.iter();
    loop {
        while bits <= 56
            && let Some(&byte) = rest.next()
        {
            held = held << 8 | u64::from(byte);
            bits += 8;
        }
        if bits == 0 {
            return Some(());
        }
        // What lies beyond the end counts as ones, as the padding does.
        let window = if bits >= 32 {
            (held >> (bits - 32)) as u32
        } else {
            let ones = 32 - bits;
            ((held << ones) as u32) | ((1u64 << ones) - 1) as u32
        };
        match CODE.symbol(window) {
            Some((symbol, length)) if length <= bits => {
                out.push(u8::try_from(symbol).ok()?);
                bits -= length;
                held &= (1u64 << bits) - 1;
            }
            // Fewer than eight bits are left, all ones: padding.
            _ => return (bits < 8 && held == (1u64 << bits) - 1).then_some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of RFC 7541, appendix C.
    #[test]
    fn examples_of_the_specification() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let mut out = Vec::new();
        assert_eq!(decode(&coded, &mut out), Some(()));
        assert_eq!(out, b"www.example.com");
        out.clear();
        assert_eq!(decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], &mut out), Some(()));
        assert_eq!(out, b"no-cache");
        for wrong in
            [&[0xff, 0xff, 0xff, 0xff][..], &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0x00]]
        {
            assert_eq!(decode(wrong, &mut Vec::new()), None);
        }
    }
}

//! The first bytes of compressed bodies. A body whose end was not captured gives what its beginning holds, which is
//! why the block formats are decoded here: their libraries decode whole blocks only.
//!
//! Sources: snappy/format_description.txt, lz4_Block_format.md; zlib, gzip and zstd by their libraries.

use std::io::Read;

use super::inflate::inside;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 1950.
    Zlib,
    /// RFC 1952.
    Gzip,
    /// One raw block, as the snappy library writes it.
    Snappy,
    /// One raw block, without frame.
    Lz4,
    Zstd,
}

/// At most `max` bytes of what `input` holds; fewer when it is cut or damaged.
pub fn prefix(algorithm: Algorithm, input: &[u8], max: usize) -> Vec<u8> {
    let mut output = Vec::new();
    match algorithm {
        Algorithm::Zlib | Algorithm::Zstd => stream(input, max, &mut output),
        Algorithm::Gzip => read(flate2::read::GzDecoder::new(input), max, &mut output),
        // A damaged block ends the output where the damage is.
        Algorithm::Snappy => drop(snappy(input, max, &mut output)),
        Algorithm::Lz4 => drop(lz4(input, max, &mut output)),
    }
    output.truncate(max);
    output
}

/// What cannot be inflated any further ends the output there.
fn stream(input: &[u8], max: usize, output: &mut Vec<u8>) {
    inside(input, |inside| {
        let mut piece = [0; 1024];
        while output.len() < max {
            let filled = inside.fill(&mut piece).unwrap_or(0);
            output.extend(piece.iter().take(filled));
            if filled < piece.len() {
                return;
            }
        }
    });
}

fn read(decoder: impl Read, max: usize, output: &mut Vec<u8>) {
    // What was read before an error is kept by `read_to_end`, and is what is asked for.
    drop(decoder.take(max as u64).read_to_end(output));
}

/// Copies `length` bytes from `back` bytes behind the end, which may overlap; `None` when there are not so many.
fn copy(output: &mut Vec<u8>, back: usize, length: usize, max: usize) -> Option<()> {
    let from = output.len().checked_sub(back).filter(|_| back > 0)?;
    let length = length.min(max.saturating_sub(output.len()));
    for at in from..from.checked_add(length)? {
        output.push(*output.get(at)?);
    }
    Some(())
}

fn literal(input: &mut &[u8], output: &mut Vec<u8>, length: usize, max: usize) -> Option<()> {
    let taken = length.min(input.len()).min(max.saturating_sub(output.len()));
    output.extend_from_slice(input.get(..taken)?);
    *input = input.get(length..)?;
    Some(())
}

fn byte(input: &mut &[u8]) -> Option<usize> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(usize::from(*first))
}

fn little_endian(input: &mut &[u8], bytes: usize) -> Option<usize> {
    let mut value = 0;
    for place in 0..bytes {
        value |= byte(input)? << (8 * place);
    }
    Some(value)
}

fn snappy(mut input: &[u8], max: usize, output: &mut Vec<u8>) -> Option<()> {
    // The uncompressed length, a varint; a liar is bounded by `max`.
    for _ in 0..5 {
        if byte(&mut input)? & 0x80 == 0 {
            break;
        }
    }
    while output.len() < max && !input.is_empty() {
        let tag = byte(&mut input)?;
        match tag & 3 {
            0 => {
                let length = match tag >> 2 {
                    short @ 0..=59 => short,
                    long => little_endian(&mut input, long - 59)?,
                };
                literal(&mut input, output, length.checked_add(1)?, max)?;
            }
            1 => {
                let back = (tag >> 5) << 8 | byte(&mut input)?;
                copy(output, back, (tag >> 2 & 7) + 4, max)?;
            }
            kind => {
                let back = little_endian(&mut input, if kind == 2 { 2 } else { 4 })?;
                copy(output, back, (tag >> 2) + 1, max)?;
            }
        }
    }
    Some(())
}

fn lz4(mut input: &[u8], max: usize, output: &mut Vec<u8>) -> Option<()> {
    let long = |input: &mut &[u8], short: usize| {
        let mut length = short;
        if short == 15 {
            loop {
                let more = byte(input)?;
                length += more;
                if more < 255 {
                    break;
                }
            }
        }
        Some(length)
    };
    while output.len() < max && !input.is_empty() {
        let token = byte(&mut input)?;
        let literals = long(&mut input, token >> 4)?;
        literal(&mut input, output, literals, max)?;
        if input.is_empty() {
            break;
        }
        let back = little_endian(&mut input, 2)?;
        let length = long(&mut input, token & 15)?;
        copy(output, back, length + 4, max)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_decode_and_stop_at_the_bound() {
        // "aaaaaaaaaa" + "bc": one literal, an overlapping copy, literals.
        let snappy: &[u8] = &[12, 0, b'a', 0x15, 1, 4, b'b', b'c'];
        let lz4: &[u8] = &[0x15, b'a', 1, 0, 0x20, b'b', b'c'];
        for (algorithm, block) in [(Algorithm::Snappy, snappy), (Algorithm::Lz4, lz4)] {
            assert_eq!(prefix(algorithm, block, 100), b"aaaaaaaaaabc", "{algorithm:?}");
            assert_eq!(prefix(algorithm, block, 4), b"aaaa", "{algorithm:?}");
            for cut in 0..block.len() {
                assert!(b"aaaaaaaaaabc".starts_with(&prefix(algorithm, &block[..cut], 100)), "{algorithm:?} {cut}");
            }
        }
    }

    #[test]
    fn streams_decode_as_far_as_they_go() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let mut zlib = flate2::read::ZlibEncoder::new(&text[..], flate2::Compression::default());
        let mut deflated = Vec::new();
        zlib.read_to_end(&mut deflated).expect("compresses");
        let zstd = zstd::encode_all(&text[..], 1).expect("compresses");
        for (algorithm, packed) in [(Algorithm::Zlib, deflated), (Algorithm::Zstd, zstd)] {
            assert_eq!(prefix(algorithm, &packed, 1000), &text[..1000]);
            assert_eq!(prefix(algorithm, &packed, 1 << 20), text);
            let half = prefix(algorithm, &packed[..packed.len() / 2], 1 << 20);
            assert!(text.starts_with(&half), "{algorithm:?}");
            assert!(prefix(algorithm, b"nonsense", 10).is_empty());
        }
    }

    #[test]
    fn lies_do_not_grow() {
        assert!(prefix(Algorithm::Snappy, &[255, 255, 255, 255, 15, 0xff, 255, 255, 255, 255], 100).is_empty());
        assert!(prefix(Algorithm::Lz4, &[0xf0, 255, 255, 255], 100).is_empty());
        assert!(prefix(Algorithm::Snappy, &[5, 0x15, 1], 100).is_empty());
    }
}

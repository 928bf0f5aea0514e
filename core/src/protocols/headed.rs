//! Frames that say their length and the length of their head in front; head and body follow (Pulsar, RocketMQ).

use std::ops::RangeInclusive;

use super::Step;
use super::cursor::Cursor;

/// Length of what follows it, length of the head.
pub const PREFIX: usize = 8;

/// Which numbers make sense.
pub struct Bounds {
    /// Low bits of the second word that hold the head's length; the others are the mark.
    pub head_bits: u32,
    pub most_mark: u32,
    pub head: RangeInclusive<usize>,
    pub most: usize,
}

/// The first frame of a window.
pub struct Headed<'a> {
    /// All bytes of the frame.
    pub length: usize,
    pub mark: u32,
    pub head_length: usize,
    /// What of the head and of the body is at hand.
    pub head: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Headed<'a> {
    /// `missing`: the window will not grow. In `Err` the step to take where no frame can be told.
    pub fn read(window: &'a [u8], bounds: &Bounds, missing: bool) -> Result<Self, Step> {
        let short = || if missing { Step::Skip(window.len() as u64) } else { Step::NeedMore };
        let mut left = Cursor(window);
        let (Some(declared), Some(word)) = (left.u32(), left.u32()) else {
            return Err(short());
        };
        let mark = word.checked_shr(bounds.head_bits).unwrap_or(0);
        let head_length = (u64::from(word) & !(u64::MAX << bounds.head_bits)) as usize;
        let declared = declared as usize;
        let sane = mark <= bounds.most_mark
            && bounds.head.contains(&head_length)
            && (head_length + 4..=bounds.most).contains(&declared);
        if !sane {
            return Err(Step::Invalid);
        }
        let length = declared + 4;
        let mut rest = Cursor(window.get(PREFIX..length.min(window.len())).unwrap_or_default());
        let head = rest.up_to(head_length);
        Ok(Self { length, mark, head_length, head, body: rest.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { head_bits: 24, most_mark: 1, head: 2..=100, most: 1000 };

    fn step(window: &[u8], missing: bool) -> Option<Step> {
        Headed::read(window, &BOUNDS, missing).err()
    }

    #[test]
    fn a_frame_is_head_and_body() {
        let window = b"\0\0\0\x0a\x01\0\0\x02hdbodynext";
        let frame = Headed::read(window, &BOUNDS, false).expect("a frame");
        assert_eq!((frame.length, frame.mark, frame.head_length), (14, 1, 2));
        assert_eq!((frame.head, frame.body), (&b"hd"[..], &b"body"[..]));
        let cut = Headed::read(&window[..9], &BOUNDS, false).expect("its beginning");
        assert_eq!((cut.length, cut.head, cut.body), (14, &b"h"[..], &b""[..]));
        let wide = Bounds { head_bits: 32, most_mark: 0, head: 1 << 24..=1 << 26, most: 1 << 27 };
        let frame = Headed::read(b"\x01\0\0\x0a\x01\0\0\x02", &wide, false).expect("a frame");
        assert_eq!((frame.mark, frame.head_length, frame.length), (0, 0x0100_0002, 0x0100_000e));
    }

    #[test]
    fn what_is_no_frame_says_what_to_do() {
        assert!(matches!(step(b"\0\0\0\x0a\x01\0\0", false), Some(Step::NeedMore)));
        assert!(matches!(step(b"\0\0\0\x0a\x01\0\0", true), Some(Step::Skip(7))));
        for wrong in
            [b"\0\0\0\x0a\x02\0\0\x02", b"\0\0\0\x0a\0\0\0\x01", b"\0\0\0\x05\0\0\0\x02", b"\0\0\x10\0\0\0\0\x02"]
        {
            assert!(matches!(step(wrong, false), Some(Step::Invalid)), "{wrong:?}");
        }
    }
}

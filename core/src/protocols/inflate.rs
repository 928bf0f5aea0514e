//! Inflates what one compressed packet holds: zlib (RFC 1950) or zstd (RFC 8878).
//!
//! Each packet stands by itself, so one state serves all connections of a thread: a new one takes tens of KB, more than
//! thousands of tiny packets hold.

use std::cell::Cell;
use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

pub const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// No packet inflates to more than 16 MiB.
const MAX_WINDOW_LOG: u32 = 24;

#[derive(Default)]
struct States {
    zlib: Option<Decompress>,
    zstd: Option<Decoder<'static>>,
}

thread_local! {
    static STATES: Cell<States> = Cell::default();
}

enum State<'s> {
    Zlib(&'s mut Decompress),
    Zstd(&'s mut Decoder<'static>),
}

/// The inside of one compressed packet, read from its beginning.
pub struct Inside<'s, 'b> {
    state: State<'s>,
    rest: &'b [u8],
}

/// Shows `look` what `body` holds; `None` when there is no memory for it.
pub fn inside<T>(body: &[u8], look: impl FnOnce(&mut Inside<'_, '_>) -> T) -> Option<T> {
    let mut states = STATES.take();
    let state = if body.starts_with(&ZSTD) { zstd(&mut states.zstd) } else { Some(zlib(&mut states.zlib)) };
    let result = state.map(|state| look(&mut Inside { state, rest: body }));
    STATES.set(states);
    result
}

fn zlib(kept: &mut Option<Decompress>) -> State<'_> {
    let zlib = kept.get_or_insert_with(|| Decompress::new(true));
    zlib.reset(true);
    State::Zlib(zlib)
}

fn zstd<'s>(kept: &'s mut Option<Decoder<'static>>) -> Option<State<'s>> {
    if kept.is_none() {
        let mut decoder = Decoder::new().ok()?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).ok()?;
        *kept = Some(decoder);
    }
    let decoder = kept.as_mut()?;
    decoder.reinit().ok()?;
    Some(State::Zstd(decoder))
}

impl Inside<'_, '_> {
    /// Fills `into` as far as the bytes go; `None` when they are damaged from the beginning.
    pub fn fill(&mut self, into: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        loop {
            let room = into.get_mut(filled..).filter(|room| !room.is_empty());
            let Some(room) = room else { return Some(filled) };
            let (read, written, go_on) = self.step(room);
            self.rest = self.rest.get(read..).unwrap_or_default();
            filled += written;
            match go_on {
                Ok(true) if read > 0 || written > 0 => {}
                Err(_) if filled == 0 => return None,
                _ => return Some(filled),
            }
        }
    }

    /// Bytes read, bytes written, and whether more may come.
    fn step(&mut self, room: &mut [u8]) -> (usize, usize, io::Result<bool>) {
        match &mut self.state {
            State::Zlib(zlib) => {
                let (read, written) = (zlib.total_in(), zlib.total_out());
                let status = zlib.decompress(self.rest, room, FlushDecompress::None);
                let of = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
                let go_on = status.map(|status| status != Status::StreamEnd).map_err(io::Error::from);
                (of(zlib.total_in(), read), of(zlib.total_out(), written), go_on)
            }
            State::Zstd(zstd) => {
                let (mut input, mut output) = (InBuffer::around(self.rest), OutBuffer::around(room));
                let wanted = zstd.run(&mut input, &mut output);
                (input.pos(), output.pos(), wanted.map(|wanted| wanted > 0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packets() -> Vec<(Vec<u8>, Vec<u8>)> {
        let texts: [&[u8]; 3] = [b"select 1", &[b'x'; 9000], b"select 2 from a_table where a = 2"];
        let both = texts.iter().flat_map(|text| {
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            zlib.write_all(text).expect("compresses");
            let zlib = zlib.finish().expect("compresses");
            [(text.to_vec(), zlib), (text.to_vec(), zstd::encode_all(*text, 1).expect("compresses"))]
        });
        both.collect()
    }

    fn plain(body: &[u8], room: usize) -> Option<Vec<u8>> {
        inside(body, |inside| {
            let mut all = Vec::new();
            let mut piece = vec![0; room];
            loop {
                let filled = inside.fill(&mut piece)?;
                all.extend_from_slice(&piece[..filled]);
                if filled < room {
                    return Some(all);
                }
            }
        })?
    }

    #[test]
    fn no_packet_leaves_a_trace_in_the_next_one() {
        let packets = packets();
        for (_, before) in &packets {
            for (text, body) in &packets {
                for cut in [before.len(), before.len() / 2, 5] {
                    plain(&before[..cut], 7);
                    let mut damaged = before.clone();
                    damaged[cut / 2] ^= 0x55;
                    plain(&damaged, 4096);
                    assert_eq!(plain(body, 4096).as_ref(), Some(text));
                    assert_eq!(plain(body, 3).as_ref(), Some(text));
                }
            }
        }
    }

    #[test]
    fn a_cut_packet_gives_its_beginning_and_nonsense_nothing() {
        for (text, body) in packets() {
            for cut in ZSTD.len()..body.len() {
                assert!(text.starts_with(&plain(&body[..cut], 100).expect("no error")), "{cut} of {}", body.len());
            }
        }
        assert_eq!(plain(b"\x78\x9c\xff\xff\xff\xff\xff\xff", 100), None);
        assert_eq!(plain(&[&ZSTD[..], &[0xff; 20]].concat(), 100), None);
    }
}

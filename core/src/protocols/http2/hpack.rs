//! HPACK (RFC 7541) of one direction, also of one whose beginning was not seen.
//!
//! The dynamic table is indexed from its newest entry, so an entry that was seen being made is known by its index
//! whatever lies behind it; entries from before are unknown and stay so. Old entries leave first, so the known ones
//! leave by their own sizes.

use std::collections::VecDeque;
use std::rc::Rc;

use super::huffman;

/// Names and values of the static table (RFC 7541, appendix A), from index 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
/// Size of a dynamic table until its encoder says otherwise.
const USUAL_SIZE: usize = 4096;
/// Largest dynamic table that is kept; what an encoder keeps beyond it counts as unknown.
const MAX_SIZE: usize = 64 * 1024;
/// Room for entries that a table keeps when it is given up.
const KEPT_ENTRIES: usize = 64;
/// What an entry takes besides its texts (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

/// Takes a name and a value; `None` is what is not known.
pub type Each<'a> = dyn FnMut(Option<&[u8]>, Option<&[u8]>) + 'a;

/// The block makes no sense; what it would have put into the table is unknown.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The name of an entry. Two bytes of a block make an entry of a name that is there already, however long it is.
#[derive(Clone, Debug)]
enum Name {
    Static(&'static [u8]),
    Shared(Rc<[u8]>),
    /// Taken from an entry that is unknown.
    Unknown,
}

impl Name {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Static(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
            Self::Unknown => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.bytes().map_or(0, <[u8]>::len) + self.value.len() + OVERHEAD
    }
}

#[derive(Debug)]
pub struct Decoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// All entries of the encoder's table are here.
    whole: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    /// Of a direction whose beginning was not seen.
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: MAX_SIZE, whole: false, name: Vec::new(), value: Vec::new() }
    }
}

/// A name or a value: in the block, in a table, or nowhere.
enum Text<'a> {
    Plain(&'a [u8]),
    Coded(&'a [u8]),
}

impl Decoder {
    /// The direction begins here: its table is empty.
    pub fn begin(&mut self) {
        *self = Self { limit: USUAL_SIZE, whole: true, ..Self::default() };
    }

    /// A block was lost: how many entries it made is unknown, and so is every index.
    pub fn lose(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_ENTRIES);
        (self.size, self.limit, self.whole) = (0, MAX_SIZE, false);
    }

    /// Decodes a block, calling `each` with names and values; `None` is what is not known. Of a block that is not
    /// `complete` the beginning is decoded and the table given up.
    pub fn decode(&mut self, block: &[u8], complete: bool, each: &mut Each<'_>) -> Result<(), Malformed> {
        let mut rest = block;
        while !rest.is_empty() {
            if self.field(&mut rest, each).is_none() {
                self.lose();
                return if complete { Err(Malformed) } else { Ok(()) };
            }
        }
        if !complete {
            self.lose();
        }
        Ok(())
    }

    /// One representation (RFC 7541 section 6).
    fn field(&mut self, rest: &mut &[u8], each: &mut Each<'_>) -> Option<()> {
        let first = *rest.first()?;
        match first {
            0x80.. => {
                let index = integer(rest, 7)?;
                match index.checked_sub(1)? {
                    place if place < STATIC.len() => {
                        let (name, value) = STATIC.get(place)?;
                        each(Some(name.as_bytes()), Some(value.as_bytes()));
                    }
                    place => match self.entries.get(place - STATIC.len()) {
                        Some(entry) => each(entry.name.bytes(), Some(&entry.value)),
                        None if self.whole => return None,
                        None => each(None, None),
                    },
                }
            }
            0x20..0x40 => {
                let size = integer(rest, 5)?;
                self.whole &= size <= MAX_SIZE;
                self.limit = size.min(MAX_SIZE);
                self.shrink(self.limit);
            }
            _ => {
                let indexed = first & 0x40 != 0;
                let index = integer(rest, if indexed { 6 } else { 4 })?;
                let known = if index == 0 { None } else { Some(self.name_at(index - 1)?) };
                if known.is_none() {
                    fill(text(rest)?, &mut self.name)?;
                }
                fill(text(rest)?, &mut self.value)?;
                each(known.as_ref().map_or(Some(&self.name), Name::bytes), Some(&self.value));
                if indexed {
                    let name = known.unwrap_or_else(|| Name::Shared(Rc::from(self.name.as_slice())));
                    self.insert(Entry { name, value: Box::from(self.value.as_slice()) });
                }
            }
        }
        Some(())
    }

    fn name_at(&self, place: usize) -> Option<Name> {
        match place.checked_sub(STATIC.len()) {
            None => STATIC.get(place).map(|(name, _)| Name::Static(name.as_bytes())),
            Some(place) => match self.entries.get(place) {
                Some(entry) => Some(entry.name.clone()),
                None => (!self.whole).then_some(Name::Unknown),
            },
        }
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.shrink(self.limit.saturating_sub(size));
        if size <= self.limit {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    fn shrink(&mut self, limit: usize) {
        while self.size > limit
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size();
        }
    }
}

fn fill(text: Text<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    match text {
        Text::Plain(bytes) => out.extend_from_slice(bytes),
        Text::Coded(bytes) => huffman::decode(bytes, out)?,
    }
    Some(())
}

/// A string literal (RFC 7541 section 5.2).
fn text<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(if coded { Text::Coded(bytes) } else { Text::Plain(bytes) })
}

/// An integer in the low `bits` of the first byte and those that follow (RFC 7541 section 5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut after) = rest.split_first()?;
    let full = (1usize << bits) - 1;
    let mut value = usize::from(first) & full;
    if value == full {
        let mut shift = 0;
        loop {
            let (&byte, next) = after.split_first()?;
            after = next;
            if shift > 21 {
                return None;
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Some(value)
}

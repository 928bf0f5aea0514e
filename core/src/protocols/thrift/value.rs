//! Values of the binary and the compact encoding (Apache Thrift, doc/specs/thrift-binary-protocol.md and
//! thrift-compact-protocol.md): enough to pass over them and to read an error.

/// Nesting that is followed.
const MAX_DEPTH: usize = 64;
/// Fields of an exception that are looked at for its message.
const MAX_FIELDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    Compact,
}

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The bytes end too early; so many are needed for another look.
    Short(usize),
    Wrong,
}

pub type Looked<T> = Result<T, Trouble>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Fixed(u8),
    Varint,
    Text,
    Struct,
    List,
    Map,
}

pub fn byte(bytes: &[u8], at: usize) -> Looked<u8> {
    bytes.get(at).copied().ok_or(Trouble::Short(at + 1))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Looked<u32> {
    let four = bytes.get(at..at + 4).ok_or(Trouble::Short(at + 4))?;
    Ok(four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// A base-128 number and the offset behind it.
pub fn varint(bytes: &[u8], mut at: usize) -> Looked<(u64, usize)> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = byte(bytes, at)?;
        at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value, at));
        }
    }
    Err(Trouble::Wrong)
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Length of a text and the offset of its first byte.
pub fn text_length(encoding: Encoding, bytes: &[u8], at: usize) -> Looked<(u64, usize)> {
    let (length, start) = match encoding {
        Encoding::Binary => (u64::from(u32_at(bytes, at)?), at + 4),
        Encoding::Compact => varint(bytes, at)?,
    };
    if length > i32::MAX as u64 { Err(Trouble::Wrong) } else { Ok((length, start)) }
}

fn type_of(encoding: Encoding, code: u8, in_container: bool) -> Looked<Type> {
    Ok(match (encoding, code) {
        (Encoding::Compact, 1 | 2) => Type::Fixed(u8::from(in_container)),
        (Encoding::Compact, 3) | (Encoding::Binary, 2 | 3) => Type::Fixed(1),
        (Encoding::Compact, 4..=6) => Type::Varint,
        (Encoding::Compact, 7) | (Encoding::Binary, 4 | 10) => Type::Fixed(8),
        (Encoding::Binary, 6) => Type::Fixed(2),
        (Encoding::Binary, 8) => Type::Fixed(4),
        (Encoding::Compact, 8) | (Encoding::Binary, 11) => Type::Text,
        (Encoding::Compact, 9 | 10) | (Encoding::Binary, 14 | 15) => Type::List,
        (Encoding::Compact, 11) | (Encoding::Binary, 13) => Type::Map,
        (Encoding::Compact | Encoding::Binary, 12) => Type::Struct,
        (Encoding::Compact, 13) | (Encoding::Binary, 16) => Type::Fixed(16),
        _ => return Err(Trouble::Wrong),
    })
}

/// A field of a struct.
struct Field {
    id: i64,
    kind: Type,
}

/// The next field of a struct (`None`: the struct ends) and the offset behind its header. `last` is the id of the field before.
fn field(encoding: Encoding, bytes: &[u8], at: usize, last: i64) -> Looked<(Option<Field>, usize)> {
    let code = byte(bytes, at)?;
    if code == 0 {
        return Ok((None, at + 1));
    }
    let (id, code, next) = match encoding {
        Encoding::Binary => {
            let id = i16::from_be_bytes([byte(bytes, at + 1)?, byte(bytes, at + 2)?]);
            (i64::from(id), code, at + 3)
        }
        Encoding::Compact if code < 16 => {
            let (id, next) = varint(bytes, at + 1)?;
            (zigzag(id), code, next)
        }
        Encoding::Compact => (last.saturating_add(i64::from(code >> 4)), code & 15, at + 1),
    };
    Ok((Some(Field { id, kind: type_of(encoding, code, false)? }), next))
}

/// Could a struct begin with these bytes?
pub fn may_begin(encoding: Encoding, bytes: &[u8]) -> bool {
    match field(encoding, bytes, 0, 0) {
        Ok((Some(field), _)) => (-4096..=4096).contains(&field.id),
        Ok((None, _)) | Err(Trouble::Short(_)) => true,
        Err(Trouble::Wrong) => false,
    }
}

/// What a reply says first of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    Value,
    /// Field of the exception in the method's result, and the first text of the exception.
    Declared(i64, &'a [u8]),
}

/// Reads the result of a method as far as it tells whether it succeeded. At most `limit` bytes of a text are needed.
pub fn outcome(encoding: Encoding, bytes: &[u8], limit: usize) -> Looked<Outcome<'_>> {
    match field(encoding, bytes, 0, 0)? {
        (Some(Field { id, kind: Type::Struct }), at) if id != 0 => {
            exception(encoding, bytes, at, limit).map(|(text, _)| Outcome::Declared(id, text))
        }
        _ => Ok(Outcome::Value),
    }
}

/// First text and first 32-bit number of a struct that begins at `at`.
pub fn exception(encoding: Encoding, bytes: &[u8], mut at: usize, limit: usize) -> Looked<(&[u8], Option<i32>)> {
    let (mut last, mut text, mut number) = (0, None, None);
    for _ in 0..MAX_FIELDS {
        let (Some(found), next) = field(encoding, bytes, at, last)? else { break };
        (at, last) = (next, found.id);
        match found.kind {
            Type::Fixed(size) => {
                let end = at + usize::from(size);
                let value = bytes.get(at..end).ok_or(Trouble::Short(end))?;
                if size == 4 && number.is_none() {
                    number = <[u8; 4]>::try_from(value).ok().map(i32::from_be_bytes);
                }
                at = end;
            }
            Type::Varint => {
                let (value, next) = varint(bytes, at)?;
                number = number.or_else(|| i32::try_from(zigzag(value)).ok());
                at = next;
            }
            Type::Text => {
                let (length, start) = text_length(encoding, bytes, at)?;
                let length = length as usize;
                let end = start + length.min(limit);
                let value = bytes.get(start..end).ok_or(Trouble::Short(end))?;
                text = text.or(Some(value));
                if length > limit {
                    break;
                }
                at = end;
            }
            Type::Struct | Type::List | Type::Map => break,
        }
        if text.is_some() && number.is_some() {
            break;
        }
    }
    Ok((text.unwrap_or_default(), number))
}

#[derive(Clone, Copy, Debug)]
enum Level {
    Struct,
    Many { kinds: [Type; 2], left: u64 },
}

/// Passes over a struct, however its bytes are cut.
#[derive(Debug)]
pub struct Walk {
    encoding: Encoding,
    levels: Vec<Level>,
    /// A value of this type comes next.
    pending: Option<Type>,
}

impl Walk {
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, levels: vec![Level::Struct], pending: None }
    }

    pub fn is_done(&self) -> bool {
        self.levels.is_empty()
    }

    /// Passes over what `bytes` hold; returns how many bytes were passed, which may be more. Stops where the struct ends.
    pub fn run(&mut self, bytes: &[u8]) -> Looked<u64> {
        let mut at = 0u64;
        while !self.is_done() {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.next(rest) {
                Ok(passed) => at = at.saturating_add(passed),
                Err(Trouble::Short(_)) => break,
                Err(Trouble::Wrong) => return Err(Trouble::Wrong),
            }
        }
        Ok(at)
    }

    /// Passes over one header or one plain value.
    fn next(&mut self, bytes: &[u8]) -> Looked<u64> {
        if let Some(kind) = self.pending {
            let passed = self.value(kind, bytes)?;
            self.pending = None;
            return Ok(passed);
        }
        match self.levels.last_mut() {
            Some(Level::Struct) => {
                let (found, passed) = field(self.encoding, bytes, 0, 0)?;
                match found {
                    Some(found) => self.pending = Some(found.kind),
                    None => _ = self.levels.pop(),
                }
                Ok(passed as u64)
            }
            Some(Level::Many { left: 0, .. }) => {
                self.levels.pop();
                Ok(0)
            }
            Some(Level::Many { kinds, left }) => {
                if let [Type::Fixed(key), Type::Fixed(value)] = *kinds {
                    // `left` is even where the two differ.
                    let passed = (u64::from(key) + u64::from(value)).saturating_mul(*left) / 2;
                    *left = 0;
                    return Ok(passed);
                }
                let kind = kinds[usize::from(*left % 2 == 1)];
                *left -= 1;
                self.pending = Some(kind);
                Ok(0)
            }
            None => Ok(0),
        }
    }

    fn value(&mut self, kind: Type, bytes: &[u8]) -> Looked<u64> {
        match kind {
            Type::Fixed(size) => Ok(u64::from(size)),
            Type::Varint => varint(bytes, 0).map(|(_, size)| size as u64),
            Type::Text => {
                let (length, start) = text_length(self.encoding, bytes, 0)?;
                Ok(start as u64 + length)
            }
            Type::Struct => self.push(Level::Struct, 0),
            Type::List => {
                let head = byte(bytes, 0)?;
                let (kind, count, passed) = match self.encoding {
                    Encoding::Binary => (head, u64::from(u32_at(bytes, 1)?), 5),
                    Encoding::Compact if head >> 4 == 15 => {
                        let (count, passed) = varint(bytes, 1)?;
                        (head & 15, count, passed)
                    }
                    Encoding::Compact => (head & 15, u64::from(head >> 4), 1),
                };
                // An empty list may name any type.
                let kind = if count == 0 { Type::Fixed(1) } else { type_of(self.encoding, kind, true)? };
                self.push(Level::Many { kinds: [kind; 2], left: bounded(count)? }, passed)
            }
            Type::Map => {
                let (count, passed, kinds) = match self.encoding {
                    Encoding::Binary => (u64::from(u32_at(bytes, 2)?), 6, [byte(bytes, 0)?, byte(bytes, 1)?]),
                    Encoding::Compact => {
                        let (count, passed) = varint(bytes, 0)?;
                        if count == 0 {
                            return Ok(passed as u64);
                        }
                        let kinds = byte(bytes, passed)?;
                        (count, passed + 1, [kinds >> 4, kinds & 15])
                    }
                };
                if count == 0 {
                    return Ok(passed as u64);
                }
                let kinds = [type_of(self.encoding, kinds[0], true)?, type_of(self.encoding, kinds[1], true)?];
                self.push(Level::Many { kinds, left: bounded(count)? * 2 }, passed)
            }
        }
    }

    fn push(&mut self, level: Level, passed: usize) -> Looked<u64> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Trouble::Wrong);
        }
        self.levels.push(level);
        Ok(passed as u64)
    }
}

/// A count of elements; Thrift writes it as a positive 32-bit number.
fn bounded(count: u64) -> Looked<u64> {
    if count > i32::MAX as u64 { Err(Trouble::Wrong) } else { Ok(count) }
}

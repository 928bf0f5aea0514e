//! Kafka's field types, and a walk along the fields of a message that keeps what a row needs.
//!
//! Sources: "Kafka protocol guide" (primitive types), KIP-482 (compact types and tagged fields).

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    Nothing,
    Topic,
    Partition,
    Offset,
    Group,
    /// Key of a coordinator: a group when the key's type is 0.
    Key,
    KeyType,
    Acks,
    Error,
    ErrorText,
    Records,
}

#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// So many bytes that say nothing.
    Skip(usize),
    Int8(Means),
    Int16(Means),
    Int32(Means),
    Int64(Means),
    /// A string, null or not; compact in flexible versions.
    Text(Means),
    /// Bytes with their length before them; compact in flexible versions.
    Bytes(Means),
    TopicId,
    /// An array of structures.
    Each(&'static [Field]),
    /// An array of one type.
    List(&'static Item),
}

/// A field, and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    since: i16,
    until: i16,
    item: Item,
}

pub const fn always(item: Item) -> Field {
    Field { since: 0, until: i16::MAX, item }
}

pub const fn since(version: i16, item: Item) -> Field {
    Field { since: version, until: i16::MAX, item }
}

pub const fn until(version: i16, item: Item) -> Field {
    Field { since: 0, until: version, item }
}

pub const fn between(since: i16, until: i16, item: Item) -> Field {
    Field { since, until, item }
}

/// A UUID; 0 none.
pub type TopicId = u128;

/// What a message says; the first topic, partition, offset, and the first error that is one.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    pub topic: &'a [u8],
    pub topic_id: TopicId,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub group: &'a [u8],
    key: &'a [u8],
    key_type: i64,
    pub acks: Option<i64>,
    /// 0 none; `None` not told.
    pub error: Option<i16>,
    pub error_text: &'a [u8],
    pub records: &'a [u8],
    /// Topics told with their ids.
    pub named: Vec<(TopicId, &'a [u8])>,
    /// Name that the last text of a topic gave, for the id that follows it.
    last_topic: &'a [u8],
}

impl<'a> Facts<'a> {
    pub fn group(&self) -> &'a [u8] {
        if self.group.is_empty() && self.key_type == 0 { self.key } else { self.group }
    }

    fn number(&mut self, means: Means, value: i64) {
        match means {
            Means::Partition => self.partition = self.partition.or(i32::try_from(value).ok()),
            Means::Offset => self.offset = self.offset.or(Some(value)),
            Means::Acks => self.acks = Some(value),
            Means::KeyType => self.key_type = value,
            Means::Error if self.error.is_none_or(|error| error == 0) => self.error = i16::try_from(value).ok(),
            _ => {}
        }
    }

    fn text(&mut self, means: Means, value: &'a [u8]) {
        let place = match means {
            Means::Topic => {
                self.last_topic = value;
                &mut self.topic
            }
            Means::Group => &mut self.group,
            Means::Key => &mut self.key,
            // The text stands behind its code; texts of codes that are none are empty.
            Means::ErrorText => &mut self.error_text,
            Means::Records => &mut self.records,
            _ => return,
        };
        if place.is_empty() {
            *place = value;
        }
    }

    fn topic_id(&mut self, id: TopicId) {
        if id == 0 {
            return;
        }
        if self.topic_id == 0 {
            self.topic_id = id;
        }
        if !self.last_topic.is_empty() {
            self.named.push((id, self.last_topic));
        }
    }
}

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes at hand end, the message goes on.
    Cut,
    /// A length leads out of the message.
    Wrong,
}

/// Reads the fields of one message of `length` bytes, of which the first are at hand.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    length: usize,
    pub flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], length: usize) -> Self {
        Self { bytes: bytes.get(..length).unwrap_or(bytes), at: 0, length, flexible: false }
    }

    pub fn left(&self) -> usize {
        self.length - self.at
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.length).ok_or(Stop::Wrong)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Cut)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::Wrong)
    }

    pub fn int16(&mut self) -> Result<i16, Stop> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn int32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, Stop> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Wrong)
    }

    /// A length that stands before what it counts; `None` null.
    fn count(&mut self, short: bool) -> Result<Option<usize>, Stop> {
        let count = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if short {
            i64::from(self.int16()?)
        } else {
            i64::from(self.int32()?)
        };
        match count {
            -1 => Ok(None),
            _ => usize::try_from(count).map(Some).map_err(|_| Stop::Wrong),
        }
    }

    pub fn text(&mut self) -> Result<&'a [u8], Stop> {
        match self.count(true)? {
            None => Ok(&[]),
            Some(length) => self.take(length),
        }
    }

    pub fn tags(&mut self) -> Result<(), Stop> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()? as usize;
            self.take(size)?;
        }
        Ok(())
    }

    /// Walks along the fields; what they say goes to `facts`, also when the walk ends early.
    pub fn walk(&mut self, fields: &'static [Field], version: i16, facts: &mut Facts<'a>) -> Result<(), Stop> {
        for field in fields {
            if (field.since..=field.until).contains(&version) {
                self.item(&field.item, version, facts)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, item: &'static Item, version: i16, facts: &mut Facts<'a>) -> Result<(), Stop> {
        match *item {
            Item::Skip(count) => _ = self.take(count)?,
            Item::Int8(means) => facts.number(means, i64::from(i8::from_be_bytes(self.array()?))),
            Item::Int16(means) => facts.number(means, i64::from(self.int16()?)),
            Item::Int32(means) => facts.number(means, i64::from(self.int32()?)),
            Item::Int64(means) => facts.number(means, i64::from_be_bytes(self.array()?)),
            Item::Text(means) => facts.text(means, self.text()?),
            Item::Bytes(means) => {
                let length = self.count(false)?.unwrap_or(0);
                if length > self.left() {
                    return Err(Stop::Wrong);
                }
                let here = self.bytes.get(self.at..).unwrap_or_default();
                facts.text(means, here.get(..length).unwrap_or(here));
                self.take(length)?;
            }
            Item::TopicId => facts.topic_id(u128::from_be_bytes(self.array()?)),
            Item::Each(fields) => {
                for _ in 0..self.elements()? {
                    self.walk(fields, version, facts)?;
                    if self.flexible {
                        self.tags()?;
                    }
                }
            }
            Item::List(item) => {
                for _ in 0..self.elements()? {
                    self.item(item, version, facts)?;
                }
            }
        }
        Ok(())
    }

    /// Elements of an array; each takes a byte at least.
    fn elements(&mut self) -> Result<usize, Stop> {
        let count = self.count(false)?.unwrap_or(0);
        if count > self.left() { Err(Stop::Wrong) } else { Ok(count) }
    }
}

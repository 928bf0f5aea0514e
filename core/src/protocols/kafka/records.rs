//! Headers of the records in a batch (Kafka documentation, "Message format"; batches of magic 2).

/// Bytes of a batch before its records.
const BATCH: usize = 61;
const MAGIC: usize = 16;
const ATTRIBUTES: usize = 21;
/// Headers of one record that are looked at.
const MAX_HEADERS: i64 = 256;

/// Calls `each` with the name and value of every header of the first record that has some, as far as the bytes go.
pub fn headers<'a>(records: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8])) {
    let codec = records.get(ATTRIBUTES + 1).map(|attributes| attributes & 7);
    if records.get(MAGIC) == Some(&2)
        && codec == Some(0)
        && let Some(body) = records.get(BATCH..)
    {
        read(body, &mut each);
    }
}

fn read<'a>(mut rest: &'a [u8], each: &mut impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
    loop {
        let length = usize::try_from(varint(&mut rest)?).ok().filter(|length| *length > 0)?;
        let mut record = rest.get(..length).unwrap_or(rest);
        rest = rest.get(length..).unwrap_or_default();
        record = record.get(1..)?;
        varint(&mut record)?;
        varint(&mut record)?;
        bytes(&mut record)?;
        bytes(&mut record)?;
        let count = varint(&mut record)?;
        for _ in 0..count.min(MAX_HEADERS) {
            let (name, value) = (bytes(&mut record)?, bytes(&mut record)?);
            each(name, value);
        }
        if count > 0 {
            return Some(());
        }
    }
}

/// Bytes with their length before them; a length of -1 is null.
fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(from)?;
    let length = if length == -1 { 0 } else { usize::try_from(length).ok()? };
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

/// A zigzag varint.
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

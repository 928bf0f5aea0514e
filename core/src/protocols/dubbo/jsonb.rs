//! The part of Fastjson 2's JSONB that a call's names and attachments are written in (its "JSONB format" page).

use super::super::cursor::Cursor;

/// Nesting of values.
const MAX_DEPTH: usize = 32;

/// A number in one of the forms that lengths have.
fn int(cursor: &mut Cursor<'_>) -> Option<i64> {
    let tag = cursor.u8()?;
    Some(match tag {
        0..=0x2f => i64::from(tag),
        0xf0..=0xff => i64::from(tag) - 0x100,
        0x30..=0x3f => (i64::from(tag) - 0x38) << 8 | i64::from(cursor.u8()?),
        0x40..=0x47 => (i64::from(tag) - 0x44) << 16 | i64::from(cursor.u16()?),
        0x48 => i64::from(cursor.u32()?.cast_signed()),
        _ => return None,
    })
}

fn length(cursor: &mut Cursor<'_>) -> Option<usize> {
    usize::try_from(int(cursor)?).ok()
}

/// The bytes of a string in ASCII, UTF-8 or Latin-1 (which is ASCII wherever trace ids are).
pub fn string<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let mut ahead = *cursor;
    let tag = ahead.u8()?;
    let size = match tag {
        0x49..=0x78 => usize::from(tag - 0x49),
        0x79 | 0x7a => length(&mut ahead)?,
        0xaf => 0,
        _ => return None,
    };
    let bytes = ahead.take(size)?;
    *cursor = ahead;
    Some(bytes)
}

fn skip(cursor: &mut Cursor<'_>, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let tag = *cursor.0.first()?;
    if matches!(tag, 0x49..=0x7a | 0xaf) {
        return string(cursor).map(drop);
    }
    if matches!(tag, 0..=0x48 | 0xf0..=0xff) {
        return int(cursor).map(drop);
    }
    cursor.u8()?;
    let width = match tag {
        // UTF-16 in either order, GB 18030, binary.
        0x7b..=0x7e | 0x91 => length(cursor)?,
        // A symbol of the table: its number, after the text if it is a new one.
        0x7f => {
            string(cursor);
            return int(cursor).map(drop);
        }
        // A type: its name (or number), then the value.
        0x92 => {
            skip(cursor, depth + 1)?;
            if cursor.0.first().is_some_and(|tag| matches!(tag, 0..=0x48 | 0xf0..=0xff)) {
                int(cursor)?;
            }
            return skip(cursor, depth + 1);
        }
        0x94..=0xa4 => {
            let count = if tag == 0xa4 { length(cursor)? } else { usize::from(tag - 0x94) };
            for _ in 0..count {
                skip(cursor, depth + 1)?;
            }
            return Some(());
        }
        0xa6 => {
            while *cursor.0.first()? != 0xa5 {
                skip(cursor, depth + 1)?;
            }
            return cursor.u8().map(drop);
        }
        // Floating point numbers written as whole ones.
        0xb4 | 0xb6 => return skip(cursor, depth + 1),
        0xb0..=0xb3 | 0xd8..=0xef => 0,
        0xc8..=0xd7 | 0xbd => 1,
        0xc0..=0xc7 | 0xbc => 2,
        0xac | 0xad | 0xb7 | 0xbf => 4,
        0xab | 0xb5 | 0xbe => 8,
        _ => return None,
    };
    cursor.take(width).map(drop)
}

/// An object of texts; other values are passed over, what was read before damage counts.
pub fn object(cursor: &mut Cursor<'_>, mut each: impl FnMut(&[u8], &[u8])) -> Option<()> {
    if *cursor.0.first()? == 0x92 {
        cursor.u8()?;
        skip(cursor, 0)?;
        if cursor.0.first().is_some_and(|tag| matches!(tag, 0..=0x48 | 0xf0..=0xff)) {
            int(cursor)?;
        }
    }
    if cursor.u8()? != 0xa6 {
        return None;
    }
    while *cursor.0.first()? != 0xa5 {
        // A name may be entered in the symbol table on its way: marker, text, number.
        let symbol = *cursor.0.first()? == 0x7f;
        if symbol {
            cursor.u8()?;
        }
        let name = string(cursor);
        if symbol || name.is_none() {
            int(cursor)?;
        }
        match string(cursor) {
            Some(value) => each(name.unwrap_or_default(), value),
            None => skip(cursor, 0)?,
        }
    }
    Some(())
}

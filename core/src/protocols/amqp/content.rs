//! The content header of AMQP 0-9-1: the properties of a message, and the table of headers among them
//! (specification 4.2.5.5 and 4.2.6.1; the types of a table's values as RabbitMQ writes them).

use crate::protocols::cursor::Cursor;
use crate::protocols::propagation::Propagation;
use crate::protocols::{Message, ParserSettings};

/// Properties in the order of their flags, from bit 15 down.
const HEADERS: usize = 2;
const CORRELATION_ID: usize = 5;
const REPLY_TO: usize = 6;
const MESSAGE_ID: usize = 8;
const PROPERTIES: usize = 14;

/// Fills in what rows keep of a content header (what follows the frame's head); of a cut one what is there.
pub fn describe(header: &[u8], message: &mut Message, settings: &ParserSettings) {
    let mut cursor = Cursor(header);
    if let Some((_class_and_weight, body)) = cursor.u32().zip(cursor.u64()) {
        message.attributes.push(("body_size".to_owned(), body.to_string()));
    }
    let mut propagation = Propagation::new(settings);
    let _ = properties(&mut cursor, message, &mut propagation, settings);
    propagation.fill(message);
}

fn properties(
    cursor: &mut Cursor<'_>,
    message: &mut Message,
    propagation: &mut Propagation<'_>,
    settings: &ParserSettings,
) -> Option<()> {
    let flags = cursor.u16()?;
    for property in (0..PROPERTIES).filter(|property| flags & (0x8000 >> property) != 0) {
        match property {
            HEADERS => {
                // A table that is cut still gives what it begins with.
                let length = cursor.u32()? as usize;
                let mut table = Cursor(cursor.up_to(length));
                while let Some(name) = table.short_bytes() {
                    let value = value(&mut table)?;
                    propagation.offer(name, value);
                }
            }
            3 | 4 => drop(cursor.u8()?),
            9 => drop(cursor.u64()?),
            _ => {
                let text = cursor.short_bytes()?;
                let name = match property {
                    CORRELATION_ID => "correlation_id",
                    REPLY_TO => "reply_to",
                    MESSAGE_ID => "message_id",
                    _ => continue,
                };
                message.attributes.push((name.to_owned(), settings.text(text)));
            }
        }
    }
    Some(())
}

/// A value of a table; its bytes when it is a text, nothing for other types.
fn value<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let fixed = match cursor.u8()? {
        b'S' | b'x' => return cursor.long_bytes(),
        b'F' | b'A' => {
            cursor.long_bytes()?;
            return Some(b"");
        }
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        _ => return None,
    };
    cursor.take(fixed)?;
    Some(b"")
}

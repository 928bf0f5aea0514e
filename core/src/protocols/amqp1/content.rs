//! The sections of a message (AMQP 1.0 part 3.2), and errors (part 2.8.14).

use super::types::Value;
use crate::protocols::cursor::Cursor;
use crate::protocols::propagation::Propagation;
use crate::protocols::{Message, ParserSettings, Status};

const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
/// Sections from here on are the body.
const DATA: u64 = 0x75;
const FOOTER: u64 = 0x78;
const ERROR: u64 = 0x1d;

/// Do these bytes hold all sections before the body?
pub fn described(bytes: &[u8]) -> bool {
    let mut cursor = Cursor(bytes);
    loop {
        // The descriptor of the body is enough.
        if let [0, 0x53, section, ..] = *cursor.0
            && (DATA..=FOOTER).contains(&u64::from(section))
        {
            return true;
        }
        match Value::read(&mut cursor) {
            Some(section) if section.described < DATA => {}
            Some(_) => return true,
            None => return false,
        }
    }
}

/// Fills in what rows keep of a message's sections.
pub fn describe(bytes: &[u8], message: &mut Message, settings: &ParserSettings) {
    let mut propagation = Propagation::new(settings);
    let mut cursor = Cursor(bytes);
    while let Some(section) = Value::read(&mut cursor) {
        match section.described {
            PROPERTIES => {
                let names = ["message_id", "", "to", "", "reply_to", "correlation_id"];
                for (name, value) in names.into_iter().zip(section.items()) {
                    if let Some(text) = value.text()
                        && !name.is_empty()
                    {
                        message.attributes.push((name.to_owned(), settings.text(text)));
                    }
                }
            }
            MESSAGE_ANNOTATIONS | APPLICATION_PROPERTIES => {
                let mut items = section.items();
                while let Some((name, value)) = items.next().zip(items.next()) {
                    if let Some((name, value)) = name.text().zip(value.text()) {
                        propagation.offer(name, value);
                    }
                }
            }
            DATA.. => break,
            _ => {}
        }
    }
    propagation.fill(message);
}

/// Status and text of an error, if this is one.
pub fn error(value: Value<'_>, settings: &ParserSettings) -> Option<(Status, String)> {
    if value.described != ERROR {
        return None;
    }
    let mut items = value.items();
    let condition = items.next()?.text()?;
    let server = [&b"amqp:internal-error"[..], b"amqp:not-implemented", b"amqp:connection:forced"];
    let status = if server.contains(&condition) { Status::ServerError } else { Status::ClientError };
    let text = match items.next().and_then(Value::text) {
        Some(text) if !text.is_empty() => settings.text(&[condition, b": ", text].concat()),
        _ => settings.text(condition),
    };
    Some((status, text))
}

//! The fixed header of a control packet, and the properties of MQTT 5 (section 2.2.2).

use crate::protocols::Role;
use crate::protocols::cursor::Cursor;

/// Control packet types.
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// `request_type` of a packet.
pub fn name(kind: u8) -> &'static str {
    match kind {
        kind::CONNECT => "Connect",
        kind::CONNACK => "Connack",
        kind::PUBLISH => "Publish",
        kind::PUBACK => "Puback",
        kind::PUBREC => "Pubrec",
        kind::PUBREL => "Pubrel",
        kind::PUBCOMP => "Pubcomp",
        kind::SUBSCRIBE => "Subscribe",
        kind::SUBACK => "Suback",
        kind::UNSUBSCRIBE => "Unsubscribe",
        kind::UNSUBACK => "Unsuback",
        kind::PINGREQ => "Pingreq",
        kind::PINGRESP => "Pingresp",
        kind::DISCONNECT => "Disconnect",
        _ => "Auth",
    }
}

/// Who may send a packet; `None`: both.
pub fn writer(kind: u8) -> Option<Role> {
    match kind {
        kind::CONNECT | kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PINGREQ => Some(Role::Client),
        kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => Some(Role::Server),
        _ => None,
    }
}

/// A fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub kind: u8,
    pub flags: u8,
    /// Bytes of this header.
    pub size: usize,
    /// Bytes that follow it.
    pub remaining: usize,
}

impl Head {
    /// `Err`: no packet begins so; `Ok(None)`: too few bytes to tell.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let mut cursor = Cursor(bytes);
        let Some(first) = cursor.u8() else { return Ok(None) };
        let (kind, flags) = (first >> 4, first & 15);
        let right = match kind {
            0 => false,
            kind::PUBLISH => flags & 6 != 6,
            // MQTT 3.1 sets the DUP bit of these on a repetition.
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags & 7 == 2,
            _ => flags == 0,
        };
        if !right {
            return Err(());
        }
        let Some(remaining) = variable(&mut cursor)? else { return Ok(None) };
        let right = match kind {
            kind::PINGREQ | kind::PINGRESP => remaining == 0,
            kind::PUBLISH => remaining >= 3,
            kind::DISCONNECT | kind::AUTH => true,
            _ => remaining >= 2,
        };
        let size = bytes.len() - cursor.0.len();
        if right { Ok(Some(Self { kind, flags, size, remaining })) } else { Err(()) }
    }

    pub fn total(self) -> usize {
        self.size + self.remaining
    }

    /// Quality of service of a publication.
    pub fn qos(self) -> u8 {
        self.flags >> 1 & 3
    }
}

/// A variable byte integer. `Err`: longer than four bytes; `Ok(None)`: cut.
pub fn variable(cursor: &mut Cursor<'_>) -> Result<Option<usize>, ()> {
    let mut value = 0;
    for place in 0..4 {
        let Some(byte) = cursor.u8() else { return Ok(None) };
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(())
}

/// What rows need of the properties.
#[derive(Debug, PartialEq)]
pub enum Property<'a> {
    AssignedClient(&'a [u8]),
    Reason(&'a [u8]),
    TopicAlias(u16),
    User(&'a [u8], &'a [u8]),
    Other,
}

/// The next property; `None` at the end, or where the bytes make no sense.
pub fn property<'a>(cursor: &mut Cursor<'a>) -> Option<Property<'a>> {
    match cursor.u8()? {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(cursor.u8()?),
        0x13 | 0x21 | 0x22 => drop(cursor.u16()?),
        0x02 | 0x11 | 0x18 | 0x27 => drop(cursor.u32()?),
        0x03 | 0x08 | 0x09 | 0x15 | 0x16 | 0x1a | 0x1c => drop(cursor.medium_bytes()?),
        0x0b => drop(variable(cursor).ok()??),
        0x12 => return cursor.medium_bytes().map(Property::AssignedClient),
        0x1f => return cursor.medium_bytes().map(Property::Reason),
        0x23 => return cursor.u16().map(Property::TopicAlias),
        0x26 => {
            return cursor.medium_bytes().zip(cursor.medium_bytes()).map(|(name, value)| Property::User(name, value));
        }
        _ => return None,
    }
    Some(Property::Other)
}

/// The properties with their length before them; of cut ones what is there.
pub fn properties<'a>(cursor: &mut Cursor<'a>) -> Cursor<'a> {
    match variable(cursor) {
        Ok(Some(length)) => Cursor(cursor.up_to(length)),
        _ => Cursor(b""),
    }
}

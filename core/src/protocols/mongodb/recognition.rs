//! Is it MongoDB, and who wrote it?

use super::super::{Guess, Role};
use super::{
    CHECKSUM, EXHAUST_ALLOWED, HEADER, Header, MAX_MESSAGE, MORE_TO_COME, OP_COMPRESSED, OP_DELETE, OP_GET_MORE,
    OP_INSERT, OP_KILL_CURSORS, OP_MSG, OP_QUERY, OP_REPLY, OP_UPDATE, bson, compression,
};

/// Could these fewer than 16 bytes begin a message?
pub fn plausible_start(bytes: &[u8]) -> bool {
    let length = bson::int32(bytes).map(|length| usize::try_from(length).unwrap_or(0));
    let op = bytes.get(12..).unwrap_or_default();
    let known = [OP_REPLY, OP_UPDATE, OP_INSERT, OP_QUERY, OP_GET_MORE, OP_DELETE, OP_KILL_CURSORS];
    let known = known.into_iter().chain([OP_COMPRESSED, OP_MSG]);
    length.is_none_or(|length| (HEADER + 1..=MAX_MESSAGE).contains(&length))
        && known.into_iter().any(|known| known.to_le_bytes().starts_with(op))
}

/// Who wrote this message; `Some(None)`: more bytes are needed to tell, `None`: it is none.
pub fn writer(bytes: &[u8]) -> Option<Option<Role>> {
    if bytes.len() < HEADER {
        return plausible_start(bytes).then_some(None);
    }
    let header = Header::read(bytes)?;
    let room = header.length - HEADER;
    let body = bytes.get(HEADER..).unwrap_or_default();
    let body = body.get(..room).unwrap_or(body);
    let after = |at: usize| body.get(at..).unwrap_or_default();
    let role = match header.op {
        OP_REPLY => Role::Server,
        _ if matches!(header.to, 0 | -1) => Role::Client,
        OP_MSG | OP_COMPRESSED => Role::Server,
        _ => return None,
    };
    let known = match header.op {
        OP_MSG => {
            let sound = |flags: i32| flags & !(CHECKSUM | MORE_TO_COME | EXHAUST_ALLOWED) == 0;
            match (bson::int32(body), body.get(4)) {
                (Some(flags), _) if !sound(flags) => Some(false),
                (Some(_), Some(0)) => bson::begins(after(5), room.saturating_sub(5)),
                (Some(_), Some(1)) => {
                    bson::int32(after(5)).map(|size| size >= 5 && size as usize <= room.saturating_sub(5))
                }
                (_, Some(_)) => Some(false),
                _ => None,
            }
        }
        OP_COMPRESSED if body.len() >= 9 => Some(compression(body).is_some()),
        OP_COMPRESSED => None,
        OP_REPLY => match (bson::int32(body), bson::int32(after(16))) {
            (Some(flags), _) if !(0..16).contains(&flags) => Some(false),
            (_, Some(0)) => Some(room == 20),
            (_, Some(1..)) => bson::begins(after(20), room.saturating_sub(20)),
            (_, Some(_)) => Some(false),
            _ => None,
        },
        OP_KILL_CURSORS => match (bson::int32(body), bson::int32(after(4))) {
            (Some(0), Some(count)) => Some(count > 0 && count as usize == room.saturating_sub(8) / 8),
            (Some(0), None) => None,
            (Some(_), _) => Some(false),
            _ => None,
        },
        op => {
            let place = after(4);
            let seen = place.get(..200).unwrap_or(place);
            match bson::cstring(seen) {
                _ if bson::int32(body).is_some_and(|flags| !(0..256).contains(&flags)) => Some(false),
                Some((name, rest)) => {
                    let plain = !name.iter().any(u8::is_ascii_control) && name.contains(&b'.');
                    let fixed = match op {
                        OP_QUERY => 8,
                        OP_INSERT => 0,
                        OP_GET_MORE => 12,
                        _ => 4,
                    };
                    match rest.get(fixed..) {
                        _ if !plain => Some(false),
                        Some(_) if op == OP_GET_MORE => Some(true),
                        Some(document) => bson::begins(document, room),
                        None => None,
                    }
                }
                None if seen.iter().any(u8::is_ascii_control) || place.len() >= 200 => Some(false),
                None => None,
            }
        }
    };
    match known {
        Some(true) => Some(Some(role)),
        Some(false) => None,
        None => Some(None),
    }
}

pub fn check(payload: &[u8], _port: u16) -> Guess {
    match writer(payload) {
        Some(Some(role)) => Guess::Yes(role),
        Some(None) => Guess::Maybe,
        None => Guess::No,
    }
}

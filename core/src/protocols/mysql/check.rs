//! What MySQL's packets look like.

use super::command::{self, name_of};
use super::compressed;
use super::{HEADER, PORT, login, packet};
use crate::protocols::{Guess, Role, clip, sql};

pub fn u24(bytes: &[u8]) -> Option<usize> {
    let &[a, b, c] = bytes.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]) as usize)
}

pub fn check(payload: &[u8], port: u16) -> Guess {
    match compressed::peek(payload) {
        Ok(Some(plain)) => check_plain(&plain, port),
        _ => check_plain(payload, port),
    }
}

fn check_plain(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    let Some(packet) = packet(payload) else {
        return if ours { Guess::Maybe } else { Guess::No };
    };
    let Some((&first, rest)) = packet.body.split_first() else {
        return if ours && packet.length > 0 { Guess::Maybe } else { Guess::No };
    };
    match packet.sequence {
        0 if login::greeting(packet.body).is_some() => Guess::Yes(Role::Server),
        0 if matches!(first, command::QUERY | command::STMT_PREPARE) => {
            let text = if first == command::QUERY { command::query_text(rest, None) } else { rest };
            let exact = HEADER + packet.length == payload.len() || packet.body.len() < packet.length || ours;
            let statement = sql::is_statement(&clip(text, 4096));
            if exact && statement { Guess::Yes(Role::Client) } else { Guess::No }
        }
        0 if ours && name_of(first).is_some() && command::fits(first, packet.length) => Guess::Yes(Role::Client),
        0 if ours && first == 0xff && packet.length > 3 => Guess::Yes(Role::Server),
        1 if login::plausible(packet.body)
            && (ours || packet.length == 32 || HEADER + packet.length == payload.len()) =>
        {
            Guess::Yes(Role::Client)
        }
        1 if ours && (first == 0xff && packet.length > 8 || first == 0 && packet.length >= 7) => {
            Guess::Yes(Role::Server)
        }
        1 if ours && packet.length == 1 && first > 0 && payload.get(8) == Some(&2) => Guess::Yes(Role::Server),
        _ => Guess::No,
    }
}

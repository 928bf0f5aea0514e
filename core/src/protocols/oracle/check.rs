//! What packets of Oracle Net look like.

use super::{ACCEPT, CONNECT, DATA, HEADER, PORT, REDIRECT, REFUSE, RESEND, connect, packet, text};
use crate::protocols::{Guess, Role};

pub fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    let Some(packet) = packet(payload, false) else {
        return if ours && payload.len() < HEADER { Guess::Maybe } else { Guess::No };
    };
    // The checksums are never used.
    let large = payload.starts_with(&[0, 0]);
    let unchecked = payload.get(6..8) == Some(&[0, 0]) && (large || payload.get(2..4) == Some(&[0, 0]));
    let exact = packet.length == payload.len();
    if !unchecked || packet.length < HEADER || packet.length > 1 << 22 {
        return Guess::No;
    }
    match packet.kind {
        CONNECT => {
            let wished = connect::read(packet.body).is_some_and(|wish| {
                (300..400).contains(&wish.version) && (wish.data.starts_with(b"(") || ours && wish.data.is_empty())
            });
            if wished { Guess::Yes(Role::Client) } else { Guess::No }
        }
        RESEND if ours && exact && packet.length == HEADER => Guess::Yes(Role::Server),
        ACCEPT if ours && exact && connect::accepted(packet.body).is_some_and(|(v, _)| (300..400).contains(&v)) => {
            Guess::Yes(Role::Server)
        }
        REFUSE | REDIRECT if ours && exact && memchr::memmem::find(packet.body, b"(DESCRIPTION=").is_some() => {
            Guess::Yes(Role::Server)
        }
        DATA if exact || payload.len() < packet.length => {
            let data = packet.body.get(2..).unwrap_or_default();
            match text::call(data) {
                Some(call) if ours || call.statement.is_some() => Guess::Yes(Role::Client),
                None if ours && exact && matches!(data.first(), Some(4 | 6 | 8 | 16)) => Guess::Yes(Role::Server),
                _ => Guess::No,
            }
        }
        _ => Guess::No,
    }
}

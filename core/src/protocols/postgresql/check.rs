//! What PostgreSQL's messages look like.

use super::{CANCEL_REQUEST, GSS_REQUEST, HEADER, PORT, SSL_REQUEST, Strings, header};
use crate::protocols::{Guess, Role, clip, sql};

const MAX_START: u32 = 10_000;
const MAX_LENGTH: usize = 1 << 30;

/// Length and code of a message without a letter.
pub fn start(window: &[u8]) -> Option<(u32, u32)> {
    let length = u32::from_be_bytes(*window.first_chunk()?);
    let code = u32::from_be_bytes(*window.get(4..)?.first_chunk()?);
    let sane = match code {
        SSL_REQUEST | GSS_REQUEST => length == 8,
        CANCEL_REQUEST => (16..=268).contains(&length),
        _ => code >> 16 == 3 && code & 0xffff < 16 && (9..=MAX_START).contains(&length),
    };
    sane.then_some((length, code))
}

/// Does a message of this side begin so?
pub fn begins(role: Role, letter: u8, length: usize) -> bool {
    let known = match role {
        Role::Client => b"QPBEDCSHFXdcfp".as_slice(),
        Role::Server => b"RSKZ123CDEGHINTtnsdcWVAv".as_slice(),
    };
    let fits = match (role, letter) {
        (Role::Client, b'S' | b'H' | b'X' | b'c') => length == 4,
        (Role::Client, b'Q') => length >= 5,
        (Role::Client, b'P' | b'D' | b'C') => length >= 6,
        (Role::Client, b'E') => length >= 9,
        (Role::Client, b'B') => length >= 12,
        (Role::Server, b'1' | b'2' | b'3' | b'I' | b'n' | b's' | b'c') => length == 4,
        (Role::Server, b'Z') => length == 5,
        (Role::Server, b'R') => (8..=MAX_START as usize).contains(&length),
        (Role::Server, b'C') => (5..=128).contains(&length),
        (Role::Server, b'K') => (12..=268).contains(&length),
        (Role::Server, b'T' | b't' | b'D') => length >= 6,
        _ => length >= 4,
    };
    known.contains(&letter) && fits && length <= MAX_LENGTH
}

/// Number of whole messages in a row, and the letter of the last one, if the window is made of such (the last may go
/// on beyond it).
pub fn chain(role: Role, window: &[u8]) -> Option<(usize, Option<u8>)> {
    let (mut rest, mut count, mut last) = (window, 0, None);
    while !rest.is_empty() {
        let Some((letter, length)) = header(rest) else {
            return (count > 0).then_some((count, None));
        };
        if length < 4 || !begins(role, letter, length) {
            return None;
        }
        match rest.get(length + 1..) {
            None => return (count > 0 || rest.len() > HEADER).then_some((count, None)),
            Some(behind) => rest = behind,
        }
        count += 1;
        last = Some(letter);
    }
    Some((count, last))
}

/// Where the last CommandComplete or ErrorResponse begins in a window that ends with ReadyForQuery.
pub fn ends_group(window: &[u8]) -> Option<usize> {
    let ready = window.len().checked_sub(6)?;
    if !matches!(window.get(ready..)?, [b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E']) {
        return None;
    }
    let fits = |at: &usize| {
        header(window.get(*at..).unwrap_or_default()).is_some_and(|(letter, length)| {
            at + 1 + length == ready && matches!(letter, b'C' | b'E') && begins(Role::Server, letter, length)
        })
    };
    Some((0..ready).rev().take(4096).find(fits).unwrap_or(ready))
}

pub fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    if payload.first() == Some(&0) {
        return match start(payload) {
            Some((length, code)) if code >> 16 == 3 => {
                let parameters = payload.get(8..).unwrap_or_default();
                let named =
                    parameters.starts_with(b"user\0") || memchr::memmem::find(parameters, b"\0user\0").is_some();
                let whole = length as usize == payload.len();
                if whole && (named || ours) { Guess::Yes(Role::Client) } else { Guess::No }
            }
            Some((length, _)) if length as usize == payload.len() => Guess::Yes(Role::Client),
            None if ours && payload.len() < 8 => Guess::Maybe,
            _ => Guess::No,
        };
    }
    let Some((letter, length)) = header(payload) else {
        return if ours { Guess::Maybe } else { Guess::No };
    };
    if request(letter, length, payload, ours) {
        return Guess::Yes(Role::Client);
    }
    if response(letter, length, payload, ours) {
        return Guess::Yes(Role::Server);
    }
    Guess::No
}

fn request(letter: u8, length: usize, payload: &[u8], ours: bool) -> bool {
    if !begins(Role::Client, letter, length) {
        return false;
    }
    let body = payload.get(HEADER..payload.len().min(length + 1)).unwrap_or_default();
    let whole = payload.len() > length;
    let mut strings = Strings(body);
    if letter == b'P' {
        strings.next();
    }
    let text = strings.next();
    let printable = text.iter().all(|&byte| byte >= b' ' || byte.is_ascii_whitespace());
    match letter {
        b'Q' => {
            let ends = if whole { text.len() + 1 == length - 4 } else { text.len() == body.len() };
            let alone = payload.len() <= length + 1 || chain(Role::Client, payload).is_some();
            ends && alone && printable && (ours && !text.is_empty() || sql::is_statement(&clip(text, 4096)))
        }
        b'P' => printable && sql::is_statement(&clip(text, 4096)) && chain(Role::Client, payload).is_some(),
        b'B' | b'D' | b'E' | b'C' => match chain(Role::Client, payload) {
            Some((count, last)) => count >= 2 && (ours || matches!(last, Some(b'S' | b'H'))),
            None => false,
        },
        b'p' => ours && whole && length < 1024,
        _ => false,
    }
}

fn response(letter: u8, length: usize, payload: &[u8], ours: bool) -> bool {
    if !begins(Role::Server, letter, length) {
        return false;
    }
    let body = payload.get(HEADER..payload.len().min(length + 1)).unwrap_or_default();
    if letter == b'E' {
        return ["SERROR\0", "SFATAL\0", "SPANIC\0"].iter().any(|severity| body.starts_with(severity.as_bytes()))
            || memchr::memmem::find(body, b"\0VERROR\0C").is_some();
    }
    if letter == b'R' {
        let kind = body.first_chunk().map(|kind| u32::from_be_bytes(*kind));
        return match kind {
            Some(0) => length == 8,
            Some(3) => length == 8 && ours,
            Some(5) => length == 12 && (ours || payload.len() == 13),
            Some(10) => body.get(4..).is_some_and(|names| names.starts_with(b"SCRAM-")),
            _ => false,
        };
    }
    match chain(Role::Server, payload) {
        Some((count, Some(b'Z'))) => count >= 2,
        Some((count, _)) => ours && count >= 2,
        None => false,
    }
}

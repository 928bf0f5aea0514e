//! Is it Redis, and where does a message begin?

use memchr::memchr;

use super::super::{Guess, Role};
use super::commands;
use super::resp::{Header, Look, look, number};

const PORT: u16 = 6379;

/// Offset of the first message in bytes that begin anywhere. A reply inside an aggregate looks like a reply of its
/// own, so only the beginning of a window (of a write, that is) is trusted for the server.
pub fn find_start(role: Role, window: &[u8]) -> Option<usize> {
    let begins = |at: usize| {
        let rest = window.get(at..).unwrap_or_default();
        match (role, look(rest)) {
            (Role::Client, Look::Header(Header::Values(1..), size)) => {
                rest.first() == Some(&b'*')
                    && matches!(look(rest.get(size..).unwrap_or_default()), Look::Header(Header::Bulk(_), _))
            }
            (Role::Server, Look::Header(header, _)) => !matches!(header, Header::StreamEnd),
            _ => false,
        }
    };
    if begins(0) {
        return Some(0);
    }
    match role {
        Role::Client => memchr::memchr_iter(b'*', window)
            .find(|&at| at >= 2 && window.get(at - 2..at) == Some(b"\r\n") && begins(at)),
        Role::Server => None,
    }
}

pub fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    let yes = |sure: bool| {
        if sure { Guess::Yes(Role::Server) } else { Guess::No }
    };
    let Some(&first) = payload.first() else {
        return Guess::Maybe;
    };
    if !b"*$:+-%>".contains(&first) {
        let word = payload.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let line = memchr(b'\n', payload).is_some();
        return if ours && line && commands::known(word) { Guess::Yes(Role::Client) } else { Guess::No };
    }
    let (header, size) = match look(payload) {
        Look::Header(header, size) => (header, size),
        Look::Short => return Guess::Maybe,
        Look::LongLine => return if ours { Guess::Maybe } else { Guess::No },
        Look::Wrong => return Guess::No,
    };
    let rest = payload.get(size..).unwrap_or_default();
    match (first, header) {
        (b'*' | b'>' | b'%', Header::Values(1..)) => match look(rest) {
            Look::Header(Header::Bulk(length), size) => {
                let end = usize::try_from(length).ok().and_then(|length| size.checked_add(length));
                let word = end.and_then(|end| rest.get(size..end)).unwrap_or_default();
                let closed = end.and_then(|end| rest.get(end..end.checked_add(2)?)) == Some(b"\r\n");
                if first == b'*' && closed && commands::known(word) {
                    // A confirmation counts the channels; what a client sends has no numbers.
                    let channel = end.and_then(|end| rest.get(end + 2..)).unwrap_or_default();
                    let confirms = word.ends_with(b"subscribe") && counts(channel);
                    return Guess::Yes(if confirms { Role::Server } else { Role::Client });
                }
                if closed || ours {
                    return Guess::Yes(Role::Server);
                }
                if length < 64 && rest.len() < size + 66 { Guess::Maybe } else { Guess::No }
            }
            Look::Short => Guess::Maybe,
            Look::Header(_, _) => yes(ours || first == b'*' && matches!(rest.first(), Some(b'*' | b':'))),
            _ => yes(ours),
        },
        (b'*' | b'%', Header::Values(_)) => yes(rest.is_empty() || ours),
        (b'*' | b'$', Header::Line) => yes(rest.is_empty() || ours),
        (b'$', Header::Bulk(length)) => {
            let end = usize::try_from(length).ok();
            let closed = end.and_then(|end| rest.get(end..end.checked_add(2)?)) == Some(b"\r\n");
            yes(closed || ours)
        }
        (b':', Header::Line) => {
            let digits = payload.get(1..size).unwrap_or_default().trim_ascii_end();
            yes((rest.is_empty() || ours) && number(digits.strip_prefix(b"-").unwrap_or(digits)).is_some())
        }
        (b'+' | b'-', Header::Line) => yes(ours || commands::own_line(payload.get(..size).unwrap_or_default())),
        _ => Guess::No,
    }
}

/// Is this a text and a number behind it?
fn counts(bytes: &[u8]) -> bool {
    let Look::Header(header, size) = look(bytes) else {
        return false;
    };
    let past = match header {
        Header::Bulk(length) => {
            usize::try_from(length).ok().and_then(|length| size.checked_add(length)?.checked_add(2))
        }
        _ => Some(size),
    };
    past.and_then(|past| bytes.get(past)) == Some(&b':')
}

//! Where HTTP/1 messages begin.

use memchr::{memchr, memchr_iter, memmem};

use crate::protocols::{Guess, Role};

/// Long enough a target to be sure without having seen the version.
const SURE_TARGET: usize = 256;

/// Methods by which HTTP is recognised; inside a known connection any token is a method.
const METHODS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"PURGE",
    b"MERGE",
    b"MKACTIVITY",
    b"CHECKOUT",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"NOTIFY",
    b"LINK",
    b"UNLINK",
    b"BIND",
    b"QUERY",
];

/// Which bytes a token may have (RFC 9110 section 5.6.2).
static TOKEN: [bool; 256] = {
    let (mut table, others) = ([false; 256], b"!#$%&'*+-.^_`|~");
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

pub fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Could a message of this side begin so? True for a prefix of one.
pub fn plausible_start(role: Role, window: &[u8]) -> bool {
    match role {
        Role::Server => {
            let prefix = b"HTTP/1.";
            let shared = prefix.len().min(window.len());
            window.get(..shared) == prefix.get(..shared)
        }
        Role::Client => {
            let token = window.iter().take(33).take_while(|&&byte| is_token(byte)).count();
            token > 0 && token <= 32 && window.get(token).is_none_or(|&byte| byte == b' ')
        }
    }
}

pub fn status_line(window: &[u8]) -> bool {
    matches!(window, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', b'1'..=b'9', ..])
}

fn known_method(window: &[u8]) -> Option<&'static [u8]> {
    METHODS
        .iter()
        .copied()
        .find(|method| window.starts_with(method) && window.get(method.len()).is_some_and(|&byte| byte == b' '))
}

/// Offset of the first start line in bytes that begin anywhere.
pub fn find_start(role: Role, window: &[u8]) -> Option<usize> {
    match role {
        Role::Server => memmem::find_iter(window, b"HTTP/1.").find(|&at| window.get(at..).is_some_and(status_line)),
        Role::Client => {
            if known_method(window).is_some() {
                return Some(0);
            }
            memchr_iter(b'\n', window).map(|at| at + 1).find(|&at| {
                let rest = window.get(at..).unwrap_or_default();
                let line = rest.get(..memchr(b'\n', rest).unwrap_or(0)).unwrap_or_default();
                known_method(rest).is_some() && memmem::find(line, b" HTTP/1.").is_some()
            })
        }
    }
}

pub fn check(payload: &[u8], _port: u16) -> Guess {
    if status_line(payload) {
        let digits = payload.get(9..12).is_some_and(|code| code.iter().all(u8::is_ascii_digit));
        return if digits { Guess::Yes(Role::Server) } else { Guess::No };
    }
    if payload.len() < 12 && b"HTTP/1.".starts_with(payload.get(..7).unwrap_or(payload)) {
        return Guess::Maybe;
    }
    let Some(method) = known_method(payload) else {
        let could = METHODS.iter().any(|method| method.starts_with(payload));
        return if could { Guess::Maybe } else { Guess::No };
    };
    let rest = payload.get(method.len()..).unwrap_or_default().trim_ascii_start();
    match memchr(b'\n', rest) {
        Some(end) => {
            let line = rest.get(..end).unwrap_or_default().trim_ascii_end();
            let version = line.len().checked_sub(8).and_then(|at| line.get(at..));
            if matches!(version, Some(b"HTTP/1.0" | b"HTTP/1.1")) { Guess::Yes(Role::Client) } else { Guess::No }
        }
        None => {
            let target = matches!(rest.first(), Some(b'/' | b'*')) || rest.starts_with(b"http");
            let clean = rest.iter().all(|&byte| byte == b'\r' || !byte.is_ascii_control());
            match (target || method == b"CONNECT" || rest.is_empty(), clean) {
                (true, true) if rest.len() >= SURE_TARGET => Guess::Yes(Role::Client),
                (true, true) => Guess::Maybe,
                _ => Guess::No,
            }
        }
    }
}

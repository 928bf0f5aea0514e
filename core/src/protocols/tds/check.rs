//! What TDS packets look like.

use super::{
    ATTENTION, BATCH, BULK, HEADER, LOGIN, PORT, PRELOGIN, Packet, RESULT, RPC, TRANSACTION, packet, request, tokens,
};
use crate::protocols::{Guess, Role, sql};

const FED_AUTH: u8 = 8;
const SSPI: u8 = 17;

/// Does this side write packets of this type?
pub fn is_kind(role: Role, kind: u8) -> bool {
    match role {
        Role::Client => {
            matches!(kind, BATCH | RPC | ATTENTION | BULK | FED_AUTH | TRANSACTION | LOGIN | SSPI | PRELOGIN)
        }
        Role::Server => matches!(kind, RESULT | PRELOGIN),
    }
}

/// Does a packet of this side begin here?
pub fn begins(role: Role, window: &[u8]) -> bool {
    sane(window).is_some_and(|packet| is_kind(role, packet.kind))
}

/// A packet with a known status and no window (which nobody uses).
fn sane(window: &[u8]) -> Option<Packet<'_>> {
    let packet = packet(window)?;
    let status = *window.get(1)?;
    let sane = status & !0x1b == 0 && packet.length >= HEADER && packet.length <= 32_767 && window.get(7) == Some(&0);
    sane.then_some(packet)
}

pub fn check(payload: &[u8], port: u16) -> Guess {
    let ours = port == PORT;
    if payload.len() < HEADER {
        let may = ours && payload.first().is_some_and(|&kind| is_kind(Role::Client, kind) || kind == RESULT);
        return if may { Guess::Maybe } else { Guess::No };
    }
    let Some(packet) = sane(payload) else {
        return Guess::No;
    };
    let exact = packet.length == payload.len();
    let fits = exact || packet.body.len() + HEADER < packet.length || !packet.last;
    let client = match packet.kind {
        PRELOGIN => exact && prelogin(packet.body),
        LOGIN => fits && login(packet.body),
        BATCH => {
            let text = request::utf16(request::after_headers(packet.body), 4096);
            fits && sql::is_statement(&text)
        }
        RPC => fits && call(packet.body, ours),
        TRANSACTION => ours && exact && !request::transaction(request::after_headers(packet.body)).is_empty(),
        ATTENTION => ours && packet.length == HEADER && exact,
        _ => false,
    };
    if client {
        return Guess::Yes(Role::Client);
    }
    let whole = packet.last && exact;
    if packet.kind == RESULT && (ours || whole) && fits && tokens::plausible(packet.body, whole) {
        return Guess::Yes(Role::Server);
    }
    Guess::No
}

/// Options in the order of their numbers, the version first, each inside the packet.
fn prelogin(body: &[u8]) -> bool {
    let mut rest = body;
    let mut count = 0;
    while let Some((&token, entry)) = rest.split_first() {
        if token == 0xff {
            return count > 0;
        }
        let Some(&[from_high, from_low, high, low]) = entry.first_chunk() else {
            return false;
        };
        let end = usize::from(u16::from_be_bytes([from_high, from_low])) + usize::from(u16::from_be_bytes([high, low]));
        if token > 16 || count == 0 && token != 0 || end > body.len() {
            return false;
        }
        count += 1;
        rest = entry.get(4..).unwrap_or_default();
    }
    false
}

fn login(body: &[u8]) -> bool {
    let mut reader = request::Reader(body);
    let (Some(length), Some(version)) = (reader.u32(), reader.u32()) else {
        return false;
    };
    (94..=128 * 1024).contains(&length) && matches!(version >> 24, 0x70..=0x74) && request::login(body, 256).is_some()
}

fn call(body: &[u8], ours: bool) -> bool {
    let headed = request::after_headers(body).len() < body.len();
    request::call(request::after_headers(body), 4096).is_some_and(|call| {
        let named =
            call.procedure.len() > 2 && call.procedure.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        match call.statement {
            Some(statement) => sql::is_statement(&statement) || ours && named,
            None => named && (headed || ours),
        }
    })
}

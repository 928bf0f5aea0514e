//! Tars (tarscloud.github.io "Tars protocol"): a length, then RequestPacket or ResponsePacket of RequestF.tars.

use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across, pairing_key};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};

pub const PROTOCOL: Protocol = Protocol {
    id: 46,
    name: "Tars",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(Tars { settings: settings.clone() })),
    doc: "Tars and TUP packets. Trace ids come from the context map. A packet of type one-way awaits no response.",
};

/// What stands before the arguments, and behind them the context.
const LOOK: usize = 32 * 1024;
/// The length, version, type, ids, and a servant or a return code at least.
const MIN_PACKET: u32 = 12;
const MAX_PACKET: u32 = 256 << 20;
const MAX_DEPTH: usize = 32;
/// Entries of a context or status.
const MAX_ENTRIES: i64 = 1024;
const ONE_WAY: i64 = 1;

/// Types of fields.
const INT8: u8 = 0;
const INT64: u8 = 3;
const STRING1: u8 = 6;
const STRING4: u8 = 7;
const MAP: u8 = 8;
const ZERO: u8 = 12;

/// Tag and type.
fn head(cursor: &mut Cursor<'_>) -> Option<(u8, u8)> {
    let byte = cursor.u8()?;
    let tag = if byte >> 4 == 15 { cursor.u8()? } else { byte >> 4 };
    Some((tag, byte & 15))
}

fn number(cursor: &mut Cursor<'_>, kind: u8) -> Option<i64> {
    Some(match kind {
        INT8 => i64::from(cursor.u8()?.cast_signed()),
        1 => i64::from(cursor.u16()?.cast_signed()),
        2 => i64::from(cursor.u32()?.cast_signed()),
        INT64 => cursor.u64()?.cast_signed(),
        ZERO => 0,
        _ => return None,
    })
}

fn string<'a>(cursor: &mut Cursor<'a>, kind: u8) -> Option<&'a [u8]> {
    match kind {
        STRING1 => cursor.short_bytes(),
        STRING4 => cursor.long_bytes(),
        _ => None,
    }
}

fn count(cursor: &mut Cursor<'_>) -> Option<i64> {
    let (_, kind) = head(cursor)?;
    number(cursor, kind).filter(|count| *count >= 0)
}

fn skip(cursor: &mut Cursor<'_>, kind: u8, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    match kind {
        INT8..=INT64 | ZERO => number(cursor, kind).map(drop),
        4 => cursor.take(4).map(drop),
        5 => cursor.take(8).map(drop),
        STRING1 | STRING4 => string(cursor, kind).map(drop),
        MAP | 9 => {
            let values = count(cursor)?.checked_mul(if kind == MAP { 2 } else { 1 })?;
            for _ in 0..values {
                let (_, kind) = head(cursor)?;
                skip(cursor, kind, depth + 1)?;
            }
            Some(())
        }
        10 => loop {
            match head(cursor)? {
                (_, 11) => return Some(()),
                (_, kind) => skip(cursor, kind, depth + 1)?,
            }
        },
        // Bytes: the type of the elements, their number.
        13 => {
            head(cursor)?;
            let length = usize::try_from(count(cursor)?).ok()?;
            cursor.take(length).map(drop)
        }
        _ => None,
    }
}

/// A map of texts.
fn entries<'a>(cursor: &mut Cursor<'a>, mut each: impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
    for _ in 0..count(cursor)?.min(MAX_ENTRIES) {
        let (_, kind) = head(cursor)?;
        let name = string(cursor, kind)?;
        let (_, kind) = head(cursor)?;
        each(name, string(cursor, kind)?);
    }
    Some(())
}

/// The fields in front; those behind the data are read where they are needed.
struct Packet<'a> {
    version: i64,
    kind: i64,
    id: i64,
    body: Body<'a>,
    rest: Cursor<'a>,
}

enum Body<'a> {
    Request { servant: &'a [u8], function: &'a [u8] },
    Response { code: i64 },
}

impl<'a> Packet<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(frame.get(4..)?);
        let mut field = |tag: u8| {
            let (found, kind) = head(&mut cursor)?;
            (found == tag).then(|| number(&mut cursor, kind))?
        };
        let (version, kind, third, fourth) = (field(1)?, field(2)?, field(3)?, field(4)?);
        let (tag, form) = head(&mut cursor)?;
        if tag != 5 {
            return None;
        }
        let (id, body) = if matches!(form, STRING1 | STRING4) {
            let servant = string(&mut cursor, form)?;
            let (tag, form) = head(&mut cursor)?;
            let function = string(&mut cursor, form)?;
            (tag == 6).then_some((fourth, Body::Request { servant, function }))?
        } else {
            (third, Body::Response { code: number(&mut cursor, form)? })
        };
        Some(Self { version, kind, id, body, rest: cursor })
    }

    /// Does it look like one, not just parse?
    fn is_sound(&self) -> bool {
        let named = match self.body {
            Body::Request { servant, function } => {
                let printable = |name: &[u8]| name.iter().all(u8::is_ascii_graphic);
                // A TUP response names neither.
                (!servant.is_empty() && !function.is_empty() || self.is_tup())
                    && printable(servant)
                    && printable(function)
            }
            Body::Response { .. } => true,
        };
        matches!(self.version, 1 | 2 | 3 | 5) && matches!(self.kind, 0 | ONE_WAY) && named
    }

    /// TUP answers with the packet of requests.
    fn is_tup(&self) -> bool {
        matches!(self.version, 2 | 3)
    }

    fn is_request(&self, role: Role) -> bool {
        matches!(self.body, Body::Request { .. }) && !(self.is_tup() && role == Role::Server)
    }

    fn version(&self) -> &'static str {
        match self.version {
            1 => "1",
            2 => "2",
            3 => "3",
            5 => "5",
            _ => "",
        }
    }

    /// Goes on to each of the fields behind: (tag, type, what follows). The closure takes the field, or says `None`
    /// to have it passed over.
    fn behind(&self, mut each: impl FnMut(u8, u8, &mut Cursor<'a>) -> Option<()>) -> Option<()> {
        let mut cursor = self.rest;
        while !cursor.is_empty() {
            let (tag, kind) = head(&mut cursor)?;
            let mut ahead = cursor;
            if each(tag, kind, &mut ahead).is_none() {
                ahead = cursor;
                skip(&mut ahead, kind, 0)?;
            }
            cursor = ahead;
        }
        Some(())
    }
}

/// Name of a return code (the TARS* constants of BaseF.tars).
fn failure(code: i64) -> Option<&'static str> {
    Some(match code {
        -1 => "TARSSERVERDECODEERR",
        -2 => "TARSSERVERENCODEERR",
        -3 => "TARSSERVERNOFUNCERR",
        -4 => "TARSSERVERNOSERVANTERR",
        -5 => "TARSSERVERRESETGRID",
        -6 => "TARSSERVERQUEUETIMEOUT",
        -7 => "TARSASYNCCALLTIMEOUT",
        -8 => "TARSPROXYCONNECTERR",
        -9 => "TARSSERVEROVERLOAD",
        -10 => "TARSADAPTERNULL",
        -11 => "TARSINVOKEBYINVALIDESET",
        -12 => "TARSCLIENTDECODEERR",
        -13 => "TARSSENDREQUESTERR",
        -99 => "TARSSERVERUNKNOWNERR",
        _ => return None,
    })
}

struct Tars {
    settings: Rc<ParserSettings>,
}

impl Tars {
    fn request(&self, role: Role, packet: &Packet<'_>, servant: &[u8], function: &[u8]) -> Message {
        let one_way = packet.kind == ONE_WAY;
        let id = u64::from(packet.id as u32);
        let (servant, function) = (self.settings.text(servant), self.settings.text(function));
        let mut message = Message {
            kind: if one_way { Kind::Session } else { Kind::Request },
            status: if one_way { Status::Success } else { Status::Unknown },
            request_id: Some(id),
            pair: pairing_key(id, role),
            is_reversed: role == Role::Server,
            version: packet.version().into(),
            endpoint: format!("{servant}/{function}"),
            request_type: function,
            request_resource: servant,
            ..Message::default()
        };
        let mut propagation = Propagation::new(&self.settings);
        packet.behind(|tag, kind, cursor| {
            (tag == 9 && kind == MAP).then(|| entries(cursor, |name, value| propagation.offer(name, value)))?
        });
        propagation.fill(&mut message);
        message
    }

    fn response(&self, role: Role, packet: &Packet<'_>) -> Message {
        let mut code = match packet.body {
            Body::Response { code } => code,
            Body::Request { .. } => 0,
        };
        let mut said: &[u8] = &[];
        packet.behind(|tag, kind, cursor| match packet.body {
            Body::Response { .. } if tag == 8 => {
                said = string(cursor, kind)?;
                Some(())
            }
            Body::Request { .. } if tag == 10 && kind == MAP => entries(cursor, |name, value| match name {
                b"STATUS_RESULT_CODE" => {
                    code = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(code);
                }
                b"STATUS_RESULT_DESC" => said = value,
                _ => {}
            }),
            _ => None,
        });
        let status = match code {
            0 => Status::Success,
            -12..=-10 => Status::ClientError,
            _ => Status::ServerError,
        };
        let exception = match (status, said.is_empty()) {
            (Status::Success, _) => String::new(),
            (_, false) => self.settings.text(said),
            (_, true) => failure(code).unwrap_or_default().to_owned(),
        };
        let id = u64::from(packet.id as u32);
        Message {
            kind: Kind::Response,
            request_id: Some(id),
            pair: pairing_key(id, across(role)),
            version: packet.version().into(),
            status,
            response_code: i32::try_from(code).ok(),
            response_exception: exception,
            ..Message::default()
        }
    }
}

/// The first bytes: length, version and type of the packet, as far as they are there.
fn looks_right(window: &[u8]) -> bool {
    let mut cursor = Cursor(window);
    let Some(length) = cursor.u32() else {
        return window.iter().take(1).all(|byte| *byte < (MAX_PACKET >> 24) as u8);
    };
    // Version (a byte, tag 1) and type of the packet (a byte or zero, tag 2).
    let byte = |at: usize, allowed: fn(u8) -> bool| cursor.0.get(at).is_none_or(|byte| allowed(*byte));
    let head = byte(0, |byte| byte == 0x10) && byte(1, |byte| matches!(byte, 1 | 2 | 3 | 5));
    (MIN_PACKET..MAX_PACKET).contains(&length) && head && byte(2, |byte| matches!(byte, 0x20 | 0x2c))
}

impl Frames for Tars {
    fn size(&mut self, _role: Role, window: &[u8]) -> Size {
        if !looks_right(window) {
            return Size::Wrong;
        }
        match Cursor(window).u32() {
            Some(length) if window.len() >= MIN_PACKET as usize => Size::Of { size: u64::from(length), look: LOOK },
            _ => Size::Short,
        }
    }

    fn read(&mut self, role: Role, frame: &[u8], size: u64) -> Said {
        let Some(packet) = Packet::read(frame).filter(Packet::is_sound) else {
            return Said::Wrong;
        };
        let mut message = match packet.body {
            Body::Request { servant, function } if packet.is_request(role) => {
                self.request(role, &packet, servant, function)
            }
            _ => self.response(role, &packet),
        };
        message.length = i64::try_from(size).ok();
        message.into()
    }

    fn begins(&self, _role: Role, window: &[u8]) -> bool {
        looks_right(window) && Packet::read(window).is_some_and(|packet| packet.is_sound())
    }
}

fn check(payload: &[u8], _port: u16) -> Guess {
    if !looks_right(payload) {
        return Guess::No;
    }
    let length = Cursor(payload).u32().map_or(usize::MAX, |length| length as usize);
    match Packet::read(payload) {
        Some(packet) if packet.is_sound() => match packet.body {
            Body::Response { .. } => Guess::Yes(Role::Server),
            Body::Request { .. } if packet.is_tup() => Guess::Either,
            Body::Request { .. } => Guess::Yes(Role::Client),
        },
        None if payload.len() < length.min(512) => Guess::Maybe,
        _ => Guess::No,
    }
}

//! OpenWire, ActiveMQ's protocol (activemq.apache.org "OpenWire version 2 specification"), versions 1 to 12.

mod objects;
mod wire;

use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across, pairing_key};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};
use objects::{CONNECTION_ERROR, WIRE_FORMAT_INFO, fields, is_answered, is_message, is_response, name};
use wire::{Cache, Format, Value, Wire, entries};

pub const PROTOCOL: Protocol = Protocol {
    id: 103,
    name: "OpenWire",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(OpenWire::new(settings.clone()))),
    doc: "Loose and tight encoding, as the two WireFormatInfo say; of a connection that was met later they are told \
          by their looks. A command that wants no response is a session. request_resource and endpoint are the \
          destination, request_domain a broker's URL, x_request_id a message's correlation id; trace ids come from \
          the properties of messages. Connections that agreed to leave out the sizes of commands are not followed.",
};

const PORT: u16 = 61616;
const MAGIC: &[u8; 8] = b"ActiveMQ";
/// A message's content stands before its properties.
const LOOK: usize = 32 * 1024;
const MAX_FRAME: u32 = 256 << 20;
/// The newest version, supposed where nothing was seen of it.
const NEWEST: u32 = 12;

struct OpenWire {
    settings: Rc<ParserSettings>,
    /// What the client and the server announced.
    announced: [Option<Format>; 2],
    /// Do commands without announcement send objects by number? Told by the first that can tell.
    guessed: Option<bool>,
    caches: [Cache; 2],
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Server)
}

/// Size and type of the command.
fn head(window: &[u8]) -> Option<(u32, u8)> {
    let mut cursor = Cursor(window);
    Some((cursor.u32()?, cursor.u8()?))
}

/// Does the window begin like a command, as far as it goes?
fn looks_right(window: &[u8]) -> bool {
    match head(window) {
        Some((size, WIRE_FORMAT_INFO)) => {
            let shown = window.get(5..).unwrap_or_default();
            (17..=MAX_FRAME).contains(&size) && MAGIC.starts_with(shown.get(..MAGIC.len()).unwrap_or(shown))
        }
        // Every other command has at least its number and a flag.
        Some((size, kind)) => (6..=MAX_FRAME).contains(&size) && name(kind).is_some(),
        None => window.first().is_none_or(|byte| u32::from(*byte) <= MAX_FRAME >> 24),
    }
}

/// What a WireFormatInfo announces: type, magic, version, and a map.
fn announcement(command: &[u8]) -> Option<Format> {
    let mut cursor = Cursor(command);
    cursor.take(1 + MAGIC.len())?;
    let mut format = Format { version: cursor.u32()?, tight: false, cached: false, unprefixed: false };
    if cursor.u8()? == 1 {
        cursor.u32()?;
        for (name, value) in entries(cursor.0) {
            let Value::Flag(flag) = value else { continue };
            match name {
                b"TightEncodingEnabled" => format.tight = flag,
                b"CacheEnabled" => format.cached = flag,
                b"SizePrefixDisabled" => format.unprefixed = flag,
                _ => {}
            }
        }
    }
    Some(format)
}

impl OpenWire {
    fn new(settings: Rc<ParserSettings>) -> Self {
        Self { settings, announced: [None; 2], guessed: None, caches: Default::default() }
    }

    /// What both announced, once both have.
    fn agreed(&self) -> Option<Format> {
        let [Some(one), Some(other)] = self.announced else {
            return None;
        };
        Some(Format {
            version: one.version.min(other.version),
            tight: one.tight && other.tight,
            cached: one.cached && other.cached,
            unprefixed: one.unprefixed && other.unprefixed,
        })
    }

    fn format(&mut self, command: &[u8]) -> Format {
        if let Some(agreed) = self.agreed() {
            return agreed;
        }
        let mut format = supposed(command);
        if self.guessed.is_none() && objects_in(command, format).is_some_and(|count| count > 0) {
            self.guessed = Some(true);
        } else if self.guessed.is_none() {
            let plain = Format { cached: false, ..format };
            if objects_in(command, plain).is_some_and(|count| count > 0) {
                self.guessed = Some(false);
            }
        }
        format.cached = self.guessed.unwrap_or(true);
        format
    }

    fn announce(&mut self, role: Role, command: &[u8], size: i64) -> Said {
        let Some(format) = announcement(command) else {
            return Said::Wrong;
        };
        if let Some(place) = self.announced.get_mut(index(role)) {
            *place = Some(format);
        }
        Message {
            kind: Kind::Session,
            status: Status::Success,
            request_id: Some(0),
            is_reversed: role == Role::Server,
            version: format.version.to_string().into(),
            request_type: "WireFormatInfo".to_owned(),
            length: Some(size),
            ..Message::default()
        }
        .into()
    }

    fn command(&mut self, role: Role, command: &[u8], size: i64) -> Said {
        let Some((&kind, body)) = command.split_first() else {
            return Said::Wrong;
        };
        let format = self.format(command);
        let Some(cache) = self.caches.get_mut(index(role)) else {
            return Said::Wrong;
        };
        let Some(mut wire) = Wire::new(body, format, cache) else {
            return Said::Wrong;
        };
        let (Some(id), Some(answered)) = (wire.int(), wire.flag()) else {
            return Said::Wrong;
        };
        let answered = answered && is_answered(kind);
        if let Some(fields) = fields(kind, format.version) {
            // Cut or of a version that is not known: what was read until then.
            wire.read(fields, 0);
        }
        let said = wire.said;
        let text = |bytes: &[u8]| self.settings.text(bytes);
        let mut message = Message {
            version: if self.agreed().is_some() { format.version.to_string().into() } else { "".into() },
            request_type: name(kind).unwrap_or_default().to_owned(),
            length: Some(size),
            ..Message::default()
        };
        if is_response(kind) || kind == CONNECTION_ERROR {
            let failed = !said.exception_class.is_empty() || !said.exception.is_empty();
            let told = if said.exception.is_empty() { said.exception_class } else { said.exception };
            message.kind = Kind::Response;
            message.request_id = said.response_to.map(u64::from);
            message.pair = said.response_to.and_then(|id| pairing_key(u64::from(id), across(role)));
            message.status = if failed { Status::ServerError } else { Status::Success };
            message.response_exception = text(told);
            return message.into();
        }
        message.kind = if answered { Kind::Request } else { Kind::Session };
        message.status = if answered { Status::Unknown } else { Status::Success };
        message.request_id = Some(u64::from(id));
        message.pair = pairing_key(u64::from(id), role);
        message.is_reversed = role == Role::Server;
        message.request_domain = text(said.broker_url);
        message.request_resource = text(&said.destination);
        message.endpoint = message.request_resource.clone();
        let mut propagation = Propagation::new(&self.settings);
        for (name, value) in entries(said.properties) {
            if let Value::Text(value) = value {
                propagation.offer(name, value);
            }
        }
        propagation.fill(&mut message);
        if !said.correlation.is_empty() {
            message.x_request_id = text(said.correlation);
        }
        message.into()
    }
}

/// The format of a command by its looks: the second byte is the high byte of a number that counts up from 1, or the
/// number of bytes with booleans, of which there is always one.
fn supposed(command: &[u8]) -> Format {
    let tight = command.get(1).is_some_and(|byte| *byte != 0);
    Format { version: NEWEST, tight, cached: true, unprefixed: false }
}

/// Number of objects in a command, if all of its fields can be read in this format.
fn objects_in(command: &[u8], format: Format) -> Option<usize> {
    let (&kind, body) = command.split_first()?;
    let mut cache = Cache::new();
    let mut wire = Wire::new(body, format, &mut cache)?;
    wire.int()?;
    wire.flag()?;
    wire.read(fields(kind, format.version)?, 0)?;
    Some(wire.objects)
}

impl Frames for OpenWire {
    fn size(&mut self, _role: Role, window: &[u8]) -> Size {
        if self.agreed().is_some_and(|format| format.unprefixed) {
            return Size::Of { size: window.len() as u64, look: 0 };
        }
        if !looks_right(window) {
            return Size::Wrong;
        }
        match head(window) {
            Some((size, _)) => Size::Of { size: 4 + u64::from(size), look: LOOK },
            None => Size::Short,
        }
    }

    fn read(&mut self, role: Role, frame: &[u8], size: u64) -> Said {
        let Some(command) = frame.get(4..) else {
            return Said::Nothing;
        };
        let size = i64::try_from(size.saturating_sub(4)).unwrap_or(i64::MAX);
        match command.first() {
            Some(&WIRE_FORMAT_INFO) => self.announce(role, command, size),
            Some(_) => self.command(role, command, size),
            None => Said::Nothing,
        }
    }

    fn begins(&self, _role: Role, window: &[u8]) -> bool {
        looks_right(window) && window.len() > 16 && certainty(window) > 0
    }

    fn lost(&mut self, role: Role) {
        // Numbers may have been given anew.
        if let Some(cache) = self.caches.get_mut(index(role)) {
            cache.clear();
        }
    }
}

/// How sure it is that a command begins here: 0 not at all; 1 on the protocol's port; 2 anywhere.
fn certainty(window: &[u8]) -> u8 {
    let Some((size, kind)) = head(window) else {
        return 0;
    };
    if kind == WIRE_FORMAT_INFO {
        return 2;
    }
    let end = 4usize.saturating_add(size as usize);
    let command = window.get(4..end.min(window.len())).unwrap_or_default();
    let format = supposed(command);
    let count = objects_in(command, format)
        .filter(|count| *count > 0)
        .or_else(|| objects_in(command, Format { cached: false, ..format }));
    match count {
        Some(2..) => 2,
        Some(_) => 1,
        None => 0,
    }
}

/// Who sent this WireFormatInfo: ActiveMQ's client in Java names the host that it looks for, its broker does not.
fn announcer(payload: &[u8]) -> Guess {
    let (mut hosted, mut own, mut java) = (false, false, false);
    // Size, type, magic, version, presence and size of the map.
    for (name, value) in entries(payload.get(22..).unwrap_or_default()) {
        match (name, value) {
            (b"Host", _) => hosted = true,
            (b"ProviderName", Value::Text(b"ActiveMQ")) => own = true,
            (b"PlatformDetails", Value::Text(platform)) => java = platform.starts_with(b"J"),
            _ => {}
        }
    }
    match (hosted, own && java) {
        (true, _) => Guess::Yes(Role::Client),
        (false, true) => Guess::Yes(Role::Server),
        (false, false) => Guess::Either,
    }
}

fn check(payload: &[u8], port: u16) -> Guess {
    if !looks_right(payload) {
        return Guess::No;
    }
    let Some((_, kind)) = head(payload) else {
        return Guess::Maybe;
    };
    if kind == WIRE_FORMAT_INFO {
        return if payload.len() < 5 + MAGIC.len() { Guess::Maybe } else { announcer(payload) };
    }
    match certainty(payload) {
        0 => Guess::No,
        1 if port != PORT => Guess::No,
        _ if is_response(kind) || matches!(kind, 2 | 21 | CONNECTION_ERROR) => Guess::Yes(Role::Server),
        _ if is_message(kind) || matches!(kind, 3..=9 | 12 | 20 | 22) => Guess::Yes(Role::Client),
        _ => Guess::Either,
    }
}

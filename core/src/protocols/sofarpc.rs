//! SofaRPC over Bolt, versions 1 and 2 (sofastack.tech "SOFABolt communication protocol design").

use std::rc::Rc;

use super::cursor::Cursor;
use super::frame::{Framed, Frames, Said, Size, across, pairing_key};
use super::propagation::Propagation;
use super::{Guess, Kind, Message, Pairing, ParserSettings, Protocol, Role, Status};

pub const PROTOCOL: Protocol = Protocol {
    id: 43,
    name: "SofaRPC",
    pairing: Pairing::Id,
    transports: &[6],
    timeout_s: 60,
    check,
    parser: |settings| Box::new(Framed(SofaRpc { settings: settings.clone() })),
    doc: "Bolt versions 1 and 2. Service, method and trace id come from the header map (`sofa_head_target_service`, \
          `sofa_head_method_name`, `rpc_trace_context.sofaTraceId`, `new_rpc_trace_context`); a plain Bolt request \
          without them shows its class. Heartbeats are skipped, one-way requests await no response.",
};

const PORT: u16 = 12200;
/// Class name and header map; the content is never looked at.
const LOOK: usize = 32 * 1024;
const MAX_CONTENT: u32 = 256 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Response,
    Request,
    OneWay,
}

struct Header {
    kind: Type,
    heartbeat: bool,
    id: u32,
    status: u16,
    /// Sizes of this header and of the parts after it.
    header: usize,
    class: usize,
    map: usize,
    content: u32,
    checksum: usize,
}

enum Look {
    Header(Header),
    Short,
    Wrong,
}

impl Header {
    fn read(window: &[u8]) -> Look {
        let mut cursor = Cursor(window);
        match Self::fields(&mut cursor) {
            Some(Some(mut header)) => {
                header.header = window.len() - cursor.0.len();
                Look::Header(header)
            }
            Some(None) => Look::Wrong,
            None => Look::Short,
        }
    }

    /// Outer `None`: the bytes end; inner: they are no header.
    fn fields(cursor: &mut Cursor<'_>) -> Option<Option<Self>> {
        let protocol = cursor.u8()?;
        if !matches!(protocol, 1 | 2) || protocol == 2 && !matches!(cursor.u8()?, 1 | 2) {
            return Some(None);
        }
        let kind = match cursor.u8()? {
            0 => Type::Response,
            1 => Type::Request,
            2 => Type::OneWay,
            _ => return Some(None),
        };
        let command = cursor.u16()?;
        let belongs = match command {
            0 => kind != Type::OneWay,
            1 => kind != Type::Response,
            2 => kind == Type::Response,
            _ => false,
        };
        // The version of the command, always 1.
        if !belongs || cursor.u8()? != 1 {
            return Some(None);
        }
        let id = cursor.u32()?;
        let _codec = cursor.u8()?;
        let switches = if protocol == 2 { cursor.u8()? } else { 0 };
        if switches > 1 {
            return Some(None);
        }
        let status = match kind {
            Type::Response => cursor.u16()?,
            Type::Request | Type::OneWay => {
                // Time-out, ms; -1 for none.
                cursor.u32()?;
                0
            }
        };
        let (class, map, content) = (cursor.u16()?, cursor.u16()?, cursor.u32()?);
        let sound = content <= MAX_CONTENT && status_text(status).is_some();
        Some(sound.then(|| Self {
            kind,
            heartbeat: command == 0,
            id,
            status,
            header: 0,
            class: usize::from(class),
            map: usize::from(map),
            content,
            checksum: usize::from(switches) * 4,
        }))
    }

    fn body(&self) -> u64 {
        self.class as u64 + self.map as u64 + u64::from(self.content)
    }
}

/// Name of a status (com.alipay.remoting.ResponseStatus).
fn status_text(status: u16) -> Option<&'static str> {
    Some(match status {
        0 => "SUCCESS",
        1 => "ERROR",
        2 => "SERVER_EXCEPTION",
        3 => "UNKNOWN",
        4 => "SERVER_THREADPOOL_BUSY",
        5 => "ERROR_COMM",
        6 => "NO_PROCESSOR",
        7 => "TIMEOUT",
        8 => "CLIENT_SEND_ERROR",
        9 => "CODEC_EXCEPTION",
        16 => "CONNECTION_CLOSED",
        17 => "SERVER_SERIAL_EXCEPTION",
        18 => "SERVER_DESERIAL_EXCEPTION",
        _ => return None,
    })
}

/// `tcid=TRACE&spid=SPAN&pspid=PARENT`.
fn new_context(value: &str) -> Option<(&str, &str)> {
    let mut fields = value.split('&');
    let trace = fields.next()?.strip_prefix("tcid=")?;
    Some((trace, fields.find_map(|field| field.strip_prefix("spid=")).unwrap_or_default()))
}

/// Entries of the header map: texts with their lengths (four bytes) before them. Ends where they do.
fn entries(map: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut cursor = Cursor(map);
    std::iter::from_fn(move || Some((cursor.long_bytes()?, cursor.long_bytes()?)))
}

fn is_class(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._$[];-".contains(byte))
}

struct SofaRpc {
    settings: Rc<ParserSettings>,
}

impl SofaRpc {
    fn request(&self, role: Role, header: &Header, frame: &[u8]) -> Message {
        let text = |bytes: &[u8]| self.settings.text(bytes);
        let class = frame.get(header.header..).unwrap_or_default();
        let map = class.get(header.class..).unwrap_or_default();
        let mut message = Message {
            kind: if header.kind == Type::Request { Kind::Request } else { Kind::Session },
            status: if header.kind == Type::Request { Status::Unknown } else { Status::Success },
            request_id: Some(u64::from(header.id)),
            pair: pairing_key(u64::from(header.id), role),
            is_reversed: role == Role::Server,
            length: i64::try_from(header.body()).ok(),
            ..Message::default()
        };
        let mut propagation = Propagation::new(&self.settings);
        let (mut trace, mut span) = (String::new(), String::new());
        for (name, value) in entries(map.get(..header.map).unwrap_or(map)) {
            match name {
                b"sofa_head_target_service" => message.request_resource = text(value),
                b"sofa_head_method_name" => message.request_type = text(value),
                b"rpc_trace_context.sofaTraceId" => trace = text(value),
                b"new_rpc_trace_context" => {
                    if let Some(found) = new_context(&text(value)) {
                        (trace, span) = (found.0.to_owned(), found.1.to_owned());
                    }
                }
                _ => propagation.offer(name, value),
            }
        }
        propagation.fill(&mut message);
        if message.trace_id.is_empty() {
            (message.trace_id, message.span_id) = (trace, span);
        }
        if message.request_resource.is_empty() {
            message.request_resource = text(class.get(..header.class).unwrap_or(class));
        }
        message.endpoint = match message.request_type.as_str() {
            "" => message.request_resource.clone(),
            method => format!("{}/{method}", message.request_resource),
        };
        message
    }

    fn response(role: Role, header: &Header) -> Message {
        let (status, exception) = match header.status {
            0 => (Status::Success, ""),
            8 => (Status::ClientError, "CLIENT_SEND_ERROR"),
            other => (Status::ServerError, status_text(other).unwrap_or_default()),
        };
        Message {
            kind: Kind::Response,
            request_id: Some(u64::from(header.id)),
            pair: pairing_key(u64::from(header.id), across(role)),
            status,
            response_code: Some(i32::from(header.status)),
            response_exception: exception.to_owned(),
            length: i64::try_from(header.body()).ok(),
            ..Message::default()
        }
    }
}

impl Frames for SofaRpc {
    fn size(&mut self, _role: Role, window: &[u8]) -> Size {
        match Header::read(window) {
            Look::Header(header) => {
                let told = if header.kind == Type::Response { 0 } else { header.class + header.map };
                Size::Of {
                    size: header.header as u64 + header.body() + header.checksum as u64,
                    look: (header.header + told).min(LOOK),
                }
            }
            Look::Short => Size::Short,
            Look::Wrong => Size::Wrong,
        }
    }

    fn read(&mut self, role: Role, frame: &[u8], _size: u64) -> Said {
        match Header::read(frame) {
            Look::Header(header) if header.heartbeat => Said::Nothing,
            Look::Header(header) if header.kind == Type::Response => Self::response(role, &header).into(),
            Look::Header(header) => self.request(role, &header, frame).into(),
            Look::Short | Look::Wrong => Said::Wrong,
        }
    }

    fn begins(&self, _role: Role, window: &[u8]) -> bool {
        matches!(Header::read(window), Look::Header(header) if named(&header, window))
    }
}

/// Does a class name follow the header?
fn named(header: &Header, window: &[u8]) -> bool {
    let class = window.get(header.header..).unwrap_or_default();
    is_class(class.get(..header.class).unwrap_or(class))
}

/// The header alone is a weak sign: without a class name after it, it counts on the protocol's port only.
/// Heartbeats come from both sides and are passed over.
fn check(mut payload: &[u8], port: u16) -> Guess {
    loop {
        match Header::read(payload) {
            Look::Header(header)
                if header.heartbeat && (port == PORT || header.body() == 0 || named(&header, payload)) =>
            {
                let size = usize::try_from(header.body()).unwrap_or(usize::MAX).saturating_add(header.header);
                payload = payload.get(size.saturating_add(header.checksum)..).unwrap_or_default();
            }
            Look::Header(header) => {
                let seen = payload.get(header.header..).unwrap_or_default();
                if seen.is_empty() && header.class > 0 {
                    return Guess::Maybe;
                }
                if port != PORT && !named(&header, payload) {
                    return Guess::No;
                }
                return Guess::Yes(if header.kind == Type::Response { Role::Server } else { Role::Client });
            }
            Look::Short => return Guess::Maybe,
            Look::Wrong => return Guess::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_begin_with_the_trace() {
        assert_eq!(new_context("tcid=ac11&spid=fffff&pspid=cccc&"), Some(("ac11", "fffff")));
        assert_eq!(new_context("tcid=ac11"), Some(("ac11", "")));
        assert_eq!(new_context("ac11&spid=fffff&&"), None);
    }
}

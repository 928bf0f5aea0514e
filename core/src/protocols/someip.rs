//! SOME/IP over UDP and TCP, with segmentation and service discovery (AUTOSAR FO R22-11: PRS_SOMEIPProtocol,
//! PRS_SOMEIPServiceDiscoveryProtocol).

use std::fmt::Write;
use std::rc::Rc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};

pub const PROTOCOL: Protocol = Protocol {
    id: 47,
    name: "SOME/IP",
    pairing: Pairing::Id,
    transports: &[17, 6],
    timeout_s: 10,
    check,
    parser: |settings| Box::new(SomeIp { settings: settings.clone(), datagrams: false }),
    doc: "SOME/IP over UDP and TCP. The type of a request is its message type (REQUEST, REQUEST_NO_RETURN, NOTIFICATION), \
          the resource its service, the endpoint service and method, all as hexadecimal numbers; the request id is the \
          session. A response belongs to the request with the same service, method, client and session. Fire and \
          forget and notifications await no response. Segments of SOME/IP-TP count as one message; the entries of \
          service discovery stand in the attribute sd_entries. Unknown services and methods and wrong versions are errors of the \
          client, every other return code above 0 is an error of the server.",
};

const HEADER: usize = 16;
/// Bytes that the length field counts besides the payload.
const COUNTED: u32 = 8;
/// Longest message on TCP that makes sense; ECUs bound theirs far below.
const MAX_LENGTH: u32 = 1 << 24;
const TP_FLAG: u8 = 0x20;
const DISCOVERY: (u16, u16) = (0xffff, 0x8100);
const MAX_ENTRIES: usize = 16;
/// Requests of the server are kept apart from those of the client.
const FROM_SERVER: u64 = 1 << 63;

struct SomeIp {
    settings: Rc<ParserSettings>,
    datagrams: bool,
}

struct Header {
    service: u16,
    method: u16,
    length: u32,
    client: u16,
    session: u16,
    kind: u8,
    code: u8,
}

enum Look {
    Is(Header),
    Short,
    Wrong,
}

impl Header {
    fn read(bytes: &[u8]) -> Look {
        // What is not here yet may still be right.
        let known = |at: usize, right: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|byte| right(*byte));
        if !known(12, &|version| version == 1)
            || !known(14, &|kind| kind_name(kind).is_some())
            || !known(4, &|high| high == 0)
        {
            return Look::Wrong;
        }
        let (Some(ids), Some(length), Some(request)) = (word(bytes, 0), word(bytes, 4), word(bytes, 8)) else {
            return Look::Short;
        };
        let (Some(&kind), Some(&code)) = (bytes.get(14), bytes.get(15)) else {
            return Look::Short;
        };
        let is_answer = kind & 0x80 != 0;
        let (service, method) = ((ids >> 16) as u16, ids as u16);
        if !(COUNTED..=MAX_LENGTH).contains(&length) || service == 0 || (code != 0 && !is_answer) || code > 0x5e {
            return Look::Wrong;
        }
        let (client, session) = ((request >> 16) as u16, request as u16);
        Look::Is(Self { service, method, length, client, session, kind, code })
    }

    fn total(&self) -> u64 {
        u64::from(self.length - COUNTED) + HEADER as u64
    }

    /// A place to find messages again, on TCP: nothing but a header.
    fn is_cookie(&self) -> bool {
        self.service == 0xffff && matches!(self.method, 0 | 0x8000) && (self.client, self.session) == (0xdead, 0xbeef)
    }

    fn is_discovery(&self) -> bool {
        (self.service, self.method) == DISCOVERY
    }

    /// Who writes such messages. A notification comes from the server of the service; discovery asks everybody.
    fn writer(&self) -> Role {
        let from_server = self.kind & 0x80 != 0 || (self.base_kind() == 2 && !self.is_discovery());
        if from_server || (self.is_cookie() && self.method == 0x8000) { Role::Server } else { Role::Client }
    }

    fn base_kind(&self) -> u8 {
        self.kind & !TP_FLAG
    }
}

fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind & !TP_FLAG {
        0x00 => "REQUEST",
        0x01 => "REQUEST_NO_RETURN",
        0x02 => "NOTIFICATION",
        0x80 => "RESPONSE",
        0x81 => "ERROR",
        _ => return None,
    })
}

fn code_name(code: u8) -> &'static str {
    match code {
        0 => "E_OK",
        1 => "E_NOT_OK",
        2 => "E_UNKNOWN_SERVICE",
        3 => "E_UNKNOWN_METHOD",
        4 => "E_NOT_READY",
        5 => "E_NOT_REACHABLE",
        6 => "E_TIMEOUT",
        7 => "E_WRONG_PROTOCOL_VERSION",
        8 => "E_WRONG_INTERFACE_VERSION",
        9 => "E_MALFORMED_MESSAGE",
        10 => "E_WRONG_MESSAGE_TYPE",
        11 => "E_E2E_REPEATED",
        12 => "E_E2E_WRONG_SEQUENCE",
        13 => "E_E2E",
        14 => "E_E2E_NOT_AVAILABLE",
        15 => "E_E2E_NO_NEW_DATA",
        16..=0x1f => "reserved return code",
        _ => "return code of the service",
    }
}

fn status(code: u8) -> Status {
    match code {
        0 => Status::Success,
        2 | 3 | 7..=10 => Status::ClientError,
        _ => Status::ServerError,
    }
}

impl SomeIp {
    fn step(&mut self, role: Role, window: &[u8], last: Option<u64>) -> Step {
        let header = match Header::read(window) {
            Look::Is(header) => header,
            Look::Short if last.is_none() => return Step::NeedMore,
            Look::Short | Look::Wrong => return Step::Invalid,
        };
        let total = header.total();
        if header.is_cookie() {
            return Step::Skip(total);
        }
        // What a row says of the payload lies at its beginning.
        let seen = usize::try_from(total).unwrap_or(usize::MAX).min(window.len());
        let needed = HEADER + if header.is_discovery() { 8 + 16 * MAX_ENTRIES } else { 4 };
        if (seen as u64) < total && seen < needed && last.is_none() {
            return Step::NeedMore;
        }
        let payload = window.get(HEADER..seen).unwrap_or_default();
        if header.kind & TP_FLAG != 0 && word(payload, 0).is_some_and(|offset| offset >> 4 != 0) {
            return Step::Skip(total);
        }
        Step::Message { consumed: total, message: Box::new(self.message(role, &header, payload)) }
    }

    fn message(&self, role: Role, header: &Header, payload: &[u8]) -> Message {
        let mut message = Message {
            request_id: Some(u64::from(header.session)),
            length: Some(i64::from(header.length - COUNTED)),
            ..Message::default()
        };
        let ids = [header.service, header.method, header.client, header.session];
        let key = ids.iter().fold(0, |key, id| key << 16 | u64::from(*id));
        let is_answer = header.kind & 0x80 != 0;
        let asked_by_server = is_answer == (role == Role::Client);
        message.pair = Some(if asked_by_server { key ^ FROM_SERVER } else { key });
        if is_answer {
            message.kind = Kind::Response;
            message.response_code = Some(i32::from(header.code));
            message.status = status(header.code);
            // An ERROR is one whatever its code says.
            if header.code != 0 {
                message.response_exception = code_name(header.code).to_owned();
            } else if header.base_kind() == 0x81 {
                (message.status, message.response_exception) = (Status::ServerError, "ERROR".to_owned());
            }
            return message;
        }
        message.is_reversed = asked_by_server;
        message.version = "1".into();
        message.request_type = kind_name(header.kind).unwrap_or_default().to_owned();
        message.request_resource = format!("{:#06x}", header.service);
        message.endpoint = format!("{:#06x}/{:#06x}", header.service, header.method);
        if header.base_kind() != 0 {
            (message.kind, message.status) = (Kind::Session, Status::Success);
        }
        if header.is_discovery() {
            message.attributes.push(("sd_entries".to_owned(), self.settings.text(entries(payload).as_bytes())));
        }
        message
    }
}

impl Parser for SomeIp {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, _role: Role, window: &[u8]) -> Option<usize> {
        if self.datagrams {
            return None;
        }
        (0..window.len().saturating_sub(HEADER - 1)).find(|&at| {
            let bytes = window.get(at..).unwrap_or_default();
            match Header::read(bytes) {
                Look::Is(header) if at == 0 || header.is_cookie() => true,
                Look::Is(header) => {
                    let next = usize::try_from(header.total()).ok().and_then(|total| bytes.get(total..));
                    next.is_some_and(|next| next.is_empty() || matches!(Header::read(next), Look::Is(_)))
                }
                Look::Short | Look::Wrong => false,
            }
        })
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.datagrams = ip_protocol == 17;
    }
}

/// `OfferService 0x1234.0x0001 v1, …`: the entries of a discovery message.
fn entries(payload: &[u8]) -> String {
    let mut text = String::new();
    let length = word(payload, 4).unwrap_or(0) as usize;
    let all = payload.get(8..).unwrap_or_default();
    let all = all.get(..length.min(all.len())).unwrap_or_default();
    for entry in all.chunks_exact(16).take(MAX_ENTRIES) {
        let (Some(kind), Some(ids), Some(rest)) = (entry.first(), word(entry, 4), word(entry, 8)) else { break };
        let stops = rest & 0xff_ffff == 0;
        let name = match (kind, stops) {
            (0, _) => "FindService",
            (1, false) => "OfferService",
            (1, true) => "StopOfferService",
            (6, false) => "SubscribeEventgroup",
            (6, true) => "StopSubscribeEventgroup",
            (7, false) => "SubscribeEventgroupAck",
            (7, true) => "SubscribeEventgroupNack",
            _ => "entry",
        };
        if !text.is_empty() {
            text.push_str(", ");
        }
        _ = write!(text, "{name} {:#06x}.{:#06x} v{}", ids >> 16, ids & 0xffff, rest >> 24);
    }
    text
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok()).map(u32::from_be_bytes)
}

/// The header has few marks, so a payload is ours only if it is whole messages from its first byte to its last.
fn check(payload: &[u8], _port: u16) -> Guess {
    let (mut rest, mut writer) = (payload, None);
    loop {
        match Header::read(rest) {
            Look::Is(header) => {
                writer = writer.or((!header.is_cookie()).then(|| header.writer()));
                match usize::try_from(header.total()).ok().and_then(|total| rest.get(total..)) {
                    Some([]) => return Guess::Yes(writer.unwrap_or_else(|| header.writer())),
                    Some(next) => rest = next,
                    None => return Guess::Maybe,
                }
            }
            Look::Short => return Guess::Maybe,
            Look::Wrong => return Guess::No,
        }
    }
}

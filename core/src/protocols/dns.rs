//! DNS over UDP and TCP, and mDNS (RFC 1035, RFC 6891, RFC 6762, RFC 9460).

mod names;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use super::{Guess, Kind, Message, Pairing, Parser, ParserSettings, Protocol, Role, Status, Step};
use names::{rcode_name, type_name};

pub const PROTOCOL: Protocol = Protocol {
    id: 120,
    name: "DNS",
    pairing: Pairing::Id,
    transports: &[17, 6],
    timeout_s: 15,
    check,
    parser: |settings| Box::new(Dns { settings: settings.clone(), framed: None, client: 0, server: 0 }),
    doc: "DNS over UDP and TCP, EDNS, mDNS. The result lists the answer and authority records. NXDOMAIN and FORMERR are \
          errors of the client, every other code above 0 is an error of the server; NXDOMAIN of a name under one of \
          `unconcerned_dns_nxdomain_response_suffixes` is none. A multicast question (mDNS), which anybody or nobody may \
          answer, is a row of its own, and so is an announcement.",
};

const HEADER: usize = 12;
const PORTS: &[u16] = &[53, 5353, 5355];
/// Labels and pointers followed for one name; a legal name has at most 127 labels.
const MAX_HOPS: usize = 128;
const MAX_NAME: usize = 255;
/// Longest question that two bytes without more may announce on any port.
const MAX_ALONE: usize = 512;
/// Records looked at; more make no readable result.
const MAX_RECORDS: u16 = 256;

struct Dns {
    settings: Rc<ParserSettings>,
    /// Are messages preceded by their length (TCP)? `None`: not told, decided by the first message.
    framed: Option<bool>,
    /// The window has to be this long before it is worth another look.
    client: usize,
    server: usize,
}

impl Dns {
    fn step(&mut self, role: Role, window: &[u8], missing: Option<u64>) -> Step {
        let wanted = match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        };
        if window.len() < *wanted && missing.is_none() {
            return Step::NeedMore;
        }
        *wanted = 0;
        let framed = match self.framed {
            Some(framed) => framed,
            None => {
                let framed = !whole(window) && frame(window).is_some_and(|(_, body)| plausible(body, body.len() < 17));
                self.framed = Some(framed);
                framed
            }
        };
        let (body, total) = if framed {
            let Some((total, body)) = frame(window) else {
                return match missing {
                    None => Step::NeedMore,
                    Some(missing) => Step::Skip((window.len() as u64).saturating_add(missing)),
                };
            };
            if window.len() < total && missing.is_none() {
                *wanted = total;
                return Step::NeedMore;
            }
            (body, total as u64)
        } else {
            (window, (window.len() as u64).saturating_add(missing.unwrap_or(0)))
        };
        if framed && total == 2 {
            return Step::Skip(2);
        }
        match read(body, framed, &self.settings) {
            Read::Message(message) => Step::Message { consumed: total, message: Box::new(message) },
            // A datagram ends with the window unless the stream says that bytes are missing; ask once.
            Read::Cut(_) if !framed && missing.is_none() => Step::NeedMore,
            Read::Cut(Some(message)) => Step::Message { consumed: total, message: Box::new(message) },
            Read::Cut(None) | Read::Wrong if framed && missing.is_some() => Step::Skip(total),
            Read::Cut(None) | Read::Wrong => Step::Invalid,
        }
    }
}

impl Parser for Dns {
    fn parse(&mut self, role: Role, window: &[u8]) -> Step {
        self.step(role, window, None)
    }

    fn truncated(&mut self, role: Role, window: &[u8], missing: u64) -> Step {
        self.step(role, window, Some(missing))
    }

    fn resync(&mut self, role: Role, window: &[u8]) -> Option<usize> {
        match role {
            Role::Client => self.client = 0,
            Role::Server => self.server = 0,
        }
        let begins = match self.framed {
            Some(true) => frame(window).is_some_and(|(total, body)| window.len() >= total && plausible(body, false)),
            _ => plausible(window, false),
        };
        begins.then_some(0)
    }

    fn transport(&mut self, ip_protocol: u8) {
        self.framed = Some(ip_protocol == 6);
    }
}

/// Total length of the first message of a TCP stream and what of its body the window holds.
fn frame(window: &[u8]) -> Option<(usize, &[u8])> {
    let length = usize::from(u16_at(window, 0)?);
    Some((length + 2, window.get(2..(length + 2).min(window.len()))?))
}

enum Read {
    Message(Message),
    /// The bytes end before the message does; what can be named.
    Cut(Option<Message>),
    Wrong,
}

/// `framed`: a message of a TCP stream.
fn read(body: &[u8], framed: bool, settings: &ParserSettings) -> Read {
    let Some([id, flags, questions, answers, authorities]) = header(body) else {
        return if body.len() < HEADER { Read::Cut(None) } else { Read::Wrong };
    };
    let (mut at, mut name, mut kind, mut cut) = (HEADER, String::new(), String::new(), false);
    for index in 0..questions.min(MAX_RECORDS) {
        match name_at(body, at) {
            Name::Is(text, end) => {
                let Some(qtype) = u16_at(body, end) else {
                    cut = true;
                    break;
                };
                if index == 0 {
                    (name, kind) = (text, type_name(qtype));
                }
                at = end + 4;
            }
            Name::Cut => {
                cut = true;
                break;
            }
            Name::Wrong => return Read::Wrong,
        }
    }
    if questions > 0 && kind.is_empty() {
        return if cut { Read::Cut(None) } else { Read::Wrong };
    }
    let mut message = Message { request_id: Some(u64::from(id)), ..Message::default() };
    if flags & 0x8000 == 0 {
        // A multicast question (RFC 6762 section 18): id 0, no recursion. Whoever knows answers everybody, or nobody does.
        let multicast = id == 0 && flags & 0x7900 == 0 && !framed;
        message.kind = if multicast { Kind::Session } else { Kind::Request };
        if kind == "A" || kind == "AAAA" {
            message.request_domain.clone_from(&name);
        }
        message.endpoint.clone_from(&name);
        message.request_resource = name;
        message.request_type = kind;
        return if cut { Read::Cut(Some(message)) } else { Read::Message(message) };
    }
    message.kind = Kind::Response;
    let mut result = String::new();
    for _ in 0..answers.saturating_add(authorities).min(MAX_RECORDS) {
        if cut || result.len() >= settings.max_field {
            break;
        }
        match record(body, at) {
            Some((text, end)) => {
                if !result.is_empty() {
                    result.push_str("; ");
                }
                result.push_str(&text);
                at = end;
            }
            None => cut = true,
        }
    }
    message.response_result = settings.text(result.as_bytes());
    let mut code = flags & 15;
    if !cut && let Some((extended, error)) = edns(body, at, u16_at(body, 10).unwrap_or(0)) {
        code |= extended << 4;
        message.attributes.extend(error.map(|text| ("extended_dns_error".to_owned(), settings.text(text.as_bytes()))));
    }
    message.response_code = Some(i32::from(code));
    let unconcerned = |suffix: &String| is_under(&name, suffix);
    message.status = match code {
        0 => Status::Success,
        3 if settings.unconcerned_dns_nxdomain_response_suffixes.iter().any(unconcerned) => Status::Success,
        1 | 3 => Status::ClientError,
        _ => Status::ServerError,
    };
    if message.status != Status::Success {
        message.response_exception = rcode_name(code);
    }
    if cut { Read::Cut(Some(message)) } else { Read::Message(message) }
}

/// Is `name` the domain `suffix` or a name in it?
fn is_under(name: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_matches('.');
    let before = name.len().checked_sub(suffix.len()).filter(|_| !suffix.is_empty());
    before.is_some_and(|at| {
        name.get(at..).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
            && (at == 0 || name.as_bytes().get(at - 1) == Some(&b'.'))
    })
}

/// Of the OPT record (RFC 6891) among so many additional ones from `at`: the high bits of the response code and, if
/// the server explains itself, the extended error (RFC 8914) as `code text`.
fn edns(body: &[u8], mut at: usize, additional: u16) -> Option<(u16, Option<String>)> {
    for _ in 0..additional.min(MAX_RECORDS) {
        let fixed = skip_name(body, at)?;
        let from = fixed + 10;
        at = from + usize::from(u16_at(body, fixed + 8)?);
        if u16_at(body, fixed)? == 41 {
            let mut options = body.get(from..at)?;
            let mut error = None;
            while let (Some(code), Some(length)) = (u16_at(options, 0), u16_at(options, 2)) {
                let Some(data) = options.get(4..4 + usize::from(length)) else {
                    break;
                };
                if code == 15
                    && let (Some(info), Some(text)) = (u16_at(data, 0), data.get(2..))
                {
                    error = Some(format!("{info} {}", printable(text)).trim_end().to_owned());
                }
                options = options.get(4 + usize::from(length)..).unwrap_or_default();
            }
            return Some((u16::from(*body.get(fixed + 4)?), error));
        }
    }
    None
}

/// id, flags, and the counts of questions, answers and authority records.
fn header(body: &[u8]) -> Option<[u16; 5]> {
    body.get(..HEADER)?;
    Some([u16_at(body, 0)?, u16_at(body, 2)?, u16_at(body, 4)?, u16_at(body, 6)?, u16_at(body, 8)?])
}

/// `TYPE=data TTL=seconds` and the offset behind the record.
fn record(body: &[u8], at: usize) -> Option<(String, usize)> {
    let fixed = skip_name(body, at)?;
    let kind = u16_at(body, fixed)?;
    let ttl = u32::from(u16_at(body, fixed + 4)?) << 16 | u32::from(u16_at(body, fixed + 6)?);
    let from = fixed + 10;
    let end = from + usize::from(u16_at(body, fixed + 8)?);
    let data = body.get(from..end)?;
    let mut text = type_name(kind);
    text.push('=');
    match rdata(kind, body, from, data) {
        Some(value) => text.push_str(&value),
        None => _ = write!(text, "({} bytes)", data.len()),
    }
    _ = write!(text, " TTL={ttl}");
    Some((text, end))
}

fn rdata(kind: u16, body: &[u8], from: usize, data: &[u8]) -> Option<String> {
    let name = |at: usize| match name_at(body, at) {
        Name::Is(text, _) if text.is_empty() => Some(".".to_owned()),
        Name::Is(text, _) => Some(text),
        Name::Cut | Name::Wrong => None,
    };
    Some(match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        28 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        2 | 5 | 6 | 12 | 39 => name(from)?,
        15 => format!("{} {}", u16_at(data, 0)?, name(from + 2)?),
        33 => format!("{} {} {} {}", u16_at(data, 0)?, u16_at(data, 2)?, u16_at(data, 4)?, name(from + 6)?),
        64 | 65 => format!("{} {}", u16_at(data, 0)?, name(from + 2)?),
        16 | 99 | 13 => strings(data).join(" "),
        35 => {
            // Flags, service and regular expression, then the replacement.
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + usize::from(*data.get(at)?);
            }
            let texts = strings(data.get(4..at)?).join(" ");
            format!("{} {} {texts} {}", u16_at(data, 0)?, u16_at(data, 2)?, name(from + at)?)
        }
        257 => {
            let tag = usize::from(*data.get(1)?) + 2;
            format!("{} {} {}", data.first()?, printable(data.get(2..tag)?), printable(data.get(tag..)?))
        }
        _ => return None,
    })
}

/// Character strings (RFC 1035 section 3.3), as many as there are whole.
fn strings(mut data: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let Some(text) = rest.get(..usize::from(length)) else {
            break;
        };
        if !text.is_empty() {
            found.push(printable(text));
        }
        data = rest.get(usize::from(length)..).unwrap_or_default();
    }
    found
}

fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => _ = write!(text, "\\{byte:03}"),
        }
    }
    text
}

enum Name {
    /// The name without its last dot, and the offset behind it.
    Is(String, usize),
    Cut,
    Wrong,
}

/// A name that may be compressed (RFC 1035 section 4.1.4); a pointer has to point backwards.
fn name_at(body: &[u8], start: usize) -> Name {
    let (mut at, mut end, mut text) = (start, None, String::new());
    let (mut wire, mut lowest) = (0usize, start);
    for _ in 0..MAX_HOPS {
        let Some(&length) = body.get(at) else {
            return Name::Cut;
        };
        match length {
            0 => return Name::Is(text, end.unwrap_or(at + 1)),
            1..=63 => {
                let Some(label) = body.get(at + 1..at + 1 + usize::from(length)) else {
                    return Name::Cut;
                };
                wire += label.len() + 1;
                if wire > MAX_NAME {
                    return Name::Wrong;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&printable(label));
                at += 1 + usize::from(length);
            }
            192.. => {
                let Some(pointer) = u16_at(body, at) else {
                    return Name::Cut;
                };
                let target = usize::from(pointer & 0x3fff);
                end = end.or(Some(at + 2));
                if target >= lowest {
                    return Name::Wrong;
                }
                (at, lowest) = (target, target);
            }
            _ => return Name::Wrong,
        }
    }
    Name::Wrong
}

/// Offset behind a name, which is not looked into.
fn skip_name(body: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MAX_HOPS {
        match *body.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
    None
}

/// Header and first question of a message make sense; `short`: be content with the header.
fn plausible(body: &[u8], short: bool) -> bool {
    let Some([_, flags, questions, answers, authorities]) = header(body) else {
        return false;
    };
    let response = flags & 0x8000 != 0;
    let opcode = flags >> 11 & 15;
    let sane = matches!(opcode, 0 | 2 | 4 | 5) && flags & 0x40 == 0 && flags & 15 <= 11 && questions <= 32;
    let counts = if response { answers <= 512 && authorities <= 512 } else { questions > 0 && flags & 15 == 0 };
    if !sane || !counts || short {
        return sane && counts;
    }
    if questions == 0 {
        return response && answers > 0 && record(body, HEADER).is_some();
    }
    match name_at(body, HEADER) {
        Name::Is(_, end) => {
            let class = u16_at(body, end + 2).unwrap_or(0) & 0x7fff;
            u16_at(body, end).is_some_and(|kind| kind != 0) && matches!(class, 1 | 3 | 4 | 254 | 255)
        }
        Name::Cut | Name::Wrong => false,
    }
}

/// Do the counted records end exactly where the bytes do?
fn whole(body: &[u8]) -> bool {
    if !plausible(body, false) {
        return false;
    }
    let Some([_, _, questions, answers, authorities]) = header(body) else {
        return false;
    };
    let additional = u16_at(body, 10).unwrap_or(0);
    let mut at = HEADER;
    for _ in 0..questions {
        let Some(end) = skip_name(body, at) else {
            return false;
        };
        at = end + 4;
    }
    for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additional) {
        let Some(fixed) = skip_name(body, at) else {
            return false;
        };
        let Some(length) = u16_at(body, fixed + 8) else {
            return false;
        };
        at = fixed + 10 + usize::from(length);
    }
    at == body.len()
}

fn check(payload: &[u8], port: u16) -> Guess {
    let yes = |body: &[u8]| match u16_at(body, 2) {
        Some(flags) if flags & 0x8000 != 0 => Guess::Yes(Role::Server),
        _ => Guess::Yes(Role::Client),
    };
    let ours = PORTS.contains(&port);
    if whole(payload) || ours && plausible(payload, false) {
        return yes(payload);
    }
    let Some((total, body)) = frame(payload) else {
        return if ours || matches!(payload, [0 | 1]) { Guess::Maybe } else { Guess::No };
    };
    if total == payload.len() && whole(body) || ours && total > HEADER + 2 && plausible(body, false) {
        return yes(body);
    }
    // Servers read the length alone first, some byte by byte.
    let length_alone = payload.len() == 2 && (HEADER + 5..=MAX_ALONE).contains(&total);
    if length_alone || ours && payload.len() < HEADER + 2 && total > HEADER { Guess::Maybe } else { Guess::No }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_a_suffix_may_be_missing() {
        for (name, suffix, expected) in [
            ("a.svc.cluster.local", "svc.cluster.local", true),
            ("a.SVC.cluster.local", ".svc.cluster.local.", true),
            ("node.net", "node.net", true),
            ("anode.net", "node.net", false),
            ("net", "node.net", false),
            ("a.net", "", false),
        ] {
            assert_eq!(is_under(name, suffix), expected, "{name} {suffix}");
        }
        let mut response = vec![0, 1, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 4, b'n', b'o', b'd', b'e', 0];
        response.extend([0, 1, 0, 1]);
        let status = |suffixes: &[&str]| {
            let unconcerned_dns_nxdomain_response_suffixes = suffixes.iter().map(ToString::to_string).collect();
            let settings = ParserSettings { unconcerned_dns_nxdomain_response_suffixes, ..ParserSettings::default() };
            match read(&response, false, &settings) {
                Read::Message(message) => (message.status, message.response_code, message.response_exception),
                Read::Cut(_) | Read::Wrong => panic!("no message"),
            }
        };
        assert_eq!(status(&["node"]), (Status::Success, Some(3), String::new()));
        assert_eq!(status(&["other"]), (Status::ClientError, Some(3), "NXDOMAIN".to_owned()));
    }
}

//! ClientHello and ServerHello (RFC 8446 section 4.1, RFC 5246 section 7.4.1, RFC 6066, RFC 7301).

use crate::protocols::clip;

/// A ServerHello with this random asks for another ClientHello (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const MAX_NAME: usize = 255;
/// Extensions and ALPN names looked at.
const MAX_EXTENSIONS: usize = 64;
const MAX_ALPN: usize = 16;

/// What a ClientHello offers. Of one that is cut, what could be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    pub server_name: String,
    pub alpn: String,
}

/// What the server chose.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    pub version: u16,
    pub cipher_suite: Option<u16>,
    pub alpn: String,
    /// It asks for another ClientHello.
    pub retry: bool,
}

impl ServerHello {
    /// What follows is encrypted.
    pub fn is_1_3(&self) -> bool {
        self.version >= 0x0304
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The bytes behind a length of one byte or of two; they may be cut.
fn behind(bytes: &[u8], at: usize, wide: bool) -> Option<(usize, usize)> {
    let (length, from) =
        if wide { (usize::from(u16_at(bytes, at)?), at + 2) } else { (usize::from(*bytes.get(at)?), at + 1) };
    Some((from, from + length))
}

/// Calls `each` for every extension whose body is whole.
fn extensions(bytes: &[u8], at: usize, each: &mut dyn FnMut(u16, &[u8])) {
    let Some((mut at, end)) = behind(bytes, at, true) else {
        return;
    };
    for _ in 0..MAX_EXTENSIONS {
        let (Some(kind), Some((from, past))) = (u16_at(bytes, at), behind(bytes, at + 2, true)) else {
            return;
        };
        let Some(body) = bytes.get(from..past).filter(|_| past <= end) else {
            return;
        };
        each(kind, body);
        at = past;
    }
}

/// Names of a ProtocolNameList, separated by commas.
fn alpn(body: &[u8]) -> String {
    let mut names = String::new();
    let mut at = 2;
    for _ in 0..MAX_ALPN {
        let Some(name) = behind(body, at, false).and_then(|(from, past)| body.get(from..past)) else {
            break;
        };
        at += 1 + name.len();
        // Greased names (RFC 8701) are two bytes that are no text.
        if name.iter().all(u8::is_ascii_graphic) {
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(&clip(name, MAX_NAME));
        }
    }
    names
}

/// The body of a ClientHello, behind the handshake header; `None` when it is none.
pub fn client(body: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    if body.first().is_some_and(|&major| major != 3) {
        return None;
    }
    // Session id, cipher suites, compression methods.
    let fields = behind(body, 34, false).and_then(|(_, at)| behind(body, at, true));
    let Some((_, at)) = fields.and_then(|(_, at)| behind(body, at, false)) else {
        return Some(hello);
    };
    extensions(body, at, &mut |kind, body| match kind {
        SERVER_NAME => {
            // A list of one: type 0 (host name) and the name.
            if let Some((from, past)) = behind(body, 3, true).filter(|_| body.get(2) == Some(&0)) {
                hello.server_name = clip(body.get(from..past).unwrap_or_default(), MAX_NAME);
            }
        }
        ALPN => hello.alpn = alpn(body),
        _ => {}
    });
    Some(hello)
}

/// The body of a ServerHello or HelloRetryRequest, behind the handshake header; `None` when it is none.
pub fn server(body: &[u8]) -> Option<ServerHello> {
    let version = u16_at(body, 0)?;
    if !matches!(version >> 8, 3 | 0x7f) {
        return None;
    }
    let mut hello = ServerHello { version, retry: body.get(2..34) == Some(&RETRY[..]), ..ServerHello::default() };
    // Drafts of 1.3 before the 22nd had neither a session id nor a compression method here.
    let early = (0x7f00..0x7f16).contains(&version);
    let suite = if early { Some(34) } else { behind(body, 34, false).map(|(_, past)| past) };
    let Some(suite) = suite else {
        return Some(hello);
    };
    hello.cipher_suite = u16_at(body, suite);
    extensions(body, suite + if early { 2 } else { 3 }, &mut |kind, body| match kind {
        SUPPORTED_VERSIONS => hello.version = u16_at(body, 0).unwrap_or(version),
        ALPN => hello.alpn = alpn(body),
        _ => {}
    });
    Some(hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_hello_is_read_without_harm() {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, 34]);
        body.extend([0, 0, 0, 14, 0, 12, 0, 0, 9, b'a', b'.', b'e', b'x', b'a', b'm', b'p', b'l', b'e']);
        body.extend([0, 16, 0, 12, 0, 10, 2, 0xfa, 0xfa, 2, b'h', b'2', 3, b'x', b'/', b'1']);
        let whole = client(&body).expect("a hello");
        assert_eq!((whole.server_name.as_str(), whole.alpn.as_str()), ("a.example", "h2,x/1"));
        for end in 0..body.len() {
            let cut = client(&body[..end]).expect("a cut hello");
            assert!(cut.alpn.is_empty() && (cut.server_name.is_empty() || cut.server_name == whole.server_name));
        }
        assert_eq!(client(&[4]), None);
    }
}

//! Greeting and login (Protocol::HandshakeV10, Protocol::HandshakeResponse41 and 320).

use super::value::{Reader, u32_at};

const CONNECT_WITH_DB: u64 = 1 << 3;
const PROTOCOL_41: u64 = 1 << 9;
const SSL: u64 = 1 << 11;
const SECURE_CONNECTION: u64 = 1 << 15;
const PLUGIN_AUTH_LENENC: u64 = 1 << 21;

/// Protocol version of a greeting, `None` when it is none.
pub fn greeting(body: &[u8]) -> Option<&'static str> {
    let version = match body.first()? {
        10 => "10",
        9 => "9",
        _ => return None,
    };
    let text = body.get(1..)?;
    let end = memchr::memchr(0, text.get(..96).unwrap_or(text))?;
    let text = text.get(..end)?;
    let sane = text.first()?.is_ascii_digit() && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    sane.then_some(version)
}

pub struct Login<'a> {
    pub capabilities: u64,
    pub tls: bool,
    pub user: &'a [u8],
    pub database: &'a [u8],
}

pub fn read(body: &[u8]) -> Option<Login<'_>> {
    let low = u64::from(u32_at(body, 0)?);
    if low & PROTOCOL_41 == 0 {
        let capabilities = low & 0xffff;
        let mut reader = Reader::new(body.get(5..)?);
        return Some(Login {
            capabilities,
            tls: capabilities & SSL != 0 && body.len() <= 5,
            user: reader.until_nul(),
            database: b"",
        });
    }
    let mut reader = Reader::new(body.get(32..).unwrap_or_default());
    let user = reader.until_nul();
    if low & PLUGIN_AUTH_LENENC != 0 {
        let length = reader.length();
        reader.take(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
    } else if low & SECURE_CONNECTION != 0 {
        let length = reader.u8().unwrap_or(0);
        reader.take(usize::from(length));
    } else {
        reader.until_nul();
    }
    let database = if low & CONNECT_WITH_DB != 0 { reader.until_nul() } else { b"" };
    Some(Login { capabilities: low, tls: low & SSL != 0, user, database })
}

/// A login of protocol 4.1: sane capabilities, packet size and the filler of zeros.
pub fn plausible(body: &[u8]) -> bool {
    let (Some(capabilities), Some(largest), Some(filler)) = (u32_at(body, 0), u32_at(body, 4), body.get(9..28)) else {
        return false;
    };
    u64::from(capabilities) & PROTOCOL_41 != 0
        && largest <= 1 << 30
        && filler.iter().all(|&byte| byte == 0)
        && (body.len() == 32 || body.get(32..).is_some_and(|rest| memchr::memchr(0, rest).is_some()))
}

//! How a statement ended: rows of a command tag, fields of an error.

use super::Strings;
use crate::protocols::{ParserSettings, Status};

/// `SQLSTATE condition_name`, a line each (PostgreSQL documentation, appendix "PostgreSQL Error Codes").
const CONDITIONS: &str = include_str!("conditions.txt");

/// Classes of SQLSTATE that the statement is to blame for; all others are the server's.
const CLIENT: &[&str] = &["03", "0A", "0B", "0F", "0L", "0P", "20", "22", "23", "26", "2F", "34", "3D", "3F", "42"];

/// The number of rows at the end of a command tag (`INSERT 0 1`, `SELECT 4`).
pub fn rows(tag: &[u8]) -> Option<u64> {
    let tag = std::str::from_utf8(Strings(tag).next()).ok()?;
    let (command, number) = tag.rsplit_once(' ')?;
    command.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b' ' || byte.is_ascii_digit()).then_some(())?;
    number.parse().ok()
}

/// Status, SQLSTATE and name of the condition; the message where the condition has no name.
pub fn error(body: &[u8], settings: &ParserSettings) -> (Status, String, String) {
    let (mut code, mut text) = ("", &b""[..]);
    let mut rest = body;
    while let Some((&kind, field)) = rest.split_first() {
        if kind == 0 {
            break;
        }
        let mut strings = Strings(field);
        let value = strings.next();
        match kind {
            b'C' => code = std::str::from_utf8(value).ok().filter(|code| code.len() == 5).unwrap_or_default(),
            b'M' => text = value,
            _ => {}
        }
        rest = strings.0;
    }
    let class = code.get(..2).unwrap_or_default();
    let status = if CLIENT.contains(&class) { Status::ClientError } else { Status::ServerError };
    let condition = condition(code).map_or_else(|| settings.text(text), str::to_owned);
    (status, code.to_owned(), condition)
}

fn condition(code: &str) -> Option<&'static str> {
    CONDITIONS.lines().find_map(|line| line.strip_prefix(code)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_count_rows() {
        for (tag, expected) in [
            (&b"INSERT 0 1\0"[..], Some(1)),
            (b"SELECT 12\0", Some(12)),
            (b"COPY 5\0", Some(5)),
            (b"CREATE TABLE\0", None),
            (b"BEGIN\0", None),
            (b"\xff 1\0", None),
        ] {
            assert_eq!(rows(tag), expected);
        }
    }

    #[test]
    fn errors_have_the_class_of_their_state() {
        let settings = ParserSettings::default();
        for (body, expected) in [
            (&b"SERROR\0C42601\0Msyntax error\0\0"[..], (Status::ClientError, "42601", "syntax_error")),
            (b"SFATAL\0C53300\0Mtoo many\0\0", (Status::ServerError, "53300", "too_many_connections")),
            (b"SERROR\0C99XYZ\0Munheard of\0\0", (Status::ServerError, "99XYZ", "unheard of")),
            (b"SERROR\0C426", (Status::ServerError, "", "")),
        ] {
            let (status, code, condition) = error(body, &settings);
            assert_eq!((status, code.as_str(), condition.as_str()), expected);
        }
    }
}

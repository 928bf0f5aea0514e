//! A control line: its verb and arguments.

use crate::protocols::Role;

/// What a control line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Info = 1,
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Msg,
    Hmsg,
    Ping,
    Pong,
    Ok,
    Err,
}

impl Verb {
    /// The verb of a word that this side may say; case does not count.
    pub fn read(word: &[u8], role: Role) -> Option<Self> {
        let known: &[Self] = match role {
            Role::Client => &[Self::Pub, Self::Hpub, Self::Sub, Self::Unsub, Self::Ping, Self::Pong, Self::Connect],
            Role::Server => &[Self::Msg, Self::Hmsg, Self::Ok, Self::Ping, Self::Pong, Self::Err, Self::Info],
        };
        known.iter().copied().find(|verb| verb.name().as_bytes().eq_ignore_ascii_case(word))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Connect => "CONNECT",
            Self::Pub => "PUB",
            Self::Hpub => "HPUB",
            Self::Sub => "SUB",
            Self::Unsub => "UNSUB",
            Self::Msg => "MSG",
            Self::Hmsg => "HMSG",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Ok => "+OK",
            Self::Err => "-ERR",
        }
    }
}

/// A control line, read.
#[derive(Debug)]
pub struct Line<'a> {
    pub verb: Verb,
    pub subject: &'a [u8],
    pub reply_to: &'a [u8],
    pub queue_group: &'a [u8],
    /// Bytes of the headers, and of headers and payload together.
    pub headers: Option<usize>,
    pub payload: Option<usize>,
    /// What follows the verb, whole.
    pub rest: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line that this side wrote, without its end of line.
    pub fn read(line: &'a [u8], role: Role) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let end = line.iter().position(blank).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let verb = Verb::read(word, role)?;
        let rest = rest.trim_ascii();
        let mut read = Self { verb, subject: b"", reply_to: b"", queue_group: b"", headers: None, payload: None, rest };
        let mut words: [&[u8]; 6] = [b""; 6];
        let mut count = 0;
        if !matches!(verb, Verb::Info | Verb::Connect | Verb::Err) {
            for word in rest.split(blank).filter(|word| !word.is_empty()) {
                *words.get_mut(count)? = word;
                count += 1;
            }
        }
        let words = words.get(..count)?;
        match (verb, words) {
            (Verb::Info | Verb::Connect, _) if rest.first() == Some(&b'{') => {}
            (Verb::Err, _) | (Verb::Ping | Verb::Pong | Verb::Ok, []) => {}
            (Verb::Sub, [subject, _sid]) => read.subject = subject,
            (Verb::Sub, [subject, group, _sid]) => (read.subject, read.queue_group) = (subject, group),
            (Verb::Unsub, [_sid]) => {}
            (Verb::Unsub, [_sid, most]) => drop(number(most)?),
            (Verb::Pub, [subject, size]) | (Verb::Msg, [subject, _, size]) => {
                read.subject = subject;
                read.payload = Some(number(size)?);
            }
            (Verb::Pub, [subject, reply, size]) | (Verb::Msg, [subject, _, reply, size]) => {
                (read.subject, read.reply_to) = (subject, reply);
                read.payload = Some(number(size)?);
            }
            (Verb::Hpub, [subject, headers, size]) | (Verb::Hmsg, [subject, _, headers, size]) => {
                read.subject = subject;
                read.sizes(headers, size)?;
            }
            (Verb::Hpub, [subject, reply, headers, size]) | (Verb::Hmsg, [subject, _, reply, headers, size]) => {
                (read.subject, read.reply_to) = (subject, reply);
                read.sizes(headers, size)?;
            }
            _ => return None,
        }
        read.subject.iter().all(textual).then_some(read)
    }

    fn sizes(&mut self, headers: &[u8], size: &[u8]) -> Option<()> {
        let (headers, size) = (number(headers)?, number(size)?);
        (self.headers, self.payload) = (Some(headers), Some(size));
        (headers <= size).then_some(())
    }
}

/// Subjects are UTF-8 without blanks.
fn textual(byte: &u8) -> bool {
    !byte.is_ascii_control()
}

/// The server takes no more than nine digits (a payload has at most 64 MiB).
fn number(digits: &[u8]) -> Option<usize> {
    if digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

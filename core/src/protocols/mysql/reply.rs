//! What the server says: greeting, responses, rows.

use super::command;
use super::login;
use super::value::Reader;
use super::{COMPRESS, CURSOR_EXISTS, FULL, MORE_RESULTS, Mysql, Packet, Phase, Reply, ZSTD_COMPRESSION};
use crate::protocols::{Kind, Message, Status, Step, sql};

impl Mysql {
    pub fn server(&mut self, packet: &Packet) -> Step {
        let skip = Step::Skip(packet.total());
        let first = packet.body.first().copied();
        if packet.sequence == 0
            && self.phase != Phase::Authenticating
            && let Some(version) = login::greeting(packet.body)
        {
            self.version = version;
            self.phase = Phase::Greeted;
            self.decided = true;
            self.reply = Reply::Done;
            self.pending.clear();
            return skip;
        }
        if self.phase == Phase::Authenticating {
            return match first {
                Some(0 | 0xff) => {
                    if first == Some(0) {
                        self.phase = Phase::Command;
                        if self.capabilities.is_some_and(|c| c & (COMPRESS | ZSTD_COMPRESSION) != 0) {
                            self.compressed = Some(Box::default());
                        }
                    }
                    self.response(packet)
                }
                _ => skip,
            };
        }
        let awaited = !self.pending.is_empty();
        let continues = packet.sequence == self.expected && (packet.sequence != 1 || self.reply != Reply::Done);
        let begins = packet.sequence == 1 && !continues
            || awaited && self.reply == Reply::Done && !continues
            || packet.sequence == 0 && first == Some(0xff);
        self.expected = packet.sequence.wrapping_add(1);
        if begins {
            return self.response(packet);
        }
        // The end of LOAD DATA LOCAL, or what goes on of a result.
        if self.reply == Reply::Done && awaited && matches!(first, Some(0 | 0xff)) {
            return self.response(packet);
        }
        self.follow(packet);
        skip
    }

    /// The first packet of a response.
    fn response(&mut self, packet: &Packet) -> Step {
        self.expected = packet.sequence.wrapping_add(1);
        if packet.body.first() == Some(&0xfb) && self.pending.front().is_some_and(|p| p.command == command::QUERY) {
            self.file = true;
            self.reply = Reply::Done;
            return Step::Skip(packet.total());
        }
        // MariaDB tells the progress of a long command in the form of an error.
        if packet.body.starts_with(&[0xff, 0xff, 0xff]) {
            return Step::Skip(packet.total());
        }
        let pending = self.pending.pop_front();
        let command = pending.as_ref().map_or(command::QUERY, |pending| pending.command);
        let mut message = Message {
            kind: Kind::Response,
            status: Status::Success,
            version: self.version.into(),
            ..Message::default()
        };
        self.reply = Reply::Done;
        let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
        match packet.body.first() {
            Some(0xff) => {
                let code = reader.u16().unwrap_or(0);
                let text = reader.rest();
                // `#` and five characters of SQLSTATE come first since protocol 4.1.
                let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
                message.response_code = Some(i32::from(code));
                message.status = match code {
                    2000..3000 => Status::ClientError,
                    _ => Status::ServerError,
                };
                let text = self.settings.text(text);
                message.response_exception = if self.masked { sql::mask_error(&text) } else { text };
            }
            Some(0) if command == command::STMT_PREPARE => {
                if let (Some(id), Some(_columns), Some(parameters)) = (reader.u32(), reader.u16(), reader.u16()) {
                    message.request_id = Some(u64::from(id));
                    self.statements.prepared(id, pending.map(|p| p.text).unwrap_or_default(), parameters);
                }
            }
            Some(0) if packet.length < FULL && command != command::STMT_FETCH => {
                let rows = reader.length();
                if pending.is_some_and(|pending| pending.counts_rows) {
                    message.sql_affected_rows = rows;
                }
                reader.length();
                if reader.u16().is_some_and(|status| status & MORE_RESULTS != 0) {
                    self.reply = Reply::Head;
                }
            }
            _ if matches!(command, command::STMT_FETCH | command::FIELD_LIST | 0x12 | 0x1e) => {
                self.reply = Reply::Rows;
                self.rows(packet);
            }
            _ if command == command::STATISTICS => {}
            _ => self.head(packet),
        }
        Step::Message { consumed: packet.total(), message: Box::new(message) }
    }

    /// The first packet of a result: what follows it?
    fn head(&mut self, packet: &Packet) {
        self.reply = match packet.body.first() {
            Some(0) => {
                let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
                reader.length();
                reader.length();
                match reader.u16() {
                    Some(status) if status & MORE_RESULTS != 0 => Reply::Head,
                    _ => Reply::Done,
                }
            }
            None | Some(0xff | 0xfe) => Reply::Done,
            _ => {
                let mut reader = Reader::new(packet.body);
                match reader.length() {
                    // MariaDB may leave the definitions out (metadata caching).
                    Some(_) if reader.rest() == [0] => Reply::AfterDefinitions,
                    Some(count) => Reply::Definitions(count),
                    None => Reply::Done,
                }
            }
        };
    }

    /// A packet inside a response.
    fn follow(&mut self, packet: &Packet) {
        match self.reply {
            Reply::Done => {}
            Reply::Head => self.head(packet),
            Reply::Definitions(left) => {
                self.reply = if left > 1 { Reply::Definitions(left - 1) } else { Reply::AfterDefinitions };
            }
            Reply::AfterDefinitions if packet.length == 5 && packet.body.first() == Some(&0xfe) => {
                let status = Reader::new(packet.body.get(3..).unwrap_or_default()).u16().unwrap_or(0);
                self.reply = if status & CURSOR_EXISTS != 0 { Reply::Done } else { Reply::Rows };
            }
            Reply::AfterDefinitions | Reply::Rows => {
                self.reply = Reply::Rows;
                self.rows(packet);
            }
        }
    }

    /// Ends the result at EOF (5 bytes), at the OK that replaces it, or at an error.
    fn rows(&mut self, packet: &Packet) {
        let mut reader = Reader::new(packet.body.get(1..).unwrap_or_default());
        let status = match packet.body.first() {
            Some(0xff) => Some(0),
            Some(0xfe) if packet.length == 5 => {
                reader.u16();
                Some(reader.u16().unwrap_or(0))
            }
            Some(0xfe) if packet.length < FULL => {
                reader.length();
                reader.length();
                Some(reader.u16().unwrap_or(0))
            }
            _ => None,
        };
        if let Some(status) = status {
            self.reply = if status & MORE_RESULTS != 0 { Reply::Head } else { Reply::Done };
        }
    }
}

//! What the server says: completions and errors, and the requests that they answer.

use std::collections::VecDeque;

use super::{Awaited, Postgresql, Several, Unit, outcome};
use crate::protocols::{Kind, Message, Role, Status, Step};

impl Postgresql {
    pub fn server(&mut self, letter: u8, body: &[u8], total: u64) -> Step {
        match letter {
            // Not part of a response: authentication, parameters, notices, and the invitation to send a file.
            b'R' | b'S' | b'K' | b'A' | b'N' | b'v' | b'W' => return Step::Skip(total),
            b'G' => {
                // While it copies, the server passes over a Sync that came with the Execute.
                while matches!(self.awaited.get(1), Some(Awaited::Sync)) {
                    self.awaited.remove(1);
                }
                return Step::Skip(total);
            }
            b'Z' => return self.ready(total),
            _ => {}
        }
        if !matches!(self.awaited.front(), Some(Awaited::Sync)) {
            self.began.get_or_insert(self.origin);
        }
        match letter {
            b'1' => {
                if let Some(Awaited::Unit(Unit { only_parse: true, .. })) = self.awaited.front() {
                    return self.complete(total);
                }
            }
            b'C' | b'I' | b's' => {
                if letter == b'C'
                    && let Some(rows) = outcome::rows(body)
                {
                    self.rows = Some(self.rows.unwrap_or(0).saturating_add(rows));
                }
                match self.awaited.front() {
                    Some(Awaited::Unit(_)) => return self.complete(total),
                    Some(Awaited::Sync) => self.rows = None,
                    Some(Awaited::Query) | None => self.completed = true,
                }
            }
            b'V' => self.completed = true,
            b'E' => return self.error(body, total),
            _ => {}
        }
        Step::Skip(total)
    }

    /// The response to the oldest unit is whole.
    fn complete(&mut self, total: u64) -> Step {
        self.awaited.pop_front();
        Step::Message { consumed: total, message: Box::new(self.response()) }
    }

    fn response(&mut self) -> Message {
        Message {
            kind: Kind::Response,
            status: Status::Success,
            began: self.began.take(),
            sql_affected_rows: self.rows.take(),
            ..Message::default()
        }
    }

    /// What an error before it kept from being executed.
    fn skipped(&self, status: Status, code: &str) -> Message {
        Message {
            kind: Kind::Response,
            status,
            response_result: code.to_owned(),
            response_exception: "skipped after an error in the same pipeline".to_owned(),
            ..Message::default()
        }
    }

    fn error(&mut self, body: &[u8], total: u64) -> Step {
        let (status, code, condition) = outcome::error(body, &self.settings);
        let mut message = self.response();
        message.status = status;
        message.response_exception = condition;
        message.response_result.clone_from(&code);
        message.sql_affected_rows = None;
        self.failed = Some((status, code.clone()));
        self.completed = false;
        match self.awaited.front_mut() {
            Some(Awaited::Sync) => return Step::Skip(total),
            Some(query @ Awaited::Query) => *query = Awaited::Sync,
            Some(Awaited::Unit(_)) => {
                self.awaited.pop_front();
            }
            None => {}
        }
        let mut messages = VecDeque::from([message]);
        while let Some(Awaited::Unit(_)) = self.awaited.front() {
            self.awaited.pop_front();
            messages.push_back(self.skipped(status, &code));
        }
        self.answer(messages, total)
    }

    /// ReadyForQuery: whatever the group still waits for is answered.
    fn ready(&mut self, total: u64) -> Step {
        let mut messages = VecDeque::new();
        let failed = self.failed.take();
        loop {
            match self.awaited.pop_front() {
                Some(Awaited::Unit(_)) => messages.push_back(match &failed {
                    Some((status, code)) => self.skipped(*status, code),
                    None => self.response(),
                }),
                Some(Awaited::Query) => {
                    messages.push_back(self.response());
                    break;
                }
                Some(Awaited::Sync) => break,
                None => {
                    if self.completed {
                        messages.push_back(self.response());
                    }
                    break;
                }
            }
        }
        self.began = None;
        self.rows = None;
        self.completed = false;
        if messages.is_empty() {
            return Step::Skip(total);
        }
        self.answer(messages, total)
    }

    fn answer(&mut self, mut messages: VecDeque<Message>, total: u64) -> Step {
        messages.truncate(usize::try_from(total).unwrap_or(usize::MAX));
        self.several = Several { left: total, messages };
        self.step(Role::Server, &[], None)
    }
}

//! Tokens of a response.

use super::request::Reader;

const RETURN_STATUS: u8 = 0x79;
const COLUMNS: u8 = 0x81;
const ERROR: u8 = 0xaa;
const RETURN_VALUE: u8 = 0xac;
const DONE: u8 = 0xfd;
const DONE_IN_PROCEDURE: u8 = 0xff;

/// Bits of the status of a DONE token.
const DONE_ERROR: u16 = 2;
const DONE_COUNT: u16 = 0x10;
const DONE_ATTENTION: u16 = 0x20;

/// Token, status, current command, number of rows (8 bytes since protocol 7.2).
const DONE_LENGTH: usize = 13;
const RETURN_STATUS_LENGTH: usize = 5;

pub struct Failure {
    pub number: i32,
    /// Severity, 11 to 25.
    pub class: u8,
    /// UTF-16.
    pub text: Vec<u8>,
}

/// What a response says besides its rows.
#[derive(Default)]
pub struct Outcome {
    pub rows: Option<u64>,
    pub error: Option<Failure>,
    /// A DONE token speaks of an error.
    pub failed: bool,
    /// Answers a wish to cancel.
    pub acknowledged: bool,
    /// Handle of a statement that was prepared.
    pub handle: Option<i32>,
    /// The tokens were read to the end of the message.
    whole: bool,
}

impl Outcome {
    /// Reads the tokens up to the first that describes columns.
    pub fn of_beginning(body: &[u8], last: bool) -> Self {
        let mut outcome = Self::default();
        let mut reader = Reader(body);
        while !reader.0.is_empty() {
            if outcome.token(&mut reader).is_none() {
                return outcome;
            }
        }
        outcome.whole = last;
        outcome
    }

    fn token(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let kind = reader.u8()?;
        match kind {
            DONE..=DONE_IN_PROCEDURE => {
                let (status, _, rows) = (reader.u16()?, reader.u16()?, reader.u64()?);
                self.done(status, rows);
            }
            RETURN_STATUS => {
                reader.take(4)?;
            }
            // Rows follow: nothing says how long they are.
            COLUMNS => return None,
            RETURN_VALUE => self.returned(reader)?,
            // Features: pairs up to a terminator.
            0xae => loop {
                if reader.u8()? == 0xff {
                    break;
                }
                let length = reader.u32()? as usize;
                reader.take(length)?;
            },
            0xe4 => {
                let length = reader.u32()? as usize;
                reader.take(length)?;
            }
            0xa4 | 0xa5 | 0xa9 | 0xaa | 0xab | 0xad | 0xe3 | 0xed => {
                let length = usize::from(reader.u16()?);
                let body = reader.take(length)?;
                if kind == ERROR && self.error.is_none() {
                    self.error = failure(body);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn done(&mut self, status: u16, rows: u64) {
        self.failed |= status & DONE_ERROR != 0;
        self.acknowledged |= status & DONE_ATTENTION != 0;
        if status & DONE_COUNT != 0 && rows < 1 << 48 {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(rows));
        }
    }

    /// An output parameter: a whole number is the handle of a statement.
    fn returned(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        reader.u16()?;
        let name = reader.u8()?;
        reader.take(2 * usize::from(name))?;
        reader.u8()?;
        reader.u32()?;
        reader.u16()?;
        if reader.u8()? != 0x26 {
            return None;
        }
        reader.u8()?;
        let length = usize::from(reader.u8()?);
        let value = reader.take(length)?;
        self.handle = self.handle.or(value.first_chunk().map(|four| i32::from_le_bytes(*four)));
        Some(())
    }

    /// Reads the tokens that the message ends with.
    pub fn add_end(&mut self, body: &[u8]) {
        if self.whole {
            return;
        }
        let Some(done) = body.len().checked_sub(DONE_LENGTH) else {
            return;
        };
        let mut reader = Reader(body.get(done..).unwrap_or_default());
        if !matches!(reader.u8(), Some(DONE..=DONE_IN_PROCEDURE)) {
            return;
        }
        let (Some(status), Some(_), Some(rows)) = (reader.u16(), reader.u16(), reader.u64()) else {
            return;
        };
        self.done(status, rows);
        // A procedure counts the rows of its statements before its own end.
        let inner = done.checked_sub(RETURN_STATUS_LENGTH + DONE_LENGTH).and_then(|at| body.get(at..done));
        if let Some(inner) = inner
            && inner.get(DONE_LENGTH) == Some(&RETURN_STATUS)
            && self.rows.is_none()
        {
            let mut reader = Reader(inner);
            if reader.u8() == Some(DONE_IN_PROCEDURE)
                && let (Some(status), Some(_), Some(rows)) = (reader.u16(), reader.u16(), reader.u64())
            {
                self.done(status, rows);
            }
        }
        if self.failed && self.error.is_none() {
            self.error = last_error(body.get(..done).unwrap_or_default());
        }
    }
}

/// Number, state, class, text and what follows it.
fn failure(body: &[u8]) -> Option<Failure> {
    let mut reader = Reader(body);
    let number = reader.u32()? as i32;
    reader.u8()?;
    let class = reader.u8()?;
    let length = usize::from(reader.u16()?);
    let text = reader.take(2 * length)?.to_vec();
    Some(Failure { number, class, text })
}

/// The last ERROR token behind rows: its lengths fit each other, and a token follows it.
fn last_error(body: &[u8]) -> Option<Failure> {
    memchr::memrchr_iter(ERROR, body).take(4096).find_map(|at| {
        let mut reader = Reader(body.get(at + 1..)?);
        let length = usize::from(reader.u16()?);
        let inner = reader.take(length)?;
        let follows = reader.0.first().is_none_or(|next| matches!(next, 0xfd..=0xff | 0xaa | 0xab | 0x79));
        let failure = failure(inner)?;
        let fits = 8 + failure.text.len() < length && (11..=25).contains(&failure.class) && failure.number > 0;
        (follows && fits).then_some(failure)
    })
}

/// Do these bytes begin with tokens of a response? `whole`: they are the message's whole body.
pub fn plausible(body: &[u8], whole: bool) -> bool {
    let mut outcome = Outcome::default();
    let mut reader = Reader(body);
    let mut count = 0;
    while !reader.0.is_empty() {
        if reader.0.first() == Some(&COLUMNS) {
            let columns = reader.0.get(1..).and_then(|rest| Reader(rest).u16());
            return columns.is_some_and(|columns| (1..=4096).contains(&columns) || columns == 0xffff);
        }
        if outcome.token(&mut reader).is_none() {
            return count > 0 && !whole;
        }
        count += 1;
    }
    count > 0
}

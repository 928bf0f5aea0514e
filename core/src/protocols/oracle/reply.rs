//! Answers of the server: errors, and the numbers that end an answer to a thin driver.

use super::text::number_at;

/// No data found: the end of the rows, no failure.
const END_OF_ROWS: i32 = 1403;

/// Number and text of the error, `ORA-00942: …`.
pub fn error(data: &[u8]) -> Option<(i32, &[u8])> {
    memchr::memmem::find_iter(data, b"ORA-").find_map(|at| {
        let rest = data.get(at..)?;
        let digits = rest.get(4..9)?;
        let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if rest.get(9) != Some(&b':') || number == END_OF_ROWS {
            return None;
        }
        let length = at.checked_sub(1).and_then(|before| data.get(before)).map_or(0, |length| usize::from(*length));
        let line = memchr::memchr2(b'\n', 0, rest).unwrap_or(rest.len());
        let end = if length >= 10 { length.min(line) } else { line };
        Some((number, rest.get(..end).unwrap_or(rest).trim_ascii_end()))
    })
}

/// Errors of the statement or of its values, not of the server.
pub fn is_clients(code: i32) -> bool {
    matches!(code, 1 | 900..=999 | 1000..=1009 | 1017 | 1400..=1499 | 1722 | 1830..=1866 | 2289..=2293 | 6550 | 12_899)
}

/// What ends an answer.
#[derive(Debug, PartialEq)]
pub struct End {
    pub rows: u64,
    pub cursor: u32,
}

/// The message that ends an answer (code 4), in the integer format of thin drivers, up to the end of the data.
pub fn end(data: &[u8]) -> Option<End> {
    memchr::memrchr_iter(4, data.get(..data.len().saturating_sub(8))?).take(256).find_map(|at| {
        let mut rest = data.get(at + 1..)?;
        let mut number = || {
            let (value, behind) = number_at(rest)?;
            rest = behind;
            Some(value)
        };
        let (_status, _serial, _row) = (number()?, number()?, number()?);
        let failure = number()?;
        number()?;
        number()?;
        let cursor = number()?;
        number()?;
        if failure != 0 && failure != END_OF_ROWS as u32 || cursor > 0xffff {
            return None;
        }
        // Type of the statement, whether it is fatal, flags and options, then the address of the row, the error of the
        // system, places of the call; a logical address and lists of errors, all empty; the error again.
        let mut rest = rest.get(6..)?;
        for (skipped, empty) in [
            (0, false),
            (0, false),
            (1, false),
            (0, false),
            (0, false),
            (2, false),
            (0, false),
            (0, true),
            (0, true),
            (0, true),
            (0, true),
        ] {
            let (value, behind) = number_at(rest.get(skipped..)?)?;
            if empty && value != 0 {
                return None;
            }
            rest = behind;
        }
        let (again, rest) = number_at(rest)?;
        let (rows, _) = number_at(rest)?;
        if again != failure {
            return None;
        }
        Some(End { rows: rows.into(), cursor })
    })
}

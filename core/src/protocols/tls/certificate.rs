//! When an X.509 certificate is valid (RFC 5280 section 4.1).

use crate::protocols::ber::{Element, element};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The two dates of a DER certificate, which may be cut behind them, as `YYYY-MM-DDThh:mm:ssZ`.
pub fn validity(der: &[u8]) -> Option<(String, String)> {
    let inside = |at: usize| element(der, at).filter(|element| element.tag == SEQUENCE).map(|element| element.from);
    let mut at = inside(inside(0)?)?;
    if let Some(version) = element(der, at).filter(|element| element.tag == VERSION) {
        at = version.end;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        at = element(der, at)?.end;
    }
    let before = element(der, inside(at)?)?;
    let after = element(der, before.end)?;
    Some((date(der, before)?, date(der, after)?))
}

fn date(der: &[u8], element: Element) -> Option<String> {
    let text = std::str::from_utf8(der.get(element.from..element.end)?).ok()?;
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (element.tag, digits.len()) {
        // Two digits of the year: 1950 to 2049 (RFC 5280 section 4.1.2.5.1).
        (UTC_TIME, 12) => {
            let year = digits.get(..2)?;
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), digits.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (digits.get(..4)?.to_owned(), digits.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2);
    Some(format!("{year}-{}-{}T{}:{}:{}Z", two(0)?, two(2)?, two(4)?, two(6)?, two(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(before: &[u8], after: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
        let fields = [
            wrap(0xa0, &[2, 1, 2]),
            wrap(2, &[1]),
            wrap(0x30, &[]),
            wrap(0x30, &[]),
            wrap(0x30, &[before, after].concat()),
        ];
        wrap(0x30, &wrap(0x30, &fields.concat()))
    }

    #[test]
    fn dates_of_both_forms_and_centuries() {
        let utc = b"\x17\x0d491231235959Z";
        let old = b"\x17\x0d500101000000Z";
        let long = b"\x18\x0f20500101000000Z";
        let (before, after) = validity(&certificate(old, long)).expect("dates");
        assert_eq!((before.as_str(), after.as_str()), ("1950-01-01T00:00:00Z", "2050-01-01T00:00:00Z"));
        assert_eq!(validity(&certificate(utc, utc)).expect("dates").0, "2049-12-31T23:59:59Z");
        assert_eq!(validity(&certificate(b"\x17\x0d49123123595\xffZ", utc)), None);
        let whole = certificate(old, long);
        assert!((0..whole.len()).all(|end| validity(&whole[..end]).is_none()));
    }
}

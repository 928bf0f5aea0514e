//! Trace ids in request headers, each vendor's header in its own format.
//!
//! Sources: W3C Trace Context (traceparent), SkyWalking cross-process propagation v1..v3 (sw3, sw6, sw8),
//! OpenZipkin B3 (single and multi header), Jaeger client propagation (uber-trace-id).
//! A name without a format of its own is taken whole.

/// Equality of header names: case does not count, `_` and `-` are one.
pub fn same_header(name: &[u8], configured: &str) -> bool {
    let fold = |byte: u8| {
        if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    name.len() == configured.len() && name.iter().zip(configured.bytes()).all(|(&a, b)| fold(a) == fold(b))
}

/// The trace id that `value` of header `name` carries, if it is well formed.
pub fn trace_id(name: &[u8], value: &str) -> Option<String> {
    let value = value.trim();
    let found = match Format::of(name) {
        Format::TraceParent => return traceparent(value).map(|(trace, _)| trace.to_owned()),
        Format::Sw8 | Format::Sw6 => return base64_text(value.split('-').nth(1)?),
        Format::Sw3 => value.split('|').nth(7)?.trim_start_matches('#'),
        Format::Uber => uber_fields(value).next()?,
        Format::B3 => value.split('-').next().filter(|first| first.len() > 1)?,
        Format::Whole => value,
    };
    (!found.is_empty()).then(|| found.to_owned())
}

/// The id of the calling span that `value` of header `name` carries, if it is well formed.
pub fn span_id(name: &[u8], value: &str) -> Option<String> {
    let value = value.trim();
    let found = match Format::of(name) {
        Format::TraceParent => return traceparent(value).map(|(_, span)| span.to_owned()),
        Format::Sw8 | Format::Sw6 => {
            let mut fields = value.split('-').skip(2);
            let segment = base64_text(fields.next()?)?;
            return Some(format!("{segment}-{}", fields.next()?));
        }
        Format::Sw3 => {
            let mut fields = value.split('|');
            return Some(format!("{}-{}", fields.next()?, fields.next()?));
        }
        Format::Uber => uber_fields(value).nth(1)?,
        Format::B3 => value.split('-').nth(1)?,
        Format::Whole => value,
    };
    (!found.is_empty()).then(|| found.to_owned())
}

enum Format {
    TraceParent,
    Sw8,
    Sw6,
    Sw3,
    Uber,
    B3,
    Whole,
}

impl Format {
    fn of(name: &[u8]) -> Self {
        let is = |known| same_header(name, known);
        match name.len() {
            11 if is("traceparent") => Self::TraceParent,
            13 if is("uber-trace-id") => Self::Uber,
            3 if is("sw8") => Self::Sw8,
            3 if is("sw6") => Self::Sw6,
            3 if is("sw3") => Self::Sw3,
            2 if is("b3") => Self::B3,
            _ => Self::Whole,
        }
    }
}

/// `version-traceid-parentid-flags`; all-zero ids are invalid by the specification.
fn traceparent(value: &str) -> Option<(&str, &str)> {
    let mut fields = value.split('-');
    let (version, trace, span, _flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let id = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
    };
    (version.len() == 2 && id(trace, 32) && id(span, 16)).then_some((trace, span))
}

/// `trace:span:parent:flags`; some clients send the colons percent-encoded.
fn uber_fields(value: &str) -> impl Iterator<Item = &str> {
    let separator = if value.contains(':') { ":" } else { "%3A" };
    value.split(separator)
}

/// Text of a base64 field (standard alphabet, padding optional); `None` when it is not base64 of UTF-8.
fn base64_text(field: &str) -> Option<String> {
    let digits = field.trim_end_matches('=').as_bytes();
    if digits.is_empty() || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_gives_its_trace_and_span() {
        let table: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/trace_context.json")).expect("table");
        for case in table.as_array().expect("array") {
            let name = case["header"].as_str().expect("header").as_bytes();
            let value = case["value"].as_str().expect("value");
            assert_eq!(trace_id(name, value).as_deref(), case["trace_id"].as_str(), "trace of {case}");
            assert_eq!(span_id(name, value).as_deref(), case["span_id"].as_str(), "span of {case}");
        }
    }
}

//! Trace ids and request ids among the headers of a message, preferred in the order in which they are configured.

use std::sync::OnceLock;

use super::trace_context::{same_header, span_id, trace_id};
use super::{Message, ParserSettings};

/// Names by their first byte and length, so that most others are told apart at once.
#[derive(Debug)]
pub struct Shapes([u64; 256]);

impl Shapes {
    pub const fn none() -> Self {
        Self([0; 256])
    }

    /// Adds a name in lower case; it may also come in upper case and with `_` for `-`.
    pub const fn add(&mut self, name: &[u8]) {
        if let Some(&first) = name.first() {
            let bit = Self::bit(name.len());
            self.0[first as usize] |= bit;
            self.0[first.to_ascii_uppercase() as usize] |= bit;
            if first == b'-' || first == b'_' {
                self.0[b'-' as usize] |= bit;
                self.0[b'_' as usize] |= bit;
            }
        }
    }

    const fn bit(length: usize) -> u64 {
        1 << if length < 63 { length } else { 63 }
    }

    /// Does any name begin so?
    pub fn begins(&self, first: u8) -> bool {
        self.0[usize::from(first)] != 0
    }

    /// May `name` be one of them?
    pub fn may_be(&self, name: &[u8]) -> bool {
        name.first().is_some_and(|&first| self.0[usize::from(first)] & Self::bit(name.len()) != 0)
    }
}

/// The shapes of the configured names, made when they are first asked for.
#[derive(Debug, Default)]
pub struct Configured(OnceLock<Box<Shapes>>);

impl Clone for Configured {
    /// Settings that are copied may be changed before they are used.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ParserSettings {
    /// Shapes of all header names that say something of the call's context.
    pub fn context_headers(&self) -> &Shapes {
        self.context_headers.0.get_or_init(|| {
            let mut shapes = Box::new(Shapes::none());
            let lists = [&self.x_request_id, &self.apm_trace_id, &self.apm_span_id, &self.http_real_client];
            lists.into_iter().flatten().for_each(|name| shapes.add(name.to_ascii_lowercase().as_bytes()));
            shapes
        })
    }
}

/// What the headers said so far.
pub struct Propagation<'s> {
    settings: &'s ParserSettings,
    trace: Ranked,
    span: Ranked,
    request: Ranked,
    client: Ranked,
}

struct Ranked {
    rank: usize,
    value: String,
}

impl Ranked {
    fn new() -> Self {
        Self { rank: usize::MAX, value: String::new() }
    }

    fn offer(&mut self, names: &[String], header: &[u8], value: impl FnOnce() -> Option<String>) {
        let Some(rank) = names.iter().position(|name| same_header(header, name)) else {
            return;
        };
        if rank < self.rank
            && let Some(value) = value()
        {
            *self = Self { rank, value };
        }
    }
}

impl<'s> Propagation<'s> {
    pub fn new(settings: &'s ParserSettings) -> Self {
        Self { settings, trace: Ranked::new(), span: Ranked::new(), request: Ranked::new(), client: Ranked::new() }
    }

    /// A header of the message.
    pub fn offer(&mut self, name: &[u8], value: &[u8]) {
        let settings = self.settings;
        if !settings.context_headers().may_be(name) {
            return;
        }
        self.trace.offer(&settings.apm_trace_id, name, || trace_id(name, &settings.text(value)));
        self.span.offer(&settings.apm_span_id, name, || span_id(name, &settings.text(value)));
        self.request.offer(&settings.x_request_id, name, || Some(settings.text(value)));
    }

    /// A header of an HTTP request: it may also name the real client, the first of the addresses in it.
    pub fn offer_http(&mut self, name: &[u8], value: &[u8]) {
        let settings = self.settings;
        if !settings.context_headers().may_be(name) {
            return;
        }
        self.offer(name, value);
        self.client.offer(&settings.http_real_client, name, || {
            let first = value.split(|&byte| byte == b',').next().unwrap_or_default();
            Some(settings.text(first.trim_ascii()))
        });
    }

    pub fn fill(self, message: &mut Message) {
        message.trace_id = self.trace.value;
        message.span_id = self.span.value;
        message.x_request_id = self.request.value;
        message.http_proxy_client = self.client.value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_shape_however_it_is_written() {
        let long = "x".repeat(80);
        let mut shapes = Shapes::none();
        for name in ["x-request-id", "-odd", long.as_str()] {
            shapes.add(name.as_bytes());
        }
        for known in ["x-request-id", "X-Request-ID", "x_request_id", "_odd", "-ODD", long.as_str()] {
            assert!(shapes.may_be(known.as_bytes()), "{known}");
        }
        for other in ["", "x-request-i", "host", "y-request-id"] {
            assert!(!shapes.may_be(other.as_bytes()), "{other}");
        }
    }
}

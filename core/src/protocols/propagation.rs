//! Trace ids and request ids among the headers of a message, preferred in the order in which they are configured.

use super::trace_context::{same_header, span_id, trace_id};
use super::{Message, ParserSettings};

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
        self.trace.offer(&settings.apm_trace_id, name, || trace_id(name, &settings.text(value)));
        self.span.offer(&settings.apm_span_id, name, || span_id(name, &settings.text(value)));
        self.request.offer(&settings.x_request_id, name, || Some(settings.text(value)));
    }

    /// A header of an HTTP request: it may also name the real client, the first of the addresses in it.
    pub fn offer_http(&mut self, name: &[u8], value: &[u8]) {
        self.offer(name, value);
        let settings = self.settings;
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

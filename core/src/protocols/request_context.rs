//! What a request's headers say of the trace, the request id and the real client, by the lists of the settings.

use super::trace_context::{same_header, span_id, trace_id};
use super::{Message, ParserSettings};

/// Value of the header that stands first in a list of the settings.
#[derive(Debug)]
struct Preferred {
    rank: usize,
    value: String,
}

impl Default for Preferred {
    fn default() -> Self {
        Self { rank: usize::MAX, value: String::new() }
    }
}

impl Preferred {
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

#[derive(Debug, Default)]
pub struct RequestContext {
    x_request_id: Preferred,
    proxy_client: Preferred,
    trace_id: Preferred,
    span_id: Preferred,
}

impl RequestContext {
    /// Takes a header into account; `value` makes its text, and is called only for a header that is listed.
    pub fn offer(&mut self, settings: &ParserSettings, name: &[u8], value: &dyn Fn() -> String) {
        self.x_request_id.offer(&settings.x_request_id, name, || Some(value()));
        // The first of the addresses is the client, the others are proxies.
        self.proxy_client.offer(&settings.http_real_client, name, || {
            Some(value().split(',').next().unwrap_or_default().trim().to_owned())
        });
        let clipped = |found: Option<String>| found.map(|text| settings.text(text.as_bytes()));
        self.trace_id.offer(&settings.apm_trace_id, name, || clipped(trace_id(name, &value())));
        self.span_id.offer(&settings.apm_span_id, name, || clipped(span_id(name, &value())));
    }

    pub fn fill(self, message: &mut Message) {
        message.x_request_id = self.x_request_id.value;
        message.trace_id = self.trace_id.value;
        message.span_id = self.span_id.value;
        message.http_proxy_client = self.proxy_client.value;
    }
}

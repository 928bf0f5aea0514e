//! Totals since the start: what came in, what became of it, what was lost.

use std::sync::LazyLock;

use crate::protocols::REGISTRY;
use crate::stream::Report;

/// Every number is a total, never reset.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub segments: u64,
    pub bytes: u64,
    pub captured_bytes: u64,
    pub invalid: u64,
    pub truncated: u64,
    pub gaps: u64,
    pub gap_bytes: u64,
    pub repeated: u64,
    pub lost: u64,
    pub sessions_paired: u64,
    pub sessions_one_way: u64,
    pub requests_timed_out: u64,
    pub requests_closed: u64,
    pub requests_unsure: u64,
    pub requests_evicted: u64,
    pub requests_flushed: u64,
    pub responses_orphaned: u64,
    pub rows_out: u64,
    pub rows_throttled: u64,
    pub rows_overflowed: u64,
    pub rows_unencodable: u64,
    pub meter_rows_out: u64,
    pub connections: u64,
    pub connections_decided: u64,
    pub connections_given_up: u64,
    pub connections_closed: u64,
    pub connections_evicted: u64,
    pub process_changes: u64,
    pub process_changes_dropped: u64,
    /// By place in the registry.
    pub messages: Vec<u64>,
}

static MESSAGE_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| REGISTRY.iter().map(|protocol| format!("messages_{}", protocol.name.to_lowercase())).collect());

impl Counters {
    pub fn new() -> Self {
        Self { messages: vec![0; REGISTRY.len()], ..Self::default() }
    }

    pub fn add(&mut self, report: &Report) {
        self.invalid += report.invalid;
        self.truncated += report.truncated;
        self.gaps += report.gaps;
        self.gap_bytes += report.gap_bytes;
        self.repeated += report.repeated;
        self.lost += u64::from(report.lost.is_some());
    }

    /// Names and values, the same names at every call.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let mut list = vec![
            ("segments", self.segments),
            ("bytes", self.bytes),
            ("captured_bytes", self.captured_bytes),
            ("invalid", self.invalid),
            ("truncated", self.truncated),
            ("gaps", self.gaps),
            ("gap_bytes", self.gap_bytes),
            ("repeated", self.repeated),
            ("lost", self.lost),
            ("sessions_paired", self.sessions_paired),
            ("sessions_one_way", self.sessions_one_way),
            ("requests_timed_out", self.requests_timed_out),
            ("requests_closed", self.requests_closed),
            ("requests_unsure", self.requests_unsure),
            ("requests_evicted", self.requests_evicted),
            ("requests_flushed", self.requests_flushed),
            ("responses_orphaned", self.responses_orphaned),
            ("rows_out", self.rows_out),
            ("rows_throttled", self.rows_throttled),
            ("rows_overflowed", self.rows_overflowed),
            ("rows_unencodable", self.rows_unencodable),
            ("meter_rows_out", self.meter_rows_out),
            ("connections", self.connections),
            ("connections_decided", self.connections_decided),
            ("connections_given_up", self.connections_given_up),
            ("connections_closed", self.connections_closed),
            ("connections_evicted", self.connections_evicted),
            ("process_changes", self.process_changes),
            ("process_changes_dropped", self.process_changes_dropped),
        ];
        // Protocols that take two lines of the registry (one a transport) share a name.
        for (name, messages) in MESSAGE_NAMES.iter().zip(&self.messages) {
            match list.iter_mut().find(|(known, _)| known == name) {
                Some((_, total)) => *total += messages,
                None => list.push((name, *messages)),
            }
        }
        list
    }
}

//! What was recognised at the end points of servers: their next connections are tried with it first.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use crate::event::Endpoint;

/// How long an end point is remembered, µs.
const MEMORY_US: u64 = 60_000_000;
const MAX_ENDPOINTS: usize = 16_384;

/// What is known of a server's end point.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Place of its protocol in the registry.
    pub l7: Option<usize>,
    /// Connections given up since its protocol was recognised last.
    pub failures: u32,
    until_us: u64,
}

/// Results of recognition by server end point.
#[derive(Debug, Default)]
pub struct Endpoints {
    known: FxHashMap<(u8, IpAddr, u16), Known>,
}

impl Endpoints {
    pub fn get(&self, protocol: u8, server: Endpoint, now_us: u64) -> Option<Known> {
        self.known.get(&(protocol, server.ip, server.port)).filter(|known| now_us < known.until_us).copied()
    }

    /// A connection to `server` was recognised, or given up (`None`).
    pub fn note(&mut self, protocol: u8, server: Endpoint, l7: Option<usize>, now_us: u64) {
        let until_us = now_us + MEMORY_US;
        if self.known.len() >= MAX_ENDPOINTS {
            self.known.retain(|_, known| now_us < known.until_us);
            if self.known.len() >= MAX_ENDPOINTS {
                self.known.clear();
            }
        }
        let known = self.known.entry((protocol, server.ip, server.port)).or_insert(Known { l7, failures: 0, until_us });
        if now_us >= known.until_us {
            known.failures = 0;
        }
        known.failures = if l7.is_some() { 0 } else { known.failures + 1 };
        known.l7 = l7.or(known.l7);
        known.until_us = until_us;
    }
}

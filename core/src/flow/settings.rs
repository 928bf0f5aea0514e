//! What is configured of flows (processors.flow_log).

use serde::Deserialize;

use crate::engine::EngineConfig;

/// A day: longest time-out, µs.
const MAX_TIMEOUT_US: u64 = 86_400_000_000;

/// How long a flow without packets is kept (processors.flow_log.conntrack.timeouts), in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    pub established_us: u64,
    pub closing_rst_us: u64,
    pub opening_rst_us: u64,
    pub others_us: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            established_us: 300_000_000,
            closing_rst_us: 35_000_000,
            opening_rst_us: 1_000_000,
            others_us: 5_000_000,
        }
    }
}

impl Timeouts {
    fn all(&self) -> [(&'static str, u64); 4] {
        [
            ("established_us", self.established_us),
            ("closing_rst_us", self.closing_rst_us),
            ("opening_rst_us", self.opening_rst_us),
            ("others_us", self.others_us),
        ]
    }

    pub fn longest_us(&self) -> u64 {
        self.all().map(|(_, us)| us).into_iter().max().unwrap_or(0)
    }

    /// A sentence that names the key which cannot be used.
    pub fn check(&self) -> Result<(), String> {
        match self.all().into_iter().find(|(_, us)| !(1..=MAX_TIMEOUT_US).contains(us)) {
            Some((key, us)) => Err(format!("`flow_timeouts.{key}` is {us}; allowed is 1 to {MAX_TIMEOUT_US}.")),
            None => Ok(()),
        }
    }
}

/// What a table of flows needs of the configuration.
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Most flows at one time.
    pub limit: usize,
    pub timeouts: Timeouts,
    /// In order.
    pub server_ports: Vec<u16>,
}

impl FlowSettings {
    pub fn of(config: &EngineConfig) -> Self {
        let mut server_ports = config.server_ports.clone();
        server_ports.sort_unstable();
        Self { limit: config.concurrent_flow_limit, timeouts: config.flow_timeouts, server_ports }
    }
}

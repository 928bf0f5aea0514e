//! What is captured: `packets` of the core's configuration (docs/architecture.md, section 2).

use std::net::IpAddr;

use regex_lite::Regex;
use serde::Deserialize;

/// An end whose traffic is the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct OwnEnd {
    pub ip: IpAddr,
    pub port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacketConfig {
    /// Interfaces of the agent's namespace; empty: none.
    pub interface_regex: String,
    /// The loopback, if the expression matches it.
    pub loopback: bool,
    pub inner_interface_capture_enabled: bool,
    /// Interfaces of all other namespaces.
    pub inner_interface_regex: String,
    /// Everything on the chosen interfaces, also the agent's own traffic.
    pub bpf_filter_disabled: bool,
    pub ports_blacklist: Vec<u16>,
    pub ports_whitelist: Vec<u16>,
    /// The server that the agent speaks to.
    pub own: Vec<OwnEnd>,
    /// Blocks of a ring, 0: as many as the memory allows.
    pub ring_blocks: usize,
    /// Bytes of all rings together.
    pub ring_bytes: usize,
    pub fanout_count: usize,
    pub fanout_mode: u16,
    pub promiscuous: bool,
    /// Bytes kept of a packet.
    pub max_packet_bytes: u32,
    /// Packets a second, 0 no bound.
    pub max_pps: u32,
    pub proc_dir: String,
}

impl Default for PacketConfig {
    fn default() -> Self {
        Self {
            interface_regex: String::new(),
            loopback: false,
            inner_interface_capture_enabled: false,
            inner_interface_regex: r"^eth\d+$".to_string(),
            bpf_filter_disabled: false,
            ports_blacklist: Vec::new(),
            ports_whitelist: Vec::new(),
            own: Vec::new(),
            ring_blocks: 0,
            ring_bytes: 96 << 20,
            fanout_count: 1,
            fanout_mode: 0,
            promiscuous: false,
            max_packet_bytes: 65_535,
            max_pps: 1_048_576,
            proc_dir: "/proc".to_string(),
        }
    }
}

/// An expression over names of interfaces; an empty one matches none.
pub(super) fn expression(key: &str, text: &str) -> Result<Option<Regex>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Regex::new(text).map(Some).map_err(|error| format!("`{key}` is no regular expression: {error}."))
}

impl PacketConfig {
    /// Something is to be captured.
    pub fn enabled(&self) -> bool {
        !self.interface_regex.is_empty() || self.inner_interface_capture_enabled
    }

    /// A sentence that names the key which cannot be used.
    pub fn check(&self) -> Result<(), String> {
        expression("packets.interface_regex", &self.interface_regex)?;
        expression("packets.inner_interface_regex", &self.inner_interface_regex)?;
        if !(1..=64).contains(&self.fanout_count) {
            return Err(format!("`packets.fanout_count` is {}; allowed is 1 to 64.", self.fanout_count));
        }
        if self.fanout_mode > 5 {
            return Err(format!("`packets.fanout_mode` is {}; allowed is 0 to 5.", self.fanout_mode));
        }
        if !(128..=65_535).contains(&self.max_packet_bytes) {
            return Err(format!("`packets.max_packet_bytes` is {}; allowed is 128 to 65535.", self.max_packet_bytes));
        }
        Ok(())
    }
}

//! What is captured: `packets` of the core's configuration (docs/architecture.md, section 2).

use std::net::IpAddr;

use regex_lite::Regex;
use serde::Deserialize;

use super::filter::{self, Condition, End, Extra};

/// The agent's own ends that the filter names at most.
const MAX_OWN_ENDS: usize = 128;

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
    /// The loopback, if the expression matches it; not said: yes, unless sockets are seen.
    pub loopback: Option<bool>,
    pub inner_interface_capture_enabled: bool,
    /// Interfaces of all other namespaces.
    pub inner_interface_regex: String,
    /// Everything on the chosen interfaces, also the agent's own traffic.
    pub bpf_filter_disabled: bool,
    /// What has to take a packet too.
    pub extra_filter: Option<Extra>,
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
            loopback: None,
            inner_interface_capture_enabled: false,
            inner_interface_regex: r"^eth\d+$".to_string(),
            bpf_filter_disabled: false,
            extra_filter: None,
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

    pub(super) fn extra(&self) -> Option<&Extra> {
        self.extra_filter.as_ref().filter(|_| !self.bpf_filter_disabled)
    }

    /// What is not own traffic and has no port that is not wanted. `own_addresses`: of this host.
    pub(super) fn condition(&self, own_addresses: &[IpAddr]) -> Condition {
        if self.bpf_filter_disabled {
            return Condition::Always;
        }
        let mut own: Vec<(IpAddr, u16)> = Vec::new();
        for end in &self.own {
            own.push((end.ip.to_canonical(), end.port));
            // A server on this host may be spoken to at any of its addresses.
            if end.ip.is_loopback() || own_addresses.contains(&end.ip) {
                own.extend(own_addresses.iter().map(|ip| (*ip, end.port)));
            }
        }
        own.sort_unstable();
        own.dedup();
        own.truncate(MAX_OWN_ENDS);
        let own = own.into_iter().map(|(ip, port)| Condition::end(ip, port)).collect();
        let ports = |list: &[u16]| {
            Condition::Any(filter::ranges(list).into_iter().map(|(first, last)| Condition::port(first, last)).collect())
        };
        let mut all = vec![
            Condition::All(vec![Condition::Transport(6), Condition::Any(own)]).negated(),
            ports(&self.ports_blacklist).negated(),
        ];
        if !self.ports_whitelist.is_empty() {
            // What has no ports is not judged by them.
            let none = Condition::All([End::Source, End::Destination].map(|end| Condition::Port(end, 0, 0)).to_vec());
            all.push(Condition::Any(vec![ports(&self.ports_whitelist), none]));
        }
        Condition::All(all)
    }
}

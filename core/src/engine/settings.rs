//! Configuration of the core: the JSON of docs/architecture.md, section 2.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::flow::settings::Timeouts;
use crate::packet::live::PacketConfig;
use crate::protocols::ParserSettings;

/// All keys; what the kernel side needs is read by it from here.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// 1 to 1023; 0 not registered.
    pub agent_id: u16,
    /// Bytes of a record's payload.
    pub payload_truncation: u32,
    pub ring_bytes: u64,
    pub ignored_pids: Vec<u32>,
    /// Empty: all.
    pub only_pids: Vec<u32>,
    /// Network namespace (inode), 0 all.
    pub netns: u32,
    pub ports_blacklist: Vec<u16>,
    pub ports_whitelist: Vec<u16>,
    pub tcp_request_timeout_s: u32,
    pub udp_request_timeout_s: u32,
    pub session_aggregate_max_entries: usize,
    /// Rows a second, 0 no bound.
    pub l7_throttle: u32,
    /// Rows of flows a second, 0 no bound.
    pub l4_throttle: u32,
    /// Connections without payload that are alike make one row a minute.
    pub aggregate_health_check: bool,
    /// Kinds of tunnels that are taken off (numbers of `TunnelKind`).
    pub tunnel_decap_protocols: Vec<u8>,
    /// Most flows of packets that one thread follows.
    pub concurrent_flow_limit: usize,
    /// How long a flow without packets is kept.
    pub flow_timeouts: Timeouts,
    /// Ports whose owners are servers, where nothing surer says which end is.
    pub server_ports: Vec<u16>,
    pub syscall_trace_id_disabled: bool,
    /// No kernel programs: packets only.
    pub ebpf_disabled: bool,
    /// "auto", "sock_length" or "sys_enter".
    pub hook: String,
    /// Which packets are read.
    pub packets: PacketConfig,
    /// Write the sender into a TCP option.
    pub tcp_option_trace: bool,
    /// Bytes between two data segments with the option, at most 1 MiB; 0 marks every one.
    pub tcp_option_sampling_window: u32,
    pub x_request_id: Vec<String>,
    pub apm_trace_id: Vec<String>,
    pub apm_span_id: Vec<String>,
    pub http_real_client: Vec<String>,
    pub http_endpoint_segments: usize,
    pub unconcerned_dns_nxdomain_response_suffixes: Vec<String>,
    pub http_endpoint_fold_ids: bool,
    pub obfuscate_protocols: Vec<String>,
    pub max_field: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let parsers = ParserSettings::default();
        Self {
            agent_id: 0,
            payload_truncation: 1024,
            ring_bytes: 64 * 1024 * 1024,
            ignored_pids: Vec::new(),
            only_pids: Vec::new(),
            netns: 0,
            ports_blacklist: Vec::new(),
            ports_whitelist: Vec::new(),
            tcp_request_timeout_s: 300,
            udp_request_timeout_s: 150,
            session_aggregate_max_entries: 65_536,
            l7_throttle: 0,
            l4_throttle: 0,
            aggregate_health_check: false,
            tunnel_decap_protocols: (1..=7).collect(),
            concurrent_flow_limit: 65_535,
            flow_timeouts: Timeouts::default(),
            server_ports: Vec::new(),
            syscall_trace_id_disabled: false,
            ebpf_disabled: false,
            hook: "auto".to_string(),
            packets: PacketConfig::default(),
            tcp_option_trace: false,
            tcp_option_sampling_window: 16_384,
            x_request_id: parsers.x_request_id,
            apm_trace_id: parsers.apm_trace_id,
            apm_span_id: parsers.apm_span_id,
            http_real_client: parsers.http_real_client,
            http_endpoint_segments: parsers.http_endpoint_segments,
            unconcerned_dns_nxdomain_response_suffixes: parsers.unconcerned_dns_nxdomain_response_suffixes,
            http_endpoint_fold_ids: parsers.http_endpoint_fold_ids,
            obfuscate_protocols: parsers.obfuscate_protocols,
            max_field: parsers.max_field,
        }
    }
}

impl EngineConfig {
    /// Reads the JSON object (empty text: all defaults). The error is a sentence that names the key.
    pub fn from_json(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let keys: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("The core's configuration is no JSON object: {error}."))?;
        for (key, value) in &keys {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            Self::deserialize(Value::Object(alone))
                .map_err(|error| format!("The core's configuration key `{key}` cannot be used: {error}."))?;
        }
        let config = Self::deserialize(Value::Object(keys))
            .map_err(|error| format!("The core's configuration cannot be used: {error}."))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let outside = |key: &str, found: &dyn std::fmt::Display, allowed: &str| {
            Err(format!("The core's configuration key `{key}` is {found}; allowed is {allowed}."))
        };
        if self.agent_id > 1023 {
            return outside("agent_id", &self.agent_id, "0 to 1023");
        }
        if !["auto", "sock_length", "sys_enter"].contains(&self.hook.as_str()) {
            return outside("hook", &self.hook, "auto, sock_length or sys_enter");
        }
        if self.tcp_option_sampling_window > 1 << 20 {
            return outside("tcp_option_sampling_window", &self.tcp_option_sampling_window, "0 to 1048576");
        }
        for (key, value) in [
            ("tcp_request_timeout_s", self.tcp_request_timeout_s),
            ("udp_request_timeout_s", self.udp_request_timeout_s),
        ] {
            if value == 0 {
                return outside(key, &value, "1 or more");
            }
        }
        if self.session_aggregate_max_entries == 0 {
            return outside("session_aggregate_max_entries", &0, "1 or more");
        }
        if self.http_endpoint_segments == 0 {
            return outside("http_endpoint_segments", &0, "1 or more");
        }
        let parts = self.packets.check().and_then(|()| self.flow_timeouts.check());
        parts.map_err(|problem| format!("The core's configuration cannot be used: {problem}"))
    }

    /// What parsers read.
    pub fn parser_settings(&self) -> ParserSettings {
        ParserSettings {
            x_request_id: self.x_request_id.clone(),
            apm_trace_id: self.apm_trace_id.clone(),
            apm_span_id: self.apm_span_id.clone(),
            http_real_client: self.http_real_client.clone(),
            http_endpoint_segments: self.http_endpoint_segments,
            unconcerned_dns_nxdomain_response_suffixes: self.unconcerned_dns_nxdomain_response_suffixes.clone(),
            http_endpoint_fold_ids: self.http_endpoint_fold_ids,
            obfuscate_protocols: self.obfuscate_protocols.clone(),
            max_field: self.max_field,
            ..ParserSettings::default()
        }
    }
}

//! Flows and seconds as rows of `l4_flow_log`, `network` and `network_map`.

use std::net::IpAddr;

use super::meter::{Second, processes};
use super::probes::{Alike, Merged, Probes, is_probe, lasted_us};
use super::record::{Flow, Outer};
use super::seconds::{batches, number_of};
use super::state::CloseType;
use crate::batch::{Batch, ip4, ip6, push_batch};
use crate::engine::{EngineConfig, Shared, VIRTUAL_NETWORK};
use crate::peers::{SharedPeers, locked};
use crate::rows::{L4FlowLogRow, L4FlowLogRows, encode};

/// Most rows of one batch.
const BATCH_ROWS: usize = 65_536;

/// Makes rows and batches of them.
pub struct Reports {
    pub agent_id: u16,
    /// Rows of `l4_flow_log` a second, 0 no bound.
    pub throttle: u32,
    shared: Shared,
    /// Where connections that carried nothing wait for others like them, if they make one row together.
    probes: Option<Probes>,
    rows: L4FlowLogRows,
    batches: Vec<Batch>,
    throttle_second: u64,
    rows_this_second: u32,
    pub counters: ReportCounters,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportCounters {
    pub rows_out: u64,
    pub rows_throttled: u64,
    pub rows_unencodable: u64,
    pub meter_rows_out: u64,
}

fn mac(address: [u8; 6]) -> u64 {
    address.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The parts of an outer header, empty where there is none.
struct OuterParts {
    id: u32,
    ips: [IpAddr; 2],
    macs: [u32; 2],
}

fn outer_parts(outer: Outer) -> OuterParts {
    match outer {
        Some(tunnel) => OuterParts {
            id: tunnel.id,
            ips: [tunnel.source, tunnel.destination],
            macs: [mac(tunnel.source_mac) as u32, mac(tunnel.destination_mac) as u32],
        },
        None => OuterParts { id: 0, ips: [IpAddr::from([0; 4]); 2], macs: [0; 2] },
    }
}

impl Reports {
    pub fn new(config: &EngineConfig, shared: Shared) -> Self {
        Self {
            agent_id: config.agent_id,
            throttle: config.l4_throttle,
            shared,
            probes: config.aggregate_health_check.then(Probes::default),
            rows: L4FlowLogRows::default(),
            batches: Vec::new(),
            throttle_second: 0,
            rows_this_second: 0,
            counters: ReportCounters::default(),
        }
    }

    pub fn peers(&self) -> &SharedPeers {
        &self.shared.peers
    }

    /// Rows that are in no batch yet.
    pub fn open_rows(&self) -> usize {
        self.rows.len()
    }

    /// A row of a flow that goes on, if anything passed since the last.
    pub fn forced(&mut self, flow: &mut Flow) {
        if flow.period.traffic.packets != [0; 2] {
            self.row(flow, CloseType::Forced, None);
        }
    }

    /// The last row of a flow.
    pub fn closed(&mut self, mut flow: Box<Flow>, close_type: CloseType) {
        match &mut self.probes {
            Some(probes) if is_probe(&flow) => {
                let names = processes(&flow, &locked(&self.shared.peers));
                if let Some(merged) = probes.take(Merged::new(flow, names, close_type)) {
                    self.merged(merged);
                }
            }
            _ => self.row(&mut flow, close_type, None),
        }
    }

    fn merged(&mut self, Merged { mut flow, close_type, alike }: Merged) {
        self.row(&mut flow, close_type, Some(&alike));
    }

    fn throttled(&mut self, second: u64) -> bool {
        if second != self.throttle_second {
            self.throttle_second = second;
            self.rows_this_second = 0;
        }
        self.rows_this_second = self.rows_this_second.saturating_add(1);
        self.throttle > 0 && self.rows_this_second > self.throttle
    }

    fn row(&mut self, flow: &mut Flow, close_type: CloseType, alike: Option<&Alike>) {
        let period = std::mem::take(&mut flow.period);
        let is_new_flow = std::mem::take(&mut flow.unreported);
        let parse_failed = std::mem::take(&mut flow.parse_failed);
        let end_us = flow.last_us;
        let start_us = std::mem::replace(&mut flow.period_start_us, end_us);
        if self.throttled(end_us / 1_000_000) {
            self.counters.rows_throttled += 1;
            return;
        }
        let (names, aggregated_flow_ids, duration_us) = match alike {
            Some(alike) => (alike.processes, alike.ids(), alike.duration_us),
            None => (processes(flow, &locked(&self.shared.peers)), String::new(), lasted_us(flow)),
        };
        let [client, server] = flow.ends;
        let [sent, answered] = flow.outer.map(outer_parts);
        let outer = flow.outer[0].or(flow.outer[1]);
        let (traffic, tcp, l7) = (&period.traffic, &period.tcp, &period.l7);
        let real = flow.real.map(|end| end.map_or((IpAddr::from([0; 4]), 0), |end| (end.ip, end.port)));
        let keepalive = flow.perf.keepalive().unwrap_or_default();
        let row = L4FlowLogRow {
            time: (end_us / 1_000_000) as u32,
            _id: self.shared.numbers.next(self.agent_id, end_us),
            flow_id: flow.id,
            aggregated_flow_ids: &aggregated_flow_ids,
            start_time: start_us as i64,
            end_time: end_us as i64,
            close_type: close_type as u16,
            status: close_type.status(flow.protocol),
            is_new_flow: u8::from(is_new_flow),
            init_ipid: u32::from(flow.init_ip_id),
            process_id_0: names[0].pid as i32,
            process_id_1: names[1].pid as i32,
            mac_0: mac(flow.macs[0]),
            mac_1: mac(flow.macs[1]),
            eth_type: flow.ether_type,
            vlan: flow.vlan,
            ip4_0: ip4(client.ip),
            ip4_1: ip4(server.ip),
            ip6_0: ip6(client.ip),
            ip6_1: ip6(server.ip),
            is_ipv4: u8::from(client.ip.is_ipv4()),
            protocol: flow.protocol,
            tunnel_tier: outer.map_or(0, |tunnel| tunnel.tier),
            tunnel_type: outer.map_or(0, |tunnel| tunnel.kind as u16),
            tunnel_tx_id: sent.id,
            tunnel_rx_id: answered.id,
            tunnel_is_ipv4: outer.map_or(1, |tunnel| u8::from(tunnel.source.is_ipv4())),
            tunnel_tx_ip4_0: ip4(sent.ips[0]),
            tunnel_tx_ip4_1: ip4(sent.ips[1]),
            tunnel_rx_ip4_0: ip4(answered.ips[0]),
            tunnel_rx_ip4_1: ip4(answered.ips[1]),
            tunnel_tx_ip6_0: ip6(sent.ips[0]),
            tunnel_tx_ip6_1: ip6(sent.ips[1]),
            tunnel_rx_ip6_0: ip6(answered.ips[0]),
            tunnel_rx_ip6_1: ip6(answered.ips[1]),
            tunnel_tx_mac_0: sent.macs[0],
            tunnel_tx_mac_1: sent.macs[1],
            tunnel_rx_mac_0: answered.macs[0],
            tunnel_rx_mac_1: answered.macs[1],
            client_port: client.port,
            server_port: server.port,
            tcp_flags_bit_0: u16::from(flow.flags[0]),
            tcp_flags_bit_1: u16::from(flow.flags[1]),
            syn_seq: flow.syn_seq,
            syn_ack_seq: flow.syn_ack_seq,
            last_keepalive_seq: keepalive.0,
            last_keepalive_ack: keepalive.1,
            l7_protocol: flow.spoken.as_ref().map_or(0, |spoken| spoken.l7.id),
            request_domain: flow.spoken.as_ref().and_then(|spoken| spoken.domain.get()).map_or("", |name| name),
            signal_source: 0,
            capture_network_type_id: VIRTUAL_NETWORK,
            nat_source: flow.nat_source(),
            capture_nic_type: 0,
            capture_nic: flow.place.nic,
            observation_point: flow.place.point.name(),
            agent_id: self.agent_id,
            l2_end_0: u8::from(flow.place.l2_end[0]),
            l2_end_1: u8::from(flow.place.l2_end[1]),
            l3_end_0: u8::from(flow.place.l3_end[0]),
            l3_end_1: u8::from(flow.place.l3_end[1]),
            nat_real_ip4_0: ip4(real[0].0),
            nat_real_ip4_1: ip4(real[1].0),
            nat_real_port_0: real[0].1,
            nat_real_port_1: real[1].1,
            packet_tx: traffic.packets[0],
            packet_rx: traffic.packets[1],
            byte_tx: traffic.bytes[0],
            byte_rx: traffic.bytes[1],
            l3_byte_tx: traffic.l3_bytes[0],
            l3_byte_rx: traffic.l3_bytes[1],
            l4_byte_tx: traffic.l4_bytes[0],
            l4_byte_rx: traffic.l4_bytes[1],
            total_packet_tx: flow.total_packets[0],
            total_packet_rx: flow.total_packets[1],
            total_byte_tx: flow.total_bytes[0],
            total_byte_rx: flow.total_bytes[1],
            syn_count: tcp.syn_count,
            synack_count: tcp.synack_count,
            fin_count: tcp.fin_count,
            direction_score: flow.direction_score,
            retrans_syn: tcp.retrans_syn,
            retrans_synack: tcp.retrans_synack,
            retrans_tx: tcp.retrans[0],
            retrans_rx: tcp.retrans[1],
            zero_win_tx: tcp.zero_win[0],
            zero_win_rx: tcp.zero_win[1],
            ooo_tx: tcp.ooo[0],
            ooo_rx: tcp.ooo[1],
            rtt: f64::from(tcp.rtt.max),
            rtt_client: f64::from(tcp.rtt_client.max),
            rtt_server: f64::from(tcp.rtt_server.max),
            tls_rtt: f64::from(tcp.tls_rtt.max),
            srt_sum: tcp.srt.sum as f64,
            srt_count: u64::from(tcp.srt.count),
            srt_max: tcp.srt.max,
            art_sum: tcp.art.sum as f64,
            art_count: u64::from(tcp.art.count),
            art_max: tcp.art.max,
            cit_sum: tcp.cit.sum as f64,
            cit_count: u64::from(tcp.cit.count),
            cit_max: tcp.cit.max,
            duration: duration_us,
            l7_request: l7.request,
            l7_response: l7.response,
            l7_client_error: number_of(l7.client_error),
            l7_server_error: number_of(l7.server_error),
            l7_server_timeout: number_of(l7.timeout),
            l7_parse_failed: parse_failed,
            rrt_sum: l7.rrt_sum,
            rrt_count: l7.rrt_count,
            rrt_max: l7.rrt_max,
        };
        match self.rows.push(&row) {
            Ok(()) => self.counters.rows_out += 1,
            Err(_) => self.counters.rows_unencodable += 1,
        }
        if self.rows.len() >= BATCH_ROWS {
            self.finish_rows();
        }
    }

    fn finish_rows(&mut self) {
        if !self.rows.is_empty() {
            let count = self.rows.len();
            let batch = self.rows.finish().and_then(|batch| encode(&batch));
            self.counters.rows_unencodable += push_batch(&mut self.batches, "l4_flow_log", count, batch);
        }
    }

    /// Rows of minutes that are over at `now_us`, or of `all`, of connections that were kept for others like them.
    pub fn minutes(&mut self, now_us: u64, all: bool) {
        for merged in self.probes.as_mut().map(|probes| probes.over(now_us, all)).unwrap_or_default() {
            self.merged(merged);
        }
    }

    /// Rows of seconds that are over.
    pub fn seconds(&mut self, seconds: &[Second]) {
        let (rows, failed) = batches(self.agent_id, seconds, &mut self.batches);
        self.counters.meter_rows_out += rows;
        self.counters.rows_unencodable += failed;
    }

    /// Batches made since the last call.
    pub fn take(&mut self) -> Vec<Batch> {
        self.finish_rows();
        std::mem::take(&mut self.batches)
    }
}

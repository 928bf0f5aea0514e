//! Seconds as rows of `network` and `network_map`.

use super::meter::{EndKey, NetworkTally, PairKey, Second};
use super::state::CloseType;
use crate::batch::{Batch, ip4, ip6, push_batch};
use crate::engine::VIRTUAL_NETWORK;
use crate::event::{Place, Source};
use crate::rows::{NetworkMapRow, NetworkMapRows, NetworkRow, NetworkRows, encode};

/// A row of one of both tables: its own fields, and the metrics, which they share.
macro_rules! row {
    ($kind:ident { $($own:tt)* }, $tally:expr) => {{
        let tally: &NetworkTally = $tally;
        let (traffic, tcp, l7) = (&tally.counts.traffic, &tally.counts.tcp, &tally.counts.l7);
        let closed = |close_type: CloseType| u64::from(tally.closed[close_type as usize]);
        $kind {
            $($own)*
            packet_tx: traffic.packets[0],
            packet_rx: traffic.packets[1],
            byte_tx: traffic.bytes[0],
            byte_rx: traffic.bytes[1],
            l3_byte_tx: traffic.l3_bytes[0],
            l3_byte_rx: traffic.l3_bytes[1],
            l4_byte_tx: traffic.l4_bytes[0],
            l4_byte_rx: traffic.l4_bytes[1],
            new_flow: tally.new_flow,
            closed_flow: tally.closed_flow,
            flow_load: tally.flow_load,
            syn_count: u64::from(tcp.syn_count),
            synack_count: u64::from(tcp.synack_count),
            direction_score: tally.direction_score,
            retrans_syn: u64::from(tcp.retrans_syn),
            retrans_synack: u64::from(tcp.retrans_synack),
            retrans_tx: u64::from(tcp.retrans[0]),
            retrans_rx: u64::from(tcp.retrans[1]),
            zero_win_tx: u64::from(tcp.zero_win[0]),
            zero_win_rx: u64::from(tcp.zero_win[1]),
            ooo_tx: u64::from(tcp.ooo[0]),
            ooo_rx: u64::from(tcp.ooo[1]),
            client_source_port_reuse: closed(CloseType::ClientPortReuse),
            server_syn_miss: closed(CloseType::ServerSynMiss),
            client_establish_other_rst: closed(CloseType::ClientEstablishReset),
            client_ack_miss: closed(CloseType::ClientAckMiss),
            server_reset: closed(CloseType::ServerDirectReset),
            server_establish_other_rst: closed(CloseType::ServerEstablishReset),
            client_rst_flow: closed(CloseType::ClientReset),
            server_rst_flow: closed(CloseType::ServerReset),
            server_queue_lack: closed(CloseType::ServerQueueOverflow),
            client_half_close_flow: closed(CloseType::ClientHalfClose),
            server_half_close_flow: closed(CloseType::ServerHalfClose),
            tcp_timeout: tally.tcp_timeout,
            rtt_sum: tcp.rtt.sum as f64,
            rtt_count: u64::from(tcp.rtt.count),
            rtt_max: tcp.rtt.max,
            rtt_client_sum: tcp.rtt_client.sum as f64,
            rtt_client_count: u64::from(tcp.rtt_client.count),
            rtt_client_max: tcp.rtt_client.max,
            rtt_server_sum: tcp.rtt_server.sum as f64,
            rtt_server_count: u64::from(tcp.rtt_server.count),
            rtt_server_max: tcp.rtt_server.max,
            srt_sum: tcp.srt.sum as f64,
            srt_count: u64::from(tcp.srt.count),
            srt_max: tcp.srt.max,
            art_sum: tcp.art.sum as f64,
            art_count: u64::from(tcp.art.count),
            art_max: tcp.art.max,
            cit_sum: tcp.cit.sum as f64,
            cit_count: u64::from(tcp.cit.count),
            cit_max: tcp.cit.max,
            rrt_sum: l7.rrt_sum,
            rrt_count: l7.rrt_count,
            rrt_max: l7.rrt_max,
            l7_request: u64::from(l7.request),
            l7_response: u64::from(l7.response),
            l7_client_error: number_of(l7.client_error),
            l7_server_error: number_of(l7.server_error),
            l7_timeout: number_of(l7.timeout),
        }
    }};
}

pub fn number_of(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn place(source: Source) -> Place {
    match source {
        Source::Packet(place) => place,
        Source::Socket => Place::default(),
    }
}

fn end<'a>(agent_id: u16, second: u32, key: &EndKey, tally: &NetworkTally) -> NetworkRow<'a> {
    row!(
        NetworkRow {
            time: second,
            process_id: key.pid as i32,
            ip4: ip4(key.ip),
            ip6: ip6(key.ip),
            is_ipv4: u8::from(key.ip.is_ipv4()),
            role: key.role,
            protocol: key.protocol,
            server_port: key.server_port,
            capture_network_type_id: VIRTUAL_NETWORK,
            signal_source: 0,
            observation_point: place(key.source).point.name(),
            agent_id,
        },
        tally
    )
}

fn pair<'a>(agent_id: u16, second: u32, key: &PairKey, tally: &NetworkTally) -> NetworkMapRow<'a> {
    row!(
        NetworkMapRow {
            time: second,
            process_id_0: key.pid[0] as i32,
            process_id_1: key.pid[1] as i32,
            ip4_0: ip4(key.ip[0]),
            ip4_1: ip4(key.ip[1]),
            ip6_0: ip6(key.ip[0]),
            ip6_1: ip6(key.ip[1]),
            is_ipv4: u8::from(key.ip[0].is_ipv4()),
            protocol: key.protocol,
            server_port: key.server_port,
            tunnel_type: key.tunnel_type,
            nat_source: key.nat_source,
            capture_nic_type: 0,
            capture_nic: place(key.source).nic,
            capture_network_type_id: VIRTUAL_NETWORK,
            signal_source: 0,
            observation_point: place(key.source).point.name(),
            agent_id,
        },
        tally
    )
}

/// Batches of rows of seconds that are over; the number of rows, and of those that could not be encoded.
pub fn batches(agent_id: u16, seconds: &[Second], batches: &mut Vec<Batch>) -> (u64, u64) {
    let (mut ends, mut pairs) = (NetworkRows::default(), NetworkMapRows::default());
    let mut failed = 0;
    for closed in seconds {
        for (key, tally) in &closed.ends {
            failed += u64::from(ends.push(&end(agent_id, closed.second, key, tally)).is_err());
        }
        for (key, tally) in &closed.pairs {
            failed += u64::from(pairs.push(&pair(agent_id, closed.second, key, tally)).is_err());
        }
    }
    let rows = (ends.len() + pairs.len()) as u64;
    if !ends.is_empty() {
        let count = ends.len();
        let batch = ends.finish().and_then(|batch| encode(&batch));
        failed += push_batch(batches, "network.1s", count, batch);
    }
    if !pairs.is_empty() {
        let count = pairs.len();
        let batch = pairs.finish().and_then(|batch| encode(&batch));
        failed += push_batch(batches, "network_map.1s", count, batch);
    }
    (rows, failed)
}

//! Sessions and closed seconds as rows of the tables.

use arrow_schema::ArrowError;

use crate::batch::{Batch, RowNumbers, ip4, ip6, push_batch};
use crate::connection::{Flow, is_client};
use crate::event::{Place, Source};
use crate::joined::Exchange;
use crate::meter::{Closed, EndKey, Pair, PairKey};
use crate::peers::{Peers, Process, comm_text};
use crate::protocols::{Kind, by_id};
use crate::rows::{
    ApplicationMapRow, ApplicationMapRows, ApplicationRow, ApplicationRows, L7FlowLogRow, L7FlowLogRows, encode,
};
use crate::session::Session;

/// `capture_network_type_id`: everything that an agent sees is one network.
pub const VIRTUAL_NETWORK: u8 = 3;
/// Most rows of one batch.
const BATCH_ROWS: usize = 65_536;
/// Tables that the engine fills.
pub const TABLES: &[&str] =
    &["l7_flow_log", "application.1s", "application_map.1s", "l4_flow_log", "network.1s", "network_map.1s"];

/// Client and server of a connection: who used its socket, who is found by address, who by the numbers of an exchange.
pub fn processes(flow: &Flow, local: Process, exchange: Option<Exchange>, peers: &Peers) -> Pair {
    let ends = [flow.client, flow.server];
    let mut found = [Process::default(); 2];
    for (side, process) in found.iter_mut().enumerate() {
        let (near, far) = (ends[side], ends[1 - side]);
        if flow.source == Source::Socket && is_client(flow.local_role) == (side == 0) {
            *process = local;
            continue;
        }
        let by_address = match flow.source {
            Source::Socket => peers.peer(flow.protocol, flow.netns, far, near),
            Source::Packet(_) => peers.owner(flow.protocol, flow.netns, near, far),
        };
        let known = by_address.or_else(|| peers.joined.find(exchange?, side));
        if let Some(known) = known {
            // Set once: rows that end after the socket is forgotten still name it.
            let _ = flow.processes[side].set(known);
        }
        // Without kernel programs there are only the listeners of /proc: of what is translated they know the outside.
        let listener = || match flow.source {
            Source::Packet(place) if side == 1 && flow.protocol == 6 => peers.server_at(&place, near),
            _ => None,
        };
        *process = known.or_else(|| flow.processes[side].get().copied()).or_else(listener).unwrap_or_default();
    }
    found
}

/// Where packets were seen; of sockets nothing.
fn place(source: Source) -> Place {
    match source {
        Source::Packet(place) => place,
        Source::Socket => Place::default(),
    }
}

/// `capture_nic_type`: a local interface, or eBPF.
fn capture_nic_type(source: Source) -> u8 {
    if source.is_packet() { 0 } else { 7 }
}

fn observation_point(source: Source, client: bool) -> &'static str {
    match (source, client) {
        (Source::Packet(place), _) => place.point.name(),
        (Source::Socket, true) => "c-p",
        (Source::Socket, false) => "s-p",
    }
}

/// The text, else the other one.
fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

fn signal_source(source: Source) -> u16 {
    if source.is_packet() { 0 } else { 3 }
}

/// Gives row ids and turns sessions and seconds into batches.
pub struct Output {
    pub agent_id: u16,
    numbers: RowNumbers,
    rows: L7FlowLogRows,
    batches: Vec<Batch>,
    pub unencodable: u64,
}

impl Output {
    pub fn new(agent_id: u16, numbers: RowNumbers) -> Self {
        Self { agent_id, numbers, rows: L7FlowLogRows::default(), batches: Vec::new(), unencodable: 0 }
    }

    /// Batches made since the last call.
    pub fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.batches)
    }

    /// Adds the row of a session.
    pub fn session(&mut self, session: &Session, peers: &Peers) {
        if self.row(session, peers).is_err() {
            self.unencodable += 1;
        }
        if self.rows.len() >= BATCH_ROWS {
            self.finish_sessions();
        }
    }

    /// Rows that are in no batch yet.
    pub fn open_rows(&self) -> usize {
        self.rows.len()
    }

    /// Makes a batch of the rows so far.
    pub fn finish_sessions(&mut self) {
        if !self.rows.is_empty() {
            let count = self.rows.len();
            let batch = self.rows.finish().and_then(|batch| encode(&batch));
            self.unencodable += push_batch(&mut self.batches, "l7_flow_log", count, batch);
        }
    }

    fn row(&mut self, session: &Session, peers: &Peers) -> Result<(), ArrowError> {
        let flow = &session.flow;
        let client_local = is_client(flow.local_role);
        let place = place(flow.source);
        let (request, response) = (session.request.as_ref(), session.response.as_ref());
        // A text of the request, else of the response; and the other way round.
        let (start_us, end_us) = session.times();
        let empty = crate::protocols::Message::default();
        let asked = request.map_or(&empty, |half| &*half.message);
        let answered = response.map_or(&empty, |half| &*half.message);
        let first = if request.is_some() { asked } else { answered };

        let l7_protocol = flow.l7_protocol(if first.l7_protocol == 0 { answered } else { first });

        let local_task = request.or(response).map(|half| half.task).unwrap_or_default();
        let [client, server] =
            processes(flow, Process::from(&local_task), session.exchange(), peers).map(|process| peers.named(process));

        let pushed = asked.is_reversed && asked.kind == Kind::Session;
        let attributes = || asked.attributes.iter().chain(&answered.attributes);
        let mut names: Vec<&str> = attributes().map(|(name, _)| name.as_str()).collect();
        let mut values: Vec<&str> = attributes().map(|(_, value)| value.as_str()).collect();
        if !session.alone.is_empty() {
            names.push("unpaired");
            values.push(session.alone);
        }
        let row = L7FlowLogRow {
            time: (end_us / 1_000_000) as u32,
            _id: self.numbers.next(self.agent_id, end_us),
            flow_id: flow.id,
            start_time: start_us as i64,
            end_time: end_us as i64,
            ip4_0: ip4(flow.client.ip),
            ip4_1: ip4(flow.server.ip),
            ip6_0: ip6(flow.client.ip),
            ip6_1: ip6(flow.server.ip),
            is_ipv4: u8::from(flow.client.ip.is_ipv4()),
            protocol: flow.protocol,
            client_port: flow.client.port,
            server_port: flow.server.port,
            req_tcp_seq: request.map_or(0, |half| half.origin.seq),
            resp_tcp_seq: response.map_or(0, |half| half.origin.seq),
            l7_protocol,
            biz_protocol: by_id(l7_protocol).map_or(flow.l7.name, |protocol| protocol.name),
            version: if first.version.is_empty() { &answered.version } else { &first.version },
            r#type: session.row_type as u8,
            is_tls: 0,
            is_async: 0,
            is_reversed: u8::from(first.is_reversed),
            request_type: &first.request_type,
            request_domain: or(&first.request_domain, &answered.request_domain),
            request_resource: or(&first.request_resource, &answered.request_resource),
            endpoint: or(&first.endpoint, &answered.endpoint),
            request_id: first.request_id.or(answered.request_id),
            response_status: session.status as u8,
            response_code: answered.response_code.or(asked.response_code),
            response_exception: or(&answered.response_exception, &asked.response_exception),
            response_result: or(&answered.response_result, &asked.response_result),
            http_proxy_client: &asked.http_proxy_client,
            x_request_id_0: &asked.x_request_id,
            x_request_id_1: &answered.x_request_id,
            trace_id: if first.trace_id.is_empty() { &answered.trace_id } else { &first.trace_id },
            span_id: if first.trace_id.is_empty() { &answered.span_id } else { &first.span_id },
            syscall_trace_id_request: request.map_or(0, |half| half.syscall_trace_id),
            syscall_trace_id_response: response.map_or(0, |half| half.syscall_trace_id),
            syscall_thread_0: request.map_or(0, |half| half.task.tid),
            syscall_thread_1: response.map_or(0, |half| half.task.tid),
            syscall_cap_seq_0: request.map_or(0, |half| half.cap_seq),
            syscall_cap_seq_1: response.map_or(0, |half| half.cap_seq),
            process_id_0: client.pid as i32,
            process_id_1: server.pid as i32,
            process_kname_0: comm_text(&client.comm),
            process_kname_1: comm_text(&server.comm),
            signal_source: signal_source(flow.source),
            capture_network_type_id: VIRTUAL_NETWORK,
            nat_source: place.nat_source,
            tunnel_type: place.tunnel,
            capture_nic_type: capture_nic_type(flow.source),
            capture_nic: place.nic,
            observation_point: observation_point(flow.source, client_local),
            agent_id: self.agent_id,
            response_duration: end_us - start_us,
            // What a server sends unasked is a response by its direction.
            request_length: asked.length.filter(|_| !pushed).or(asked.request_length).or(answered.request_length),
            response_length: if pushed { asked.length } else { answered.length },
            sql_affected_rows: answered.sql_affected_rows,
            direction_score: flow.direction_score,
            captured_request_byte: request.map_or(0, |half| half.captured),
            captured_response_byte: response.map_or(0, |half| half.captured),
            attribute_names: &names,
            attribute_values: &values,
        };
        self.rows.push(&row)
    }

    pub fn meters(&mut self, seconds: &[Closed]) {
        let (mut ends, mut pairs) = (ApplicationRows::default(), ApplicationMapRows::default());
        for closed in seconds {
            for (key, tally) in &closed.ends {
                if ends.push(&self.end(closed.second, key, tally)).is_err() {
                    self.unencodable += 1;
                }
            }
            for (key, tally) in &closed.pairs {
                if pairs.push(&self.pair(closed.second, key, tally)).is_err() {
                    self.unencodable += 1;
                }
            }
        }
        if !ends.is_empty() {
            let count = ends.len();
            let batch = ends.finish().and_then(|batch| encode(&batch));
            self.unencodable += push_batch(&mut self.batches, "application.1s", count, batch);
        }
        if !pairs.is_empty() {
            let count = pairs.len();
            let batch = pairs.finish().and_then(|batch| encode(&batch));
            self.unencodable += push_batch(&mut self.batches, "application_map.1s", count, batch);
        }
    }

    fn end<'a>(&self, second: u32, key: &'a EndKey, tally: &crate::meter::Tally) -> ApplicationRow<'a> {
        ApplicationRow {
            time: second,
            process_id: key.pid as i32,
            ip4: ip4(key.ip),
            ip6: ip6(key.ip),
            is_ipv4: u8::from(key.ip.is_ipv4()),
            role: key.role,
            protocol: key.protocol,
            server_port: key.server_port,
            l7_protocol: key.l7_protocol,
            endpoint: &key.endpoint,
            signal_source: signal_source(key.source),
            observation_point: observation_point(key.source, key.role == 0),
            agent_id: self.agent_id,
            request: tally.request,
            response: tally.response,
            rrt_sum: tally.rrt_sum,
            rrt_count: tally.rrt_count,
            rrt_max: tally.rrt_max,
            client_error: tally.client_error,
            server_error: tally.server_error,
            timeout: tally.timeout,
            error: tally.client_error + tally.server_error,
            direction_score: tally.direction_score,
        }
    }

    fn pair<'a>(&self, second: u32, key: &'a PairKey, tally: &crate::meter::Tally) -> ApplicationMapRow<'a> {
        ApplicationMapRow {
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
            l7_protocol: key.l7_protocol,
            endpoint: &key.endpoint,
            tunnel_type: place(key.source).tunnel,
            nat_source: place(key.source).nat_source,
            capture_nic_type: capture_nic_type(key.source),
            capture_nic: place(key.source).nic,
            signal_source: signal_source(key.source),
            observation_point: observation_point(key.source, key.local_role == 0),
            agent_id: self.agent_id,
            request: tally.request,
            response: tally.response,
            rrt_sum: tally.rrt_sum,
            rrt_count: tally.rrt_count,
            rrt_max: tally.rrt_max,
            client_error: tally.client_error,
            server_error: tally.server_error,
            timeout: tally.timeout,
            error: tally.client_error + tally.server_error,
            direction_score: tally.direction_score,
        }
    }
}

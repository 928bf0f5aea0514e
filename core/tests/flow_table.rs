//! Frames to rows of flows: places, minutes, direction, bounds, names behind address translation.

use std::collections::HashMap;
use std::net::IpAddr;

use _core::batch::Batch;
use _core::engine::{Engine, EngineConfig, Shared};
use _core::event::{Direction, Endpoint, EventSink, Place, Point, Segment, Source, Task};
use _core::flow::seen::{Nowhere, Places};
use _core::packet::Frame;
use _core::packets::Packets;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;

const START_US: u64 = 1_700_000_040_000_000;
const SECOND: u64 = 1_000_000;
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 8080);
const SYN: u8 = 2;
const FIN_ACK: u8 = 17;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
const PSH_ACK: u8 = 24;
const GET: &[u8] = b"GET /order/7 HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type End = ([u8; 4], u16);

/// An Ethernet frame with a TCP segment.
fn tcp(from: End, to: End, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to.0[3], 2, 0, 0, 0, 0, from.0[3], 8, 0, 0x45, 0];
    frame.extend((40 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 9, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.0);
    frame.extend(to.0);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

fn see(packets: &mut Packets, places: &dyn Places, nic: u32, time_us: u64, data: &[u8]) {
    let wire = data.len() as u32;
    packets.frame(&Frame { time_us, link_type: 1, nic, wire, data, vlan: None, outgoing: false }, places);
}

/// One connection: handshake, one request, its response, the end.
fn connection() -> Vec<Vec<u8>> {
    let (request, response) = (101 + GET.len() as u32, 501 + OK.len() as u32);
    vec![
        tcp(CLIENT, SERVER, SYN, 100, 0, &[]),
        tcp(SERVER, CLIENT, SYN_ACK, 500, 101, &[]),
        tcp(CLIENT, SERVER, ACK, 101, 501, &[]),
        tcp(CLIENT, SERVER, PSH_ACK, 101, 501, GET),
        tcp(SERVER, CLIENT, PSH_ACK, 501, request, OK),
        tcp(CLIENT, SERVER, FIN_ACK, request, response, &[]),
        tcp(SERVER, CLIENT, FIN_ACK, response, request + 1, &[]),
        tcp(CLIENT, SERVER, ACK, request + 1, response + 1, &[]),
    ]
}

fn product(config: &str) -> Packets {
    let config = EngineConfig::from_json(config).expect("a right configuration");
    Packets::new(&config, &Shared::default(), 0)
}

/// All rows of a table in one batch; an empty one when there are none.
#[derive(Default)]
struct Rows(HashMap<&'static str, Vec<RecordBatch>>);

impl Rows {
    fn add(&mut self, batches: Vec<Batch>) {
        for (table, rows, bytes) in batches {
            let reader = StreamReader::try_new(&bytes[..], None).expect("an Arrow stream");
            let read: Vec<RecordBatch> = reader.map(|batch| batch.expect("a batch")).collect();
            assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            self.0.entry(table).or_default().extend(read);
        }
    }

    fn of(batches: Vec<Batch>) -> Self {
        let mut rows = Self::default();
        rows.add(batches);
        rows
    }

    fn column<T>(&self, table: &str, name: &str, read: impl Fn(&dyn Array, usize) -> T) -> Vec<T> {
        let mut values = Vec::new();
        for batch in self.0.get(table).map(Vec::as_slice).unwrap_or_default() {
            let column = batch.column_by_name(name).expect("a column of the table");
            values.extend((0..batch.num_rows()).map(|row| read(column.as_ref(), row)));
        }
        values
    }

    fn numbers(&self, table: &str, name: &str) -> Vec<u64> {
        self.column(table, name, |column, row| {
            if let Some(column) = column.as_primitive_opt::<UInt64Type>() {
                column.value(row)
            } else if let Some(column) = column.as_primitive_opt::<UInt32Type>() {
                u64::from(column.value(row))
            } else if let Some(column) = column.as_primitive_opt::<UInt16Type>() {
                u64::from(column.value(row))
            } else if let Some(column) = column.as_primitive_opt::<Int32Type>() {
                column.value(row) as u64
            } else {
                u64::from(column.as_primitive::<UInt8Type>().value(row))
            }
        })
    }

    fn texts(&self, table: &str, name: &str) -> Vec<String> {
        self.column(table, name, |column, row| {
            if let Some(column) = column.as_string_opt::<i32>() {
                return column.value(row).to_string();
            }
            let column = column.as_dictionary::<Int32Type>();
            column.values().as_string::<i32>().value(column.key(row).expect("a key")).to_string()
        })
    }

    fn sum(&self, table: &str, name: &str) -> u64 {
        self.numbers(table, name).iter().sum()
    }
}

/// Interface 1 is the client's, interface 2 the server's.
struct TwoEnds;

impl Places for TwoEnds {
    fn place(&self, nic: u32, client: Endpoint, _: Endpoint) -> Place {
        let from_client = client.port == CLIENT.1;
        let place = Place { nic, netns: nic, ..Place::default() };
        let place = match nic {
            1 => Place { point: Point::Client, l3_end: [true, false], ..place },
            _ => Place { point: Point::Server, l3_end: [false, true], ..place },
        };
        if from_client { place } else { place.mirrored() }
    }

    fn is_here(&self, _: IpAddr) -> bool {
        false
    }
}

#[test]
fn one_connection_at_two_places() {
    let mut packets = product("{}");
    for (at, data) in connection().iter().enumerate() {
        for nic in [1, 2] {
            see(&mut packets, &TwoEnds, nic, START_US + at as u64 * 1000 + u64::from(nic), data);
        }
    }
    let rows = Rows::of(packets.finish(START_US + SECOND, false));
    let table = "l4_flow_log";
    assert_eq!(rows.texts(table, "observation_point"), ["c", "s"]);
    assert_eq!(rows.numbers(table, "close_type"), [1, 1]);
    assert_eq!(rows.numbers(table, "packet_tx"), [5, 5]);
    assert_eq!(rows.numbers(table, "packet_rx"), [3, 3]);
    assert_eq!(rows.numbers(table, "l4_byte_rx"), [OK.len() as u64; 2]);
    assert_eq!(rows.numbers(table, "capture_nic"), [1, 2]);
    assert_eq!(rows.numbers(table, "syn_seq"), [100, 100]);
    assert_eq!(rows.numbers(table, "l7_request"), [1, 1]);
    assert_eq!(rows.texts(table, "request_domain"), ["shop", "shop"]);
    let requests = "l7_flow_log";
    assert_eq!(rows.texts(requests, "observation_point"), ["c", "s"]);
    assert_eq!(rows.numbers(requests, "req_tcp_seq"), [101, 101]);
    assert_eq!(rows.numbers(requests, "resp_tcp_seq"), [501, 501]);
    // Each place counts for the end that is there, and sees its own sending as tx.
    let mut roles: Vec<_> =
        rows.numbers("network.1s", "role").into_iter().zip(rows.numbers("network.1s", "packet_tx")).collect();
    roles.retain(|(_, sent)| *sent > 0);
    roles.sort_unstable();
    assert_eq!(roles, [(0, 5), (1, 3)]);
    assert_eq!(rows.sum("network_map.1s", "new_flow"), 2);
    assert_eq!(rows.sum("network_map.1s", "closed_flow"), 2);
    assert_eq!(rows.sum("network_map.1s", "l7_response"), 2);
}

#[test]
fn what_a_load_balancer_wrote_of_the_client_stands_in_every_row() {
    let mut packets = product("{}");
    for (at, mut data) in connection().into_iter().enumerate() {
        // The last packet of the handshake has it: kind 254, port 8080, 203.0.113.5.
        if at == 2 {
            data.extend([254, 8, 0x1f, 0x90, 203, 0, 113, 5]);
            (data[17], data[46]) = (48, 0x70);
        }
        see(&mut packets, &Nowhere, 0, START_US + at as u64 * 1000, &data);
    }
    let rows = Rows::of(packets.finish(START_US + SECOND, false));
    assert_eq!(rows.numbers("l4_flow_log", "nat_real_ip4_0"), [0xcb00_7105]);
    assert_eq!(rows.numbers("l4_flow_log", "nat_real_port_0"), [8080]);
    assert_eq!(rows.numbers("l4_flow_log", "nat_real_port_1"), [0]);
    for table in ["l4_flow_log", "l7_flow_log", "application_map.1s"] {
        assert_eq!(rows.numbers(table, "nat_source"), [6], "{table}");
    }
    assert_eq!(rows.numbers("network_map.1s", "nat_source").last(), Some(&6));
}

#[test]
fn a_long_flow_has_a_row_a_minute() {
    let mut packets = product("{}");
    let mut rows = Rows::default();
    let mut now_us = START_US;
    for data in &connection()[..3] {
        see(&mut packets, &Nowhere, 0, now_us, data);
    }
    for number in 0..25_u32 {
        now_us += 6 * SECOND;
        let data = tcp(CLIENT, SERVER, PSH_ACK, 101 + number * 10, 501, b"0123456789");
        see(&mut packets, &Nowhere, 0, now_us, &data);
        packets.tick(now_us + SECOND / 2);
        rows.add(packets.drain(now_us + SECOND / 2));
    }
    rows.add(packets.finish(now_us, true));
    let table = "l4_flow_log";
    let kinds = rows.numbers(table, "close_type");
    assert_eq!(kinds, [5, 5, 3], "two minutes that ended, and the time-out");
    assert_eq!(rows.numbers(table, "is_new_flow"), [1, 0, 0]);
    assert_eq!(rows.sum(table, "packet_tx"), 27);
    assert_eq!(rows.numbers(table, "total_packet_tx").last(), Some(&27));
    assert_eq!(rows.sum("network_map.1s", "packet_tx"), 27);
    assert_eq!(rows.sum("network_map.1s", "new_flow"), 1);
    assert_eq!(rows.sum("network_map.1s", "tcp_timeout"), 1);
    // One flow is never more than one in a second.
    assert_eq!(rows.sum("network_map.1s", "flow_load"), 26);
    let minutes: Vec<u64> = rows.numbers(table, "time").iter().map(|time| time / 60).collect();
    assert!(minutes.windows(2).all(|two| two[0] <= two[1]), "{minutes:?}");
}

#[test]
fn the_protocol_says_who_is_the_client() {
    let mut packets = product("{}");
    // The capture begins within the connection, with a packet of the server; both ports look like a client's.
    let server = (SERVER.0, 45_000);
    let frames = [
        tcp(server, CLIENT, ACK, 501, 101, &[]),
        tcp(CLIENT, server, PSH_ACK, 101, 501, GET),
        tcp(server, CLIENT, PSH_ACK, 501, 101 + GET.len() as u32, OK),
    ];
    for (at, data) in frames.iter().enumerate() {
        see(&mut packets, &Nowhere, 0, START_US + at as u64, data);
    }
    let rows = Rows::of(packets.finish(START_US + SECOND, true));
    assert_eq!(rows.numbers("l4_flow_log", "client_port"), [u64::from(CLIENT.1)]);
    assert_eq!(rows.numbers("l4_flow_log", "direction_score"), [254]);
    assert_eq!(rows.numbers("l4_flow_log", "packet_rx"), [2]);
    assert_eq!(rows.numbers("l4_flow_log", "l4_byte_tx"), [GET.len() as u64]);
    assert_eq!(rows.numbers("l4_flow_log", "mac_0"), [0x0200_0000_0001]);
}

#[test]
fn ports_of_servers_are_told() {
    // Of no known protocol, begun before the capture; by the lower port the sender would be the server.
    let (near, far) = ((CLIENT.0, 900), (SERVER.0, 45_000));
    for (config, client, score) in [("{}", 45_000, 128), (r#"{"server_ports": [45001, 45000]}"#, 900, 253)] {
        let mut packets = product(config);
        see(&mut packets, &Nowhere, 0, START_US, &tcp(near, far, PSH_ACK, 101, 501, b"?"));
        let rows = Rows::of(packets.finish(START_US + SECOND, true));
        assert_eq!(rows.numbers("l4_flow_log", "client_port"), [client]);
        assert_eq!(rows.numbers("l4_flow_log", "direction_score"), [score]);
    }
}

/// Health checks: connections that open, and are closed without a byte.
#[test]
fn connections_that_carry_nothing_make_one_row_a_minute() {
    const CHECKS: u16 = 30;
    let table = "l4_flow_log";
    for (config, all_rows) in [("{}", 2 * CHECKS + 2), (r#"{"aggregate_health_check": true}"#, 4)] {
        let mut packets = product(config);
        let (mut rows, mut now_us) = (Rows::default(), START_US / (60 * SECOND) * 60 * SECOND);
        for minute in 0..2 {
            for number in 0..CHECKS {
                let client = (CLIENT.0, CLIENT.1 + CHECKS * minute + number);
                for data in [
                    tcp(client, SERVER, SYN, 100, 0, &[]),
                    tcp(SERVER, client, SYN_ACK, 500, 101, &[]),
                    tcp(client, SERVER, ACK, 101, 501, &[]),
                    tcp(client, SERVER, FIN_ACK, 101, 501, &[]),
                    tcp(SERVER, client, FIN_ACK, 501, 102, &[]),
                    tcp(client, SERVER, ACK, 102, 502, &[]),
                ] {
                    see(&mut packets, &Nowhere, 0, now_us, &data);
                    now_us += 10;
                }
                now_us += SECOND;
                packets.tick(now_us);
                rows.add(packets.drain(now_us));
            }
            // A call of the same client has a row of its own.
            for data in connection() {
                see(&mut packets, &Nowhere, 0, now_us, &data);
            }
            now_us = (now_us / (60 * SECOND) + 1) * 60 * SECOND;
            packets.tick(now_us);
            rows.add(packets.drain(now_us));
        }
        rows.add(packets.finish(now_us, true));
        let ids = rows.texts(table, "aggregated_flow_ids");
        assert_eq!(ids.len(), usize::from(all_rows), "{config}");
        assert_eq!(rows.sum(table, "packet_tx"), u64::from(2 * CHECKS) * 4 + 2 * 5, "{config}");
        assert_eq!(rows.sum(table, "syn_count"), u64::from(2 * CHECKS + 2), "{config}");
        assert_eq!(rows.sum("network_map.1s", "new_flow"), u64::from(2 * CHECKS + 2), "{config}");
        let merged: Vec<Vec<&str>> =
            ids.iter().filter(|ids| !ids.is_empty()).map(|ids| ids.split(',').collect()).collect();
        if config == "{}" {
            assert!(merged.is_empty());
            continue;
        }
        assert_eq!(merged.iter().map(Vec::len).collect::<Vec<_>>(), [usize::from(CHECKS); 2]);
        let flows = rows.numbers(table, "flow_id");
        let first = ids.iter().position(|ids| !ids.is_empty()).expect("a row of health checks");
        assert_eq!(merged[0][0], flows[first].to_string(), "the row has the number of the first");
        let durations = rows.numbers(table, "duration");
        assert_eq!(durations[first], 50, "of one connection, not of the minute");
    }
}

#[test]
fn time_outs_are_told() {
    let open = &connection()[..3];
    for (config, after, rows_then) in [
        ("{}", 299, 0),
        (r#"{"flow_timeouts": {"established_us": 20000000}}"#, 22, 1),
        (r#"{"flow_timeouts": {"established_us": 1000000000}}"#, 900, 0),
    ] {
        let mut packets = product(config);
        for data in open {
            see(&mut packets, &Nowhere, 0, START_US, data);
        }
        let mut rows = Rows::default();
        for second in 1..=after {
            packets.tick(START_US + second * SECOND);
        }
        rows.add(packets.drain(START_US + after * SECOND));
        let ended = rows.numbers("l4_flow_log", "close_type").into_iter().filter(|kind| *kind == 3).count();
        assert_eq!(ended, rows_then, "{config}");
        let rest = Rows::of(packets.finish(START_US + after * SECOND, true));
        let late = rest.numbers("l4_flow_log", "close_type").into_iter().filter(|kind| *kind == 3).count();
        assert_eq!(late, 1 - rows_then, "{config}");
    }
    let wrong = EngineConfig::from_json(r#"{"flow_timeouts": {"others_us": 0}}"#).expect_err("no time");
    assert!(wrong.contains("flow_timeouts.others_us"), "{wrong}");
}

#[test]
fn what_makes_no_sense_is_counted_on_its_flow() {
    let mut packets = product("{}");
    let mut frames = connection();
    frames.truncate(5);
    let (request, response) = (101 + GET.len() as u32, 501 + OK.len() as u32);
    frames.push(tcp(CLIENT, SERVER, PSH_ACK, request, response, b"\x16\x00nothing that HTTP knows\r\n\r\n"));
    for (at, data) in frames.iter().enumerate() {
        see(&mut packets, &Nowhere, 0, START_US + at as u64, data);
    }
    let rows = Rows::of(packets.finish(START_US + SECOND, true));
    assert_eq!(rows.numbers("l4_flow_log", "l7_parse_failed"), [1]);
    assert_eq!(rows.numbers("l4_flow_log", "l7_request"), [1]);
}

#[test]
fn the_same_ports_again_are_another_flow() {
    let mut packets = product("{}");
    let mut time_us = START_US;
    for _ in 0..3 {
        for data in connection() {
            time_us += 1000;
            see(&mut packets, &Nowhere, 0, time_us, &data);
        }
    }
    let rows = Rows::of(packets.finish(time_us, true));
    // The numbers are the same, so the second and third are repetitions of the first until their handshake.
    let flows = rows.numbers("l4_flow_log", "flow_id");
    assert_eq!(rows.sum("l4_flow_log", "packet_tx"), 15);
    assert_eq!(flows.len(), rows.sum("l4_flow_log", "is_new_flow") as usize);
    let mut packets = product("{}");
    let begun = |seq| tcp(CLIENT, SERVER, SYN, seq, 0, &[]);
    for (at, data) in connection().into_iter().chain([begun(90_000)]).enumerate() {
        see(&mut packets, &Nowhere, 0, START_US + at as u64, &data);
    }
    let rows = Rows::of(packets.finish(START_US + SECOND, true));
    assert_eq!(rows.numbers("l4_flow_log", "close_type"), [1, 7]);
}

#[test]
fn a_flood_does_not_grow_the_table() {
    let mut packets = product(r#"{"concurrent_flow_limit": 1000}"#);
    let mut rows = Rows::default();
    for number in 0..20_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let from = ([10, 1 + a, b, c], 1024);
        see(&mut packets, &Nowhere, 0, START_US + u64::from(number), &tcp(from, SERVER, SYN, number, 0, &[]));
        assert!(packets.flow_numbers().1 <= 1000);
        if number % 1000 == 0 {
            rows.add(packets.drain(START_US + u64::from(number)));
        }
    }
    let counters: HashMap<_, _> = packets.counters().into_iter().collect();
    assert_eq!((counters["flows"], counters["flows_evicted"], counters["flows_now"]), (20_000, 19_000, 1000));
    rows.add(packets.finish(START_US + SECOND, true));
    // What had to go is reported all the same.
    assert_eq!(rows.sum("l4_flow_log", "packet_tx"), 20_000);
    assert_eq!(rows.sum("network_map.1s", "packet_tx"), 20_000);
    assert_eq!(rows.sum("network_map.1s", "syn_count"), 20_000);
    assert_eq!(counters["connections"], 0, "a flow without payload is nothing to the application engine");
}

/// What a process writes or reads on its socket.
struct Call<'a> {
    socket: u64,
    pid: u32,
    ends: (End, End),
    direction: Direction,
    tcp_seq: u32,
    payload: &'a [u8],
}

fn call(engine: &mut Engine, time_us: u64, call: &Call<'_>) {
    let end = |(ip, port): End| Endpoint { ip: ip.into(), port };
    engine.segment(&Segment {
        time_us,
        source: Source::Socket,
        socket: call.socket,
        direction: call.direction,
        protocol: 6,
        local: end(call.ends.0),
        remote: end(call.ends.1),
        netns: 1,
        task: Task { pid: call.pid, tid: call.pid, comm: *b"program\0\0\0\0\0\0\0\0\0" },
        cgroup: 0,
        tcp_seq: call.tcp_seq,
        length: call.payload.len() as u32,
        payload: call.payload,
    });
}

#[test]
fn both_processes_are_named_behind_address_translation() {
    let (config, shared) = (EngineConfig::default(), Shared::default());
    let (mut sockets, mut packets) = (Engine::beside(&config, &shared), Packets::new(&config, &shared, 1));
    let (service, node, pod) = (([10, 96, 0, 1], 80), ([192, 168, 0, 5], 33_333), ([10, 244, 0, 9], 8080));
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let steps = [
        (7, (CLIENT, service), egress, 101, GET),
        (9, (pod, node), ingress, 101, GET),
        (9, (pod, node), egress, 501, OK),
        (7, (CLIENT, service), ingress, 501, OK),
    ];
    for (at, (pid, ends, direction, tcp_seq, payload)) in steps.into_iter().enumerate() {
        let step = Call { socket: u64::from(pid), pid, ends, direction, tcp_seq, payload };
        call(&mut sockets, START_US + at as u64, &step);
    }
    for data in [tcp(node, service, PSH_ACK, 101, 501, GET), tcp(service, node, PSH_ACK, 501, 140, OK)] {
        see(&mut packets, &Nowhere, 0, START_US + 2, &data);
    }
    let rows = Rows::of(sockets.drain(START_US + SECOND, false));
    assert_eq!(rows.numbers("l7_flow_log", "process_id_0"), [7, 7]);
    assert_eq!(rows.numbers("l7_flow_log", "process_id_1"), [9, 9]);
    let rows = Rows::of(packets.finish(START_US + SECOND, false));
    for table in ["l7_flow_log", "l4_flow_log"] {
        assert_eq!(rows.numbers(table, "process_id_0"), [7], "{table}");
        assert_eq!(rows.numbers(table, "process_id_1"), [9], "{table}");
    }
}

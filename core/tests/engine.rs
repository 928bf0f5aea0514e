//! The engine on segments as sockets report them: causes, meters, rows, bounds.

use std::collections::HashMap;

use _core::engine::{Engine, EngineConfig};
use _core::event::{Direction, Endpoint, EventSink, Place, ProcessChange, Segment, SocketChange, Source, Task};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt32Type, UInt64Type};
use arrow_ipc::reader::StreamReader;

const START_US: u64 = 1_700_000_000_000_000;

/// One host's sockets, written as steps.
struct Host {
    engine: Engine,
    now_us: u64,
    sockets: HashMap<String, u64>,
    seq: HashMap<(u64, bool), u32>,
}

impl Host {
    fn new(config: &str) -> Self {
        let config = EngineConfig::from_json(config).expect("a right configuration");
        let engine = Engine::new(&config);
        Self { engine, now_us: START_US, sockets: HashMap::new(), seq: HashMap::new() }
    }

    fn socket(&mut self, name: &str) -> (u64, Endpoint, Endpoint) {
        let next = self.sockets.len() as u64 + 1;
        let socket = *self.sockets.entry(name.to_string()).or_insert(next);
        let end = |last: u8, port: u16| Endpoint { ip: [10, 0, 0, last].into(), port };
        let (near, far) = (end(1, 40_000 + socket as u16), end(2, 80));
        let server = name.starts_with("in");
        if server { (socket, end(1, 8080), end(3, 50_000 + socket as u16)) } else { (socket, near, far) }
    }

    /// `TID` of process 100, or `PID/TID`.
    fn task(word: &str) -> Task {
        let (pid, tid) = word.split_once('/').unwrap_or(("100", word));
        let number = |word: &str| word.parse().expect("a number");
        Task { pid: number(pid), tid: number(tid), comm: *b"shop\0\0\0\0\0\0\0\0\0\0\0\0" }
    }

    fn data(&mut self, name: &str, direction: Direction, task: Task, payload: &[u8]) {
        let (socket, local, remote) = self.socket(name);
        self.now_us += 1000;
        let seq = self.seq.entry((socket, direction == Direction::Egress)).or_insert(1000);
        let tcp_seq = *seq;
        *seq += payload.len() as u32;
        let (source, length) = (Source::Socket, payload.len() as u32);
        let time_us = self.now_us;
        self.engine.segment(&Segment {
            time_us,
            source,
            socket,
            direction,
            protocol: 6,
            local,
            remote,
            netns: 1,
            task,
            cgroup: 0,
            tcp_seq,
            length,
            payload,
        });
    }

    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        if words[0] == "exit" {
            let (time_us, pid) = (self.now_us, words[1].parse().expect("a process"));
            self.engine.process(ProcessChange::Exit { time_us, pid, exit_code: 0 });
            return;
        }
        if words[0] == "connect" {
            let (socket, local, remote) = self.socket(words[1]);
            let task = Self::task(words[2]);
            let (time_us, source, netns) = (self.now_us, Source::Socket, 1);
            // As in the kernel: the local port is chosen later.
            let local = Endpoint { port: 0, ..local };
            self.engine.socket(&SocketChange::Connect { time_us, source, socket, netns, local, remote, task });
            return;
        }
        let direction = if words[0] == "recv" { Direction::Ingress } else { Direction::Egress };
        let mut payload = String::new();
        let mut rest = words[3..].iter();
        while let Some(word) = rest.next() {
            payload += &match *word {
                "GET" => format!("GET {} HTTP/1.1\r\nHost: shop\r\n\r\n", rest.next().expect("a path")),
                "OK" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_string(),
                "ERROR" => "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_string(),
                "HEAD10" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_string(),
                "BODY10" => "0123456789".to_string(),
                other => panic!("{other} is no step"),
            };
        }
        self.data(words[1], direction, Self::task(words[2]), payload.as_bytes());
    }

    fn drain(&mut self, all: bool) -> HashMap<&'static str, Vec<RecordBatch>> {
        let mut tables: HashMap<&'static str, Vec<RecordBatch>> = HashMap::new();
        for (table, rows, bytes) in self.engine.drain(self.now_us, all) {
            let reader = StreamReader::try_new(&bytes[..], None).expect("an Arrow stream");
            let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("a batch")).collect();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            tables.entry(table).or_default().extend(batches);
        }
        tables
    }

    fn counter(&self, name: &str) -> u64 {
        self.engine.counters().into_iter().find(|(known, _)| *known == name).expect("a counter").1
    }
}

fn numbers(batches: &[RecordBatch], column: &str) -> Vec<u64> {
    let mut found = Vec::new();
    for batch in batches {
        let column = batch.column_by_name(column).expect("a column");
        if let Some(column) = column.as_primitive_opt::<UInt64Type>() {
            found.extend(column.values().iter().copied());
        } else if let Some(column) = column.as_primitive_opt::<UInt32Type>() {
            found.extend(column.values().iter().map(|value| u64::from(*value)));
        } else {
            found.extend(column.as_primitive::<UInt8Type>().values().iter().map(|value| u64::from(*value)));
        }
    }
    found
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let column = |batch: &RecordBatch| batch.column_by_name(column).expect("a column").clone();
    batches
        .iter()
        .flat_map(|b| column(b).as_string::<i32>().iter().flatten().map(str::to_string).collect::<Vec<_>>())
        .collect()
}

#[test]
fn causes_are_those_of_the_cases() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("data/causality.json")).expect("cases");
    for case in cases.as_array().expect("a list") {
        let mut host = Host::new("");
        for step in case["steps"].as_array().expect("steps") {
            host.step(step.as_str().expect("a step"));
        }
        let tables = host.drain(true);
        let rows = &tables["l7_flow_log"];
        let ids = numbers(rows, "syscall_trace_id_request");
        let responses = numbers(rows, "syscall_trace_id_response");
        let types = numbers(rows, "type");
        let mut found: HashMap<String, u64> = HashMap::new();
        for (place, path) in texts(rows, "request_resource").into_iter().enumerate() {
            if types[place] == 2 {
                assert_eq!(responses[place], ids[place], "{case}: response of {path}");
            }
            found.insert(path, ids[place]);
        }
        let mut labels: HashMap<&str, u64> = HashMap::from([("0", 0)]);
        for (path, label) in case["expect"].as_object().expect("expectations") {
            let label = label.as_str().expect("a label");
            let id = found[path];
            assert_eq!(*labels.entry(label).or_insert(id), id, "{}: {path}", case["case"]);
        }
        let mut ids: Vec<u64> = labels.values().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), labels.len(), "{}: labels share an id", case["case"]);
    }
}

#[test]
fn meters_count_what_happened() {
    let mut host = Host::new("");
    for number in 0..100 {
        host.step("recv in 1 GET /work");
        if number < 10 {
            host.now_us += 50_000;
        }
        host.step(if number < 5 { "send in 1 ERROR" } else { "send in 1 OK" });
    }
    let tables = host.drain(true);
    for table in ["application.1s", "application_map.1s"] {
        let total = |column: &str| numbers(&tables[table], column).iter().sum::<u64>();
        assert_eq!((total("request"), total("response"), total("server_error"), total("error")), (100, 100, 5, 5));
        assert_eq!(numbers(&tables[table], "rrt_max").into_iter().max(), Some(51_000));
    }
    let ids = numbers(&tables["l7_flow_log"], "_id");
    let distinct: std::collections::HashSet<&u64> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (100, 100));
}

#[test]
fn a_request_without_response_times_out_or_is_closed() {
    let mut host = Host::new(r#"{"tcp_request_timeout_s": 10}"#);
    host.step("send up 1 GET /slow");
    host.step("send gone 1 GET /gone");
    let (time_us, socket) = (host.now_us, host.sockets["gone"]);
    host.engine.socket(&SocketChange::Close { time_us, socket });
    host.now_us += 11_000_000;
    host.engine.tick(host.now_us);
    let tables = host.drain(true);
    let rows = &tables["l7_flow_log"];
    assert_eq!(texts(rows, "request_resource"), ["/gone", "/slow"]);
    assert_eq!(numbers(rows, "response_status"), [5, 2]);
    assert_eq!(numbers(rows, "type"), [0, 0]);
    assert_eq!(numbers(&tables["application.1s"], "timeout").iter().sum::<u64>(), 1);
    assert_eq!((host.counter("requests_closed"), host.counter("requests_timed_out")), (1, 1));
}

#[test]
fn each_request_of_a_connection_has_its_own_time() {
    let mut host = Host::new(r#"{"tcp_request_timeout_s": 10}"#);
    let begun_us = host.now_us;
    let timed_out = |host: &mut Host, after_s: u64| {
        host.now_us = begun_us + after_s * 1_000_000;
        host.engine.tick(host.now_us);
        host.counter("requests_timed_out")
    };
    host.step("send up 1 GET /answered");
    host.step("recv up 1 OK");
    assert_eq!(timed_out(&mut host, 4), 0);
    host.step("send up 1 GET /four");
    assert_eq!(timed_out(&mut host, 9), 0);
    host.step("send up 1 GET /nine");
    assert_eq!([11, 13, 15, 18, 20].map(|after_s| timed_out(&mut host, after_s)), [0, 0, 1, 1, 2]);
    host.step("send up 1 GET /twenty");
    assert_eq!([29, 31].map(|after_s| timed_out(&mut host, after_s)), [2, 3]);
    assert_eq!(host.counter("requests_waiting_now"), 0);
    let late = texts(&host.drain(true)["l7_flow_log"], "request_resource");
    assert_eq!(late, ["/answered", "/four", "/nine", "/twenty"]);
}

#[test]
fn requests_that_go_on_waiting_keep_their_order() {
    let mut host = Host::new(r#"{"tcp_request_timeout_s": 10}"#);
    let ask = |name: &str| {
        format!(
            "POST /shop.Cart/{name} HTTP/1.1\r\nHost: shop\r\nContent-Type: application/grpc-web\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let begin: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web\r\nTransfer-Encoding: chunked\r\n\r\n";
    let end = |status: u8| {
        let trailer = format!("grpc-status:{status}\r\n");
        let frame = [&[0x80, 0, 0, 0, trailer.len() as u8][..], trailer.as_bytes()].concat();
        [format!("{:x}\r\n", frame.len()).as_bytes(), &frame, b"\r\n0\r\n\r\n"].concat()
    };
    for name in ["First", "Second"] {
        host.data("up", Direction::Egress, Host::task("1"), ask(name).as_bytes());
    }
    // The first response has begun when the time of both requests is over: both go on waiting.
    host.data("up", Direction::Ingress, Host::task("1"), begin);
    host.now_us += 11_000_000;
    host.engine.tick(host.now_us);
    assert_eq!((host.counter("requests_timed_out"), host.counter("requests_waiting_now")), (0, 2));
    host.data("up", Direction::Ingress, Host::task("1"), &end(0));
    host.data("up", Direction::Ingress, Host::task("1"), &[begin, &end(5)].concat());
    let rows = &host.drain(true)["l7_flow_log"];
    assert_eq!(texts(rows, "endpoint"), ["/shop.Cart/First", "/shop.Cart/Second"]);
    assert_eq!(numbers(rows, "response_status"), [0, 4]);
}

#[test]
fn a_protocol_that_takes_over_has_its_own_time() {
    let mut host = Host::new(r#"{"tcp_request_timeout_s": 300}"#);
    // StartTLS over LDAP, which waits for 300 s; then a ClientHello that nobody answers, and TLS waits for 15 s.
    let (start, done) = (
        b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
        b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
    );
    host.data("up", Direction::Egress, Host::task("1"), start);
    host.data("up", Direction::Ingress, Host::task("1"), done);
    let hello = &handshake("tls 1.3")[0].1;
    host.data("up", Direction::Egress, Host::task("1"), hello);
    assert_eq!(host.counter("requests_waiting_now"), 1);
    host.now_us += 20_000_000;
    host.engine.tick(host.now_us);
    assert_eq!((host.counter("requests_timed_out"), host.counter("requests_waiting_now")), (1, 0));
}

#[test]
fn the_request_that_would_time_out_first_goes_first() {
    let mut host = Host::new(r#"{"session_aggregate_max_entries": 2}"#);
    for step in ["send one 1 GET /answered", "recv one 1 OK", "send two 1 GET /oldest", "send three 1 GET /next"] {
        host.step(step);
    }
    host.step("send one 1 GET /new");
    assert_eq!((host.counter("requests_evicted"), host.counter("requests_waiting_now")), (1, 2));
    host.step("send two 1 GET /newer");
    assert_eq!((host.counter("requests_evicted"), host.counter("requests_waiting_now")), (2, 2));
    let rows = &host.drain(true)["l7_flow_log"];
    assert_eq!(texts(rows, "request_resource")[..3], ["/answered", "/oldest", "/next"]);
}

#[test]
fn waiting_requests_are_bounded_and_counted() {
    let mut host = Host::new(r#"{"session_aggregate_max_entries": 3}"#);
    for number in 0..10 {
        host.step(&format!("send up{number} 1 GET /{number}"));
    }
    assert_eq!((host.counter("requests_evicted"), host.counter("requests_waiting_now")), (7, 3));
    assert_eq!(numbers(&host.drain(true)["l7_flow_log"], "_id").len(), 10);
}

#[test]
fn rows_are_throttled_and_meters_are_not() {
    let mut host = Host::new(r#"{"l7_throttle": 5}"#);
    for _ in 0..20 {
        host.step("recv in 1 GET /work");
        host.step("send in 1 OK");
    }
    let tables = host.drain(true);
    assert_eq!(numbers(&tables["l7_flow_log"], "_id").len(), 5);
    assert_eq!(host.counter("rows_throttled"), 15);
    assert_eq!(numbers(&tables["application.1s"], "request").iter().sum::<u64>(), 20);
}

#[test]
fn unknown_protocols_are_given_up() {
    let mut host = Host::new("");
    for _ in 0..40 {
        host.data("up", Direction::Egress, Host::task("1"), &[0xfe, 0xed, 0, 1, 2, 3, 4, 5, 0xff, 0xff]);
    }
    assert_eq!(host.engine.take_quiet(), [host.sockets["up"]]);
    assert!(host.drain(true).is_empty());
}

/// The writes of a recorded TLS handshake.
fn handshake(name: &str) -> Vec<(Direction, Vec<u8>)> {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("data/conversations/tls.json")).expect("conversations");
    let case = cases.as_array().and_then(|cases| cases.iter().find(|case| case["name"] == name)).expect(name);
    let writes = case["writes"].as_array().expect("writes");
    writes
        .iter()
        .map(|write| {
            let direction = if write[0] == "C" { Direction::Egress } else { Direction::Ingress };
            (direction, write[1].as_str().expect("bytes").chars().map(|c| c as u8).collect())
        })
        .collect()
}

#[test]
fn encrypted_connections_are_left_alone_after_the_handshake() {
    let mut host = Host::new("");
    for (direction, bytes) in handshake("tls 1.3") {
        host.data("up", direction, Host::task("1"), &bytes);
    }
    assert_eq!(host.engine.take_quiet(), [host.sockets["up"]]);
    for _ in 0..40 {
        host.data("up", Direction::Egress, Host::task("1"), &[0x17, 3, 3, 0, 4, 1, 2, 3, 4]);
    }
    assert!(host.engine.take_quiet().is_empty());
    let rows = &host.drain(true)["l7_flow_log"];
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(numbers(rows, "type"), [2]);
}

#[test]
fn a_handshake_that_is_cut_short_shows_what_was_agreed() {
    let mut host = Host::new("");
    for (direction, bytes) in handshake("tls 1.2 with a certificate").into_iter().take(2) {
        host.data("up", direction, Host::task("1"), &bytes);
    }
    assert!(!host.drain(false).contains_key("l7_flow_log"));
    let rows = &host.drain(true)["l7_flow_log"];
    assert_eq!(numbers(rows, "type"), [2]);
    assert_eq!(numbers(rows, "response_status"), [0]);
}

#[test]
fn wrong_configuration_names_the_key() {
    for (text, word) in [
        (r#"{"l7_throtle": 5}"#, "l7_throtle"),
        (r#"{"l7_throttle": "x"}"#, "l7_throttle"),
        (r#"{"hook": "magic"}"#, "hook"),
        ("[1", "no JSON object"),
    ] {
        let error = EngineConfig::from_json(text).expect_err(text);
        assert!(error.contains(word), "{error}");
    }
}

/// Cuts, loses, repeats and truncates at random: never a panic, never more requests than there were.
#[test]
fn damage_invents_nothing() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for _ in 0..300 {
        let mut host = Host::new("");
        let (mut asked, mut answered) = (String::new(), String::new());
        for number in 0..20 {
            asked += &format!("GET /r{number} HTTP/1.1\r\nHost: shop\r\nX-Pad: {}\r\n\r\n", "y".repeat(number * 7));
            answered += &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", number * 3, "z".repeat(number * 3));
        }
        let (mut at, to) = ([0_usize; 2], [asked.as_bytes(), answered.as_bytes()]);
        while at[0] < to[0].len() || at[1] < to[1].len() {
            let side = next(2) as usize;
            let start = at[side];
            let end = (start + 1 + next(200) as usize).min(to[side].len());
            at[side] = end;
            let fate = next(12);
            if start == end || fate == 0 {
                continue;
            }
            let (socket, local, remote) = host.socket("up");
            host.now_us += 10;
            let piece = &to[side][start..end];
            let shown = if fate == 1 { next(piece.len() as u64 + 1) as usize } else { piece.len() };
            let segment = Segment {
                time_us: host.now_us,
                source: if fate == 2 { Source::Packet(Place::default()) } else { Source::Socket },
                socket,
                direction: if side == 0 { Direction::Egress } else { Direction::Ingress },
                protocol: 6,
                local,
                remote,
                netns: 1,
                task: Task { pid: 1, tid: 1, comm: [0; 16] },
                cgroup: 0,
                tcp_seq: 1 + start as u32,
                length: piece.len() as u32,
                payload: &piece[..shown],
            };
            host.engine.segment(&segment);
            if fate == 3 {
                host.engine.segment(&segment);
            }
        }
        let tables = host.drain(true);
        let Some(rows) = tables.get("l7_flow_log") else {
            continue;
        };
        let types = numbers(rows, "type");
        let paths: Vec<String> = texts(rows, "request_resource").into_iter().filter(|path| !path.is_empty()).collect();
        assert!(paths.len() <= 20, "more requests than there were: {paths:?}");
        assert!(types.iter().filter(|kind| **kind != 0).count() <= 20);
        // A path may be cut where the capture was, but it is one of those that were asked for.
        assert!(paths.iter().all(|path| "/r".starts_with(path.as_str()) || path.starts_with("/r")), "{paths:?}");
    }
}

/// A request and its answer, then another request in three pieces, of which `order` are the places that come.
fn pieces(source: Source, order: &[usize]) -> Vec<[u64; 4]> {
    let mut host = Host::new("{}");
    let (socket, local, remote) = host.socket("up");
    let (first, second) = (b"GET /1 HTTP/1.1\r\nHost: shop\r\n\r\n", b"GET /2 HTTP/1.1\r\nHost: shop\r\n\r\n");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut all = vec![(Direction::Egress, 1000, &first[..]), (Direction::Ingress, 5000, &answer[..])];
    let bounds = [0, 10, 20, second.len()];
    all.extend(order.iter().map(|&place| {
        let piece = &second[bounds[place]..bounds[place + 1]];
        (Direction::Egress, (1000 + first.len() + bounds[place]) as u32, piece)
    }));
    let mut counted = Vec::new();
    for (direction, tcp_seq, payload) in all {
        host.now_us += 1000;
        let (time_us, length, task) = (host.now_us, payload.len() as u32, Task::default());
        let (protocol, netns) = (6, 1);
        host.engine.segment(&Segment {
            time_us,
            source,
            socket,
            direction,
            protocol,
            local,
            remote,
            netns,
            task,
            cgroup: 0,
            tcp_seq,
            length,
            payload,
        });
        counted.push(["messages_http", "gaps", "gap_bytes", "repeated"].map(|name| host.counter(name)));
    }
    counted.split_off(2)
}

#[test]
fn a_piece_is_read_when_its_turn_has_come_and_only_once() {
    let packet = Source::Packet(Place::default());
    for source in [packet, Source::Socket] {
        assert_eq!(pieces(source, &[0, 1, 2]), [[2, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]);
        assert_eq!(pieces(source, &[0, 0, 1, 1, 2]).last(), Some(&[3, 0, 0, 2]));
        assert_eq!(pieces(source, &[0, 1, 2, 2]).last(), Some(&[3, 0, 0, 1]));
    }
    // A packet that comes too early waits for the one before it, and is read with it.
    assert_eq!(pieces(packet, &[0, 2, 1]), [[2, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]);
    assert_eq!(pieces(packet, &[2, 1, 0]), [[2, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]);
    // What a socket did not tell of is counted; of the request is named what was seen.
    assert_eq!(pieces(Source::Socket, &[0, 2]).last(), Some(&[3, 1, 10, 0]));
}

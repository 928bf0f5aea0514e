//! Parsers against arbitrary bytes, every split of recorded streams, and published captures.

#[path = "../driver/mod.rs"]
mod driver;
mod sql;
mod stores;

use std::rc::Rc;

use _core::protocols::http1::{self, recent::Recent};
use _core::protocols::{Kind, Message, ParserSettings, REGISTRY, Role, Status, Step, grpc};
use driver::conversations::{Conversation, conversations, protocol};
use driver::{Connection, families, fixtures, packets, walk};
use proptest::prelude::*;
use serde_json::Value;

fn settings() -> Rc<ParserSettings> {
    let mut settings = ParserSettings::default();
    settings.apm_trace_id.extend(["b3", "uber-trace-id", "x-b3-traceid"].map(String::from));
    settings.apm_span_id.extend(["b3", "uber-trace-id", "x-b3-spanid"].map(String::from));
    Rc::new(settings)
}

fn field(message: &Message, key: &str) -> Value {
    match key {
        "kind" => format!("{:?}", message.kind).into(),
        "status" => format!("{:?}", message.status).into(),
        "version" => message.version.as_ref().into(),
        "type" => message.request_type.as_str().into(),
        "domain" => message.request_domain.as_str().into(),
        "resource" => message.request_resource.as_str().into(),
        "endpoint" => message.endpoint.as_str().into(),
        "code" => message.response_code.into(),
        "exception" => message.response_exception.as_str().into(),
        "result" => message.response_result.as_str().into(),
        "length" => message.length.into(),
        "l7" => message.l7_protocol.into(),
        "reversed" => message.is_reversed.into(),
        "request_length" => message.request_length.into(),
        "rows" => message.sql_affected_rows.into(),
        "id" => message.request_id.into(),
        "trace_id" => message.trace_id.as_str().into(),
        "span_id" => message.span_id.as_str().into(),
        "x_request_id" => message.x_request_id.as_str().into(),
        "proxy" => message.http_proxy_client.as_str().into(),
        "attributes" => message.attributes.iter().map(|(k, v)| Value::from(format!("{k}={v}"))).collect(),
        other => panic!("no field {other}"),
    }
}

fn run(case: &Conversation, cut: impl Fn(usize, &[u8]) -> Vec<usize>) -> Connection {
    run_with(&settings(), case, cut)
}

fn run_with(
    settings: &Rc<ParserSettings>,
    case: &Conversation,
    cut: impl Fn(usize, &[u8]) -> Vec<usize>,
) -> Connection {
    let mut connection = Connection::new(case.protocol, settings, case.transport);
    for (index, (role, bytes)) in case.writes.iter().enumerate() {
        let mut from = 0;
        for at in cut(index, bytes).into_iter().chain([bytes.len()]) {
            if at > from {
                connection.feed(*role, &bytes[from..at], 0, case.transport != 6);
            }
            from = at;
        }
    }
    connection
}

#[test]
fn conversations_give_their_messages() {
    for case in conversations() {
        let connection = run(case, |_, _| Vec::new());
        assert_eq!(connection.invalid, 0, "{}", case.name);
        assert_eq!(connection.messages.len(), case.expected.len(), "{}: {:#?}", case.name, connection.messages);
        for ((_, message), expected) in connection.messages.iter().zip(&case.expected) {
            for (key, value) in expected.as_object().expect("object") {
                assert_eq!(&field(message, key), value, "{}: {key} of {message:#?}", case.name);
            }
        }
    }
}

#[test]
fn any_split_gives_the_same_messages() {
    for case in conversations().iter().filter(|case| case.transport == 6) {
        let whole = run(case, |_, _| Vec::new()).messages;
        for (index, (_, bytes)) in case.writes.iter().enumerate() {
            for at in 1..bytes.len().min(3000) {
                let split = run(case, |write, _| if write == index { vec![at] } else { Vec::new() });
                assert_eq!(split.messages, whole, "{} write {index} split at {at}", case.name);
            }
        }
        let bytewise = run(case, |_, bytes| (1..bytes.len().min(6000)).collect());
        assert_eq!(bytewise.messages, whole, "{} byte by byte", case.name);
    }
}

#[test]
fn a_head_that_comes_again_is_not_read_again() {
    let settings = settings();
    let head = b"GET /order/17 HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut told = Vec::new();
    for bytes in [&head[..], head, b"GET /order/18 HTTP/1.1\r\nHost: shop\r\n\r\n"] {
        // Each on a connection of its own: the two ends of one are two for the agent.
        let Step::Known { consumed, message } = (http1::PROTOCOL.parser)(&settings).parse(Role::Client, bytes) else {
            panic!("a plain head is shared")
        };
        assert_eq!(consumed as usize, bytes.len());
        told.push(message);
    }
    assert!(Rc::ptr_eq(&told[0], &told[1]), "read twice");
    assert_eq!([&told[1], &told[2]].map(|message| message.request_resource.as_str()), ["/order/17", "/order/18"]);
}

#[test]
fn heads_that_come_again_say_what_they_said() {
    let anew = Rc::new(ParserSettings { recent_heads: Recent::off(), ..ParserSettings::default() });
    let mut compared = 0;
    for case in conversations().iter().filter(|case| [http1::PROTOCOL.id, grpc::WEB.id].contains(&case.protocol.id)) {
        let remembered = Rc::new(ParserSettings::default());
        run_with(&remembered, case, |_, _| Vec::new());
        // Whole, without one of its writes, and with one of them twice: the states that a head can meet.
        let writes = case.writes.len();
        let orders = std::iter::once((0..writes).collect())
            .chain((0..writes).map(|out| (0..writes).filter(|at| *at != out).collect()))
            .chain((0..writes).map(|twice| (0..=twice).chain(twice..writes).collect::<Vec<_>>()));
        for order in orders {
            let writes = order.iter().map(|at| case.writes[*at].clone()).collect();
            let changed = Conversation { writes, ..case.clone() };
            for cut in [0, 7, 40] {
                let cuts = |_: usize, bytes: &[u8]| if cut < bytes.len() { vec![cut] } else { Vec::new() };
                let (first, again) = (run_with(&anew, &changed, cuts), run_with(&remembered, &changed, cuts));
                assert_eq!(again.messages, first.messages, "{} {order:?} cut at {cut}", case.name);
                assert_eq!(again.invalid, first.invalid, "{} {order:?} cut at {cut}", case.name);
                compared += first.messages.len();
            }
        }
    }
    assert!(compared > 300, "only {compared} messages were compared");
}

/// Requests of which many differ in their targets alone; among these are some that are not kept as they are.
fn requests(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let pieces: [&[u8]; 18] = [
        b"/",
        b"/item",
        b"/17",
        b"/a?b=c",
        b"#d",
        b" ",
        b"\t",
        b"\r",
        b"\xff",
        b"*",
        b"http://other/e",
        b"/%20",
        b"",
        b"/\xc3\xa4",
        b"/3f2a9c1b",
        b"\0",
        b" HTTP/1.1",
        b" HTTP/1.1 b",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut choose = move |among: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % among
    };
    (0..count).map(move |_| {
        let method = [&b"GET"[..], b"GET", b"GET", b"POST", b"HEAD", b"CONNECT"][choose(6)];
        let version = [&b"HTTP/1.1"[..], b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b""][choose(6)];
        let fields = [&b"Host: a\r\n"[..], b"Host: a\r\n", b"Host: b\r\nReferer: c\r\n", b"Content-Length: 3\r\n", b""]
            [choose(5)];
        let most = [10, 100_000][choose(2)];
        let number = choose(most);
        let path = format!("/{number}").into_bytes();
        let mut target: Vec<&[u8]> = (0..choose(3)).map(|_| pieces[choose(pieces.len())]).collect();
        let place = choose(target.len() + 1);
        target.insert(place, &path);
        [method, b" ", &target.concat(), b" ", version, b"\r\n", fields, b"\r\n"].concat()
    })
}

#[test]
fn heads_with_other_targets_say_what_they_say_alone() {
    let anew = Rc::new(ParserSettings { recent_heads: Recent::off(), max_field: 24, ..ParserSettings::default() });
    let remembered = Rc::new(ParserSettings { max_field: 24, ..ParserSettings::default() });
    let read = |settings: &Rc<ParserSettings>, head: &[u8]| match (http1::PROTOCOL.parser)(settings)
        .parse(Role::Client, head)
    {
        Step::Message { consumed, message } => (consumed, Some(Rc::new(*message)), String::new()),
        Step::Known { consumed, message } => (consumed, Some(message), String::new()),
        other => (0, None, format!("{other:?}")),
    };
    // The last ones are held on to, as by connections on which requests wait.
    let mut held = std::collections::VecDeque::new();
    for head in requests(40_000) {
        let (first, again) = (read(&anew, &head), read(&remembered, &head));
        assert_eq!(again, first, "{}", String::from_utf8_lossy(&head));
        let Some(message) = again.1 else { continue };
        held.push_back((message, first.1));
        if held.len() > 16 {
            let (message, alone) = held.pop_front().expect("there are some");
            assert_eq!(Some(message), alone, "changed while it was held");
        }
    }
}

#[test]
fn lost_tails_do_not_hide_what_follows() {
    for case in conversations().iter().filter(|case| case.writes.len() > 1) {
        for keep in [1, 5, 17, 40, 200] {
            let mut connection = Connection::new(case.protocol, &settings(), case.transport);
            for (role, bytes) in &case.writes {
                let kept = keep.min(bytes.len());
                connection.feed(*role, &bytes[..kept], (bytes.len() - kept) as u64, case.transport != 6);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_stop_the_walk(
        which in 0..REGISTRY.len(),
        transport in prop_oneof![Just(6u8), Just(17u8)],
        feeds in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..300), 0u64..500), 1..12),
    ) {
        let mut connection = Connection::new(&REGISTRY[which], &settings(), transport);
        for (client, bytes, missing) in feeds {
            let role = if client { Role::Client } else { Role::Server };
            for protocol in REGISTRY {
                let _ = (protocol.check)(&bytes, 0);
                let _ = (protocol.check)(&bytes, 6379);
            }
            let _ = connection.parser.resync(role, &bytes);
            connection.feed(role, &bytes, missing, transport == 17);
        }
    }

    #[test]
    fn damaged_conversations_never_stop_the_walk(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in 1usize..64,
        missing in 0u64..2000,
    ) {
        let short = |case: &&Conversation| case.writes.iter().all(|write| write.1.len() < 1 << 16);
        let cases: Vec<_> = conversations().iter().filter(short).collect();
        let case = which.get(&cases);
        let mut connection = Connection::new(case.protocol, &settings(), case.transport);
        for (role, bytes) in &case.writes {
            let mut bytes = bytes.clone();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            for (index, piece) in bytes.chunks(cut).enumerate() {
                connection.feed(*role, piece, if index == 3 { missing } else { 0 }, case.transport != 6);
            }
        }
    }
}

/// Is `name` in this array of texts?
fn lists(array: &Value, name: &str) -> bool {
    array.as_array().is_some_and(|array| array.iter().any(|one| one == name))
}

fn expected_lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("line")).collect()
}

fn text<'a>(info: &'a Value, key: &str) -> &'a str {
    info[key].as_str().unwrap_or_default()
}

/// Known differences from DeepFlow's expectation, each with its reason; one that agrees must leave the list.
/// - mysql-exec line 3: an execution shows the prepared text too, not only the values.
const DIVERGES: &[(&str, u64, &str)] = &[("mysql-exec", 3, "resource"), ("mysql-exec", 3, "endpoint")];

#[test]
fn deepflow_captures_agree() {
    let Some(root) = fixtures() else { return };
    let root = root.join("deepflow/flow_generator");
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (folder, stems) in [
        ("http", &["httpv1", "sw8", "client-ip"][..]),
        ("redis", &["redis-debug", "redis-error"]),
        ("dns", &["dns", "a-and-ns"]),
        (
            "mysql",
            &[
                "mysql",
                "mysql-exec",
                "mysql-login-error",
                "mysql-statement-id",
                "mysql-table-alter",
                "mysql-table-create",
                "mysql-table-insert",
                "mysql-table-select",
                "mysql-use",
            ],
        ),
    ] {
        for stem in stems {
            let lines: Vec<Value> = expected_lines(&root.join(folder).join(format!("{stem}.expected.jsonl")))
                .into_iter()
                .filter(|line| text(&line["info"], "msg_type") != "Other")
                .collect();
            let seen =
                walk(&packets(&root.join(folder).join(format!("{stem}.pcap"))), &settings(), *stem == "client-ip");
            let messages: Vec<_> = seen.iter().flat_map(|flow| &flow.messages).collect();
            if messages.len() != lines.len() {
                wrong.push(format!("{stem}: {} messages, expected {}: {messages:#?}", messages.len(), lines.len()));
                continue;
            }
            for ((_, message), line) in messages.iter().zip(&lines) {
                let info = &line["info"];
                let number = line["line"].as_u64().unwrap_or(0);
                let mut same = |what: &str, left: Value, right: Value| {
                    compared += 1;
                    let known = DIVERGES.contains(&(stem, number, what));
                    if (left == right) == known {
                        wrong.push(format!("{stem} line {number} {what}: {left} expected {right} known {known}"));
                    }
                };
                let request = message.kind != Kind::Response;
                if !text(info, "msg_type").is_empty() {
                    same("kind", format!("{:?}", message.kind).into(), text(info, "msg_type").into());
                }
                match folder {
                    "http" if request => {
                        same("resource", message.request_resource.as_str().into(), info["path"].clone());
                        same("domain", message.request_domain.as_str().into(), info["host"].clone());
                        same("endpoint", message.endpoint.as_str().into(), info["endpoint"].clone());
                        same("length", message.length.into(), info["req_content_length"].clone());
                        same("type", message.request_type.as_str().into(), text(info, "method").to_uppercase().into());
                        let trace = &info["trace_ids"]["_value"][0]["field"];
                        same("trace", message.trace_id.as_str().into(), trace.as_str().unwrap_or_default().into());
                        same("span", message.span_id.as_str().into(), info["span_id"]["field"].clone());
                    }
                    "http" => {
                        same("code", message.response_code.into(), info["status_code"].clone());
                        same("length", message.length.into(), info["resp_content_length"].clone());
                    }
                    "redis" if request => {
                        same("resource", message.request_resource.as_str().into(), info["request"].clone());
                        same("type", message.request_type.as_str().into(), info["request_type"].clone());
                    }
                    "redis" => {
                        same("result", message.response_result.as_str().into(), info["response_result"].clone());
                        same("error", message.response_exception.as_str().into(), info["error"].clone());
                    }
                    "dns" => {
                        same("id", message.request_id.into(), info["request_id"].clone());
                        if request {
                            same(
                                "resource",
                                message.request_resource.as_str().into(),
                                info["request_resource"].clone(),
                            );
                            same("type", message.request_type.as_str().into(), info["request_type"].clone());
                        } else {
                            same(
                                "result",
                                message.response_result.as_str().into(),
                                text(info, "response_result").into(),
                            );
                            same("code", message.response_code.into(), info["response_code"].clone());
                        }
                    }
                    _ if request => {
                        same(
                            "resource",
                            message.request_resource.as_str().into(),
                            text(info, "request_resource").into(),
                        );
                        same("endpoint", message.endpoint.as_str().into(), text(info, "endpoint").into());
                    }
                    _ => {
                        let error = text(info, "response_execption");
                        same("exception", message.response_exception.as_str().into(), error.into());
                        let failed = text(info, "response_status") != "ok";
                        same("failed", (message.status != Status::Success).into(), failed.into());
                        let rows = info["sql_affected_rows"].as_u64().filter(|rows| *rows > 0);
                        same("rows", message.sql_affected_rows.filter(|rows| *rows > 0).into(), rows.into());
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 100, "only {compared} comparisons");
}

/// Captures that are of one protocol throughout are claimed by it or by nobody.
#[test]
fn nobody_claims_foreign_captures() {
    let Some(root) = fixtures() else { return };
    let families = families("captures");
    let own = |folder: &str, protocol: &str| {
        families.iter().any(|family| lists(&family["folders"], folder) && lists(&family["protocols"], protocol))
    };
    let mut wrong = Vec::new();
    let mut flows = 0;
    for base in [root.join("pcaps"), root.join("deepflow/flow_generator")] {
        for folder in std::fs::read_dir(base).expect("folder").flatten() {
            let name = folder.file_name().to_string_lossy().into_owned();
            // Made of several protocols, or of tunnelled ones.
            if ["tcp", "tunnel", "http", "http2", "grpc"].contains(&name.as_str()) {
                continue;
            }
            let Ok(files) = std::fs::read_dir(folder.path()) else {
                continue;
            };
            for file in files.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "pcap")) {
                let all = packets(&file.path());
                for seen in walk(&all, &settings(), false) {
                    flows += 1;
                    let Some(protocol) = seen.protocol else {
                        continue;
                    };
                    if !own(&name, protocol.name) {
                        wrong.push(format!("{} in {}", protocol.name, file.path().display()));
                    }
                }
            }
        }
    }
    assert!(flows > 50, "only {flows} flows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// tshark's count of requests and responses in clean captures.
#[test]
fn clean_captures_have_their_requests_and_responses() {
    let Some(root) = fixtures() else { return };
    let families = families("captures");
    let index = std::fs::read_to_string(root.join("pcaps/INDEX.tsv")).expect("INDEX.tsv");
    let mut wrong = Vec::new();
    for line in index.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[file, _, _, family, _, _, _, requests, responses, _, "sessions", "clean", ..] = columns.as_slice() else {
            continue;
        };
        let Some(known) = families.iter().find(|known| lists(&known["folders"], family)) else {
            continue;
        };
        let all = packets(&root.join("pcaps").join(file));
        if all.is_empty() {
            continue;
        }
        let seen = walk(&all, &settings(), false);
        let messages: Vec<_> = seen
            .iter()
            .filter(|flow| flow.protocol.is_some_and(|protocol| lists(&known["protocols"], protocol.name)))
            .flat_map(|flow| &flow.messages)
            .collect();
        let found = messages.iter().filter(|(_, m)| m.kind != Kind::Response).count();
        let answered = messages.len() - found;
        if (found.to_string(), answered.to_string()) != (requests.to_owned(), responses.to_owned()) {
            wrong.push(format!("{file}: {found}/{answered}, tshark {requests}/{responses}"));
        }
    }
    let wrong: std::collections::BTreeSet<&str> = wrong.iter().filter_map(|line| line.split(':').next()).collect();
    let known: std::collections::BTreeSet<&str> = families
        .iter()
        .filter_map(|family| family["counts"].as_object())
        .flat_map(|counts| counts.keys().map(String::as_str))
        .collect();
    assert_eq!(wrong, known, "captures whose count differs from tshark's");
}

#[test]
fn masked_commands_agree() {
    let Some(root) = fixtures() else { return };
    let text = std::fs::read_to_string(root.join("deepflow/unit_cases.json")).expect("unit cases");
    let cases: Value = serde_json::from_str(&text).expect("JSON");
    let cases = cases["families"]["redis_obfuscation"].as_array().expect("cases");
    for case in cases {
        let words: Vec<&str> = case["command"].as_str().expect("command").split_whitespace().collect();
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut connection = Connection::new(protocol("Redis"), &settings(), 6);
        connection.feed(Role::Client, bytes.as_bytes(), 0, false);
        assert_eq!(Value::from(connection.messages[0].1.request_resource.as_str()), case["obfuscated"]);
    }
}

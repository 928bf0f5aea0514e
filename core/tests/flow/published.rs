//! Captures of others (DEEPFLOW_FIXTURES): timing and ends as DeepFlow gives them, health as tshark counts it.
//!
//! Where tshark counts otherwise, `tests/data/flow/tshark.json` says why; an entry that no longer differs fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use _core::flow::perf::{Delay, Report};
use _core::flow::state::CloseType;
use _core::packet::decode::TCP;
use serde_json::{Value, json};

use crate::driver::{families, fixtures};
use crate::packets::{Flow, flows};

fn json_of(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// DeepFlow's counts after a packet, in µs, and ours under the same names.
fn both(theirs: &Value, ours: &Report) -> (Value, Value) {
    let delay = |name: &str| {
        let times = &theirs[name];
        json!([times["count"], times["sum"].as_u64().map(|ns| ns / 1000), times["max"].as_u64().map(|ns| ns / 1000)])
    };
    let own = |delay: &Delay| json!([delay.count, delay.sum, delay.max]);
    let names = ["rtt_0", "rtt_1", "art_1", "srt_0", "srt_1", "cit"];
    let delays = names.map(delay);
    let counts = [
        "retrans_0",
        "retrans_1",
        "retrans_syn",
        "retrans_synack",
        "zero_win_count_0",
        "zero_win_count_1",
        "ooo_0",
        "ooo_1",
        "syn",
        "synack",
        "fin_count",
    ];
    let theirs =
        json!([delays, theirs["rtt_full"].as_u64().map(|ns| ns / 1000), counts.map(|name| theirs[name].clone())]);
    let r = ours;
    let delays = [&r.rtt_client, &r.rtt_server, &r.art, &r.srt_client, &r.srt, &r.cit].map(own);
    let counts = [
        r.retrans[0],
        r.retrans[1],
        r.retrans_syn,
        r.retrans_synack,
        r.zero_win[0],
        r.zero_win[1],
        r.ooo[0],
        r.ooo[1],
        r.syn_count,
        r.synack_count,
        r.fin_count,
    ];
    (theirs, json!([delays, r.rtt.max, counts]))
}

#[test]
fn tcp_timing_agrees_with_deepflow_after_each_packet() {
    let Some(root) = fixtures() else { return };
    let folder = root.join("deepflow/flow_generator");
    let mut compared = BTreeSet::new();
    for file in files(&folder, ".expected.jsonl") {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut expected: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("a record");
            if let (Some(name), Some(after)) = (record["pcap"].as_str(), record["after_packet"].as_u64()) {
                expected.entry(name.into()).or_default().insert(after, record["perf_ns"].clone());
            }
        }
        for (name, states) in expected {
            let capture = folder.join(&name);
            if !capture.exists() {
                eprintln!("skipped: {} is not among the fixtures", capture.display());
                continue;
            }
            let mut after = 0;
            flows(&capture, |_, flow| {
                after += 1;
                let Some(theirs) = states.get(&after) else { return };
                let (theirs, ours) = both(theirs, &flow.followed.report);
                assert_eq!(theirs, ours, "{name} after packet {after}");
            });
            compared.insert(name);
        }
    }
    assert!(compared.len() >= 4, "only {compared:?}");
}

#[test]
fn udp_timing_agrees_with_deepflow() {
    let Some(root) = fixtures() else { return };
    let folder = root.join("deepflow/flow_generator");
    let mut compared = 0;
    for file in files(&folder, ".expected.jsonl") {
        let name = file.file_name().unwrap_or_default().to_string_lossy().replace(".expected.jsonl", ".pcap");
        if !name.starts_with("udp") || !folder.join(&name).exists() {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a file");
        let last: Value = serde_json::from_str(text.lines().last().expect("a record")).expect("a record");
        let found = flows(&folder.join(&name), |_, _| {});
        let art = found[0].followed.report.art;
        let ns = |name: &str| last["perf_ns"][name].as_u64();
        let theirs = [ns("art_count"), ns("art_sum").map(|ns| ns / 1000), ns("art_max").map(|ns| ns / 1000)];
        assert_eq!(theirs, [Some(art.count.into()), Some(art.sum), Some(art.max.into())], "{name}");
        compared += 1;
    }
    assert!(compared > 0, "no UDP capture");
}

#[test]
fn ends_agree_with_deepflow() {
    let Some(root) = fixtures() else { return };
    let expected = json_of(&root.join("deepflow/expected_close_type.json"));
    let mut compared = 0;
    for (name, close) in expected["close_type"].as_object().expect("captures") {
        let capture = root.join("deepflow/flow_generator").join(name);
        if !capture.exists() {
            eprintln!("skipped: {} is not among the fixtures", capture.display());
            continue;
        }
        let ours = match close.as_str().expect("a name") {
            "Finish" => CloseType::Normal,
            "TcpServerRst" => CloseType::ServerReset,
            "Timeout" => CloseType::TimedOut,
            "ForcedReport" => CloseType::Forced,
            "ClientSynRepeat" => CloseType::ServerSynMiss,
            "ServerHalfClose" => CloseType::ServerHalfClose,
            "TcpClientRst" => CloseType::ClientReset,
            "ServerSynAckRepeat" => CloseType::ClientAckMiss,
            "ClientHalfClose" => CloseType::ClientHalfClose,
            "ClientSourcePortReuse" => CloseType::ClientPortReuse,
            "ServerReset" => CloseType::ServerDirectReset,
            "ServerQueueLack" => CloseType::ServerQueueOverflow,
            "ClientEstablishReset" => CloseType::ClientEstablishReset,
            "ServerEstablishReset" => CloseType::ServerEstablishReset,
            "TcpFinClientRst" => CloseType::NormalClientReset,
            other => panic!("{other} is no close type"),
        };
        let found = flows(&capture, |_, _| {});
        assert_eq!(found.last().map(|flow| flow.followed.end()), Some(ours), "{name}");
        compared += 1;
    }
    assert!(compared >= 4, "only {compared}");
}

#[test]
fn largest_delays_agree_with_deepflow() {
    let Some(root) = fixtures() else { return };
    let expected = json_of(&root.join("deepflow/expected_flow.json"));
    let mut compared = 0;
    for (name, truth) in expected["pcaps"].as_object().expect("captures") {
        let capture = root.join("deepflow/flow_generator").join(name);
        let Some(tcp) = truth["tcp_us"].as_object().filter(|_| capture.exists()) else { continue };
        let report = flows(&capture, |_, _| {})[0].followed.report;
        for (what, value) in tcp {
            let ours = match what.as_str() {
                "rtt_client_max" => report.rtt_client.max,
                "rtt_server_max" => report.rtt_server.max,
                "srt_max" => report.srt.max,
                "art_max" => report.art.max,
                "cit_max" => report.cit.max,
                _ => continue,
            };
            assert_eq!(value.as_u64(), Some(ours.into()), "{what} of {name}");
            compared += 1;
        }
    }
    assert!(compared >= 3, "only {compared}");
}

type Counts = BTreeMap<&'static str, u64>;
/// Differences of one capture: what, of which ends, with tshark's count and ours.
type Differences = BTreeMap<String, (u64, u64)>;

/// Folders of `pcaps` with TCP.
fn captures(root: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for folder in
        std::fs::read_dir(root.join("pcaps")).expect("captures").flatten().filter(|entry| entry.path().is_dir())
    {
        for truth in files(&folder.path(), ".truth.json") {
            let stem = truth.to_string_lossy().replace(".truth.json", "");
            let capture = ["pcap", "pcapng"].map(|end| PathBuf::from(format!("{stem}.{end}")));
            if let Some(capture) = capture.into_iter().find(|path| path.exists()) {
                found.push((capture, json_of(&truth)));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// tshark's counts: of directions, and under both directions of a connection what has none of its own here.
fn theirs(truth: &Value) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for flow in truth["flows"].as_array().into_iter().flatten() {
        let end = |name: &str| flow[name].as_str().unwrap_or_default().to_string();
        let (a, b) = (end("first_packet_src"), end("first_packet_dst"));
        if !flow["flow"].as_str().unwrap_or_default().starts_with("tcp") {
            continue;
        }
        for (from, to, side) in [(&a, &b, "a2b"), (&b, &a, "b2a")] {
            let of = |name: &str| flow[side][name].as_u64().unwrap_or(0);
            let direction = counts.entry(format!("{from} > {to}")).or_default();
            *direction.entry("retransmission").or_default() += of("ts_retransmission");
            *direction.entry("out of order").or_default() += of("ts_out_of_order");
            *direction.entry("zero window").or_default() += of("win0_non_rst");
            let connection = counts.entry(connection(from, to)).or_default();
            *connection.entry("SYN").or_default() += of("syn");
            *connection.entry("SYN-ACK").or_default() += of("syn_ack");
            *connection.entry("FIN").or_default() += of("fin");
        }
        let times = counts.entry(connection(&a, &b)).or_default();
        *times.entry("round trip").or_default() += flow["initial_rtt_us"].as_u64().unwrap_or(0);
    }
    counts
}

fn connection(a: &str, b: &str) -> String {
    if a < b { format!("{a} - {b}") } else { format!("{b} - {a}") }
}

/// The same counts of ours. tshark counts FINs without data that come again as retransmissions, DeepFlow does not.
fn ours(flows: &[Flow]) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.protocol == TCP) {
        let report = &flow.followed.report;
        let ends = [flow.client, flow.server].map(|end| match end.ip {
            std::net::IpAddr::V4(ip) => format!("{ip}:{}", end.port),
            std::net::IpAddr::V6(ip) => format!("{ip}:{}", end.port),
        });
        for side in 0..2 {
            let direction = counts.entry(format!("{} > {}", ends[side], ends[1 - side])).or_default();
            let again = u64::from(report.retrans[side]) + flow.followed.bare_fins_again[side];
            *direction.entry("retransmission").or_default() += again;
            *direction.entry("out of order").or_default() += u64::from(report.ooo[side]);
            *direction.entry("zero window").or_default() += u64::from(report.zero_win[side]);
        }
        let connection = counts.entry(connection(&ends[0], &ends[1])).or_default();
        *connection.entry("SYN").or_default() += u64::from(report.syn_count);
        *connection.entry("SYN-ACK").or_default() += u64::from(report.synack_count);
        *connection.entry("FIN").or_default() += u64::from(report.fin_count);
        // tshark also takes a refusal for an answer.
        if !matches!(flow.followed.end(), CloseType::ServerDirectReset | CloseType::ClientPortReuse) {
            *connection.entry("round trip").or_default() += report.rtt.sum;
        }
    }
    counts
}

#[test]
fn health_agrees_with_tshark_or_the_ledger_says_why() {
    let Some(root) = fixtures() else { return };
    let mut ledger: BTreeMap<String, Differences> = BTreeMap::new();
    for entry in families("flow").iter().filter_map(Value::as_array).flatten() {
        assert!(entry["cause"].as_str().is_some_and(|cause| cause.len() > 20), "{entry} has no cause");
        let name = entry["capture"].as_str().expect("a capture");
        if !root.join("pcaps").join(name).exists() {
            eprintln!("skipped: {name} is not among the fixtures");
            continue;
        }
        let differences: Differences = serde_json::from_value(entry["differences"].clone()).expect("differences");
        ledger.entry(name.into()).or_default().extend(differences);
    }
    let mut found: BTreeMap<String, Differences> = BTreeMap::new();
    let mut compared = 0;
    for (capture, truth) in captures(&root) {
        let name = capture.strip_prefix(root.join("pcaps")).unwrap_or(&capture).to_string_lossy().into_owned();
        let expected = theirs(&truth);
        for (key, counts) in ours(&flows(&capture, |_, _| {})) {
            let Some(expected) = expected.get(&key) else { continue };
            for (what, count) in counts {
                compared += 1;
                // tshark has nanoseconds.
                let allowed = u64::from(what == "round trip");
                if expected[what].abs_diff(count) > allowed {
                    found.entry(name.clone()).or_default().insert(format!("{what}: {key}"), (expected[what], count));
                }
            }
        }
    }
    if found != ledger {
        for (name, differences) in &found {
            if ledger.get(name) != Some(differences) {
                println!("{}", json!({"capture": name, "cause": "", "differences": differences}));
            }
        }
    }
    assert_eq!(found, ledger, "{compared} counts compared");
    assert!(compared > 1_000, "only {compared} counts");
    println!("{compared} counts compared, {} differ", found.values().map(BTreeMap::len).sum::<usize>());
}

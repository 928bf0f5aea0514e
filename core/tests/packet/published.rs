//! Captures of others (DEEPFLOW_FIXTURES): tunnels as DeepFlow sees them, flows as tshark sees them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use _core::packet::decode::{ICMP, ICMP_6, TCP, Trail, UDP, walk};
use _core::packet::file::{Capture, Packet};
use _core::packet::tunnel::Decapsulation;
use serde_json::Value;

use crate::driver::skipped::skipped;
use crate::driver::{families, fixtures};

fn frames(path: &Path) -> Vec<Packet> {
    let mut capture = Capture::open(&path.to_string_lossy()).unwrap_or_else(|error| panic!("{error}"));
    std::iter::from_fn(|| capture.next_packet().expect("a packet")).collect()
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn low_half(mac: [u8; 6]) -> String {
    format!("{:02x}{:02x}{:02x}{:02x}", mac[2], mac[3], mac[4], mac[5])
}

#[test]
fn tunnels_agree_with_deepflow() {
    let Some(root) = fixtures() else { return };
    let mut compared = 0;
    for case in families("packets").iter().filter_map(|family| family["tunnels"].as_array()).flatten() {
        let path = root.join(case["capture"].as_str().expect("a name"));
        if !path.exists() {
            skipped(&format!("{} is not among the fixtures", path.display()));
            continue;
        }
        compared += 1;
        let frame = &frames(&path)[case["packet"].as_u64().expect("a number") as usize];
        let mut trail = Trail::default();
        let found = walk(frame.link_type, &frame.data, Decapsulation::ALL, &mut trail);
        let tunnel = trail.tunnel.unwrap_or_else(|| panic!("{case}: no tunnel"));
        let seen = serde_json::json!({
            "kind": format!("{:?}", tunnel.kind), "id": tunnel.id, "tier": tunnel.tier,
            "source": tunnel.source.to_string(), "destination": tunnel.destination.to_string(),
            "source_mac": low_half(tunnel.source_mac), "destination_mac": low_half(tunnel.destination_mac),
        });
        for (key, value) in seen.as_object().expect("an object") {
            assert_eq!(&case[key], value, "{key} of {case}");
        }
        // The inner packet begins where it should: its payload lies so many bytes into the frame.
        match (found, case["payload_at"].as_u64()) {
            (Ok(inner), Some(at)) => {
                assert_eq!(inner.payload.as_ptr() as usize - frame.data.as_ptr() as usize, at as usize, "{case}");
            }
            (Ok(outer), None) => assert_eq!((outer.source.ip, outer.tunnel), (tunnel.source, None), "{case}"),
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
    assert!(compared >= 6, "only {compared} cases");
}

/// Of one conversation by its ends and direction: packets, bytes of the IP packets, bytes of the transport's payload.
type Totals = BTreeMap<(String, String, String), [u64; 3]>;

fn named(ip: IpAddr, port: Option<u16>) -> String {
    port.map_or(ip.to_string(), |port| format!("{ip}:{port}"))
}

fn seen(path: &Path) -> Totals {
    let mut totals = Totals::new();
    for frame in frames(path) {
        let Ok(packet) = walk(frame.link_type, &frame.data, Decapsulation::ALL, &mut Trail::default()) else {
            continue;
        };
        let (name, ports) = match packet.protocol {
            TCP => ("tcp", true),
            UDP => ("udp", true),
            ICMP | ICMP_6 => ("icmp", false),
            _ => continue,
        };
        let ends = [packet.source, packet.destination].map(|end| named(end.ip, ports.then_some(end.port)));
        let [source, destination] = ends;
        let entry = totals.entry((name.into(), source, destination)).or_default();
        entry[0] += 1;
        entry[1] += u64::from(packet.l3_length) + if packet.source.ip.is_ipv4() { 20 } else { 40 };
        entry[2] += if ports { u64::from(packet.length) } else { 0 };
    }
    totals
}

fn expected(truth: &Value) -> Totals {
    let mut totals = Totals::new();
    for flow in truth["flows"].as_array().expect("flows") {
        let name = flow["flow"].as_str().and_then(|text| text.split(':').next()).expect("a name");
        let [a, b] = ["first_packet_src", "first_packet_dst"].map(|key| {
            let text = flow[key].as_str().unwrap_or_default();
            // Addresses of IPv6 stand there without brackets.
            let port = text.rsplit_once(':').filter(|_| name != "icmp");
            let (ip, port) = port.map_or((text, None), |(ip, port)| (ip, port.parse().ok()));
            named(ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port)
        });
        for (side, source, destination) in [("a2b", &a, &b), ("b2a", &b, &a)] {
            let side = &flow[side];
            let number = |key: &str| side[key].as_u64().unwrap_or(0);
            if number("packets") > 0 {
                let entry = totals.entry((name.into(), source.clone(), destination.clone())).or_default();
                entry[0] += number("packets");
                entry[1] += number("ip_bytes");
                entry[2] += number("tcp_payload_bytes") + number("udp_payload_bytes");
            }
        }
    }
    totals
}

#[test]
fn flows_agree_with_tshark() {
    let Some(root) = fixtures() else { return };
    let root = root.join("pcaps");
    let index = std::fs::read_to_string(root.join("INDEX.tsv")).expect("the index");
    let mut compared = 0;
    let mut differing = BTreeMap::new();
    for file in index.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let path = root.join(file);
        if !path.exists() {
            continue;
        }
        let (found, want) = (seen(&path), expected(&json(&path.with_extension("truth.json"))));
        compared += 1;
        if found != want {
            let missing: Vec<_> = want.iter().filter(|(key, value)| found.get(key) != Some(value)).collect();
            let extra: Vec<_> = found.iter().filter(|(key, value)| want.get(key) != Some(value)).collect();
            differing.insert(file.to_string(), format!("expected {missing:?}, found {extra:?}"));
        }
    }
    assert!(compared > 100, "only {compared} captures");
    let known: BTreeMap<String, Value> =
        families("packets").iter().filter_map(|family| family["flows"].as_object().cloned()).flatten().collect();
    let new: Vec<_> = differing.iter().filter(|(file, _)| !known.contains_key(*file)).collect();
    let healed: Vec<_> = known.keys().filter(|file| !differing.contains_key(*file)).collect();
    assert!(new.is_empty(), "these differ and are not in the ledger: {new:#?}");
    assert!(healed.is_empty(), "these agree now and have to leave the ledger: {healed:?}");
}

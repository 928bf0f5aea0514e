//! Capture files through the engine, against what others say of them (DEEPFLOW_FIXTURES).
//!
//! tests/data/captures/FAMILY.json names the folders of a family of protocols and lists the files that differ, each
//! with its cause; a file that begins to agree has to leave the list.

mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use _core::replay::{Replayed, replay, replay_with_counters};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;
use driver::{families, fixtures};
use serde_json::Value;

fn run(path: &Path) -> Replayed {
    replay_with_counters(&path.to_string_lossy(), "").unwrap_or_else(|error| panic!("{error}"))
}

fn batches(replayed: &Replayed, table: &str) -> Vec<RecordBatch> {
    let of_table = replayed.batches.iter().filter(|(name, _, _)| *name == table);
    of_table
        .flat_map(|(_, _, bytes)| StreamReader::try_new(&bytes[..], None).expect("an Arrow stream"))
        .map(|batch| batch.expect("a batch"))
        .collect()
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares what was found with what differs on record, in both directions.
fn against_ledger(section: &str, differing: &BTreeMap<String, String>) {
    let known: BTreeMap<String, Value> =
        families("captures").iter().filter_map(|family| family[section].as_object().cloned()).flatten().collect();
    let new: Vec<_> = differing.iter().filter(|(file, _)| !known.contains_key(*file)).collect();
    let healed: Vec<_> = known.keys().filter(|file| !differing.contains_key(*file)).collect();
    assert!(new.is_empty(), "{section}: these differ and are not in the ledger: {new:#?}");
    assert!(healed.is_empty(), "{section}: these agree now and have to leave the ledger: {healed:?}");
}

/// Folders of the families that have a data file.
fn folders() -> BTreeSet<String> {
    let families = families("captures");
    let names = families.iter().filter_map(|family| family["folders"].as_array()).flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn meter(replayed: &Replayed) -> [u64; 7] {
    let mut total = [0; 7];
    for batch in batches(replayed, "application_map.1s") {
        let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
        let u32s = |name: &str| column(name).as_primitive::<UInt32Type>().values().to_vec();
        let u64s = |name: &str| column(name).as_primitive::<UInt64Type>().values().to_vec();
        total[0] += u32s("request").iter().map(|value| u64::from(*value)).sum::<u64>();
        total[1] += u32s("response").iter().map(|value| u64::from(*value)).sum::<u64>();
        total[2] += u64s("client_error").iter().sum::<u64>();
        total[3] += u64s("server_error").iter().sum::<u64>();
        total[4] += u64s("rrt_count").iter().sum::<u64>();
        total[5] += column("rrt_sum").as_primitive::<Float64Type>().values().iter().sum::<f64>() as u64;
        total[6] = total[6].max(u32s("rrt_max").into_iter().max().map_or(0, u64::from));
    }
    total
}

#[test]
fn meters_agree_with_deepflow() {
    let Some(root) = fixtures() else { return };
    let root = root.join("deepflow/flow_generator");
    let expected = json(&find(&root, "expected_l7_perf.json"));
    let mut differing = BTreeMap::new();
    for (file, numbers) in expected["pcaps"].as_object().expect("captures") {
        let protocol = file.split('/').next().unwrap_or_default();
        if !folders().contains(protocol) {
            continue;
        }
        let names = ["request_count", "response_count", "err_client_count", "err_server_count"];
        let names = names.into_iter().chain(["rrt_count", "rrt_sum_us", "rrt_max_us"]);
        let want: Vec<u64> = names.map(|name| numbers[name].as_u64().unwrap_or(0)).collect();
        let found = meter(&run(&root.join(file)));
        if want != found {
            differing.insert(file.clone(), format!("expected {want:?}, found {found:?}"));
        }
    }
    against_ledger("deepflow", &differing);
}

fn find(root: &Path, name: &str) -> PathBuf {
    let upper = root.parent().expect("a parent");
    [root.join(name), upper.join(name)].into_iter().find(|path| path.is_file()).expect("the expected numbers")
}

/// Delays of all whole sessions, sorted, µs.
fn delays(replayed: &Replayed) -> Vec<i64> {
    let mut found = Vec::new();
    for batch in batches(replayed, "l7_flow_log") {
        let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
        let kinds = column("type").as_primitive::<UInt8Type>().values().to_vec();
        let answers = column("syscall_cap_seq_1").as_primitive::<UInt32Type>().values().to_vec();
        let spent = column("response_duration").as_primitive::<UInt64Type>().values().to_vec();
        found.extend((0..kinds.len()).filter(|row| kinds[*row] == 2 && answers[*row] > 0).map(|row| spent[row] as i64));
    }
    found.sort_unstable();
    found
}

/// `METHOD RESOURCE CODE` of all HTTP rows, sorted.
fn exchanges(replayed: &Replayed) -> Vec<String> {
    let mut found = Vec::new();
    for batch in batches(replayed, "l7_flow_log") {
        let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
        let (kinds, resources) = (column("request_type"), column("request_resource"));
        let kinds = kinds.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().expect("texts");
        let codes = column("response_code").as_primitive::<Int32Type>().values().to_vec();
        let complete = column("type").as_primitive::<UInt8Type>().values().to_vec();
        for (row, (kind, resource)) in kinds.into_iter().zip(resources.as_string::<i32>()).enumerate() {
            if complete[row] == 2 {
                found.push(format!("{} {} {}", kind.unwrap_or_default(), resource.unwrap_or_default(), codes[row]));
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn sessions_agree_with_tshark() {
    let Some(root) = fixtures() else { return };
    let root = root.join("pcaps");
    let index = std::fs::read_to_string(root.join("INDEX.tsv")).expect("the index");
    let mut lines = index.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let place = |name: &str| head.iter().position(|column| *column == name).expect("a column");
    let (file, role, quality) = (place("file"), place("role"), place("quality"));
    let mut differing = BTreeMap::new();
    let mut texts = BTreeMap::new();
    let mut compared = 0;
    for line in lines.filter(|line| line[role] == "sessions" && line[quality] == "clean") {
        let protocol = line[file].split('/').next().unwrap_or_default();
        if !folders().contains(protocol) {
            continue;
        }
        compared += 1;
        let path = root.join(line[file]);
        let truth = json(&path.with_extension("truth.json"));
        let sessions = truth["sessions"].as_array().expect("sessions").iter();
        let mut want: Vec<i64> = sessions.filter_map(|session| session["rrt_first_packet_us"].as_i64()).collect();
        want.sort_unstable();
        let found = delays(&run(&path));
        if protocol == "http" && want.len() == found.len() {
            let named = exchanges(&run(&path));
            let sessions = truth["sessions"].as_array().expect("sessions").iter();
            let mut asked: Vec<String> = sessions
                .map(|session| format!("{} {}", session["request"].as_str().unwrap_or_default(), session["status"]))
                .collect();
            asked.sort_unstable();
            if named != asked {
                texts.insert(line[file].to_string(), format!("{asked:?} {named:?}").chars().take(300).collect());
            }
        }
        if want != found {
            let note = format!("{} sessions expected, {} found; {want:?} {found:?}", want.len(), found.len());
            differing.insert(line[file].to_string(), note.chars().take(300).collect());
        }
    }
    assert!(compared > 60, "only {compared} captures");
    against_ledger("tshark", &differing);
    against_ledger("tshark_text", &texts);
}

#[test]
fn damaged_files_give_one_sentence() {
    let folder = std::env::temp_dir().join(format!("deepflow-replay-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut header = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    let cut_header = header[..10].to_vec();
    header.extend([1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 1, 2, 3]);
    let mut huge = header.clone();
    huge[32..36].copy_from_slice(&[0xff; 4]);
    for (name, bytes, word) in [
        ("empty.pcap", vec![], "is empty"),
        ("text.pcap", b"hello, world".to_vec(), "no capture file"),
        ("head.pcap", cut_header, "truncated: it ends at offset 10"),
        ("packet.pcap", header, "truncated: it ends at offset 43"),
        ("huge.pcap", huge, "corrupt at offset 24"),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("a file");
        let error = replay(&path.to_string_lossy(), "").expect_err(name);
        assert!(error.contains(word) && error.contains(name), "{error}");
    }
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(replay("/nowhere.pcap", "").expect_err("no file").contains("/nowhere.pcap"));
}

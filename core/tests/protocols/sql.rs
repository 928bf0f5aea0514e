//! SQL: what DeepFlow's unit tests expect of masked statements, folded ones, trace ids and binary values.

use _core::protocols::sql::{MYSQL, endpoint, mask};
use _core::protocols::{ParserSettings, Role};
use serde_json::Value;

use crate::driver::{Connection, fixtures};

fn cases(family: &str) -> Option<Value> {
    let text = std::fs::read_to_string(fixtures()?.join("deepflow/unit_cases.json")).expect("unit cases");
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    Some(all["families"][family].take())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn masked_statements_agree() {
    let Some(cases) = cases("sql_obfuscation") else { return };
    for case in cases.as_array().expect("cases") {
        assert_eq!(mask(text(&case["sql"]), &MYSQL), text(&case["obfuscated"]));
    }
}

#[test]
fn folded_statements_agree() {
    let Some(cases) = cases("mysql_endpoint") else { return };
    for case in cases.as_array().expect("cases") {
        assert_eq!(endpoint(text(&case["sql"]), &MYSQL), text(&case["endpoint"]));
    }
}

/// Bytes of a MySQL packet.
fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend(body);
    bytes
}

#[test]
fn values_of_prepared_statements_agree() {
    let Some(cases) = cases("mysql_binary_parameter") else { return };
    for case in cases.as_array().expect("cases") {
        let code = match text(&case["field_type"]) {
            "Long" => 3,
            "Int24" => 9,
            "Double" => 5,
            "Float" => 4,
            "Time" => 11,
            other => panic!("type {other}"),
        };
        let value = case["bytes"].as_array().expect("bytes").iter().map(|byte| byte.as_u64().expect("a byte") as u8);
        let mut execute = vec![23, 7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, code, 0];
        execute.extend(value);
        for masked in [false, true] {
            let mut settings = ParserSettings::default();
            if masked {
                settings.obfuscate_protocols.push("MySQL".to_owned());
            }
            let mut connection = Connection::new(super::protocol("MySQL"), &std::rc::Rc::new(settings), 6);
            connection.feed(Role::Client, &packet(0, b"\x16select ?"), 0, false);
            connection.feed(Role::Server, &packet(1, b"\0\x07\0\0\0\0\0\x01\0\0\0\0"), 0, false);
            connection.feed(Role::Client, &packet(0, &execute), 0, false);
            let shown = connection.messages.last().expect("an execution").1.request_resource.as_str();
            let expected = if masked { "select ?".to_owned() } else { format!("select ? [{}]", text(&case["text"])) };
            assert_eq!(shown, expected);
        }
    }
}

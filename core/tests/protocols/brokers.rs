//! Message brokers against DeepFlow's expectations, field by field.

use _core::protocols::{Kind, Message};
use serde_json::Value;

use crate::driver::{fixtures, packets, walk};
use crate::{expected_lines, settings, text};

/// Known differences: capture, line, field (`message`: the line has no message of its own), cause.
const LEDGER: &[(&str, &[u64], &str, &str)] = &[
    ("amqp1", &[1, 21], "message", "the protocol header begins a connection and asks nothing: no row"),
    (
        "amqp1",
        &[15, 16, 39, 40],
        "message",
        "content header and body belong to the publication or delivery before them",
    ),
];

fn known(stem: &str, line: u64, field: &str) -> bool {
    LEDGER.iter().any(|(of, lines, what, _)| *of == stem && lines.contains(&line) && *what == field)
}

/// What a line says of a message: name of the field, value there, value here.
type Compared = Vec<(&'static str, Value, Value)>;

/// Compares every line with the message in its place.
fn compare(folder: &str, stems: &[&str], at_least: usize, each: &dyn Fn(&Value, &Message) -> Compared) {
    let Some(root) = fixtures() else { return };
    let folder = root.join("deepflow/flow_generator").join(folder);
    let (mut compared, mut wrong) = (0, Vec::new());
    for stem in stems {
        let mut lines = expected_lines(&folder.join(format!("{stem}.expected.jsonl")));
        lines.retain(|line| !line["info"].is_null());
        let seen = walk(&packets(&folder.join(format!("{stem}.pcap"))), &settings(), false);
        let messages: Vec<_> = seen.iter().flat_map(|flow| &flow.messages).collect();
        let number = |line: &Value| line["line"].as_u64().unwrap_or(0);
        let own: Vec<_> = lines.iter().filter(|line| !known(stem, number(line), "message")).collect();
        if own.len() != messages.len() {
            wrong.push(format!("{stem}: {} messages, expected {}: {messages:#?}", messages.len(), own.len()));
            continue;
        }
        for (line, (_, message)) in own.into_iter().zip(messages) {
            for (field, there, here) in each(&line["info"], message) {
                compared += 1;
                if (there == here) == known(stem, number(line), field) {
                    wrong.push(format!("{stem} line {} {field}: {here}, expected {there}", number(line)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= at_least, "only {compared} comparisons");
}

fn kind(message: &Message) -> Value {
    format!("{:?}", message.kind).into()
}

#[test]
fn amqp_agrees_with_deepflow() {
    compare("amqp", &["amqp1"], 200, &|info, message| {
        let name = format!("{}.{}", text(info, "class_id"), text(info, "method_id"));
        let lengths = if message.kind == Kind::Response { "resp_len" } else { "req_len" };
        let mut fields = vec![
            ("kind", info["msg_type"].clone(), kind(message)),
            ("type", name.into(), message.request_type.as_str().into()),
            ("domain", text(info, "vhost").into(), message.request_domain.as_str().into()),
            ("length", info[lengths].clone(), message.length.into()),
            ("id", info["channel_id"].clone(), message.request_id.into()),
        ];
        if message.kind == Kind::Response {
            fields.push(("status", info["resp_status"].clone(), "Ok".into()));
        } else {
            fields.push(("endpoint", text(info, "endpoint").into(), message.endpoint.as_str().into()));
            fields.push(("resource", text(info, "endpoint").into(), message.request_resource.as_str().into()));
        }
        if text(info, "resp_code") == "Success" {
            fields.push(("code", 200.into(), message.response_code.into()));
        }
        fields
    });
}

"""The declaration is read strictly, and what is generated from it is current."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from sqlglot import exp, parse_one

from deepflow import _core
from deepflow.schema import SchemaError, load
from deepflow.schema.__main__ import PAGE
from deepflow.schema.docs import reference
from deepflow.schema.reading import schema_directory


def changed(tmp_path: Path, file: str, old: str, new: str) -> Path:
    folder = tmp_path / "schema"
    shutil.copytree(schema_directory(), folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return folder


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(load()), "run python -m deepflow.schema docs"


def test_sides_become_two_columns_and_tags() -> None:
    table = load().tables["flow_log.l7_flow_log"]
    assert [table.column[f"ip4_{side}"].side for side in (0, 1)] == [0, 1]
    assert {tag.name for tag in table.tags if tag.base == "auto_service"} == {"auto_service_0", "auto_service_1"}


def test_every_protocol_of_the_core_has_its_name() -> None:
    known = {entry["id"]: entry["name"] for entry in json.loads(_core.protocols())}
    assert load().enums["l7_protocol"] == {0: "N/A"} | known


def test_what_a_roll_up_does_with_each_column() -> None:
    table = load().tables["flow_metrics.network"]
    rules = {
        rule: {column.base for column in table.stored_columns() if column.merge == rule}
        for rule in ("group", "sum", "max", "peak")
    }
    assert rules["peak"] == {"flow_load"}
    assert rules["max"] == {
        "direction_score",
        *(f"{name}_max" for name in ("rtt", "rtt_client", "rtt_server", "srt", "art", "cit", "rrt")),
    }
    assert {"byte_tx", "new_flow", "rtt_sum", "rtt_count", "syn_count", "l7_timeout"} <= rules["sum"]
    assert {"time", "ip4", "role", "protocol", "server_port", "gprocess_id", "observation_point", "agent_id"} <= rules[
        "group"
    ]
    assert not {column.base for column in table.columns if column.role == "tag"} - rules["group"]


def test_meters_of_one_end_and_of_a_pair_are_the_same() -> None:
    tables = load().tables
    for one, pair in (("network", "network_map"), ("application", "application_map")):
        found = [
            (
                {(c.name, c.type, c.kind, c.unit) for c in table.columns if c.merge != "group"},
                {m.name for m in table.metrics},
            )
            for table in (tables[f"flow_metrics.{one}"], tables[f"flow_metrics.{pair}"])
        ]
        assert found[0] == found[1]


#: What the server adds to flows alone: the public tables have them, and no source tells most of them yet.
OF_FLOWS = {
    *("province", "region_id", "az_id", "l3_device_type", "l3_device_id", "pod_node_id", "pod_ns_id", "pod_group_id"),
    *("pod_id", "pod_cluster_id", "epc_id", "subnet_id", "service_id", "tag_source", "team_id", "acl_gids"),
}
#: The other columns of DeepFlow's flow log that its documents name; {} stands for both sides.
FLOW_LOG = """
    mac{} eth_type vlan ip4{} ip6{} is_ipv4 protocol tunnel_tier tunnel_type tunnel_tx_id tunnel_rx_id tunnel_tx_ip4{}
    tunnel_rx_ip4{} tunnel_tx_ip6{} tunnel_rx_ip6{} tunnel_is_ipv4 tunnel_tx_mac{} tunnel_rx_mac{} client_port
    server_port tcp_flags_bit{} syn_seq syn_ack_seq last_keepalive_seq last_keepalive_ack l7_protocol host_id{}
    l3_epc_id{} auto_instance_id{} auto_instance_type{} auto_service_id{} auto_service_type{} time close_type
    signal_source flow_id aggregated_flow_ids init_ipid capture_network_type_id nat_source capture_nic_type capture_nic
    observation_point agent_id l2_end{} l3_end{} start_time end_time duration is_new_flow status gprocess_id{}
    nat_real_ip4{} nat_real_port{} direction_score request_domain packet_tx packet_rx byte_tx byte_rx l3_byte_tx
    l3_byte_rx l4_byte_tx l4_byte_rx total_packet_tx total_packet_rx total_byte_tx total_byte_rx l7_request l7_response
    l7_parse_failed rtt rtt_client rtt_server tls_rtt srt_sum art_sum rrt_sum cit_sum srt_count art_count rrt_count
    cit_count srt_max art_max rrt_max cit_max retrans_tx retrans_rx zero_win_tx zero_win_rx syn_count synack_count
    retrans_syn retrans_synack l7_client_error l7_server_error l7_server_timeout ooo_tx ooo_rx fin_count _id
"""


def test_the_flow_log_has_every_public_column() -> None:
    table = load().tables["flow_log.l4_flow_log"]
    wanted = {name.format(side) for name in FLOW_LOG.split() for side in ("_0", "_1")}
    stored = {column.name for column in table.stored_columns()}
    assert not wanted - stored
    assert {column.base for column in table.stored_columns() if column.name not in wanted} == OF_FLOWS | {"_batch"}
    # An error is the client's or the server's: their sum is not stored.
    assert "l7_error" in {metric.name for metric in table.metrics}


def test_resource_tags_of_both_logs_are_the_same() -> None:
    """What names a resource grows in all tables together."""
    tables = load().tables
    tags = [
        {
            (c.name, c.type)
            for c in tables[f"flow_log.{name}"].columns
            if c.source == "ingest" and c.base not in OF_FLOWS
        }
        for name in ("l4_flow_log", "l7_flow_log")
    ]
    assert tags[0] == tags[1]
    bases = [
        {c.base for c in table.columns if c.source == "ingest" and c.base not in OF_FLOWS}
        for table in tables.values()
        if table.kind != "internal" and table.database.startswith("flow_")
    ]
    assert all(one == bases[0] for one in bases)


@pytest.mark.parametrize("name", sorted(load().tables))
def test_expressions_read_columns_of_their_table(name: str) -> None:
    table = load().tables[name]
    known = set(table.column) | {metric.name for metric in table.metrics if metric.expr}
    for entry in (*table.tags, *table.metrics):
        for column in parse_one(entry.expr or "1", dialect="clickhouse").find_all(exp.Column):
            assert column.name in known, f"{entry.name} reads {column.name}"


def test_every_close_type_of_a_metric_has_a_name() -> None:
    schema = load()
    named = set(schema.enums["close_type"])
    for metric in schema.tables["flow_log.l4_flow_log"].metrics:
        tree = parse_one(metric.expr or "1", dialect="clickhouse")
        compared = [node for node in tree.find_all(exp.EQ, exp.In) if node.this.name == "close_type"]
        numbers = {int(value.name) for node in compared for value in node.find_all(exp.Literal)}
        assert numbers <= named


def test_wire_schema_has_sent_columns_in_order_with_their_arrow_types() -> None:
    tables = load().wire_tables()
    assert set(tables) == {
        "l4_flow_log",
        "l7_flow_log",
        "application.1s",
        "application_map.1s",
        "network.1s",
        "network_map.1s",
        "deepflow_system",
    }
    wire = tables["application.1s"][0].wire_schema()
    assert wire.names[:3] == ["time", "process_id", "ip4"]
    assert wire.field("ip6").type == pa.binary(16)
    log = tables["l7_flow_log"][0].wire_schema()
    assert log.field("start_time").type == pa.timestamp("us", tz="UTC")
    assert log.field("response_code").nullable
    assert "_batch" not in log.names


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("l7_flow_log.yaml", "kind: log ", "knd: log ", "unknown key 'knd'"),
        (
            "l7_flow_log.yaml",
            "{name: flow_id, type: UInt64,",
            "{name: flow_id, type: UInt65,",
            "unknown column type 'UInt65'",
        ),
        ("l7_flow_log.yaml", "enum: response_status", "enum: response_stat", "enums.yaml has no 'response_stat'"),
        ("l7_flow_log.yaml", "{name: flow_id,", "{name: _id,", "column '_id' is declared twice"),
        ("l7_flow_log.yaml", "order_by: [time,", "order_by: [tme,", "order_by names the unknown column 'tme'"),
        ("application.yaml", "ttl_hours: 24", "ttl_hours: 0", "precision 1s: ttl_hours must be a positive number"),
        ("application.yaml", "numerator: rrt_sum", "numerator: rtt_sum", "unknown 'rtt_sum'"),
        ("enums.yaml", 'bool: {0: "No"', "bool: {0: No", "put names that YAML reads as true or false in quotes"),
        ("trace_key.yaml", "database: flow_log", "database: [", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, file: str, old: str, new: str, sentence: str) -> None:
    with pytest.raises(SchemaError, match=sentence):
        load(changed(tmp_path, file, old, new))

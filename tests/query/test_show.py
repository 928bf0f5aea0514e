"""SHOW: the catalogue as the schema declares it, and the values of tags."""

from deepflow.schema import Schema
from tests.query.conftest import SERVICES, Ask


def _named(ask: Ask, sql: str, db: str = "") -> dict[str, dict[str, object]]:
    answer = ask(sql, db)
    return {str(row[0]): dict(zip(answer.columns, row, strict=True)) for row in answer.values}


def test_databases_and_tables(ask: Ask) -> None:
    assert ask("show databases", "").values == [["deepflow_system"], ["flow_log"], ["flow_metrics"]]
    assert ask("SHOW TABLES", "flow_log").values == [["l4_flow_log", []], ["l7_flow_log", []]]
    assert ask("show tables where name = 'application_map'", "flow_metrics").values == [
        ["application_map", ["1s", "1m"]]
    ]


def test_every_declared_tag_and_metric_is_shown_and_can_be_asked_for(ask: Ask, schema: Schema) -> None:
    for table in schema.tables.values():
        if table.kind == "internal":
            continue
        tags = _named(ask, f"SHOW tags FROM {table.name}", table.database)
        declared = {column.base for column in table.columns if column.role == "tag"} | {tag.base for tag in table.tags}
        assert set(tags) == declared
        for tag in tags.values():
            if tag["name"] not in {"tag", "attribute"}:
                sql = (
                    f"SELECT `{tag['client_name']}` AS a, `{tag['server_name']}` AS b, Count(row) AS c "
                    f"FROM {table.name} WHERE exist(`{tag['client_name']}`) GROUP BY a, b LIMIT 1"
                )
                ask(sql, table.database)
        metrics = _named(ask, f"SHOW metrics FROM {table.name}", table.database)
        assert set(metrics) == {column.name for column in table.columns if column.role == "metric"} | {
            metric.name for metric in table.metrics
        }
        for name, metric in metrics.items():
            calls = [
                f"{function[0]}({name}{', 50' if function[4] else ''}) AS `{function[0]}`"
                for function in ask("show metrics functions", "").values
                if metric["type"] in function[2]
            ]
            if name not in {"row", "metrics"}:
                assert len(ask(f"SELECT {', '.join(calls)} FROM {table.name}", table.database).columns) == len(calls)


def test_tags_can_be_searched(ask: Ask) -> None:
    tags = _named(ask, "SHOW tags FROM l7_flow_log WHERE category = 'Tracing Info' AND name LIKE 'syscall*' LIMIT 2")
    assert len(tags) == 2 and all(name.startswith("syscall") for name in tags)
    protocol = _named(ask, "show tags from l7_flow_log where name = 'l7_protocol'")["l7_protocol"]
    assert (protocol["type"], protocol["enum_file"], protocol["client_name"]) == (
        "int_enum",
        "l7_protocol",
        "l7_protocol",
    )
    service = _named(ask, "show tags from l7_flow_log where name in ('auto_service')")["auto_service"]
    assert (service["client_name"], service["server_name"]) == ("auto_service_0", "auto_service_1")


def test_values_of_tags(ask: Ask) -> None:
    assert ask("SHOW tag auto_service_1 values FROM l7_flow_log", "flow_log").values == [
        [key, name] for key, name in SERVICES.items()
    ]
    assert ask(
        "SHOW tag auto_service values FROM l7_flow_log WHERE display_name LIKE 'SHOP*' ORDER BY value DESC LIMIT 1",
        "flow_log",
    ).values == [[2, "shop-web"]]
    assert ask("SHOW tag host values FROM application WHERE host_id != 2", "flow_metrics").values == [[1, "node-1"]]
    assert ask("SHOW tag agent values FROM l7_flow_log WHERE agent = 'agent-two'", "flow_log").values == [
        [2, "agent-two"]
    ]
    assert ask("SHOW tag host values FROM application ORDER BY value LIMIT 1", "flow_metrics").values == [[1, "node-1"]]
    assert {row[0] for row in ask("SHOW tag endpoint values FROM l7_flow_log", "flow_log").values} == {
        "/a",
        "/b",
        "/c/*",
    }
    assert ask("SHOW tag endpoint values FROM l7_flow_log WHERE value LIKE '/b*'", "flow_log").values == [["/b", "/b"]]
    assert ask("SHOW tag attribute.cc values FROM l7_flow_log", "flow_log").values == [["opensource", "opensource"]]


def test_enumerations_and_language(ask: Ask, schema: Schema) -> None:
    shown = ask("SHOW enum response_status values", "").values
    assert dict(shown) == dict(schema.enums["response_status"])
    assert ask("SHOW tag l7_protocol values FROM l7_flow_log WHERE display_name = 'HTTP'", "").values == [[20, "HTTP"]]
    assert ask("show language", "").values == [["en"]]
    assert len(ask("SHOW all_enum_tags", "").values) == sum(map(len, schema.enums.values()))

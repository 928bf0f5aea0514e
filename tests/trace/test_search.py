"""The search against a real chDB store: one request through two services, beside a foreign one."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deepflow.schema import load
from deepflow.store import Store, open_store, prepare
from deepflow.trace import Row, TraceNotFound, trace_by_id, trace_by_trace_id
from tests.trace.world import BEGIN_US, World, random_forest, shape, shop

# Rows older than the retention are dropped on insert.
SECOND = int(time.time()) - 60
TABLE = "flow_log.l7_flow_log"


def _id(number: int) -> int:
    return SECOND << 32 | 1 << 22 | number


def _records() -> list[dict[str, object]]:
    def row(number: int, place: str, start: int, end: int, **more: object) -> dict[str, object]:
        begin = SECOND * 1_000_000
        base = {"time": SECOND, "_id": _id(number), "start_time": begin + start, "end_time": begin + end}
        base |= {"response_duration": end - start, "observation_point": place, "agent_id": 1, "signal_source": 3}
        return base | {"type": 2, "protocol": 6, "l7_protocol": 20, "is_ipv4": 1} | more

    outer = {"client_port": 40000, "server_port": 80, "req_tcp_seq": 11, "resp_tcp_seq": 12}
    inner = {"client_port": 40001, "server_port": 5000, "req_tcp_seq": 21, "resp_tcp_seq": 22}
    return [
        row(1, "c-p", 0, 900, process_id_0=5, trace_id="t1", **outer),
        row(2, "s-p", 100, 800, process_id_1=7, syscall_trace_id_request=99, trace_id="t1", **outer),
        row(3, "c-p", 200, 700, process_id_0=7, syscall_trace_id_request=99, **inner),
        row(4, "s-p", 300, 600, process_id_1=8, syscall_trace_id_request=100, **inner),
        row(5, "c-p", 1000, 1900, process_id_0=5, client_port=40000, server_port=80, req_tcp_seq=31, resp_tcp_seq=32),
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path: Path = tmp_path_factory.mktemp("trace")
    opened: Store = open_store(f"chdb://{path}/db")
    prepare(opened, load())
    names = sorted({name for record in _records() for name in record})
    for record in _records():
        used = {name: record[name] for name in names if name in record}
        values = ", ".join(
            f"fromUnixTimestamp64Micro({v})" if k in ("start_time", "end_time") else repr(v) for k, v in used.items()
        )
        opened.command(f"INSERT INTO {TABLE} ({', '.join(used)}) VALUES ({values})")
    yield opened
    opened.close()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_row_leads_to_the_same_tree(store: Store, number: int) -> None:
    trace = trace_by_id(store, _id(number))
    assert [span.row.id for span in trace.spans] == [_id(n) for n in (1, 2, 3, 4)]
    assert [span.cause.rule for span in trace.spans if span.cause] == ["network", "syscall", "network"]
    assert not trace.truncated and not any(span.outside_parent for span in trace.spans)


def test_next_request_of_the_load_generator_is_alone(store: Store) -> None:
    assert [span.row.id for span in trace_by_id(store, _id(5)).spans] == [_id(5)]


def test_trace_id_leads_to_the_tree(store: Store) -> None:
    assert len(trace_by_trace_id(store, "t1", SECOND - 10, SECOND + 10).spans) == 4


def test_limit_is_told(store: Store) -> None:
    assert trace_by_id(store, _id(1), limit=2).truncated


def test_unknown_ids_get_a_sentence(store: Store) -> None:
    with pytest.raises(TraceNotFound, match="no request with the id"):
        trace_by_id(store, _id(77))
    with pytest.raises(TraceNotFound, match="No request with the trace id"):
        trace_by_trace_id(store, "absent", SECOND - 10, SECOND + 10)


def test_text_has_one_line_a_span(store: Store) -> None:
    assert len(trace_by_id(store, _id(1)).to_text().splitlines()) == 5


def _insert(store: Store, world: World, batch: int) -> dict[int, int]:
    """Stores the rows of a world as of now; its row numbers → row ids."""
    ids: dict[int, int] = {}
    records = []
    for row in world.shuffled():
        start, end = (SECOND * 1_000_000 + at - BEGIN_US for at in (row.start_us, row.end_us))
        ids[row.id] = (end // 1_000_000) << 32 | batch << 22 | row.id
        records.append({"_id": ids[row.id], "start_time": start, "end_time": end} | _columns(row, end - start, end))
    columns = {}
    for field in load().tables[TABLE].stored_schema():
        fill = None if field.nullable else _nothing(field.type)
        values = [record.get(field.name, fill) for record in records]
        columns[field.name] = pa.array(values, field.type)
    store.insert(TABLE, pa.table(columns))
    return ids


def _columns(row: Row, duration: int, end: int) -> dict[str, Any]:
    same = ("observation_point", "signal_source", "type", "agent_id", "flow_id", "protocol", "l7_protocol")
    numbers = ("client_port", "server_port", "req_tcp_seq", "resp_tcp_seq", "request_id", "request_resource")
    causes = ("syscall_trace_id_request", "syscall_trace_id_response")
    record: dict[str, Any] = {name: getattr(row, name) for name in (*same, *numbers, *causes)}
    for number, side in enumerate((row.client, row.server)):
        record[f"process_id_{number}"], record[f"process_kname_{number}"] = side.process_id, side.process_kname
        record[f"ip4_{number}"] = 10 << 24 | int(side.ip.rpartition(".")[2])
    return record | {"time": end // 1_000_000, "response_duration": duration, "is_ipv4": 1}


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_fixed_size_binary(kind):
        return bytes(kind.byte_width)
    return "" if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else 0


@pytest.mark.parametrize("number", range(12))
def test_true_trees_come_out_of_the_store(store: Store, number: int) -> None:
    world = shop(90, requests=8) if number == 0 else random_forest(100 + number)
    ids = _insert(store, world, 10 + number)
    for row in world.shuffled()[:25]:
        wanted = {ids[child]: parent and ids[parent] for child, parent in world.tree_of(row.id).items()}
        trace = trace_by_id(store, ids[row.id])
        assert shape(trace) == wanted and not trace.truncated


def test_request_and_late_response_are_found_together(store: Store) -> None:
    halves = {"flow_id": 77, "client_port": 50_000, "server_port": 80, "agent_id": 1, "protocol": 6, "l7_protocol": 20}
    moment, common = SECOND * 1_000_000, {"observation_point": "c-p", "signal_source": 3, "time": SECOND}
    for record in (
        {"_id": _id(900), "type": 0, "start_time": moment, "end_time": moment, "syscall_cap_seq_0": 3},
        {"_id": _id(901), "type": 1, "start_time": moment + 9, "end_time": moment + 9, "syscall_cap_seq_1": 4},
    ):
        used = record | halves | common
        values = ", ".join(
            f"fromUnixTimestamp64Micro({v})" if k.endswith("_time") else repr(v) for k, v in used.items()
        )
        store.command(f"INSERT INTO {TABLE} ({', '.join(used)}) VALUES ({values})")
    spans = trace_by_id(store, _id(901)).spans
    assert [span.row.ids for span in spans] == [(_id(900), _id(901))]

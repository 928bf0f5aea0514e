"""The search against a real chDB store: one request through two services, beside a foreign one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from deepflow.schema import load
from deepflow.store import Store, open_store, prepare
from deepflow.trace import TraceNotFound, trace_by_id, trace_by_trace_id

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

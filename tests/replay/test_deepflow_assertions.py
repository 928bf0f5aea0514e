"""Captures of which DeepFlow's tests assert single fields (``expected_assertions.json``), as replayed rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepflow import _core
from tests.replay.families import STATUS
from tests.replay.replayed import replayed

REGISTRY = {protocol["id"] for protocol in json.loads(_core.protocols())}
PROTOCOL = {"sofarpc": 43, "postgre": 61, "http": 20, "fastcgi": 44}


def _status(name: str) -> int:
    return STATUS[name.replace("_", "")]


#: Column and reading of a field, for each part of a case; a field that is not here has no column.
COLUMNS: dict[str, dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "request": {
        "method": ("request_type", str),
        "request_id": ("request_id", int),
        "trace_id": ("trace_id", str),
        "span_id": ("span_id", str),
        "req_len": ("request_length", int),
        "service": ("request_resource", str),
    },
    "response": {
        "request_id": ("request_id", int),
        "resp_code": ("response_code", int),
        "status": ("response_status", _status),
        "resp_len": ("response_length", int),
    },
    "session": {
        "request_type": ("request_type", str),
        "sql": ("request_resource", str),
        "affected_rows": ("sql_affected_rows", int),
        "captured_request_byte": ("captured_request_byte", int),
        "captured_response_byte": ("captured_response_byte", int),
        "result": ("response_result", str),
        "exception": ("response_exception", str),
        "status": ("response_status", _status),
    },
    "replay": {
        "first_request_type": ("request_type", str),
        "second_response_code": ("response_code", int),
    },
}
#: Fields that no column of l7_flow_log holds.
NO_COLUMN = {"cmd_code", "protocol", "parent_span_id", "response_type", "logs"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from tests.conftest import fixtures

    file = fixtures() / "deepflow/expected_assertions.json"
    cases = json.loads(file.read_text())["pcaps"] if file.exists() else {}
    paths = [(file.parent / "flow_generator" / name, case) for name, case in cases.items()]
    metafunc.parametrize(("file", "case"), paths, ids=list(cases))


def test_assertions_hold(file: Path, case: dict[str, Any]) -> None:
    protocol = PROTOCOL[file.parent.name]
    if protocol not in REGISTRY:
        pytest.skip(f"{file.parent.name}: the registry has no protocol {protocol} yet")
    rows = [row for row in replayed(file) if row["l7_protocol"] == protocol]
    assert len(rows) == 1, rows
    assert rows[0]["type"] == 2
    for part, fields in case.items():
        if part == "rrt_us":
            assert rows[0]["response_duration"] == fields
            continue
        for name, value in fields.items():
            if name not in NO_COLUMN:
                column, read = COLUMNS[part][name]
                assert rows[0][column] == read(value), name

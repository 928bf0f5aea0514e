"""Provinces from the setting to the answer, through the server as a process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepflow.schema import load
from tests.api.test_server import IDENTITY, NOW, client, headers, start_and_fail
from tests.conftest import Running
from tests.geography_file import write_geography
from tests.ingest.batches import ipc, wire_rows

ENGLAND, SWEDEN, PRIVATE = 0x51024501, 0x59A01471, 0x0A000001


def flows(count: int, **columns: Any) -> bytes:
    given = {"time": [NOW] * count, "_id": list(range(count)), "start_time": [NOW * 1_000_000] * count}
    given |= {"end_time": given["start_time"], "is_ipv4": [1] * count, "byte_tx": [100] * count}
    return ipc(wire_rows(load().tables["flow_log.l4_flow_log"], count, **given, **columns))


def ask(http: httpx.Client, sql: str) -> list[list[Any]]:
    answer = http.post("/v1/query/", data={"db": "flow_log", "sql": sql}).json()
    assert answer["OPT_STATUS"] == "SUCCESS", answer
    values: list[list[Any]] = answer["result"]["values"]
    return values


def test_provinces_are_asked_for_as_any_tag(deepflow_server: Callable[..., Running], tmp_path: Path) -> None:
    file, config = write_geography(tmp_path / "places.mmdb"), tmp_path / "server.yaml"
    config.write_text(f"geography: {file}\ngeography_language: zh-CN\n")
    server = deepflow_server("--config", str(config))
    # The file is read at the start: neither a shorter one nor none disturbs the server.
    os.truncate(file, 10)
    file.unlink()
    with client(server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY).json()["agent_id"]
        ends = {"ip4_0": [ENGLAND, PRIVATE, PRIVATE, SWEDEN], "ip4_1": [PRIVATE, SWEDEN, PRIVATE, ENGLAND]}
        sent = http.post("/v1/ingest/l4_flow_log", content=flows(4, **ends), headers=headers(agent, 1))
        assert sent.json() == {"rows": 4}
        table = "FROM l4_flow_log"
        assert ask(http, f"SELECT province_0, Sum(byte) AS n {table} GROUP BY province_0 ORDER BY province_0") == [
            ["", 200],
            ["瑞典", 100],
            ["英格兰", 100],
        ]
        assert ask(http, f"SELECT province_0, province_1 {table} WHERE province = '英格兰' ORDER BY province_0") == [
            ["瑞典", "英格兰"],
            ["英格兰", ""],
        ]
        assert ask(http, f"SELECT ip_1 {table} WHERE province_1 LIKE '瑞*'") == [["89.160.20.113"]]
        assert ask(http, f"SELECT Count(row) AS n {table} WHERE NOT exist(province)") == [[1]]
        shown = ask(http, f"SHOW TAGS {table} WHERE name = 'province'")
        assert [row[:5] for row in shown] == [["province", "province_0", "province_1", "province", "string"]]
        assert shown[0][6] == "Network Layer"
        assert ask(http, f"SHOW TAG province_1 VALUES {table} ORDER BY value") == [
            ["瑞典", "瑞典"],
            ["英格兰", "英格兰"],
        ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read: No such file or directory."), (b"GIF89a", "is not in the MaxMind DB format.")],
)
def test_a_file_that_is_no_database_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "places.mmdb"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DEEPFLOW_SERVER_GEOGRAPHY", str(file))
    data = tmp_path / "data"
    assert start_and_fail("--data", str(data)).endswith(f"The geography file {file} {sentence}")
    assert not data.exists()


def test_a_language_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFLOW_SERVER_GEOGRAPHY_LANGUAGE", "[en]")
    assert "geography_language: Input should be a valid string" in start_and_fail()

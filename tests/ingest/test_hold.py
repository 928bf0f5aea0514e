"""A batch with far ends that nobody has told of yet waits a moment for the agent that knows them."""

import secrets
import time
from dataclasses import replace
from typing import Any

import pytest

from deepflow.ingest.writer import Pace
from tests.ingest.batches import ipc, wire_rows
from tests.ingest.conftest import IDENTITY, Inside, process

LOG = "flow_log.l7_flow_log"
CLIENT, SERVER = 10 << 24 | 5, 10 << 24 | 9


@pytest.fixture
def agents(inside: Inside) -> tuple[int, int]:
    """Two agents, each of which knows process 77 of its own host; nothing is remembered of either."""
    others = [replace(IDENTITY, name=f"held{n}", machine_id=f"held{n}") for n in (1, 2)]
    one, two = (inside.resources.register_agent(identity) for identity in others)
    for agent, name in ((one, "asks"), (two, "answers")):
        inside.resources.upsert_processes(agent, [process(77, 1, name)])
    inside.reopen_ingest()
    return one, two


def calls(inside: Inside, client: int = 0, server: int = 0, rows: int = 3, address: int = SERVER) -> bytes:
    """Calls of this second from CLIENT, port 40000 and up; process ids as the agent knows them, 0 unknown."""
    now = int(time.time())
    columns: dict[str, list[Any]] = {
        "time": [now],
        "start_time": [now * 1_000_000],
        "ip4_0": [CLIENT],
        "ip4_1": [address],
        "is_ipv4": [1],
        "protocol": [6],
        "server_port": [80],
        "process_id_0": [client],
        "process_id_1": [server],
        "observation_point": ["c-p" if client else "s-p"],
    }
    repeated = {name: values * rows for name, values in columns.items()}
    return ipc(wire_rows(inside.schema.tables[LOG], rows, client_port=list(range(40_000, 40_000 + rows)), **repeated))


def ends(inside: Inside, batch: int) -> list[tuple[int, int]]:
    sql = f"SELECT DISTINCT gprocess_id_0 > 0 AS c, gprocess_id_1 > 0 AS s FROM {LOG} WHERE _batch = {batch}"
    return [(row["c"], row["s"]) for row in inside.store.query(sql).to_pylist()]


def test_rows_that_come_first_are_named_by_those_that_come_after(
    inside: Inside, agents: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepflow.ingest.ingest._HOLD_S", 5)
    one, two = agents
    first, second = secrets.randbits(64), secrets.randbits(64)
    # The other agent is known by anything that it sends.
    inside.ingest.submit("l7_flow_log", two, secrets.randbits(64), 1, calls(inside, server=77, address=1 << 24 | 1))
    waiting = inside.ingest.enqueue("l7_flow_log", one, first, 1, calls(inside, client=77))
    repeated = inside.ingest.enqueue("l7_flow_log", one, first, 2, calls(inside, client=77))
    assert inside.ingest.submit("l7_flow_log", two, second, 1, calls(inside, server=77)) == 3
    assert ends(inside, second) == [(1, 1)], "the second knows both ends at once"
    assert not waiting.done()
    assert waiting.result(30) == repeated.result(30) == 3
    assert ends(inside, first) == [(1, 1)]
    counted = inside.ingest.counters()["l7_flow_log"]
    assert counted["rows_stored"] == 9 and counted["rows_queued"] == 0
    # Each end once: three clients for the second, three servers for the first.
    assert counted["ends_found"] == 6


def test_nothing_waits_that_nobody_else_could_name(inside: Inside, agents: tuple[int, int]) -> None:
    one, two = agents
    lonely = inside.ingest.enqueue("l7_flow_log", one, secrets.randbits(64), 1, calls(inside, client=77))
    assert lonely.result(30) == 3
    inside.ingest.submit("l7_flow_log", two, secrets.randbits(64), 1, calls(inside, server=77, address=1 << 24 | 1))
    begin = time.monotonic()
    held = inside.ingest.enqueue("l7_flow_log", one, secrets.randbits(64), 1, calls(inside, client=77, address=9 << 24))
    known = inside.ingest.enqueue("l7_flow_log", one, secrets.randbits(64), 1, calls(inside, client=77, server=77))
    local = inside.ingest.enqueue("l7_flow_log", one, secrets.randbits(64), 1, calls(inside, 77, 0, 3, 127 << 24 | 1))
    assert known.result(30) == local.result(30) == 3
    assert not held.done() or time.monotonic() - begin > 2.4, "only what has an open end waits"
    assert held.result(30) == 3


def test_haste_is_not_paid_for_with_long_silence() -> None:
    pace = Pace(per_s=10, burst=3)
    for _ in range(100):
        pace.spend()
    assert 0 < pace.wait_s() <= 0.2


def test_a_server_that_stops_stores_at_once_what_waits(inside: Inside, agents: tuple[int, int]) -> None:
    one, two = agents
    inside.ingest.submit("l7_flow_log", two, secrets.randbits(64), 1, calls(inside, server=77, address=1 << 24 | 1))
    batch = secrets.randbits(64)
    waiting = inside.ingest.enqueue("l7_flow_log", one, batch, 1, calls(inside, client=77, address=8 << 24))
    inside.reopen_ingest()
    assert waiting.done() and waiting.result() == 3
    assert ends(inside, batch) == [(1, 0)]

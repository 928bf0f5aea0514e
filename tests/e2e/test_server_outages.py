"""The server is away for 30 s, or is killed in mid-insert: afterwards every request is there once."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.e2e.conftest import Observed, eventually, query

MAX_ROWS = 100_000  # of one answer
ENDS = 2  # the door's HTTP session is seen at the client and at nginx


def inserts_under_way(observed: Observed) -> int:
    """Parts of batches that the server's journal calls begun and not stored."""
    arguments = observed.server.arguments
    data = Path(arguments[arguments.index("--data") + 1])
    with closing(sqlite3.connect(f"file:{data / 'metadata.sqlite'}?mode=ro", uri=True, timeout=5)) as journal:
        return int(journal.execute("SELECT count(*) FROM owed WHERE stored = 0").fetchone()[0])


def assert_every_request_once(observed: Observed, prefix: str) -> None:
    sent = {one["path"] for one in observed.shop.truth("client", f"/item/{prefix}-") if one["status"] == 200}
    assert len(sent) > 100

    def at_the_door() -> list[dict[str, object]]:
        rows = observed.rows("_id, request_resource, server_port", f"/item/{prefix}-")
        return [one for one in rows if one["server_port"] == 8080]

    eventually(lambda: len(at_the_door()) >= ENDS * len(sent), 90)
    rows = at_the_door()
    ids = Counter(str(one["_id"]) for one in rows)
    assert max(ids.values()) == 1, "a row is there twice"
    times = Counter(one["request_resource"] for one in rows)
    assert times == dict.fromkeys(sent, ENDS)
    # Behind the door, too: what any process sent or answered meanwhile has each row once.
    everything = [one["_id"] for one in query(observed.url, f"SELECT _id FROM l7_flow_log LIMIT {MAX_ROWS}")]
    assert ENDS * len(sent) < len(everything) < MAX_ROWS
    assert len(set(everything)) == len(everything), "a row is there twice"


def test_nothing_is_lost_or_doubled_when_the_server_is_away_for_thirty_seconds(observed: Observed) -> None:
    traffic = observed.shop.traffic_in_background(
        "--seconds", "45", "--rate", "40", "--kind", "item", "--prefix", "away"
    )
    time.sleep(5)
    observed.server.stop()
    time.sleep(30)
    observed.server.start()
    observed.server.await_health()
    assert traffic.wait(60) == 0

    assert_every_request_once(observed, "away")


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_in_mid_insert_five_times(observed: Observed) -> None:
    traffic = observed.shop.traffic_in_background(
        "--seconds", "60", "--rate", "100", "--kind", "item", "--prefix", "killed"
    )
    in_mid_insert = 0
    while in_mid_insert < 5 and traffic.poll() is None:
        time.sleep(2)
        assert eventually(lambda: inserts_under_way(observed) > 0, 30, 0.0005), "no insert began"
        observed.server.kill()
        # What the journal still says of the dead server: the insert had begun, and nobody noted that it ended.
        in_mid_insert += inserts_under_way(observed) > 0
        observed.server.start()
        observed.server.await_health()
    assert in_mid_insert == 5, "the traffic ended before five kills had met an insert"
    assert traffic.wait(120) == 0

    assert_every_request_once(observed, "killed")

"""The server is away for 30 s, or is killed in mid-insert: afterwards every request is there once."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.e2e.conftest import Observed, eventually, query

MAX_ROWS = 100_000  # of one answer
HOPS = 2  # shopper → nginx → api
ENDS = 2  # each hop is seen at both ends


def inserts_under_way(observed: Observed) -> int:
    """Parts of batches that the server's journal calls begun and not stored."""
    arguments = observed.server.arguments
    data = Path(arguments[arguments.index("--data") + 1])
    with closing(sqlite3.connect(f"file:{data / 'metadata.sqlite'}?mode=ro", uri=True, timeout=5)) as journal:
        return int(journal.execute("SELECT count(*) FROM owed WHERE stored = 0").fetchone()[0])


def assert_every_request_once(observed: Observed, prefix: str) -> None:
    sent = {one["path"] for one in observed.shop.truth("client", f"/item/{prefix}-") if one["status"] == 200}
    assert len(sent) > 100

    def rows_of_them() -> list[dict[str, object]]:
        return observed.rows("_id, request_resource", f"/item/{prefix}-")

    eventually(lambda: len(rows_of_them()) >= HOPS * ENDS * len(sent), 90)
    rows = rows_of_them()
    assert max(Counter(str(one["_id"]) for one in rows).values()) == 1, "a row is there twice"
    assert Counter(one["request_resource"] for one in rows) == dict.fromkeys(sent, HOPS * ENDS)

    def counted() -> float:
        where = f"endpoint LIKE '/item/{prefix}-*' AND observation_point = 'c-p'"
        sql = f"SELECT Sum(request) AS requests FROM application_map WHERE {where}"
        return float(query(observed.url, sql, "flow_metrics", "1s")[0]["requests"] or 0)

    eventually(lambda: counted() >= HOPS * len(sent), 30)
    assert counted() == HOPS * len(sent), "the meters count another number of requests than were sent"
    # Behind them, too: what any process sent or answered meanwhile has each row once.
    everything = [one["_id"] for one in query(observed.url, f"SELECT _id FROM l7_flow_log LIMIT {MAX_ROWS}")]
    assert HOPS * ENDS * len(sent) < len(everything) < MAX_ROWS
    assert len(set(everything)) == len(everything), "a row is there twice"


def test_nothing_is_lost_or_doubled_when_the_server_is_away_for_thirty_seconds(observed: Observed) -> None:
    traffic = observed.shop.traffic_in_background(
        "--seconds", "45", "--rate", "40", "--kind", "item", "--prefix", "away"
    )
    time.sleep(5)
    observed.server.stop(30)
    time.sleep(30)
    observed.server.start()
    observed.server.await_health()
    assert traffic.wait(60) == 0

    assert_every_request_once(observed, "away")


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_in_mid_insert_five_times(observed: Observed) -> None:
    traffic = observed.shop.traffic_in_background(
        "--seconds", "90", "--rate", "66", "--kind", "item", "--prefix", "killed"
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

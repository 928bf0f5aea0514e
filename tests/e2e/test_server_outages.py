"""The server is away for 30 s, or is killed in mid-insert: afterwards every request is there once."""

from __future__ import annotations

import time
from collections import Counter

from tests.e2e.conftest import Observed, eventually

ENDS = 2  # the door's HTTP session is seen at the client and at nginx


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
        "--seconds", "40", "--rate", "100", "--kind", "item", "--prefix", "killed"
    )
    for round_number in range(5):
        # Batches come about once a second: a different fraction each time meets a different stage of the insert.
        time.sleep(4 + 0.23 * round_number)
        observed.server.kill()
        observed.server.start()
        observed.server.await_health()
    assert traffic.wait(120) == 0

    assert_every_request_once(observed, "killed")

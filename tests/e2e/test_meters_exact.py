"""100 requests of which 5 fail and 10 are slow: the meters say exactly that."""

from __future__ import annotations

import os

import pytest

from tests.e2e.conftest import Observed, eventually, query

SLOW_MS = 300


def test_meters_count_requests_and_errors_exactly_and_delays_within_ten_percent(observed: Observed) -> None:
    # In the endpoints, so that another shop on this machine is not counted.
    own = f"meter{os.getpid()}"
    sent = [("item", 85, ()), ("fail", 5, ("--at", "stock")), ("slow", 10, ("--ms", str(SLOW_MS), "--at", "stock"))]

    def meters(word: str = "*/") -> dict[str, float]:
        sql = (
            "SELECT Sum(request) AS requests, Sum(response) AS responses, Sum(error) AS errors, "
            "Max(rrt_max) AS slowest FROM application_map WHERE auto_service_0 = 'shopper' AND "
            f"auto_service_1 = 'nginx' AND observation_point = 'c-p' AND endpoint LIKE '{word}{own}-*'"
        )
        row = query(observed.url, sql, "flow_metrics", "1s")[0]
        return {key: float(value or 0) for key, value in row.items()}

    for kind, count, more in sent:
        observed.shop.traffic("--requests", str(count), "--kind", kind, "--prefix", f"{own}-{kind}", *more)

    eventually(lambda: meters()["responses"] >= 100)
    counted = meters()
    assert (counted["requests"], counted["responses"], counted["errors"]) == (100, 100, 5)

    took = sorted(one["duration_us"] for one in observed.shop.truth("client", f"{own}-slow-"))

    def delays() -> list[int]:
        columns = "response_duration, observation_point, server_port"
        rows = observed.rows(columns, f"/slow/{own}-slow-")
        own_rows = [one for one in rows if one["observation_point"] == "c-p" and one["server_port"] == 8080]
        return sorted(one["response_duration"] for one in own_rows)

    eventually(lambda: len(delays()) >= 10)
    rows = delays()
    assert len(rows) == len(took) == 10
    assert sum(rows) == pytest.approx(sum(took), rel=0.1)
    assert meters("/slow/")["slowest"] == max(rows) and rows[0] >= SLOW_MS * 1000
    assert all(delay <= clock for delay, clock in zip(rows, took, strict=True))

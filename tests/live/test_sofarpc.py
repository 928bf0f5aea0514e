"""SofaRPC over Bolt: calls, a one-way call, an exception, a service that does not exist."""

from __future__ import annotations

from tests.live.javac import program
from tests.live.observed import Observed

SOFARPC = 43
PORT = 12200
SERVICE = "live.Sofa$Orders:1.0"


def test_calls(seen: Observed) -> None:
    sofa = program("Sofa", "sofarpc", seen.folder)
    seen.start(*sofa, "server", str(PORT), port=PORT, seconds=120)
    seen.run(*sofa, "client", str(PORT))
    traces = []
    for point in ("c-p", "s-p"):
        rows = seen.rows(SOFARPC, point)
        # What the provider throws comes in a response whose status is 0.
        named = [(row["endpoint"], row["type"], row["response_status"], row["response_code"]) for row in rows]
        assert named == [
            *[(f"{SERVICE}/hello", 2, 0, 0)] * 10,
            (f"{SERVICE}/note", 2, 0, None),
            (f"{SERVICE}/hello", 2, 0, 0),
            (f"{SERVICE}:missing/hello", 2, 0, 0),
        ]
        ids = [row["request_id"] for row in rows]
        assert ids == sorted(set(ids))
        traces.append([row["trace_id"] for row in rows])
        assert all(traces[-1]) and len(set(traces[-1])) == len(rows)
    assert traces[0] == traces[1]
    assert not seen.others(SOFARPC)

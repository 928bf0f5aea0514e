"""Apache Dubbo 3 over the Dubbo 2 protocol: calls, a call that wants no answer, a service that does not exist."""

from __future__ import annotations

import pytest

from tests.live.javac import program
from tests.live.observed import Observed

DUBBO = 40
PORT = 20880
SERVICE = "live.Dubbo$Orders"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("serialisation", ["hessian2", "fastjson2"])
def test_calls(seen: Observed, serialisation: str) -> None:
    dubbo = program("Dubbo", "dubbo", seen.folder, "DubboEnds")
    seen.start(*dubbo, "server", str(PORT), port=PORT, seconds=120)
    seen.run(*dubbo, "client", str(PORT), serialisation)
    for point in ("c-p", "s-p"):
        rows = seen.rows(DUBBO, point)
        named = [(row["request_type"], row["type"], row["response_status"], row["response_code"]) for row in rows]
        assert named == [
            *[("hello", 2, 0, 20)] * 10,
            ("place", 2, 0, 20),
            ("note", 2, 0, None),
            ("hello", 2, 4, 40),
        ]
        assert {row["request_resource"] for row in rows} == {SERVICE}
        assert {row["endpoint"] for row in rows} == {f"{SERVICE}/{name}" for name in ("hello", "place", "note")}
        traced = [(row["trace_id"], row["span_id"]) for row in rows[:11]]
        assert traced == [(TRACE, f"b7ad6b716920333{number}") for number in range(10)] + [("TRACEID", "SEGMENTID-3")]
        assert len({row["request_id"] for row in rows}) == len(rows)
        assert "Fail to decode request" in rows[-1]["response_exception"]
        assert {row["version"] for row in rows} == {"2.0.2"}
    assert not seen.others(DUBBO)

"""Tars, server and client of @tars/rpc: calls, a function that does not exist, a one-way call."""

from __future__ import annotations

import json
from pathlib import Path

from tests.live.npm import modules
from tests.live.observed import Observed

TARS = 46
PORT = 14002
SERVANT = "Live.OrderServer.OrderObj"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PROGRAM = Path(__file__).parent / "node/tars.js"


def test_calls(seen: Observed) -> None:
    where = modules("tars", "@tars/rpc@2.0.15")
    seen.start("node", PROGRAM, "server", str(PORT), port=PORT, NODE_PATH=where)
    said = json.loads(seen.run("node", PROGRAM, "client", str(PORT), NODE_PATH=where).splitlines()[-1])
    assert said == {"code": -3}
    for point in ("c-p", "s-p"):
        rows = seen.rows(TARS, point)
        named = [(row["endpoint"], row["type"], row["response_status"], row["response_code"]) for row in rows]
        assert named == [
            *[(f"{SERVANT}/hello", 2, 0, 0)] * 10,
            (f"{SERVANT}/missing", 2, 3, -3),
            (f"{SERVANT}/note", 2, 0, None),
        ]
        assert [row["span_id"] for row in rows[:10]] == [f"b7ad6b716920333{number}" for number in range(10)]
        assert {row["trace_id"] for row in rows[:10]} == {TRACE}
        assert rows[10]["response_exception"] == "TARSSERVERNOFUNCERR"
    assert not seen.others(TARS)

"""gRPC with grpcio at both ends: unary, streaming, errors, a deadline."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.live.observed import LIVE_PYTHON, Observed, need

GRPC = 41
DEADLINE_EXCEEDED = 4
SHOP = Path(__file__).with_name("grpc_shop.py")


def test_calls_have_the_outcome_that_the_client_saw(seen: Observed) -> None:
    need(str(LIVE_PYTHON))
    seen.start(LIVE_PYTHON, SHOP, "server", "50051", port=50051)
    said = json.loads(seen.run(LIVE_PYTHON, SHOP, "client", "50051").splitlines()[-1])
    *answered, (method, code, _) = said
    assert (method, code) == ("Get", DEADLINE_EXCEEDED)
    for point in ("c-p", "s-p"):
        rows = seen.rows(GRPC, point)
        large = [row for row in rows if row["endpoint"] == "/shop.Cart/Large"]
        assert [row["response_status"] for row in large] == [0]
        rows = [row for row in rows if row not in large]
        # Whoever is first ends a call at its deadline: the server with a status, or the client with a reset, or, while
        # the server stands still, by closing the connection.
        late = rows.pop()
        ended = late["response_code"] == DEADLINE_EXCEEDED or late["response_exception"] == "CANCEL"
        assert ended if late["type"] == 2 else (late["type"], late["response_status"]) == (0, 5), late
        assert late["endpoint"] == "/shop.Cart/Get"
        assert all(row["type"] == 2 for row in [*rows, *large]), [row["endpoint"] for row in rows if row["type"] != 2]
        found = Counter((row["endpoint"], row["response_code"], row["response_exception"]) for row in rows)
        assert found == Counter((f"/shop.Cart/{method}", code, text) for method, code, text in answered)
        assert {(row["request_type"], row["request_resource"], row["request_domain"]) for row in rows} == {
            ("POST", "shop.Cart", "127.0.0.1:50051")
        }
        assert {row["response_status"] for row in rows if row["response_code"] == 0} == {0}
        assert {row["response_status"] for row in rows if row["response_code"] == 5} == {4}
        assert {row["response_status"] for row in rows if row["response_code"] in (12, 15)} == {3}
        traced = [row for row in rows if row["trace_id"] == "0af7651916cd43dd8448eb211c80319c"]
        assert len(traced) == 23
        assert {row["span_id"] for row in traced} == {"b7ad6b7169203331"}
        # Twenty messages of one or two digits, with five bytes before each.
        watched = [row for row in rows if row["endpoint"] == "/shop.Cart/Watch"]
        assert {row["response_length"] for row in watched} == {20 * 5 + 10 + 20}
    assert not seen.others(GRPC)

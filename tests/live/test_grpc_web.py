"""gRPC-Web with connect-go at both ends, over HTTP/1.1 and HTTP/2: unary, streaming, errors, compression."""

from __future__ import annotations

import json

import pytest

from tests.live.golang import program
from tests.live.observed import Observed

GRPC_WEB = 209
PORT = 8080
NOT_FOUND, UNIMPLEMENTED, INTERNAL, DATA_LOSS = 5, 12, 13, 15
STATUSES = {0: 0, NOT_FOUND: 4, INTERNAL: 3, DATA_LOSS: 3, 404: 4}


@pytest.mark.parametrize("version", ["1", "2"])
def test_calls_have_the_outcome_that_the_client_saw(seen: Observed, version: str) -> None:
    cart = program("grpcweb", seen.folder)
    seen.start(cart, "server", str(PORT), port=PORT)
    said = json.loads(seen.run(cart, "client", str(PORT), version))
    assert [(method, code) for method, code, _ in said] == [
        *[("Get", 0)] * 4,
        ("Get", NOT_FOUND),
        ("Get", INTERNAL),
        ("Get", 0),
        ("Nothing", UNIMPLEMENTED),
        ("Watch", 0),
        ("Watch", DATA_LOSS),
    ]
    # The server has no such path: it answers in HTTP alone.
    said[7] = ["Nothing", 404, "Not Found"]
    # An error without a text is shown by its name.
    said[5][2] = "INTERNAL"
    for point in ("c-p", "s-p"):
        rows = seen.rows(GRPC_WEB, point)
        found = [[row["endpoint"], row["response_code"], row["response_exception"]] for row in rows]
        assert found == [[f"/shop.Cart/{method}", code, text] for method, code, text in said]
        assert [row["response_status"] for row in rows] == [STATUSES[code] for _, code, _ in said]
        assert {
            (row["type"], row["request_type"], row["request_resource"], row["request_domain"], row["version"])
            for row in rows
        } == {(2, "POST", "shop.Cart", f"127.0.0.1:{PORT}", {"1": "1.1", "2": "2"}[version])}
        traced = [(row["trace_id"], row["span_id"]) for row in rows[:6]]
        assert traced == [("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")] * 6
        assert not any(row["trace_id"] for row in rows[6:])
    assert not seen.others(GRPC_WEB)

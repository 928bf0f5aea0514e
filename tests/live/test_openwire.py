"""ActiveMQ's broker and its JMS client over OpenWire: messages sent and consumed, a connection refused."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.live.javac import program
from tests.live.observed import Observed

OPENWIRE = 103
PORT = 61616
MESSAGES = 9
TRACE = "0af7651916cd43dd8448eb211c80319c"
LOOSE = "wireFormat.tightEncodingEnabled=false"
PLAIN = f"{LOOSE}&wireFormat.cacheEnabled=false"


@pytest.mark.parametrize(
    "options", ["wireFormat.tightEncodingEnabled=true", LOOSE, PLAIN], ids=["tight", "loose", "plain"]
)
def test_messages(seen: Observed, options: str) -> None:
    activemq = program("ActiveMq", "activemq", seen.folder)
    seen.start(*activemq, "server", str(PORT), port=PORT, seconds=120)
    said = json.loads(seen.run(*activemq, "client", str(PORT), options, str(MESSAGES)).splitlines()[-1])
    assert said["received"] == MESSAGES and "already connected" in said["refused"]
    for point in ("c-p", "s-p"):
        rows = seen.rows(OPENWIRE, point)
        count = Counter(row["request_type"] for row in rows)
        exact = {"SessionInfo": 1, "ProducerInfo": 1, "ConsumerInfo": 1, "ActiveMQTextMessage": MESSAGES}
        assert {name: count[name] for name in exact} == exact
        # One connection works; the other is refused as often as the client tries it.
        tries = 1 + said["unanswered"]
        assert count["ConnectionInfo"] == 1 + tries and count["WireFormatInfo"] == 2 * count["ConnectionInfo"]
        delivered = [row["is_reversed"] for row in rows if row["request_type"] == "MessageDispatch"]
        assert delivered == [1] * MESSAGES
        for name in ("ActiveMQTextMessage", "MessageDispatch"):
            messages = [row for row in rows if row["request_type"] == name]
            assert [row["x_request_id_0"] for row in messages] == [f"order-{number}" for number in range(MESSAGES)]
            assert [row["span_id"] for row in messages] == [f"b7ad6b716920333{number}" for number in range(MESSAGES)]
            assert {(row["endpoint"], row["trace_id"]) for row in messages} == {("shop.orders", TRACE)}
        lost = [row for row in rows if row["type"] != 2]
        assert [(row["request_type"], row["response_status"]) for row in lost] == [("ConnectionInfo", 5)] * (tries - 1)
        refused = [row for row in rows if row["response_status"] == 3]
        assert [(row["request_type"], row["response_exception"]) for row in refused] == [
            ("ConnectionInfo", said["refused"])
        ]
        assert {row["version"] for row in rows} == {"12"}
    assert not seen.others(OPENWIRE)

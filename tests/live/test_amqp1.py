"""AMQP 1.0: RabbitMQ's plugin driven by Qpid Proton."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import Observed
from tests.live.rabbitmq import start_rabbitmq

AMQP1 = 204
TRACE = "0af7651916cd43dd8448eb211c80319c"

CLIENT = f"""
import proton
from proton.utils import BlockingConnection

HEADERS = {{"traceparent": "00-{TRACE}-b7ad6b7169203331-01"}}

def connect(password="guest"):
    url = f"amqp://guest:{{password}}@127.0.0.1:5672"
    return BlockingConnection(url, timeout=30, allowed_mechs="PLAIN")

connection = connect()
sender = connection.create_sender("/queue/jobs", name="out")
for number in range(20):
    sender.send(proton.Message(id=f"m-{{number}}", body="private" * 20 * number, properties=HEADERS))
receiver = connection.create_receiver("/queue/jobs", name="in", credit=1)
for number in range(20):
    receiver.receive(timeout=30)
    receiver.reject() if number == 19 else receiver.accept()
connection.close()
try:
    connect("wrong")
except proton.ConnectionException:
    pass
"""


def test_transfers_dispositions_and_refusals(seen: Observed) -> None:
    start_rabbitmq(seen, "rabbitmq_amqp1_0")
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(AMQP1, point)
        count = Counter(row["request_type"] for row in rows)
        once = ("open", "begin", "close")
        assert {name: count[name] for name in once} == dict.fromkeys(once, 1)
        assert (count["sasl-init"], count["attach"], count["transfer"]) == (2, 2, 40)
        transfers = [row for row in rows if row["request_type"] == "transfer"]
        assert Counter(row["is_reversed"] for row in transfers) == {0: 20, 1: 20}
        assert {row["trace_id"] for row in transfers} == {TRACE}
        assert {row["endpoint"] for row in transfers} == {"/queue/jobs"}
        assert Counter(row["response_result"] for row in transfers) == {"accepted": 39, "rejected": 1}
        assert {row["version"] for row in rows} == {"1.0"}
        failed = [(row["request_type"], row["response_exception"]) for row in rows if row["response_status"] != 0]
        assert failed == [("transfer", "rejected"), ("sasl-init", "authentication failed")]
        assert all(row["type"] == 2 for row in rows)
        assert "private" not in str(rows)
        assert "wrong" not in str(rows)
    assert not seen.others(AMQP1)

"""STOMP 1.2: RabbitMQ's plugin driven by stomp.py."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import Observed
from tests.live.rabbitmq import start_rabbitmq

STOMP = 203
TRACE = "0af7651916cd43dd8448eb211c80319c"

CLIENT = f"""
import threading
import stomp

HEADERS = {{"traceparent": "00-{TRACE}-b7ad6b7169203331-01"}}

class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.came, self.receipts, self.failed = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
        self.acknowledge = ""

    def on_message(self, frame):
        self.acknowledge = frame.headers["ack"]
        self.came.release()

    def on_receipt(self, frame):
        self.receipts.release()

    def on_error(self, frame):
        self.failed.set()

def connect(password="guest"):
    connection, listener = stomp.Connection12([("127.0.0.1", 61613)], vhost="/"), Listener()
    connection.set_listener("", listener)
    connection.connect("guest", password, wait=True)
    return connection, listener

connection, listener = connect()
connection.subscribe("/queue/orders", id="orders", ack="client-individual")
for number in range(20):
    receipt = {{"receipt": f"r-{{number}}"}} if number % 2 else {{}}
    connection.send("/queue/orders", b"private\\0" * number, headers=HEADERS | receipt)
    if receipt:
        assert listener.receipts.acquire(timeout=30)
    assert listener.came.acquire(timeout=30)
    connection.ack(listener.acknowledge)
connection.unsubscribe("orders")
connection.disconnect(receipt="bye")
assert listener.receipts.acquire(timeout=30)
try:
    connect("wrong")
except stomp.exception.ConnectFailedException:
    pass
connection, listener = connect()
connection.send("/nowhere/at-all", b"private", headers={{"receipt": "last"}})
assert listener.failed.wait(30)
"""


def test_receipts_deliveries_and_errors(seen: Observed) -> None:
    start_rabbitmq(seen, "rabbitmq_stomp")
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(STOMP, point)
        count = Counter(row["request_type"] for row in rows)
        assert count == {
            "STOMP": 3,
            "SUBSCRIBE": 1,
            "SEND": 21,
            "MESSAGE": 20,
            "ACK": 20,
            "UNSUBSCRIBE": 1,
            "DISCONNECT": 1,
        }
        sent = [row for row in rows if row["endpoint"] == "/queue/orders" and row["request_type"] == "SEND"]
        came = [row for row in rows if row["request_type"] == "MESSAGE"]
        assert sum(row["response_duration"] > 0 for row in sent) == 10
        assert {row["trace_id"] for row in sent + came} == {TRACE}
        assert {row["is_reversed"] for row in came} == {1}
        assert {row["request_domain"] for row in rows} == {"/"}
        assert {row["version"] for row in rows if row["response_status"] == 0} == {"1.2"}
        failed = [row for row in rows if row["response_status"] != 0]
        assert [(row["request_type"], row["response_status"], row["response_exception"]) for row in failed] == [
            ("STOMP", 4, "Bad CONNECT"),
            ("SEND", 3, "Unknown destination"),
        ]
        assert all(row["type"] == 2 for row in rows)
        assert "private" not in str(rows)
        assert "wrong" not in str(rows)
    assert not seen.others(STOMP)

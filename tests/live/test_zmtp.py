"""ZeroMQ (libzmq by pyzmq): requests and replies of several frames, publications, a request of the end that listens."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.live.observed import Observed

ZMTP = 106

CLIENT = """
import threading, time, zmq
context = zmq.Context()
rep = context.socket(zmq.REP)
rep.bind("tcp://127.0.0.1:5555")
def serve():
    for _ in range(20):
        rep.recv_multipart()
        rep.send_multipart([b"secret", b"x" * 300])
thread = threading.Thread(target=serve)
thread.start()
req = context.socket(zmq.REQ)
req.connect("tcp://127.0.0.1:5555")
for number in range(20):
    req.send(b"secret")
    req.recv_multipart()
thread.join()
pub = context.socket(zmq.XPUB)
pub.bind("tcp://127.0.0.1:5556")
sub = context.socket(zmq.SUB)
sub.connect("tcp://127.0.0.1:5556")
sub.subscribe("news")
pub.recv()
for number in range(10):
    pub.send_multipart([b"news.today", b"secret"])
    pub.send_multipart([b"other", b"secret"])
for number in range(10):
    sub.recv_multipart()
asks = context.socket(zmq.REQ)
asks.bind("tcp://127.0.0.1:5557")
answers = context.socket(zmq.REP)
answers.connect("tcp://127.0.0.1:5557")
for number in range(5):
    asks.send(b"secret")
    answers.recv()
    answers.send(b"answer")
    asks.recv()
context.destroy(0)
"""


def test_requests_and_publications(seen: Observed) -> None:
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(ZMTP, point)

        def of(port: int, name: str, rows: list[dict[str, Any]] = rows) -> list[dict[str, Any]]:
            return [row for row in rows if row["server_port"] == port and row["request_type"] == name]

        assert Counter((row["server_port"], row["request_type"]) for row in rows) == {
            **{(port, "Greeting"): 2 for port in (5555, 5556, 5557)},
            (5555, "Command"): 2,
            (5556, "Command"): 3,
            (5557, "Command"): 2,
            (5555, "Message"): 20,
            (5556, "Message"): 10,
            (5557, "Message"): 5,
        }
        assert {(row["request_length"], row["response_length"]) for row in of(5555, "Message")} == {(6, 306)}
        assert {(row["is_reversed"], row["syscall_cap_seq_1"] > 0) for row in of(5557, "Message")} == {(1, True)}
        assert {(row["is_reversed"], row["response_length"]) for row in of(5556, "Message")} == {(1, 16)}
        assert [row["request_resource"] for row in of(5556, "Command") if row["request_resource"]] == ["news"]
        assert all(row["type"] == 2 and row["response_status"] == 0 for row in rows)
        assert "secret" not in str(rows)
    assert not seen.others(ZMTP)

"""Redis driven by redis-py: commands, a pipeline, errors, RESP3, transactions, pushes, silent replies."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import Observed, need

REDIS = 80

CLIENT = """
import redis
r = redis.Redis(port=6379, protocol=2)
for i in range(20):
    r.set(f"key{i}", "secret")
r.lpush("list", 1)
try:
    r.incr("list")
except redis.ResponseError:
    pass
with r.pipeline(transaction=False) as p:
    for i in range(30):
        p.get(f"key{i}")
    p.execute()
"""


def test_commands_pipeline_and_errors(seen: Observed) -> None:
    need("redis-server")
    seen.start("redis-server", "--port", "6379", "--bind", "127.0.0.1", "--save", "", port=6379)
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(REDIS, point)
        count = {name: sum(row["request_type"] == name for row in rows) for name in ("SET", "LPUSH", "INCRBY", "GET")}
        assert count == {"SET": 20, "LPUSH": 1, "INCRBY": 1, "GET": 30}
        assert [
            row["request_type"] for row in rows if row["response_status"] == 3 and row["request_type"] != "CLIENT"
        ] == ["INCRBY"]
        assert all(row["type"] == 2 for row in rows)
        assert "secret" not in str(rows)
    assert not seen.others(REDIS)


TALK = """
import json, socket, redis
r = redis.Redis(port=6379, protocol=3)
with r.pipeline(transaction=True) as p:
    p.set("key", "secret").lpush("key", "secret").hset("map", mapping={"a": "secret"})
    p.execute(raise_on_error=False)
r.hgetall("map")
subscriber = r.pubsub()
subscriber.subscribe("news", "sport")
for i in range(30):
    r.publish("news", "secret")
heard = 0
while heard < 30:
    message = subscriber.get_message(timeout=10)
    assert message is not None
    heard += message["type"] == "message"
monitor = socket.create_connection(("127.0.0.1", 6379), timeout=10)
monitor.sendall(b"*1\\r\\n$7\\r\\nMONITOR\\r\\n")
lines = monitor.makefile("rb")
assert lines.readline() == b"+OK\\r\\n"
for i in range(10):
    r.get("key")
for i in range(10):
    lines.readline()
raw = socket.create_connection(("127.0.0.1", 6379), timeout=10)
raw.sendall(b"CLIENT REPLY SKIP\\r\\nGET key\\r\\nPING\\r\\n")
assert raw.makefile("rb").readline() == b"+PONG\\r\\n"
raw.sendall(b"CLIENT REPLY OFF\\r\\nGET key\\r\\nGET key\\r\\nCLIENT REPLY ON\\r\\n")
assert raw.makefile("rb").readline() == b"+OK\\r\\n"
print(json.dumps(heard))
"""


def test_transactions_pushes_and_silence(seen: Observed) -> None:
    need("redis-server")
    seen.start("redis-server", "--port", "6379", "--bind", "127.0.0.1", "--save", "", port=6379)
    assert seen.python(TALK) == 30
    for point in ("c-p", "s-p"):
        rows = [row for row in seen.rows(REDIS, point) if row["request_resource"] != "CLIENT SETINFO"]
        assert all(row["type"] == 2 for row in rows)
        results = [(row["request_type"], row["response_result"]) for row in rows if row["request_type"] != "HELLO"]
        count = Counter(results)
        assert count["MULTI", "SimpleString"] == 1 and count["EXEC", "Array"] == 1
        queued = [name for name, result in results if name in ("SET", "LPUSH", "HSET") and result == "SimpleString"]
        assert queued == ["SET", "LPUSH", "HSET"]
        assert count["HGETALL", "Map"] == 1
        assert count["SUBSCRIBE", "Push"] == 1 and count["PUBLISH", "Integer"] == 30
        assert count["MONITOR", "SimpleString"] == 1
        # Ten answered; one skipped and two switched off get no reply.
        assert count["GET", "BulkString"] == 10 and count["GET", ""] == 3
        assert count["PING", "SimpleString"] == 1
        assert "secret" not in str(rows)
    assert not seen.others(REDIS)

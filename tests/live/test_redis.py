"""Redis driven by redis-py: commands, a pipeline, errors."""

from __future__ import annotations

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

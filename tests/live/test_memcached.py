"""Memcached driven by pymemcache (text), by its own meta commands, and by python-binary-memcached."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.live.observed import Observed, need

MEMCACHED = 82

TEXT = """
import json
from pymemcache.client.base import Client
client = Client(("127.0.0.1", 11211), default_noreply=False)
for i in range(20):
    client.set(f"key{i}", "secret" * 1000)
client.set_many({f"many{i}": "secret" for i in range(10)})
found = client.get_many([f"key{i}" for i in range(30)])
for i in range(25):
    client.get(f"key{i}")
client.set("counter", "1")
client.incr("counter", 4)
client.set("quiet", "secret", noreply=True)
try:
    client.incr("key1", 1)
except Exception:
    pass
client.quit()
print(json.dumps(len(found)))
"""

# Few hits: the kernel program reads only the first pieces of what a server gathers for one sendmsg.
META = """
import json, socket
server = socket.create_connection(("127.0.0.1", 11211), timeout=10)
answers = server.makefile("rb")
for i in range(4):
    server.sendall(b"ms key%d 6 q\\r\\nsecret\\r\\nmn\\r\\n" % i)
    assert answers.readline() == b"MN\\r\\n"
server.sendall(b"".join(b"mg key%d v k q\\r\\n" % i for i in range(40)) + b"mn\\r\\n")
hits = 0
while (line := answers.readline()) != b"MN\\r\\n":
    hits += 1
    answers.read(int(line.split()[1]) + 2)
print(json.dumps(hits))
"""

BINARY = """
import json, bmemcached
client = bmemcached.Client(("127.0.0.1:11211",), socket_timeout=30)
for i in range(2):
    client.set(f"bin{i}", "secret")
found = client.get_multi([f"bin{i}" for i in range(20)])
try:
    client.incr("bin1", 1)
except bmemcached.exceptions.MemcachedException:
    pass
print(json.dumps(len(found)))
"""


def commands(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["request_type"] for row in rows)


def start(seen: Observed) -> None:
    need("memcached")
    seen.start("memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", "11211", "-m", "16", "-t", "1", port=11211)


def test_text_commands(seen: Observed) -> None:
    start(seen)
    assert seen.python(TEXT) == 20
    for point in ("c-p", "s-p"):
        rows = seen.rows(MEMCACHED, point)
        assert commands(rows) == {"set": 32, "get": 26, "incr": 2}
        assert all(row["type"] == 2 for row in rows)
        failed = [row for row in rows if row["response_status"] != 0]
        assert [(row["request_resource"], row["response_status"]) for row in failed] == [("incr key1 1", 4)]
        assert failed[0]["response_exception"].startswith("CLIENT_ERROR")
        hits = sum(row["response_result"].startswith("VALUE key") for row in rows if row["request_type"] == "get")
        assert hits == 21
        assert [row["response_result"] for row in rows if row["request_resource"] == "incr counter 4"] == ["5"]
        assert "secret" not in str(rows)
    assert not seen.others(MEMCACHED)


def test_quiet_meta_commands(seen: Observed) -> None:
    start(seen)
    assert seen.python(META) == 4
    for point in ("c-p", "s-p"):
        rows = seen.rows(MEMCACHED, point)
        assert commands(rows) == {"ms": 4, "mg": 40, "mn": 5}
        assert all(row["type"] == 2 and row["response_status"] == 0 for row in rows)
        answered = [row["request_resource"] for row in rows if row["response_result"].startswith("VA ")]
        assert answered == [f"mg key{i} v k q" for i in range(4)]


def test_binary_protocol(seen: Observed) -> None:
    start(seen)
    assert seen.python(BINARY) == 2
    for point in ("c-p", "s-p"):
        rows = seen.rows(MEMCACHED, point)
        assert all(row["type"] == 2 for row in rows)
        count = commands(rows)
        assert count["set"] == 2 and count["getkq"] + count["getk"] == 20 and count["increment"] == 1
        found = [row for row in rows if row["request_type"].startswith("getk") and row["response_result"] == "No error"]
        assert sorted(row["request_resource"].split()[1] for row in found) == [f"bin{i}" for i in range(2)]
        assert [row["response_status"] for row in rows if row["request_type"] == "increment"] == [4]
        assert "secret" not in str(rows)

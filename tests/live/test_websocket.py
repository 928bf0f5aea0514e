"""WebSocket with the `websockets` package at both ends: messages, fragments, pings, a close with a code."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import LIVE_PYTHON, Observed, need

HTTP = 20
WEBSOCKET = 208

SERVER = """
import asyncio
from websockets.asyncio.server import serve
async def handle(socket):
    async for message in socket:
        await socket.send(message)
        if message == "push":
            for number in range(5):
                await socket.send(b"%d" % number)
            await (await socket.ping(b"alive?"))
        if message == "bye":
            await socket.close(1011, "out of order")
async def main():
    async with serve(handle, "127.0.0.1", 8765, compression=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""

CLIENT = """
import asyncio
from websockets.asyncio.client import connect
async def main():
    async with connect("ws://127.0.0.1:8765/chat/17?room=1", compression=None, ping_interval=None) as socket:
        for number in range(10):
            await socket.send(f"hello {number}")
            await socket.recv()
        await socket.send([b"a" * 10, b"b" * 20, b"c" * 30])
        await socket.recv()
        await socket.send(b"x" * 100_000)
        await socket.recv()
        for number in range(3):
            await (await socket.ping(b"%d" % number))
        await socket.send("push")
        for number in range(6):
            await socket.recv()
    async with connect("ws://127.0.0.1:8765/", compression=None, ping_interval=None) as socket:
        await socket.send("bye")
        await socket.recv()
        await socket.wait_closed()
asyncio.run(main())
"""


def test_messages_pings_and_closes(seen: Observed) -> None:
    need(str(LIVE_PYTHON))
    seen.start(LIVE_PYTHON, "-c", SERVER, port=8765)
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        upgrades = seen.rows(HTTP, point)
        assert [(row["endpoint"], row["response_code"]) for row in upgrades] == [("/chat/*", 101), ("/", 101)]
        rows = seen.rows(WEBSOCKET, point)
        assert all(row["type"] == 2 for row in rows)
        assert {row["request_domain"] for row in rows} == {"127.0.0.1:8765"}
        chat = [row for row in rows if row["endpoint"] == "/chat/*"]
        assert Counter((row["request_type"], row["is_reversed"]) for row in chat) == {
            ("TEXT", 0): 11,
            ("TEXT", 1): 11,
            ("BINARY", 0): 2,
            ("BINARY", 1): 7,
            ("PING", 0): 3,
            ("PING", 1): 1,
            ("CLOSE", 0): 1,
        }
        sent = [row["request_length"] for row in chat if (row["request_type"], row["is_reversed"]) == ("BINARY", 0)]
        assert sent == [60, 100_000]
        closes = [row for row in rows if row["request_type"] == "CLOSE"]
        found = [(row["is_reversed"], row["response_code"], row["response_status"]) for row in closes]
        assert found == [(0, 1000, 0), (1, 1011, 3)]
    assert {row["l7_protocol"] for row in seen.others(WEBSOCKET)} == {HTTP}

"""NATS with JetStream: nats-server driven by nats-py."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import LIVE_PYTHON, Observed, need

NATS = 104
TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVER = LIVE_PYTHON.parent / "nats-server"

CLIENT = f"""
import asyncio
import nats

HEADERS = {{"traceparent": "00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "r-1"}}

async def answer(message):
    await message.respond(b"private")

async def main():
    connection = await nats.connect("nats://127.0.0.1:4222", connect_timeout=30)
    came = asyncio.Queue()
    await connection.subscribe("price", queue="pricers", cb=answer)
    await connection.subscribe("shop.>", cb=came.put)
    for number in range(20):
        await connection.publish("shop.order.new", b"private" * 20 * number, headers=HEADERS)
        await came.get()
        await connection.flush()
    for number in range(20):
        await connection.publish("shop.order.old", b"private" * 200 * number)
        await came.get()
        await connection.flush()
    await connection.request("price", b"private", timeout=30)
    try:
        await connection.request("nobody.home", b"private", timeout=30)
    except nats.errors.NoRespondersError:
        pass
    stream = connection.jetstream(timeout=30)
    await stream.add_stream(name="ORDERS", subjects=["orders.*"])
    for _ in range(5):
        await stream.publish("orders.new", b"private", headers=HEADERS)
    consumer = await stream.pull_subscribe("orders.*", "worker")
    for _ in range(5):
        for message in await consumer.fetch(1, timeout=30):
            await message.ack()
    await connection.flush()
    await connection.close()

asyncio.run(main())
"""


def test_publications_requests_and_streams(seen: Observed) -> None:
    need(str(SERVER))
    seen.start(SERVER, "-a", "127.0.0.1", "-p", "4222", "--jetstream", "-sd", str(seen.folder), port=4222)
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(NATS, point)
        count = Counter((row["request_type"], row["request_resource"]) for row in rows)
        assert count["HPUB", "shop.order.new"] == count["HMSG", "shop.order.new"] == 20
        assert count["PUB", "shop.order.old"] == count["MSG", "shop.order.old"] == 20
        assert count["PUB", "price"] == count["MSG", "price"] == count["PUB", "nobody.home"] == 1
        assert count["HPUB", "orders.new"] == count["HMSG", "orders.new"] == 5
        assert count["PUB", "$JS.API.STREAM.CREATE.ORDERS"] == 1
        assert sum(row["request_resource"].startswith("$JS.ACK.ORDERS.worker.") for row in rows) == 5
        traced = [row for row in rows if row["request_resource"] in ("shop.order.new", "orders.new")]
        assert {(row["trace_id"], row["x_request_id_0"]) for row in traced} == {(TRACE, "r-1")}
        assert {row["endpoint"] for row in traced} == {"shop", "orders"}
        assert {row["is_reversed"] for row in traced if row["request_type"] == "HMSG"} == {1}
        greeting = [row for row in rows if row["request_type"] == "INFO" and row["response_duration"] > 0]
        assert len(greeting) == 1
        assert all(row["request_domain"] and row["version"] for row in rows)
        asked = [row for row in rows if row["request_resource"] == "nobody.home"]
        failed = [row for row in rows if row["response_status"] != 0]
        assert [(row["request_resource"], row["response_code"]) for row in failed] == [
            (asked[0]["attribute_values"][0], 503)
        ]
        assert all(row["type"] == 2 for row in rows)
        assert "private" not in str(rows)
    assert not seen.others(NATS)

"""AMQP 0-9-1: RabbitMQ driven by pika."""

from __future__ import annotations

from collections import Counter

from tests.live.observed import Observed
from tests.live.rabbitmq import start_rabbitmq

AMQP = 102
TRACE = "0af7651916cd43dd8448eb211c80319c"

#: One message at a time (confirmed, not prefetched): of a larger write the core sees the first 1024 bytes.
CLIENT = f"""
import pika
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", 5672, heartbeat=0))
channel = connection.channel()
channel.queue_declare("orders")
channel.exchange_declare("shop", "topic")
channel.basic_qos(prefetch_count=1)
channel.confirm_delivery()
channel.queue_bind("orders", "shop", "order.*")
properties = pika.BasicProperties(headers={{"n": 1, "traceparent": "00-{TRACE}-b7ad6b7169203331-01"}})
for number in range(20):
    channel.basic_publish("shop", "order.new", b"secret" * 100 * number, properties)
method, _, _ = channel.basic_get("orders")
channel.basic_ack(method.delivery_tag)
taken = 0
for method, _, body in channel.consume("orders"):
    channel.basic_ack(method.delivery_tag)
    taken += 1
    if taken == 19:
        break
channel.cancel()
channel.basic_get("orders")
refused = connection.channel()
try:
    refused.queue_declare("missing", passive=True)
except pika.exceptions.ChannelClosedByBroker:
    pass
connection.close()
"""


def test_channels_publications_deliveries_and_a_refusal(seen: Observed) -> None:
    start_rabbitmq(seen)
    seen.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = seen.rows(AMQP, point)
        count = Counter(row["request_type"] for row in rows)
        assert count["Basic.Publish"] == count["Basic.Deliver"] + 1 == 20
        assert sum(row["is_reversed"] for row in rows if row["request_type"] == "Basic.Ack") == 20
        assert count["Basic.Ack"] == 40
        assert count["Basic.Get"] == count["Channel.Open"] == count["Queue.Declare"] == 2
        once = ["Connection.Start", "Connection.Tune", "Connection.Open", "Exchange.Declare", "Queue.Bind"]
        once += ["Basic.Qos", "Confirm.Select", "Basic.Consume", "Basic.Cancel", "Connection.Close"]
        assert {name: count[name] for name in once} == dict.fromkeys(once, 1)
        messages = [row for row in rows if row["request_type"] in ("Basic.Publish", "Basic.Deliver")]
        assert {row["trace_id"] for row in messages} == {TRACE}
        assert {row["endpoint"] for row in messages} == {"shop.order.new"}
        assert {row["request_domain"] for row in messages} == {"/"}
        assert [row["trace_id"] for row in rows if row["request_type"] == "Basic.Get"] == [TRACE, ""]
        failed = {row["request_type"]: row for row in rows if row["response_status"] != 0}
        assert sorted(failed) == ["Channel.Close", "Queue.Declare"]
        for row in failed.values():
            assert (row["response_status"], row["response_code"]) == (4, 404)
            assert row["response_exception"] == "NOT_FOUND - no queue 'missing' in vhost '/'"
        assert all(row["type"] == 2 for row in rows)
        assert "secret" not in str(rows)
    assert not seen.others(AMQP)

"""MQTT 3.1.1 and 5: Mosquitto driven by paho."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.live.observed import Observed, need

MQTT = 101
TRACE = "0af7651916cd43dd8448eb211c80319c"

BROKER = """
user root
per_listener_settings true
listener 1883 127.0.0.1
allow_anonymous true
acl_file {acl}
listener 1884 127.0.0.1
allow_anonymous false
"""

CLIENT = f"""
import sys
import threading
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

version = int(sys.argv[1])

def connect(name, port):
    said = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, reconnect_on_failure=False)
    client.on_connect = lambda *_: said.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert said.wait(30)
    return client

client = connect("shopper", 1883)
delivered, subscribed, unsubscribed = threading.Semaphore(0), threading.Event(), threading.Event()
client.on_message = lambda *_: delivered.release()
client.on_subscribe = lambda *_: subscribed.set()
client.on_unsubscribe = lambda *_: unsubscribed.set()
client.subscribe([("shop/+", 2), ("stock", 0)])
assert subscribed.wait(30)
properties = None
if version == mqtt.MQTTv5:
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = ("traceparent", "00-{TRACE}-b7ad6b7169203331-01")
for number in range(30):
    client.publish("shop/order", b"private" * 20 * number, qos=number % 3, properties=properties).wait_for_publish(30)
    assert delivered.acquire(timeout=30)
client.publish("secret/list", b"private", qos=1).wait_for_publish(30)
client.unsubscribe("stock")
assert unsubscribed.wait(30)
client.disconnect()
client.loop_stop()
connect("nobody", 1884).loop_stop()
"""


@pytest.mark.parametrize("version", [4, 5])
def test_publications_deliveries_and_refusals(seen: Observed, version: int) -> None:
    need("mosquitto")
    acl = seen.folder / "acl"
    acl.write_text("topic readwrite #\ntopic deny secret/#\n")
    (seen.folder / "broker.conf").write_text(BROKER.format(acl=acl))
    seen.start("mosquitto", "-c", str(seen.folder / "broker.conf"), port=1883)
    seen.python(CLIENT, str(version))
    for point in ("c-p", "s-p"):
        rows = seen.rows(MQTT, point)

        def of(kind: str, domain: str = "shopper", rows: list[dict[str, Any]] = rows) -> list[dict[str, Any]]:
            return [row for row in rows if row["request_type"] == kind and row["request_domain"] == domain]

        published = [row for row in of("Publish") if not row["is_reversed"]]
        reversed_ = [row for row in of("Publish") if row["is_reversed"]]
        assert len(published) == 31
        assert len(reversed_) == 30
        orders = [row for row in published + reversed_ if row["endpoint"] == "shop/order"]
        assert Counter(row["attribute_values"][0] for row in orders) == {"0": 20, "1": 20, "2": 20}
        assert {row["trace_id"] for row in orders} == {TRACE if version == 5 else ""}
        assert len(of("Pubrel")) == 20
        assert [row["request_resource"] for row in of("Subscribe")] == ["shop/+,stock"]
        assert [row["request_resource"] for row in of("Unsubscribe")] == ["stock"]
        assert len(of("Disconnect")) == 1
        assert {row["version"] for row in rows} == {str(version)}
        refused = of("Connect", "nobody")
        wanted = ("Not authorized", 135) if version == 5 else ("not authorized", 5)
        assert [(row["response_exception"], row["response_code"]) for row in refused] == [wanted]
        failed = [row for row in rows if row["response_status"] != 0 and row not in refused]
        assert [row["endpoint"] for row in failed] == (["secret/list"] if version == 5 else [])
        assert all(row["type"] == 2 for row in rows)
        assert "private" not in str(rows)
    assert not seen.others(MQTT)

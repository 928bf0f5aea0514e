"""Pulsar standalone, driven by its Python client (the C++ library)."""

from __future__ import annotations

from typing import Any

from tests.live.maven import class_path
from tests.live.observed import Observed

PULSAR = 105
PORT = 6650
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

CONFIG = f"""
brokerServicePort={PORT}
webServicePort=8080
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
clusterName=standalone
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
loadBalancerEnabled=false
allowLoopback=true
diskUsageThreshold=0.999
diskUsageWarnThreshold=0.99
"""

#: What Netty and BookKeeper reach into.
OPENED = ("base/sun.net", "base/jdk.internal.misc", "base/java.nio", "base/jdk.internal.platform")

CLIENT = """
import json, sys
import pulsar
log = pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null")
client = pulsar.Client("pulsar://127.0.0.1:6650", logger=log)
producer = client.create_producer("orders")
sent = []
for number in range(10):
    message = producer.send(b"secret", properties={"traceparent": sys.argv[1]})
    sent.append(f"{message.ledger_id()}:{message.entry_id()}:-1:-1")
# One message a call: of a larger one the core sees the first 1024 bytes.
consumer = client.subscribe("orders", "billing", initial_position=pulsar.InitialPosition.Earliest,
                            receiver_queue_size=1)
for number in range(10):
    consumer.acknowledge(consumer.receive(30000))
refused = ""
try:
    client.create_producer("persistent://nobody/nothing/topic")
except pulsar.PulsarException as error:
    refused = str(error)
consumer.close()
producer.close()
client.close()
print(json.dumps({"sent": sent, "refused": refused}))
"""


def of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["request_type"] == name and row["request_resource"] == "orders"]


def test_pulsar(seen: Observed) -> None:
    jars = class_path("pulsar")
    config = seen.folder / "standalone.conf"
    config.write_text(CONFIG)
    opened = [word for module in OPENED for word in ("--add-opens", f"java.{module}=ALL-UNNAMED")]
    starter = (
        "-cp",
        jars,
        "org.apache.pulsar.PulsarStandaloneStarter",
        "-c",
        config,
        "-nfw",
        "-nss",
        "-a",
        "127.0.0.1",
    )
    folders = ("--metadata-dir", seen.folder / "metadata", "--bookkeeper-dir", seen.folder / "bookkeeper")
    memory = ("-Xmx400m", "-XX:MaxDirectMemorySize=400m")
    log = seen.start("java", *memory, *opened, *starter, *folders, port=PORT, seconds=180)
    seen.await_output(log, "Created namespace public/default")
    did = seen.python(CLIENT, f"00-{TRACE}-{SPAN}-01", seconds=180)
    assert did["refused"] == "Pulsar error: TopicNotFound"
    for point in ("c-p", "s-p"):
        rows = seen.rows(PULSAR, point)
        sent, delivered = of(rows, "SEND"), of(rows, "MESSAGE")
        assert [row["x_request_id_1"] for row in sent] == did["sent"]
        assert [row["x_request_id_0"] for row in delivered] == did["sent"]
        assert {(row["trace_id"], row["span_id"]) for row in sent + delivered} == {(TRACE, SPAN)}
        assert all(row["type"] == 2 and row["response_status"] == 0 for row in sent)
        assert all(row["is_reversed"] and row["type"] == 2 for row in delivered)
        assert [row["response_status"] for row in of(rows, "SUBSCRIBE")] == [0]
        assert len(of(rows, "PRODUCER")) == len(of(rows, "CLOSE_PRODUCER")) == len(of(rows, "CLOSE_CONSUMER")) == 1
        assert of(rows, "ACK") and of(rows, "FLOW")
        failed = [row for row in rows if row["response_code"] == 11]
        assert [row["request_type"] for row in failed] == ["PARTITIONED_METADATA"]
        assert failed[0]["response_status"] == 3
        assert "secret" not in str(rows)

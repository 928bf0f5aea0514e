"""Cassandra's native protocol, spoken by DataStax's driver to the scripted server of cql_server.py.

The server is not Cassandra (its docstring says why); the requests, the framing of versions 4 and 5 and the LZ4
compression are the official driver's.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.live.observed import LIVE_PYTHON, Observed

CASSANDRA = 202

CLIENT = """
import json, sys
from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy
from cassandra.query import BatchStatement, SimpleStatement
profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), retry_policy=FallthroughRetryPolicy())
version, port, packed = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "lz4"
cluster = Cluster(["127.0.0.1"], port=port, protocol_version=version, compression=packed,
    schema_metadata_enabled=False, token_metadata_enabled=False, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
session = cluster.connect()
session.execute("USE shop")
for i in range(20):
    session.execute(f"INSERT INTO shop.orders (id, note) VALUES ({i}, '{'n' * 100}')")
insert = session.prepare("INSERT INTO shop.items (id, name) VALUES (?, ?)")
for i in range(30):
    session.execute(insert, (str(i), "secret"))
found = len(list(session.execute("SELECT v FROM shop.orders WHERE id = 7")))
batch = BatchStatement()
batch.add(insert, ("1", "secret"))
batch.add(SimpleStatement("DELETE FROM shop.orders WHERE id = 3"))
session.execute(batch)
errors = 0
for statement in ("SELECT v FROM shop.missing", "NONSENSE", "INSERT INTO shop.slow (id) VALUES (1)"):
    try:
        session.execute(statement)
    except Exception:
        errors += 1
cluster.shutdown()
print(json.dumps([found, errors]))
"""


@pytest.mark.parametrize(("version", "compression"), [(4, "none"), (4, "lz4"), (5, "none"), (5, "lz4")])
def test_queries_statements_and_errors(seen: Observed, version: int, compression: str) -> None:
    server = Path(__file__).with_name("cql_server.py")
    seen.start(LIVE_PYTHON, server, "9042", str(version), port=9042)
    assert seen.python(CLIENT, str(version), "9042", compression) == [2, 3]
    for point in ("c-p", "s-p"):
        rows = [row for row in seen.rows(CASSANDRA, point) if "system." not in row["request_resource"]]
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
            "INSERT INTO shop.slow (id) VALUES (1)": (3, 0x1100),
        }
        assert failed["NONSENSE"]["response_exception"] == "line 1:0 no viable alternative at input 'NONSENSE'"
        batch = next(row for row in rows if row["request_type"] == "BATCH")
        assert batch["request_resource"] == (
            "INSERT INTO shop.items (id, name) VALUES (?, ?); DELETE FROM shop.orders WHERE id = 3"
        )
        assert "secret" not in str(rows)
    assert not seen.others(CASSANDRA)

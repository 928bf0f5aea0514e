"""TDS: real clients (python-tds, FreeTDS) against the scripted server of `tds_server`. No SQL Server was found in
Debian, PyPI, npm or the Go proxy, so that the server's bytes are only as good as our reading of [MS-TDS]."""

from __future__ import annotations

import pytest

from tests.live.observed import Observed, need

TDS = 201

PYTDS = """
import pytds
with pytds.connect("127.0.0.1", port=1433, database="shop", user="sa", password="hidden", autocommit=True,
                   login_timeout=60, disable_connect_retry=True) as c:
    k = c.cursor()
    for i in range(10):
        k.execute("INSERT INTO t VALUES (1)")
    k.execute("SELECT n FROM t")
    k.fetchall()
    k.execute("SELECT n FROM t WHERE n = %s", ("secret",))
    k.fetchall()
    k.execute("INSERT INTO " + "t" * 3000 + " VALUES (1)")
    for bad in ("boom", "EXEC boom"):
        try:
            k.execute(bad)
        except pytds.Error:
            pass
    k.callproc("refill", ("x",))
    c.autocommit = False
    k.execute("INSERT INTO t VALUES (2)")
    c.commit()
"""


@pytest.fixture
def server(seen: Observed) -> Observed:
    seen.start_scripted("tds_server", 1433)
    return seen


def test_batches_calls_transactions_and_errors(server: Observed) -> None:
    server.python(PYTDS)
    for point in ("c-p", "s-p"):
        rows = server.rows(TDS, point)
        assert "hidden" not in str(rows)
        assert all(row["type"] == 2 for row in rows), rows
        assert rows[0]["request_resource"] == "Login username: sa db: shop"
        assert {row["version"] for row in rows} == {"7.4"}
        inserts = [row for row in rows if row["endpoint"] == "INSERT t"]
        assert [row["sql_affected_rows"] for row in inserts] == [1] * 11
        selects = [(row["request_type"], row["sql_affected_rows"]) for row in rows if row["endpoint"] == "SELECT t"]
        assert selects == [("SQL_BATCH", 3), ("RPC", 3)]
        failed = [
            (row["response_code"], row["response_status"], row["response_exception"])
            for row in rows
            if row["response_status"]
        ]
        assert failed == [(208, 4, "Invalid object name 'boom'.")] * 2
        assert ("RPC", "refill") in {(row["request_type"], row["endpoint"]) for row in rows}
        done = [row["request_resource"] for row in rows if row["request_type"] == "TRANSACTION"]
        assert done[:2] == ["BEGIN", "COMMIT"]
        assert sum(row["endpoint"].startswith("INSERT ttt") for row in rows) == 1
    assert not server.others(TDS)


def test_freetds(server: Observed) -> None:
    need("tsql")
    script = "printf 'SELECT n FROM t\\ngo\\nboom\\ngo\\nexit\\n' | tsql -H 127.0.0.1 -p 1433 -U sa -P hidden -D shop"
    server.run("sh", "-c", script, TDSVER="7.4")
    for point in ("c-p", "s-p"):
        rows = server.rows(TDS, point)
        assert "hidden" not in str(rows)
        assert all(row["type"] == 2 for row in rows), rows
        assert [row["response_code"] for row in rows if row["response_status"]] == [208]
        assert [row["endpoint"] for row in rows if row["endpoint"].startswith("SELECT")] == ["SELECT t"]
    assert not server.others(TDS)

"""Oracle Net: python-oracledb in its thin mode against the scripted listener of `oracle_server`. No Oracle
database was found in Debian, PyPI, npm or the Go proxy: the client is real, the server's bytes are those that
this client accepts."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.live.observed import Observed

ORACLE = 62

CLIENT = """
import oracledb
try:
    oracledb.connect(user="scott", password="tiger", dsn="127.0.0.1:1521/gone")
except oracledb.Error:
    pass
with oracledb.connect(user="scott", password="tiger", dsn="127.0.0.1:1521/shop") as c:
    k = c.cursor()
    for i in range(5):
        k.execute("insert into t values (:1)", [f"hidden{i}"])
    k.execute("update t set a = 'secret' where b = '" + "x" * 300 + "'")
    try:
        k.execute("delete from nowhere")
    except oracledb.Error:
        pass
    c.ping()
    c.commit()
"""


@pytest.fixture
def server(seen: Observed) -> Observed:
    seen.start_scripted("oracle_server", 1521)
    return seen


def test_connections_statements_and_errors(server: Observed) -> None:
    server.python(CLIENT)
    for point in ("c-p", "s-p"):
        rows = server.rows(ORACLE, point)
        assert "tiger" not in str(rows) and "hidden" not in str(rows)
        assert all(row["type"] == 2 for row in rows), rows
        connects = [(row["endpoint"], row["response_code"], row["response_result"]) for row in rows[:1]]
        assert connects == [("gone", 12514, "REFUSE")]
        count = Counter((row["request_type"], row["endpoint"]) for row in rows)
        assert count["CONNECT", "shop"] == 1
        assert count["AUTH_PHASE_1", "Login username: scott"] == count["AUTH_PHASE_2", "Login username: scott"] == 1
        assert count["EXECUTE", "INSERT t"] + count["REEXECUTE", "INSERT t"] == 5
        assert (count["EXECUTE", "UPDATE t"], count["EXECUTE", "DELETE nowhere"]) == (1, 1)
        assert (count["PING", ""], count["COMMIT", ""], count["LOGOFF", ""]) == (1, 1, 1)
        assert sum(row["sql_affected_rows"] or 0 for row in rows) == 12
        failed = [(row["response_code"], row["response_exception"]) for row in rows if row["response_status"] != 0]
        assert failed == [(12514, "ORA-12514"), (942, "ORA-00942: table or view does not exist")]
    assert not server.others(ORACLE)

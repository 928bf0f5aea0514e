"""MariaDB driven by PyMySQL and by its own client, plain and compressed: statements, several results, errors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.live.observed import Observed, need, observed

MYSQL = 60

PYMYSQL = """
import pymysql
c = pymysql.connect(host="127.0.0.1", port=3306, user="root", autocommit=True,
                    client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
k = c.cursor()
k.execute("create database shop")
c.select_db("shop")
k.execute("create table t (i int primary key, s text)")
for i in range(20):
    k.execute("insert into t values (%s, 'secret')", (i,))
k.execute("select * from t; select count(*) from t; delete from t where i > 17")
while k.nextset():
    pass
for bad in ("select * from nowhere", "insert into t values (1, 'again')", "selec 1"):
    try:
        k.execute(bad)
    except pymysql.MySQLError:
        pass
k.execute("select repeat('x', 300000)")
c.ping()
c.close()
"""


@pytest.fixture
def server(seen: Observed) -> Observed:
    return start(seen)


def start(seen: Observed) -> Observed:
    need("mariadbd", "mariadb-install-db", "mariadb")
    data = seen.folder / "data"
    seen.run("mariadb-install-db", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal")
    files = (f"--datadir={data}", f"--socket={data / 's'}", f"--pid-file={data / 'p'}")
    options = ("--bind-address=127.0.0.1", "--port=3306", "--innodb-buffer-pool-size=16M")
    seen.start("mariadbd", "--no-defaults", "--user=root", *files, *options, port=3306)
    return seen


def test_statements_results_and_errors(server: Observed) -> None:
    server.python(PYMYSQL)
    for point in ("c-p", "s-p"):
        rows = server.rows(MYSQL, point)
        assert all(row["type"] == 2 for row in rows), rows
        assert Counter((row["request_type"], row["endpoint"]) for row in rows if row["endpoint"]) == {
            ("LOGIN", "Login username: root"): 1,
            ("QUERY", "CREATE t"): 1,
            ("QUERY", "INSERT t"): 21,
            ("QUERY", "SELECT t"): 1,
            ("QUERY", "SELECT nowhere"): 1,
        }
        commands = Counter(row["request_type"] for row in rows)
        assert (commands["INIT_DB"], commands["PING"], commands["QUIT"]) == (1, 1, 1)
        failed = [(row["response_code"], row["response_status"]) for row in rows if row["response_status"] != 0]
        assert failed == [(1146, 3), (1062, 3), (1064, 3)]
        assert sum(row["sql_affected_rows"] or 0 for row in rows if row["endpoint"] == "INSERT t") == 20
    assert not server.others(MYSQL)


def test_compressed_protocol(server: Observed) -> None:
    statements = (
        "create database shop",
        "create table shop.t (i int, s text)",
        *(f"insert into shop.t values ({i}, repeat('secret', 100))" for i in range(40)),
        "select * from shop.t",
        "select * from shop.nowhere",
    )
    options = "--no-defaults -h 127.0.0.1 -P 3306 -u root --compress --skip-ssl"
    server.run("sh", "-c", f'mariadb {options} -e "$0" || test $? = 1', ";".join(statements))
    for point in ("c-p", "s-p"):
        rows = server.rows(MYSQL, point)
        assert all(row["type"] == 2 for row in rows), rows
        assert [row["request_resource"] for row in rows if row["request_type"] == "QUERY"] == list(statements)
        failed = [(row["response_code"], row["response_status"]) for row in rows if row["response_status"] != 0]
        assert failed == [(1146, 3)]
    assert not server.others(MYSQL)


def test_values_are_masked(netns: str, tmp_path: Path) -> None:
    with observed(netns, tmp_path, obfuscate_protocols=["MySQL"]) as seen:
        start(seen).python(PYMYSQL)
        rows = seen.rows(MYSQL)
        texts = {row["request_resource"] for row in rows}
        assert "insert into t values (?)" in texts
        assert "select * from t; select count(*) from t; delete from t where i > ?" in texts
        assert "Duplicate entry '?' for key 'PRIMARY'" in {row["response_exception"] for row in rows}
        assert "secret" not in str(rows)

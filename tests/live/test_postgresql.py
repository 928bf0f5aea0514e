"""PostgreSQL driven by psycopg 3 and asyncpg: queries, prepared statements, pipelines, COPY, errors, TLS."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.live.observed import Observed, need, observed

POSTGRESQL, BINARIES = 61, Path("/usr/lib/postgresql/15/bin")

PSYCOPG = """
import psycopg
c = psycopg.connect("host=127.0.0.1 port=5432 user=postgres sslmode=disable", autocommit=True)
c.execute("create table t (i int primary key, s text)")
for i in range(20):
    c.execute("insert into t values (%s, 'secret')", (i,), prepare=True)
c.execute("select * from t")
for bad in ("select * from nowhere", "insert into t values (1, 'again')", "select 1/0"):
    try:
        c.execute(bad)
    except psycopg.Error:
        pass
with c.pipeline():
    for i in range(10):
        c.execute("update t set s = 'new' where i = %s", (i,), prepare=False)
with c.cursor() as k:
    with k.copy("copy t from stdin") as copy:
        for i in range(100, 103):
            copy.write_row((i, "copied"))
    with k.copy("copy t to stdout") as copy:
        for _ in copy:
            pass
c.close()
"""

ASYNCPG = """
import asyncio, asyncpg
async def main():
    c = await asyncpg.connect("postgresql://postgres@127.0.0.1:5432/postgres?sslmode=disable")
    for i in range(5):
        await c.fetchval("select $1::int + 1", i)
    async with c.transaction():
        async for _ in c.cursor("select g from generate_series(1, 9) g", prefetch=3):
            pass
    await c.close()
asyncio.run(main())
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that the user postgres can reach; pytest's own folders are root's alone."""
    need("setpriv", str(BINARIES / "postgres"))
    with TemporaryDirectory(prefix="deepflow-postgres-") as folder:
        shutil.chown(folder, "postgres", "postgres")
        yield Path(folder)


@pytest.fixture
def server(data: Path, seen: Observed) -> Observed:
    return start(seen, data)


def start(seen: Observed, data: Path) -> Observed:
    become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    seen.run(*become, BINARIES / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
    options = ("-h", "127.0.0.1", "-p", "5432", "-k", data, "-c", "shared_buffers=16MB", "-c", "fsync=off")
    log = seen.start(*become, BINARIES / "postgres", "-D", data, *options, port=5432)
    seen.await_output(log, "ready to accept connections")
    return seen


def test_statements_pipelines_copies_and_errors(server: Observed) -> None:
    server.python(PSYCOPG)
    for point in ("c-p", "s-p"):
        rows = server.rows(POSTGRESQL, point)
        assert all(row["type"] == 2 for row in rows), rows
        assert Counter((row["request_type"], row["endpoint"]) for row in rows) == {
            ("Q", "CREATE t"): 1,
            ("P", "INSERT t"): 1,
            ("E", "INSERT t"): 20,
            ("Q", "SELECT t"): 1,
            ("Q", "SELECT nowhere"): 1,
            ("Q", "INSERT t"): 1,
            ("Q", ""): 3,
            ("P", "UPDATE t"): 10,
        }
        failed = [(row["response_result"], row["response_exception"]) for row in rows if row["response_status"] != 0]
        assert failed == [("42P01", "undefined_table"), ("23505", "unique_violation"), ("22012", "division_by_zero")]
        assert sum(row["sql_affected_rows"] or 0 for row in rows if row["endpoint"] == "INSERT t") == 20
        assert [row["sql_affected_rows"] for row in rows if row["request_resource"].startswith("copy")] == [3, 23]
        executed = {row["request_resource"] for row in rows if row["request_type"] == "E"}
        assert executed == {"insert into t values ($1, 'secret')"}
    assert not server.others(POSTGRESQL)


def test_cursors_and_flushed_groups(server: Observed) -> None:
    server.python(ASYNCPG)
    for point in ("c-p", "s-p"):
        rows = server.rows(POSTGRESQL, point)
        assert all((row["type"], row["response_status"]) == (2, 0) for row in rows), rows
        texts = Counter((row["request_type"], row["request_resource"]) for row in rows)
        assert texts["E", "select $1::int + 1"] == 5
        assert texts["P", "select g from generate_series(1, 9) g"] == 1
        assert texts["E", "select g from generate_series(1, 9) g"] == 4
    assert not server.others(POSTGRESQL)


def test_values_are_masked(netns: str, tmp_path: Path, data: Path) -> None:
    with observed(netns, tmp_path, obfuscate_protocols=["PostgreSQL"]) as seen:
        start(seen, data).python(PSYCOPG)
        rows = seen.rows(POSTGRESQL)
        assert "insert into t values (?)" in {row["request_resource"] for row in rows}
        assert "secret" not in str(rows)

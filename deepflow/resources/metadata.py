"""The metadata database (SQLite by default, any SQLAlchemy URL): identities, and what the roll-up still owes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

tables = MetaData()

pools = Table(
    "pools",
    tables,
    Column("name", String(32), primary_key=True),
    Column("next_id", BigInteger, nullable=False),
)
agents = Table(
    "agents",
    tables,
    Column("agent_id", Integer, primary_key=True, autoincrement=False),
    Column("machine_id", String(128), nullable=False, unique=True),
    Column("host_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("ip", Text, nullable=False),
    Column("last_seen_s", BigInteger, nullable=False),
)
hosts = Table(
    "hosts",
    tables,
    Column("host_id", Integer, primary_key=True, autoincrement=False),
    Column("machine_id", String(128), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("ip", Text, nullable=False),
)
services = Table(
    "services",
    tables,
    Column("service_id", BigInteger, primary_key=True, autoincrement=False),
    Column("host_id", Integer, nullable=False),
    Column("container_id", String(128), nullable=False),
    Column("name", String(256), nullable=False),
    UniqueConstraint("host_id", "container_id", "name"),
)
processes = Table(
    "processes",
    tables,
    Column("gprocess_id", BigInteger, primary_key=True, autoincrement=False),
    Column("agent_id", Integer, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("start_time_us", BigInteger, nullable=False),
    Column("end_time_us", BigInteger),
    Column("host_id", Integer, nullable=False),
    Column("service_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("process_name", Text, nullable=False),
    Column("cmdline", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("container_id", Text, nullable=False),
    Column("ppid", Integer, nullable=False),
    UniqueConstraint("agent_id", "pid", "start_time_us"),
    Index("processes_end", "end_time_us"),
)
# Interfaces whose packets agents read; one that is gone keeps its name for a while.
interfaces = Table(
    "interfaces",
    tables,
    Column("agent_id", Integer, primary_key=True, autoincrement=False),
    Column("capture_nic", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("netns", BigInteger, nullable=False),
    Column("behind", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("gone_s", BigInteger),
)
# Slices of batches that are (being) stored in a 1s table and are not yet part of its 1m table.
owed = Table(
    "owed",
    tables,
    Column("table_name", String(64), primary_key=True),
    Column("batch", String(16), primary_key=True),
    Column("slice", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", Integer, nullable=False),
    Column("stored", Integer, nullable=False),
    Column("rollup", String(16)),
    Index("owed_rollup", "rollup"),
)
# Roll-ups that were begun; a row disappears with its slices once the 1m table has it.
rollups = Table(
    "rollups",
    tables,
    Column("rollup", String(16), primary_key=True),
    Column("table_name", String(64), nullable=False),
)


class MetadataError(Exception):
    """The metadata database cannot be used; the message is one sentence."""


class Metadata:
    """An open metadata database. Transactions of this process follow one another."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            MetadataError: the address is wrong, or the database cannot be opened or written.
        """
        self._lock = threading.RLock()
        try:
            self._engine: Engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
            tables.create_all(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            raise MetadataError(f"The metadata database cannot be opened: {_one_line(error)}") from error

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction; it is durable when the block has ended without an exception.

        Raises:
            MetadataError: the database refused or failed.
        """
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise MetadataError(f"The metadata database failed: {_one_line(error)}") from error

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            self._engine.dispose()


def take_id(connection: Connection, pool: str, limit: int) -> int | None:
    """The next id of a pool, which starts at 1 and never goes back; None when `limit` is used up."""
    found = connection.execute(select(pools.c.next_id).where(pools.c.name == pool)).scalar_one_or_none()
    number = found or 1
    if number > limit:
        return None
    if found is None:
        connection.execute(pools.insert().values(name=pool, next_id=number + 1))
    else:
        connection.execute(pools.update().where(pools.c.name == pool).values(next_id=number + 1))
    return number


def raise_pool(connection: Connection, pool: str, used: int) -> None:
    """Makes sure that the pool gives only ids above `used`."""
    found = connection.execute(select(pools.c.next_id).where(pools.c.name == pool)).scalar_one_or_none()
    if found is None:
        connection.execute(pools.insert().values(name=pool, next_id=used + 1))
    elif found <= used:
        connection.execute(pools.update().where(pools.c.name == pool).values(next_id=used + 1))


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # FULL: what is owed must reach the disk before the rows it speaks of do.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _one_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300].rstrip(".") + "."

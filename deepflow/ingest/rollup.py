"""Rolls the 1s tables up into 1m tables, each stored slice exactly once.

A roll-up is noted in the journal with its slices, then stored with its own id as `_batch`, then struck out. After a
crash its id tells whether its rows are there. Late slices form further rows of the same minute: readers aggregate.
"""

import logging
import secrets
import threading
from collections.abc import Sequence

from deepflow.ingest.counters import Counters
from deepflow.ingest.derived import slices_sql
from deepflow.ingest.journal import SLICE_S, SLICE_SQL, Journal, Slice
from deepflow.resources import MetadataError
from deepflow.schema import Schema, Table, quoted
from deepflow.store import Store, StoreError

log = logging.getLogger(__name__)
_MAX_SLICES = 2000
_MAX_ROWS = 900_000


class RollUp:
    """The background work of all tables that have the precisions 1s and 1m."""

    def __init__(self, store: Store, schema: Schema, journal: Journal, counters: Counters, interval_s: float) -> None:
        self._store, self._journal, self._counters = store, journal, counters
        self._tables = {
            f"{table.database}.{table.stored_name('1s')}": table
            for table in schema.tables.values()
            if {"1s", "1m"} <= set(table.precisions)
        }
        self._interval_s = interval_s
        self._running = threading.Lock()
        self._stopped = threading.Event()
        self._recovered = False
        self._thread = threading.Thread(target=self._run, name="roll-up", daemon=True)
        self._thread.start()

    def run_once(self) -> int:
        """Rolls up everything that is stored now; returns the number of 1s rows taken.

        Raises:
            StoreError, MetadataError: what was begun is finished by the next call.
        """
        with self._running:
            if not self._recovered:
                for name, rollup, slices in self._journal.unfinished():
                    self._store_missing(self._tables[name], rollup, slices)
                self._recovered = True
            return sum(self._roll(name, table) for name, table in self._tables.items())

    def close(self) -> None:
        """Ends the background work; what is owed waits for the next start."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self.run_once()
            except (StoreError, MetadataError) as error:
                log.warning("The roll-up failed and is tried again: %s", error)

    def _roll(self, name: str, table: Table) -> int:
        rows = 0
        while not self._stopped.is_set():
            rollup = secrets.randbits(64)
            slices = self._journal.take(name, rollup, _MAX_SLICES, _MAX_ROWS)
            if not slices:
                break
            try:
                self._store.command(_roll_up_sql(table, rollup, slices))
            except StoreError:
                self._recovered = False
                raise
            self._journal.finish(rollup)
            self._counters.add(table.stored_name("1s"), rollups=1)
            rows += sum(item.rows for item in slices)
        return rows

    def _store_missing(self, table: Table, rollup: int, slices: Sequence[Slice]) -> None:
        """Finishes a roll-up that may be stored, be stored in one of two partitions, or not be stored."""
        if slices:
            target = quoted(table.database, table.stored_name("1m"))
            first = min(item.number for item in slices) * SLICE_S
            found = self._store.query(
                f"SELECT DISTINCT {SLICE_SQL} AS slice FROM {target} WHERE time >= {first} AND _batch = {rollup}"
            )
            there = set(found.column("slice").to_pylist())
            if missing := [item for item in slices if item.number not in there]:
                self._store.command(_roll_up_sql(table, rollup, missing))
        self._journal.finish(rollup)


def _roll_up_sql(table: Table, rollup: int, slices: Sequence[Slice]) -> str:
    """INSERT … SELECT of one roll-up; what becomes of each column is `Column.merge`."""
    names: list[str] = []
    values: list[str] = []
    groups: list[str] = []
    for column in table.stored_columns():
        name = quoted(column.name)
        names.append(name)
        if column.name == "time":
            groups.append("toStartOfMinute(rows.time)")
            values.append(groups[-1])
        elif column.name == "_batch":
            values.append(f"toUInt64({rollup})")
        elif column.merge == "group":
            groups.append(f"rows.{name}")
            values.append(groups[-1])
        elif column.merge == "peak":
            values.append(f"arrayMax(tupleElement(sumMap([toUInt32(rows.time)], [rows.{name}]), 2))")
        else:
            values.append(f"{column.merge}(rows.{name})")
    source = quoted(table.database, table.stored_name("1s"))
    target = quoted(table.database, table.stored_name("1m"))
    where = slices_sql([(item.batch, item.number) for item in slices])
    return (
        f"INSERT INTO {target} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM (SELECT * FROM {source} WHERE {where}) AS rows GROUP BY {', '.join(groups)} "
        "SETTINGS max_insert_threads = 1, min_insert_block_size_rows = 1048449, min_insert_block_size_bytes = 0"
    )

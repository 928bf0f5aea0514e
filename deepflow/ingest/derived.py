"""Keeps the rows derived from a table (`trace_key` from `l7_flow_log`) in step with it when a batch is repeated."""

from collections.abc import Collection

from deepflow.ingest.journal import SLICE_S, SLICE_SQL
from deepflow.schema import Schema, quoted
from deepflow.store import Store
from deepflow.store.prepare import TRACE_KEY, trace_key_select

_TRACE_KEY = quoted(*TRACE_KEY.split(".", 1))


class DerivedKeys:
    """Repairs `trace_key`: a crash can leave a block of the view without the block it came from, or the reverse."""

    def __init__(self, store: Store, schema: Schema) -> None:
        self._store = store
        self._schema = schema

    def complete(self, slices: Collection[tuple[int, int]]) -> None:
        """Adds the keys that stored slices (batch, number) lack."""
        if not slices:
            return
        where = slices_sql(slices)
        select = trace_key_select(self._schema, where=where)
        columns = ", ".join(quoted(column.name) for column in self._schema.tables[TRACE_KEY].stored_columns())
        self._store.command(
            f"INSERT INTO {_TRACE_KEY} ({columns}) SELECT * FROM ({select}) AS wanted "
            f"WHERE (key, _id) NOT IN (SELECT key, _id FROM {_TRACE_KEY} WHERE {where})"
        )

    def remove(self, slices: Collection[tuple[int, int]]) -> None:
        """Removes the keys of slices that are not stored and are about to be inserted again."""
        if not slices:
            return
        where = slices_sql(slices)
        count = self._store.query(f"SELECT count() AS rows FROM {_TRACE_KEY} WHERE {where}").column("rows")[0].as_py()
        if count:
            self._store.command(f"ALTER TABLE {_TRACE_KEY} DELETE WHERE {where} SETTINGS mutations_sync = 2")


def slices_sql(slices: Collection[tuple[int, int]]) -> str:
    """Condition for rows of the slices (batch, number); bounds the time so that the primary key is used."""
    first = min(number for _, number in slices) * SLICE_S
    end = (max(number for _, number in slices) + 1) * SLICE_S
    listed = ", ".join(f"({batch}, {number})" for batch, number in slices)
    return f"time >= {first} AND time < {end} AND (_batch, {SLICE_SQL}) IN ({listed})"

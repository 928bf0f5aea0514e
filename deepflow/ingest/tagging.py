"""Adds the columns that the server knows: ids of process, host and service for both sides, provinces, and the batch."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepflow.ingest.far_ends import FarEnds
from deepflow.resources import Geography, Tagger
from deepflow.resources.claims import Tally
from deepflow.resources.tagger import Side
from deepflow.schema import Table

_SIDE_TAGS = Side.__slots__


def tag(
    table: Table,
    rows: pa.Table,
    tagger: Tagger,
    agent_id: int,
    batch: int,
    far_ends: FarEnds | None = None,
    tally: Tally | None = None,
    geography: Geography | None = None,
) -> pa.Table:
    """`rows` of an agent (wire schema) as they are stored (stored schema), still in their order.

    With `far_ends`, ends that this agent does not know are named by what others told; `tally` counts them.
    Without `geography` provinces are empty.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    sides = {
        column.side: _side(rows, tagger, agent_id, column.side)
        for column in table.columns
        if column.base == "process_id"
    }
    if far_ends is not None and sides:
        sides = far_ends.name(rows, sides, tally or Tally())
    for column in table.stored_columns():
        if column.source == "core":
            columns[column.name] = rows.column(column.name)
        elif column.name == "_batch":
            columns[column.name] = pa.array(np.full(rows.num_rows, batch, np.uint64))
        elif column.base in _SIDE_TAGS:
            columns[column.name] = pa.array(getattr(sides[column.side], column.base))
        elif column.base == "province":
            columns[column.name] = _provinces(rows, geography, column.side)
        else:
            # l3_epc_id: 0, unknown, as long as no network is known.
            columns[column.name] = pa.array(np.zeros(rows.num_rows, column.arrow_type.to_pandas_dtype()))
    return pa.table(columns, schema=table.stored_schema())


def times(rows: pa.Table) -> NDArray[np.int64]:
    """Column `time` in s since 1970."""
    return np.asarray(rows.column("time").to_numpy(), np.int64)


def _side(rows: pa.Table, tagger: Tagger, agent_id: int, side: int | None) -> Side:
    name = "process_id" if side is None else f"process_id_{side}"
    pid = np.asarray(rows.column(name).to_numpy(), np.int64)
    return tagger.side(agent_id, pid, _time_us(rows))


def _provinces(rows: pa.Table, geography: Geography | None, side: int | None) -> pa.Array:
    if geography is None:
        return pa.repeat("", rows.num_rows)
    return geography.provinces(*(rows.column(name) for name in ("is_ipv4", f"ip4_{side}", f"ip6_{side}")))


def _time_us(rows: pa.Table) -> NDArray[np.int64]:
    if "start_time" in rows.column_names:
        return np.asarray(rows.column("start_time").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(), np.int64)
    return times(rows) * 1_000_000

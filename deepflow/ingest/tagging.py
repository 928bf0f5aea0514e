"""Adds the columns that the server knows: ids of process, host and service for both sides, provinces, and the batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepflow.ingest.far_ends import FarEnds
from deepflow.resources import Geography, Tagger
from deepflow.resources.claims import Tally
from deepflow.resources.tagger import Side
from deepflow.schema import Table

_SIDE_TAGS = Side.__slots__
_HOST_TYPE = 6
_OWN_AGENT, _OTHER_AGENT = 1, 2
# The one team; what no source tells (regions, Kubernetes, networks) is 0.
_CONSTANTS = {"team_id": 1}
# From the tags of a side as its own agent told them, and as they are after the others were asked.
_FROM_SIDES: dict[str, Callable[[Side, Side], NDArray[Any]]] = {
    "l3_device_type": lambda _, side: np.where(side.host_id > 0, _HOST_TYPE, 0),
    "l3_device_id": lambda _, side: side.host_id,
    "tag_source": lambda own, side: np.where(
        own.auto_service_id > 0, _OWN_AGENT, np.where(side.auto_service_id > 0, _OTHER_AGENT, 0)
    ),
}


class Tags:
    """The tags of one batch: as its agent knew them, and as they are when others were asked for the far ends."""

    def __init__(self, table: Table, rows: pa.Table, tagger: Tagger, agent_id: int) -> None:
        """`rows`: of an agent (wire schema)."""
        self._table, self._rows = table, rows
        self._own = {
            column.side: _side(rows, tagger, agent_id, column.side)
            for column in table.columns
            if column.base == "process_id"
        }
        self._sides = self._own

    def ask(self, far_ends: FarEnds, tally: Tally) -> None:
        """Tells the others what this agent knew, and names the ends that it does not know by what they told.

        It can be asked again, when they have told more.
        """
        if self._own:
            self._sides = far_ends.name(self._rows, self._own, tally)

    def newest_open(self, far_ends: FarEnds) -> int:
        """Second of the newest row with an end that nobody has told of yet and somebody may; 0 without one."""
        seconds = times(self._rows)[far_ends.open(self._rows, self._sides)] if self._own else np.zeros(0)
        return int(seconds.max(initial=0))

    def stored(self, batch: int, geography: Geography | None = None) -> pa.Table:
        """The rows as they are stored (stored schema), in their order; without `geography` provinces are empty."""
        rows, sides = self._rows, self._sides
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for column in self._table.stored_columns():
            if column.source == "core":
                columns[column.name] = rows.column(column.name)
            elif column.base in _SIDE_TAGS:
                columns[column.name] = pa.array(getattr(sides[column.side], column.base))
            elif column.base in _FROM_SIDES:
                values = _FROM_SIDES[column.base](self._own[column.side], sides[column.side])
                columns[column.name] = pa.array(values, column.arrow_type)
            elif column.base == "province":
                columns[column.name] = _provinces(rows, geography, column.side)
            elif pa.types.is_list(column.arrow_type):
                # No policies: no groups of policies.
                nothing = pa.array([], column.arrow_type.value_type)
                columns[column.name] = pa.ListArray.from_arrays(np.zeros(rows.num_rows + 1, np.int32), nothing)
            else:
                value = batch if column.name == "_batch" else _CONSTANTS.get(column.base, 0)
                columns[column.name] = pa.repeat(pa.scalar(value, column.arrow_type), rows.num_rows)
        return pa.table(columns, schema=self._table.stored_schema())


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

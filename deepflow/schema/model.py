"""What a table of the product consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from deepflow.schema.types import arrow_type, is_nullable


@dataclass(frozen=True, slots=True)
class Column:
    """One physical column. A two-sided declaration becomes two of them, `NAME_0` (client) and `NAME_1` (server)."""

    name: str
    base: str
    """Name as declared, without the side."""
    side: int | None
    """0 client, 1 server, None for a column without sides."""
    type: str
    """ClickHouse type."""
    source: str
    """`core`: the batch carries it; `ingest`: the server adds it; `wire`: in the batch, not stored."""
    role: str
    """`tag`, `metric` or `internal`."""
    description: str
    kind: str | None = None
    """Kind of tag or metric as `SHOW TAGS` and `SHOW METRICS` print it."""
    enum: str | None = None
    """Name of the enumeration in `enums.yaml`."""
    category: str | None = None
    unit: str | None = None
    index: str | None = None
    codec: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the column exists in the store."""
        return self.source != "wire"

    @property
    def sent(self) -> bool:
        """Whether the column is part of an agent's batch."""
        return self.source in {"core", "wire"}

    @property
    def merge(self) -> str:
        """How rows of a table of meters that differ in this column alone become one row.

        `group`: they do not. `sum`, `max`: the values are added, the largest stays. `peak`: the values of one second
        are added, then the largest second stays (a gauge: what is open in two seconds is one flow).
        """
        if self.kind == "gauge":
            return "peak"
        if self.name.endswith("_max") or self.kind == "bounded_gauge":
            return "max"
        return "sum" if self.role == "metric" or self.name.endswith(("_sum", "_count")) else "group"

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of the column in a batch."""
        return arrow_type(self.type)

    @property
    def nullable(self) -> bool:
        """Whether the column may hold nulls."""
        return is_nullable(self.type)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that is computed at query time, not stored.

    `expr` is SQL over columns; None where the query language knows the rule.
    """

    name: str
    base: str
    side: int | None
    kind: str
    category: str
    description: str
    expr: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is computed at query time: `expr` a row, or the quotient `numerator / denominator` of sums."""

    name: str
    kind: str
    category: str
    description: str
    unit: str | None = None
    expr: str | None = None
    numerator: str | None = None
    denominator: str | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How one stored precision of a table is cut into partitions, and for how many hours its rows stay."""

    partition_by: str
    ttl_hours: int


@dataclass(frozen=True)
class Table:
    """A table as users know it. One with `precisions` is stored once for each, as `NAME.1s`, `NAME.1m`."""

    database: str
    name: str
    description: str
    kind: str
    """`log`, `metrics` or `internal`."""
    engine: str
    order_by: tuple[str, ...]
    columns: tuple[Column, ...]
    tags: tuple[Tag, ...]
    metrics: tuple[Metric, ...]
    precisions: Mapping[str, Retention]
    """Key `""` for a table that is stored once."""
    derived_from: str | None = None

    @property
    def full_name(self) -> str:
        """`DATABASE.TABLE` as users write it."""
        return f"{self.database}.{self.name}"

    @cached_property
    def column(self) -> Mapping[str, Column]:
        """Columns by physical name."""
        return {column.name: column for column in self.columns}

    def stored_columns(self) -> tuple[Column, ...]:
        """Columns that exist in the store, in order."""
        return tuple(column for column in self.columns if column.stored)

    def stored_name(self, precision: str = "") -> str:
        """Name of the stored table without its database: `l7_flow_log`, `application.1s`.

        Raises:
            KeyError: the table has no such precision.
        """
        if precision not in self.precisions:
            raise KeyError(
                f"{self.full_name} has no precision {precision!r}, it has {', '.join(map(repr, self.precisions))}"
            )
        return f"{self.name}.{precision}" if precision else self.name

    def wire_schema(self) -> pa.Schema:
        """Arrow schema of an agent's batch: columns from `core` and `wire`, in the order of the declaration."""
        return pa.schema(
            [pa.field(column.name, column.arrow_type, column.nullable) for column in self.columns if column.sent]
        )

    def stored_schema(self) -> pa.Schema:
        """Arrow schema of an insert: the stored columns in order."""
        return pa.schema(
            [pa.field(column.name, column.arrow_type, column.nullable) for column in self.stored_columns()]
        )


@dataclass(frozen=True)
class Schema:
    """All tables by `DATABASE.TABLE`, and the enumerations by name: value (number or string) → name."""

    tables: Mapping[str, Table]
    enums: Mapping[str, Mapping[int | str, str]]

    def wire_tables(self) -> dict[str, tuple[Table, str]]:
        """Names under which agents send batches (`l7_flow_log`, `application.1s`, …) → table and precision."""
        found: dict[str, tuple[Table, str]] = {}
        for table in self.tables.values():
            if table.derived_from is None:
                precision = next(iter(table.precisions))
                found[table.stored_name(precision)] = (table, precision)
        return found

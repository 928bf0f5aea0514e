"""FROM: which stored table answers, at which precision, and over which time."""

import math
import re
from dataclasses import dataclass

from deepflow.query.catalogue import OLD_TABLES, SYSTEM, Catalogue, database_of, visible
from deepflow.query.errors import QueryError, unknown
from deepflow.schema import Schema, Table

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PRECISION = re.compile(r"([1-9][0-9]{0,3})([smhd])")
_MEASUREMENT = re.compile(r"deepflow_\w+(\.\w+)*", re.ASCII)


@dataclass(frozen=True)
class TimeRange:
    """`first <= time <= last` in Unix seconds, both inclusive."""

    first: int
    last: int

    def slots(self, precision: int) -> int:
        """How many multiples of `precision` seconds lie in the range."""
        return max(self.last // precision - math.ceil(self.first / precision) + 1, 0)


@dataclass(frozen=True)
class Source:
    """A stored table."""

    catalogue: Catalogue
    precision: str
    """Suffix of the stored table, "" without."""
    measurement: str = ""
    """Value of `virtual_table_name` that the query named as its table."""

    @property
    def table(self) -> Table:
        return self.catalogue.table

    @property
    def seconds(self) -> int:
        """Distance of two rows of one series."""
        return seconds_of(self.precision) if self.precision else 1

    @property
    def rolled_up(self) -> bool:
        """Whether its rows were made of those of a finer precision, possibly several for one slot and series."""
        return self.precision != min(self.table.precisions, key=lambda one: seconds_of(one) if one else 0)

    @property
    def layered(self) -> bool:
        """Whether counters are summed per interval before another function looks at them."""
        return self.table.kind == "metrics"


def seconds_of(precision: str) -> int:
    """`1m` → 60.

    Raises:
        QueryError: no number with s, m, h or d.
    """
    found = _PRECISION.fullmatch(precision)
    if found is None:
        raise QueryError('The data precision must be a number with s, m, h or d, for example "1s" or "1m".')
    return int(found[1]) * _SECONDS[found[2]]


def find_table(schema: Schema, name: str, db: str) -> tuple[Catalogue, str, str]:
    """The table that a query calls `name`, `db.name` or `name.1m`, with the precision and the measurement in the name.

    Raises:
        QueryError: unknown database, table or precision.
    """
    database = database_of(schema, db)
    head, _, rest = name.partition(".")
    if rest and head in {table.database for table in visible(schema)} and head != OLD_TABLES.get(name, name):
        database, name = head, rest
    base, _, suffix = name.rpartition(".")
    if not (base and _PRECISION.fullmatch(suffix)):
        base, suffix = name, ""
    base = OLD_TABLES.get(base, base)
    candidates = [table for table in visible(schema) if database in {"", table.database}]
    for table in candidates:
        if table.name == base:
            if suffix and suffix not in table.precisions:
                raise _no_precision(table, suffix)
            return Catalogue(table, schema), suffix, ""
    if database in {"", SYSTEM} and _MEASUREMENT.fullmatch(name):
        own = [table for table in candidates if table.name == SYSTEM]
        if own:
            return Catalogue(own[0], schema), "", name
    where = f" in database {database}" if database else ""
    raise unknown("table", name, [table.name for table in candidates], where)


def route(schema: Schema, name: str, db: str, precision: str | None, interval: float | None) -> Source:
    """The stored table: a precision in the name wins, then `precision`, then the coarsest that divides the interval.

    Args:
        interval: seconds of `time(time, interval)`, None without one.
    """
    catalogue, suffix, measurement = find_table(schema, name, db)
    table = catalogue.table
    if "" in table.precisions:
        if precision:
            seconds_of(precision)
        return Source(catalogue, "", measurement)
    wanted = suffix or precision or ""
    if wanted:
        seconds_of(wanted)
        if wanted not in table.precisions:
            raise _no_precision(table, wanted)
        return Source(catalogue, wanted)
    ordered = sorted(table.precisions, key=seconds_of)
    fitting = [one for one in ordered if interval is not None and interval > 0 and interval % seconds_of(one) == 0]
    return Source(catalogue, fitting[-1] if fitting else ordered[0])


def _no_precision(table: Table, precision: str) -> QueryError:
    stored = [one for one in table.precisions if one]
    if not stored:
        return QueryError(f"Table {table.full_name} has no data precision; leave {precision} out.")
    return QueryError(f"Table {table.full_name} has no data precision {precision}; it has {', '.join(stored)}.")

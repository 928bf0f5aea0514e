"""The layers of one query: rows or groups by id inside, translation outside.

One layer aggregates rows by key. A second one below it sums counters per slot of the data precision, when a function
such as Max asks for the value of a slot; aggregates that need no slots then travel as states, so that no answer depends
on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from deepflow.query.expressions import (
    Expression,
    aggregate_call,
    all_of,
    call,
    column,
    number,
    sql_of,
    text,
)
from deepflow.query.expressions import table as table_name
from deepflow.query.source import Source, TimeRange
from deepflow.query.time_group import TimeGroup

SLOT = "_slot"
TIME = "_time"


@dataclass(frozen=True)
class _Aggregate:
    name: str
    parameters: tuple[Expression, ...]
    arguments: tuple[Expression, ...]
    over_slots: bool


@dataclass
class Plan:
    """Collects keys and aggregates under short names (`_k0`, `_m0`, `_s0`) and writes the inner SELECT."""

    source: Source
    time_range: TimeRange | None = None
    time_group: TimeGroup | None = None
    grouped: bool = False
    where: list[Expression] = field(default_factory=list)
    limit: tuple[int, int] | None = None
    """Rows and offset of a query without groups, once it is known that they can be cut inside."""
    order: list[Expression] = field(default_factory=list)
    rank: Expression | None = None
    """What SLIMIT orders series by."""
    merged: bool = False
    """Whether the parts that a roll-up made of one slot and series count as one row: a gauge is no sum of its parts."""
    _keys: dict[str, tuple[str, Expression]] = field(default_factory=dict)
    _aggregates: dict[str, tuple[str, _Aggregate]] = field(default_factory=dict)
    _slots: dict[str, tuple[str, Expression]] = field(default_factory=dict)
    _time_used: bool = False

    def has_key(self, value: Expression) -> bool:
        """Whether the rows are already grouped by this expression."""
        return sql_of(value) in self._keys

    def key(self, value: Expression) -> Expression:
        """Name of a grouping key (of a column in a query without groups)."""
        alias, _ = self._keys.setdefault(sql_of(value), (f"_k{len(self._keys)}", value))
        return column(alias)

    def bucket(self) -> Expression:
        """Name of the start of the interval."""
        self._time_used = True
        return column(TIME)

    def slot_sum(self, value: Expression) -> Expression:
        """Name of the sum of `value` over one slot."""
        alias, _ = self._slots.setdefault(sql_of(value), (f"_s{len(self._slots)}", value))
        return column(alias)

    def aggregate(
        self,
        name: str,
        arguments: Sequence[Expression],
        parameters: Sequence[Expression] = (),
        over_slots: bool = False,
    ) -> Expression:
        """Name of an aggregate over rows, or over slots when its arguments are names of `slot_sum`."""
        wanted = _Aggregate(name, tuple(parameters), tuple(arguments), over_slots)
        identity = f"{over_slots} {sql_of(aggregate_call(name, parameters, *arguments))}"
        alias, _ = self._aggregates.setdefault(identity, (f"_m{len(self._aggregates)}", wanted))
        return column(alias)

    @property
    def two_layers(self) -> bool:
        return bool(self._slots)

    def select(self) -> exp.Select:
        """The inner SELECT: keys and aggregates under their short names."""
        if not self.grouped:
            return self._rows()
        return self._slotted() if self.two_layers else self._one_layer()

    def _from(self, query: exp.Select) -> exp.Select:
        table = self.source.table
        stored = table_name(table.database, table.stored_name(self.source.precision))
        conditions = list(self.where)
        if self.source.measurement:
            conditions.insert(0, exp.EQ(this=column("virtual_table_name"), expression=text(self.source.measurement)))
        parts = (exp.select(exp.Star()) if self.merged else query).from_(stored)
        parts = parts.where(all_of(conditions), copy=False) if conditions else parts
        return query.from_(exp.Subquery(this=self._merged(parts))) if self.merged else parts

    def _merged(self, parts: exp.Select) -> exp.Select:
        columns = [one for one in self.source.table.stored_columns() if one.name != "_batch"]
        groups = [column(one.name) for one in columns if one.merge == "group"]
        names: list[Expression] = list(groups)
        for one in columns:
            if one.merge != "group":
                value = exp.Column(this=exp.Identifier(this=one.name, quoted=True), table=exp.to_identifier("parts"))
                names.append(_alias(call("sum" if one.merge == "sum" else "max", value), one.name))
        return exp.select(*names).from_(exp.Subquery(this=parts, alias="parts")).group_by(*groups)

    def _rows(self) -> exp.Select:
        names = [_alias(value, alias) for alias, value in self._keys.values()]
        if self._time_used and self.time_group is not None:
            names.append(_alias(self.time_group.bucket(column("time")), TIME))
        query = self._from(exp.select(*(names or [_alias(number(1), "_k")])))
        if self.limit is not None:
            query = query.order_by(*self.order) if self.order else query
            query = query.limit(self.limit[0]).offset(self.limit[1]) if self.limit[1] else query.limit(self.limit[0])
        return query

    def _one_layer(self) -> exp.Select:
        names = [_alias(value, alias) for alias, value in self._keys.values()]
        if self._time_used and self.time_group is not None:
            names.append(_alias(self.time_group.bucket(column("time")), TIME))
        groups = [column(name.alias) for name in names]
        names += [
            _alias(aggregate_call(one.name, one.parameters, *one.arguments), alias)
            for alias, one in self._aggregates.values()
        ]
        query = self._from(exp.select(*(names or [_alias(number(1), "_k")])))
        return query.group_by(*groups) if groups else query

    def _slotted(self) -> exp.Select:
        keys = [_alias(value, alias) for alias, value in self._keys.values()]
        inner = [*keys, _alias(column("time"), SLOT)]
        inner += [_alias(aggregate_call("sum", (), value), alias) for alias, value in self._slots.values()]
        states = [(alias, one) for alias, one in self._aggregates.values() if not one.over_slots]
        # States do not carry the result's name: ClickHouse would take the alias for the argument of -Merge.
        inner += [
            _alias(aggregate_call(one.name + "State", one.parameters, *one.arguments), _state(alias))
            for alias, one in states
        ]
        groups = [column(name.alias) for name in keys]
        below = self._from(exp.select(*inner)).group_by(*groups, column(SLOT))
        names: list[Expression] = list(groups)
        if self._time_used and self.time_group is not None:
            names.append(_alias(self.time_group.bucket(column(SLOT)), TIME))
            groups.append(column(TIME))
        for alias, one in self._aggregates.values():
            merged = (
                aggregate_call(one.name, one.parameters, *one.arguments)
                if one.over_slots
                else aggregate_call(one.name + "Merge", one.parameters, column(_state(alias)))
            )
            names.append(_alias(merged, alias))
        query = exp.select(*names).from_(exp.Subquery(this=below))
        return query.group_by(*groups) if groups else query

    def limit_series(self, series: int) -> None:
        """Keeps the rows of the first `series` combinations of keys, the largest first."""
        keys = [value for _, value in self._keys.values()]
        if not keys:
            return
        rank = self.rank if self.rank is not None else call("count")
        order = [
            exp.Ordered(this=rank.copy(), desc=True, nulls_first=False),
            *[exp.Ordered(this=key.copy()) for key in keys],
        ]
        top = self._from(exp.select(*[key.copy() for key in keys])).group_by(*[key.copy() for key in keys])
        top = top.order_by(*order).limit(series)
        left = keys[0] if len(keys) == 1 else exp.Tuple(expressions=[key.copy() for key in keys])
        self.where.append(exp.In(this=left.copy(), query=exp.Subquery(this=top)))


def _state(alias: str) -> str:
    return alias.replace("_m", "_a")


def _alias(value: Expression, name: str) -> exp.Alias:
    return exp.Alias(this=value.copy(), alias=exp.Identifier(this=name, quoted=True))

"""SELECT in DeepFlow's dialect → ClickHouse SQL: ids and aggregates inside, names and arithmetic outside."""

import time
from dataclasses import dataclass

from sqlglot import exp

from deepflow.query.constants import constant, is_constant, numeric
from deepflow.query.dialect import Statement
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import (
    Expression,
    aggregate_call,
    arithmetic,
    call,
    column,
    name_of,
    negated,
    number,
    sql_of,
    text,
)
from deepflow.query.filters import OPERATORS, FilterCompiler, time_range
from deepflow.query.functions import BY_LOWER_NAME, COUNTERS, MetricCompiler
from deepflow.query.items import Item, has_aggregate, item_of, table_name, written
from deepflow.query.plan import Plan
from deepflow.query.result import MAX_ROWS, Filling, Output
from deepflow.query.rows import RowCompiler, call_name
from deepflow.query.source import Source, TimeRange, route
from deepflow.query.tags import Tag, bit_names, enum_name, resolve
from deepflow.query.time_group import time_group
from deepflow.schema import Schema

DEFAULT_LIMIT = 10_000
_MAX_COLUMNS = 300
_RESERVED = frozenset({"_slot", "_time", "_k"})


@dataclass(frozen=True)
class Compiled:
    """A query for the store and what its columns are."""

    sql: str
    outputs: tuple[Output, ...]
    filling: Filling | None


def compile_select(schema: Schema, statement: Statement, db: str, precision: str | None) -> Compiled:
    """Compiles a SELECT.

    Raises:
        QueryError: one sentence for the person who wrote the query.
    """
    select = statement.select
    source_name = table_name(select)
    if not select.expressions:
        raise QueryError("The query selects nothing; name tags or metrics after SELECT.")
    items = [item_of(node) for node in select.expressions]
    group = select.args.get("group")
    groups = list(group.expressions) if group is not None else []
    if group is not None and any(value for key, value in group.args.items() if key != "expressions"):
        raise QueryError("GROUP BY takes tags, aliases and time(); no ROLLUP, CUBE or TOTALS.")
    times = [
        node
        for root in [*select.expressions, *groups]
        for node in root.find_all(exp.Anonymous)
        if str(node.this).lower() == "time"
    ]
    interval = float(numeric(times[0].expressions[1])) if times and len(times[0].expressions) > 1 else None
    source = route(schema, source_name, db, precision, interval)
    return _Select(source, statement, items, groups, times).compiled()


class _Select:
    def __init__(
        self,
        source: Source,
        statement: Statement,
        items: list[Item],
        groups: list[Expression],
        times: list[exp.Anonymous],
    ) -> None:
        select = statement.select
        self._source, self._catalogue, self._select = source, source.catalogue, select
        self._slimit = statement.slimit
        self._items = self._expanded(items)
        self._groups = groups
        self._aliases = {item.name: item.node for item in self._items if name_of(item.node) != item.name}
        aggregated = any(has_aggregate(item.node) for item in self._items)
        where = select.args.get("where")
        limits = time_range(where.this if where is not None else None, int(time.time()))
        self._plan = Plan(source, limits, grouped=aggregated or bool(groups))
        self._plan.time_group = time_group(times, source.seconds)
        self._metrics = MetricCompiler(self._plan)
        self._rows = RowCompiler(self._catalogue, self._metrics)
        filters = FilterCompiler(self._catalogue, self._metrics, self._aliases, self._rows.scalar)
        self._rows.condition = filters.condition
        if where is not None:
            self._plan.where.append(filters.condition(where.this))

    def compiled(self) -> Compiled:
        for node in self._groups:
            self._group(node)
        selected = [pair for item in self._items for pair in self._column(item)]
        self._check_names([output.name for _, output in selected])
        having = self._select.args.get("having")
        if having is not None and not self._plan.grouped:
            raise QueryError("HAVING needs an aggregate function or GROUP BY; use WHERE for rows.")
        condition = self._having(having.this) if having is not None else None
        folded = self._folds_groups()
        order = [] if folded else [self._ordered(node) for node in self._order_nodes()]
        limit, offset = self._limits()
        self._push_down(order, limit, offset)
        if self._slimit is not None:
            if not self._plan.grouped:
                raise QueryError("SLIMIT limits series; it needs GROUP BY.")
            self._plan.limit_series(self._slimit)
        query = exp.select(*[_alias(value, output.name) for value, output in selected])
        query = query.from_(exp.Subquery(this=self._plan.select()))
        query = query.where(condition) if condition is not None else query
        query = query.order_by(*order) if order else query
        if self._plan.limit is None:
            query = query.limit(limit)
            query = query.offset(offset) if offset else query
        outputs = tuple(output for _, output in selected)
        return Compiled(sql_of(query), outputs, self._filling(outputs, order))

    def _folds_groups(self) -> bool:
        """Whether the answer is one row about the values of all groups.

        Raises:
            QueryError: only some of the columns are.
        """
        folding = [call_name(item.node) == "histogram" for item in self._items]
        if any(folding) and (not all(folding) or any(self._select.args.get(part) for part in ("order", "offset"))):
            raise QueryError(
                "Histogram makes one row of all groups; no other column, ORDER BY or OFFSET stands beside it."
            )
        return any(folding)

    def _histogram(self, arguments: list[Expression]) -> Expression:
        if len(arguments) != 2 or not has_aggregate(arguments[0]):
            raise QueryError("Histogram takes a function and a number, for example Histogram(Sum(byte), 10).")
        bins = numeric(arguments[1])
        if bins != int(bins) or not 1 <= bins <= 250:
            raise QueryError("Histogram takes 1 to 250 bins.")
        found = aggregate_call("histogram", [number(int(bins))], call("toFloat64", self._value(arguments[0])))
        bin_ = exp.Identifier(this="bin", quoted=True)
        parts = exp.Array(expressions=[call("tupleElement", column("bin"), number(one)) for one in (1, 2, 3)])
        return call("arrayMap", exp.Lambda(this=parts, expressions=[bin_]), found)

    def _expanded(self, items: list[Item]) -> list[Item]:
        expanded: list[Item] = []
        for item in items:
            if item.name != "*" or not isinstance(item.node, exp.Star):
                expanded.append(item)
                continue
            if self._source.table.kind != "log":
                raise QueryError("SELECT * is for logs; name the tags and metrics of a table of meters.")
            names = [entry.name for entry in self._catalogue.tags.values() if entry.listed]
            names += [name for name in self._catalogue.metrics if name not in names and name != "row"]
            expanded += [Item(name, name, exp.column(name, quoted=True)) for name in names]
        if len(expanded) > _MAX_COLUMNS:
            raise QueryError(f"The query asks for {len(expanded)} columns, at most {_MAX_COLUMNS} are answered.")
        return expanded

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            if name in _RESERVED or (name[:2] in {"_k", "_m", "_s", "_a"} and name[2:].isdigit()):
                raise QueryError(f'The alias "{name}" is used by the server itself; choose another.')
            if names.count(name) > 1:
                raise QueryError(f'Two columns are called "{shown(name)}"; give one of them an alias.')

    # Groups and columns

    def _group(self, node: Expression) -> None:
        node = self._followed(node)
        if has_aggregate(node):
            raise QueryError("GROUP BY cannot contain an aggregate function.")
        self._tag_value(node, declare=True)

    def _followed(self, node: Expression) -> Expression:
        """An alias, or a column's default name in back quotes, stands for its expression."""
        name = name_of(node)
        if name is None:
            return node
        if name in self._aliases:
            return self._aliases[name]
        if self._catalogue.tag(name) is None and self._catalogue.metric(name) is None:
            for item in self._items:
                if name in {item.name, item.asked}:
                    return item.node
        return node

    def _column(self, item: Item) -> list[tuple[Expression, Output]]:
        if call_name(item.node) == "topk":
            return self._top_k(item)
        if call_name(item.node) == "histogram":
            return [(self._histogram(item.node.expressions), Output(item.name, item.asked, "metrics", ""))]
        if has_aggregate(item.node):
            return [(self._value(item.node), Output(item.name, item.asked, "metrics", "", self._unit(item.node)))]
        value, output = self._tag_value(item.node, declare=not self._plan.grouped), self._tag_output(item)
        return [(value, output)]

    def _tag_output(self, item: Item) -> Output:
        name = name_of(item.node)
        if name is None:
            is_time = call_name(item.node) == "time"
            return Output(
                item.name, item.asked, "tag", "time" if is_time else "string", "s" if is_time else "", is_time
            )
        if tag := resolve(self._catalogue, name):
            return Output(item.name, item.asked, "tag", tag.kind, tag.unit)
        metric = self._catalogue.metric(name)
        return Output(item.name, item.asked, "metrics", metric.kind if metric else "", metric.unit if metric else "")

    def _unit(self, node: Expression) -> str:
        """Unit of a single function over a metric; arithmetic has none."""
        function = BY_LOWER_NAME.get(call_name(node))
        if function is None or not isinstance(node, exp.Anonymous) or not node.expressions:
            return ""
        inner = node.expressions[0]
        metric = self._catalogue.metric(name_of(inner) or "")
        unit = metric.unit if metric is not None else self._unit(inner)
        return function.unit.replace("$unit", unit)

    def _keys(self, tag: Tag, declare: bool) -> list[Expression]:
        for key in tag.keys:
            if not declare and not self._plan.has_key(key):
                raise QueryError(f'"{shown(tag.name)}" is neither in GROUP BY nor inside an aggregate function.')
        return [self._plan.key(key) for key in tag.keys]

    def _tag_value(self, node: Expression, declare: bool) -> Expression:  # noqa: PLR0911  a table of cases
        """A tag, a function of tags, or a metric of a row, as an expression over the plan's names."""
        if isinstance(node, exp.Paren):
            return self._tag_value(node.this, declare)
        if call_name(node) == "time":
            if self._plan.grouped and not declare and not self._time_grouped():
                raise QueryError("time() is selected but not in GROUP BY.")
            return self._plan.bucket()
        if isinstance(node, exp.Anonymous) and call_name(node) in {"node_type", "icon_id"}:
            return self._icon(node)
        if isinstance(node, exp.Anonymous) and call_name(node) == "enum":
            tag = self._tag_argument(node)
            if tag.enum is None:
                raise QueryError(f'Tag "{shown(tag.name)}" is not an enumeration.')
            names = bit_names if tag.kind == "bit_enum" else enum_name
            return names(self._catalogue, tag.enum, self._keys(tag, declare)[0])
        name = name_of(node)
        if name is not None and (tag_found := resolve(self._catalogue, name)):
            return tag_found.show(self._keys(tag_found, declare))
        if is_constant(node):
            value = constant(node)
            return text(value) if isinstance(value, str) else number(value or 0)
        if call_name(node) == "newtag" and isinstance(node, exp.Anonymous) and len(node.expressions) == 1:
            return text(str(constant(node.expressions[0])))
        scalar = self._rows.scalar(node)
        if not declare and not self._plan.has_key(scalar):
            raise QueryError(f'"{shown(written(node))}" is neither in GROUP BY nor inside an aggregate function.')
        return self._plan.key(scalar)

    def _time_grouped(self) -> bool:
        return any(call_name(self._followed(node)) == "time" for node in self._groups)

    def _icon(self, node: exp.Anonymous) -> Expression:
        tag = self._tag_argument(node)
        rule = tag.node_type if call_name(node) == "node_type" else tag.icon
        if rule is None:
            raise QueryError(f"{node.this} takes a resource such as auto_service or host, not {tag.name}.")
        return rule(self._keys(tag, declare=True))

    def _tag_argument(self, node: exp.Anonymous) -> Tag:
        name = name_of(node.expressions[0]) if len(node.expressions) == 1 else None
        if name is None:
            raise QueryError(f"{node.this} takes one tag.")
        tag = resolve(self._catalogue, name)
        if tag is None:
            raise self._catalogue.missing(name)
        return tag

    # Values of a group

    def _value(self, node: Expression) -> Expression:  # noqa: PLR0911  a table of cases
        """An expression with aggregates, over the plan's names."""
        match node:
            case exp.Paren():
                return exp.Paren(this=self._value(node.this))
            case exp.Neg():
                return call("negate", self._value(node.this))
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div():
                return arithmetic(type(node), self._value(node.this), self._value(node.expression))
            case exp.Anonymous() if call_name(node) in BY_LOWER_NAME:
                return self._function(node)
        name = name_of(node)
        if name is not None and name.lower() == "time_interval":
            return number(self._interval())
        if is_constant(node):
            value = constant(node)
            return text(value) if isinstance(value, str) else number(value or 0)
        if name is not None:
            followed = self._followed(node)
            if followed is not node and has_aggregate(followed):
                return self._value(followed)
            node = followed
        return self._tag_value(node, declare=False)

    def _function(self, node: exp.Anonymous) -> Expression:
        function, arguments = BY_LOWER_NAME[call_name(node)], list(node.expressions)
        if function.name == "PerSecond":
            if len(arguments) != 1:
                raise QueryError("PerSecond takes one expression, for example PerSecond(Sum(request)).")
            return arithmetic(exp.Div, self._value(arguments[0]), number(self._seconds_of_rate(arguments[0])))
        if function.name == "Percentage":
            if len(arguments) != 2:
                raise QueryError("Percentage takes two expressions, for example Percentage(Sum(error), Sum(request)).")
            ratio = arithmetic(exp.Div, self._value(arguments[0]), self._value(arguments[1]))
            return exp.Mul(this=ratio, expression=number(100))
        if function.name == "Histogram":
            raise QueryError("Histogram stands alone in a column.")
        if function.kind == "tag":
            return self._tag_function(function.name, arguments)
        if function.name == "Count":
            if len(arguments) > 1 or (
                arguments
                and not isinstance(arguments[0], exp.Star)
                and not is_constant(arguments[0])
                and name_of(arguments[0]) != "row"
            ):
                raise QueryError("Count takes row: Count(row); use Uniq(tag) to count different values.")
            return self._plan.aggregate("count", ())
        if len(arguments) != 1 + function.arguments:
            more = " and a number" if function.arguments else ""
            raise QueryError(f"{function.name} takes a metric{more}.")
        name = name_of(arguments[0])
        metric = self._catalogue.metric(name or "")
        if metric is None:
            if name is not None and resolve(self._catalogue, name):
                raise QueryError(
                    f'"{shown(name)}" is a tag; {function.name} takes a metric, tags take Uniq, TopK and Any.'
                )
            raise self._catalogue.missing(name) if name else QueryError(f"{function.name} takes the name of a metric.")
        argument = float(numeric(arguments[1])) if function.arguments else 0.0
        if function.name.startswith("Percentile") and not 0 <= argument <= 100:
            raise QueryError(
                f"function [{function.name}] argument [{argument:g}] is out of range, it should be within [0, 100]"
            )
        return self._metrics.apply(function, metric, int(argument) if argument.is_integer() else argument)

    def _tag_function(self, function: str, arguments: list[Expression]) -> Expression:
        tags = [self._tag_or_fail(function, argument) for argument in arguments]
        if not tags:
            raise QueryError(f"{function} takes a tag.")
        if function == "Any":
            if len(tags) > 1:
                raise QueryError("Any takes one tag.")
            packed = self._plan.aggregate("any", [call("tuple", *tags[0].keys)])
            return tags[0].show([call("tupleElement", packed, number(index + 1)) for index in range(len(tags[0].keys))])
        if function == "TopK":
            raise QueryError("TopK stands alone in a column.")
        name = "uniq" if function == "Uniq" else "uniqExact"
        return self._plan.aggregate(name, [key for tag in tags for key in tag.keys])

    def _tag_or_fail(self, function: str, node: Expression) -> Tag:
        name = name_of(node)
        if name is None:
            raise QueryError(f"{function} takes tags.")
        tag = resolve(self._catalogue, name)
        if tag is None:
            raise self._catalogue.missing(name)
        return tag

    def _top_k(self, item: Item) -> list[tuple[Expression, Output]]:
        arguments = list(item.node.expressions)
        if len(arguments) < 2:
            raise QueryError("TopK takes tags and a number, for example TopK(endpoint, 10).")
        size = numeric(arguments.pop())
        if size != int(size) or not 1 <= size <= 100:
            raise QueryError(
                f"function [TopK] argument [{size:g}] value range is incorrect, it should be within [1, 100]"
            )
        tags = [self._tag_or_fail("TopK", argument) for argument in arguments]
        keys = [key for tag in tags for key in tag.keys]
        exists = call("and", *[tag.exists for tag in tags]) if len(tags) > 1 else tags[0].exists
        packed = call("tuple", *keys)
        found = self._plan.aggregate("topKIf", [packed, exists], [number(int(size)), number(3), text("counts")])
        entry = column("entry")
        at = 0
        shown_tags: list[Expression] = []
        for tag in tags:
            parts = [
                call("tupleElement", call("tupleElement", entry, number(1)), number(at + one + 1))
                for one in range(len(tag.keys))
            ]
            shown_tags.append(call("toString", tag.show(parts)))
            at += len(tag.keys)
        shape = shown_tags[0] if len(shown_tags) == 1 else exp.Array(expressions=shown_tags)
        name = exp.Identifier(this="entry", quoted=True)
        values = call("arrayMap", exp.Lambda(this=shape, expressions=[name]), found)
        counts = call(
            "arrayMap", exp.Lambda(this=call("tupleElement", entry, number(2)), expressions=[name.copy()]), found
        )
        return [
            (values, Output(item.name, item.asked, "metrics", "")),
            (counts, Output(f"counts_{item.name}", item.asked, "metrics", "")),
        ]

    def _interval(self) -> int:
        """Seconds of one result: the interval, else the time range."""
        if self._plan.time_group is not None:
            return self._plan.time_group.interval
        limits: TimeRange | None = self._plan.time_range
        if limits is None:
            raise QueryError("A rate needs time(time, interval) or a time range in WHERE.")
        return max(limits.slots(self._source.seconds) * self._source.seconds, 1)

    def _seconds_of_rate(self, node: Expression) -> int:
        """Sums are of the whole interval; averages and the like are of one slot of the data precision."""
        names = {call_name(one) for one in node.find_all(exp.Anonymous)} & set(BY_LOWER_NAME)
        counters = all(
            metric.kind in COUNTERS | {"other"}
            for one in node.find_all(exp.Column)
            if (metric := self._catalogue.metric(name_of(one) or "")) is not None
        )
        if names & {"sum", "count", "uniq", "uniqexact", "countdistinct"} or not counters:
            return self._interval()
        return self._source.seconds

    # HAVING, ORDER BY, LIMIT, fill

    def _having(self, node: Expression) -> Expression:
        match node:
            case exp.Paren():
                return exp.Paren(this=self._having(node.this))
            case exp.And() | exp.Or():
                return type(node)(this=self._having(node.this), expression=self._having(node.expression))
            case exp.Not():
                return negated(self._having(node.this))
            case exp.In() if node.expressions and not node.args.get("query"):
                return exp.In(
                    this=self._value(node.this), expressions=[self._value(value) for value in node.expressions]
                )
        operator = OPERATORS.get(type(node))
        if operator is None or operator in {"like", "regexp"}:
            raise QueryError(f'"{shown(node.sql())}" is not a condition that HAVING understands.')
        return type(node)(this=self._value(node.this), expression=self._value(node.expression))

    def _order_nodes(self) -> list[exp.Ordered]:
        order = self._select.args.get("order")
        if order is not None:
            return list(order.expressions)
        if self._plan.time_group is not None and self._plan.grouped and self._time_grouped():
            times = [node for node in self._groups if call_name(self._followed(node)) == "time"]
            return [exp.Ordered(this=times[0].copy())]
        return []

    def _ordered(self, node: exp.Ordered) -> exp.Ordered:
        inner = self._followed(node.this)
        if has_aggregate(inner):
            if not self._plan.grouped:
                raise QueryError("ORDER BY with an aggregate function needs GROUP BY or an aggregate in SELECT.")
            value = self._value(inner)
        else:
            value = self._tag_value(inner, declare=not self._plan.grouped)
        return exp.Ordered(this=value, desc=bool(node.args.get("desc")), nulls_first=False)

    def _push_down(self, order: list[exp.Ordered], limit: int, offset: int) -> None:
        """Rows are cut before they are translated, when their order needs no translation."""
        plain = all(isinstance(one.this, exp.Column) or _is_stamp(one.this) for one in order)
        if not self._plan.grouped and plain:
            self._plan.limit = (limit, offset)
            self._plan.order = [
                exp.Ordered(this=_unstamped(one.this), desc=one.args["desc"], nulls_first=False) for one in order
            ]

    def _limits(self) -> tuple[int, int]:
        values = []
        for part, default in (("limit", DEFAULT_LIMIT), ("offset", 0)):
            node = self._select.args.get(part)
            if node is not None and node.args.get("expressions"):
                raise QueryError("LIMIT takes one or two numbers.")
            value = default if node is None else numeric(node.expression)
            if value != int(value) or not 0 <= value <= 10**9:
                raise QueryError(f"{part.upper()} takes a whole number.")
            values.append(int(value))
        if values[0] > MAX_ROWS:
            raise QueryError(f"LIMIT {values[0]} is too large, at most {MAX_ROWS} rows are answered.")
        return values[0], values[1]

    def _filling(self, outputs: tuple[Output, ...], order: list[exp.Ordered]) -> Filling | None:
        group, limits = self._plan.time_group, self._plan.time_range
        if group is None or not group.fill or not any(output.is_time for output in outputs) or not self._plan.grouped:
            return None
        descending = any(one.args["desc"] and one.this == self._plan.bucket() for one in order)
        first_time, last_time = (limits.first, limits.last) if limits is not None else (None, None)
        return Filling(group.interval, group.fill, first_time, last_time, descending)


def _alias(value: Expression, name: str) -> exp.Alias:
    return exp.Alias(this=value.copy(), alias=exp.Identifier(this=name, quoted=True))


def _is_stamp(node: Expression) -> bool:
    return isinstance(node, exp.Anonymous) and str(node.this).startswith("toUnixTimestamp")


def _unstamped(node: Expression) -> Expression:
    return (node.expressions[0] if _is_stamp(node) else node).copy()

"""The functions over metrics and tags, as tables: which kinds of metric take them, and what they become.

The layers follow DeepFlow's rules. In tables of meters a counter is summed per slot of the data precision before Max,
Min, Percentile … look at it; Sum and Avg need one layer. In logs every function looks at rows. A delay of zero is no
measurement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from deepflow.query.catalogue import MetricEntry
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import (
    Expression,
    all_of,
    arithmetic,
    call,
    column,
    compare,
    declared,
    either,
    null,
    number,
    text,
)
from deepflow.query.plan import SLOT, TIME, Plan

COUNTERS = frozenset({"counter", "gauge"})
RATIOS = frozenset({"quotient", "percentage"})
DELAYS = frozenset({"delay", "bounded_gauge"})
NUMERIC = COUNTERS | RATIOS | DELAYS


@dataclass(frozen=True)
class Function:
    """A function as `SHOW METRICS FUNCTIONS` prints it."""

    name: str
    kind: str
    """`agg` over a metric, `tag` over tags, `math` over results."""
    metric_types: frozenset[str]
    arguments: int
    """Parameters after the metric."""
    unit: str
    description: str
    """`$unit` stands for the metric's own."""


FUNCTIONS = {
    one.name: one
    for one in (
        Function("Sum", "agg", COUNTERS | {"delay"}, 0, "$unit", "Sum."),
        Function(
            "Avg", "agg", NUMERIC, 0, "$unit", "Weighted average; a counter's sum divided by the slots of the interval."
        ),
        Function("AAvg", "agg", NUMERIC, 0, "$unit", "Arithmetic mean of the values of the slots or rows."),
        Function("Max", "agg", NUMERIC, 0, "$unit", "Largest value of a slot or row."),
        Function(
            "Min", "agg", NUMERIC, 0, "$unit", "Smallest value of a slot or row; a slot without rows counts as 0."
        ),
        Function("Percentile", "agg", NUMERIC, 1, "$unit", "Percentile by sampling, 0 to 100."),
        Function("PercentileExact", "agg", NUMERIC, 1, "$unit", "Exact percentile, 0 to 100."),
        Function("Stddev", "agg", NUMERIC, 0, "$unit", "Standard deviation of the population."),
        Function("Spread", "agg", NUMERIC, 0, "$unit", "Max - Min."),
        Function("Rspread", "agg", NUMERIC, 0, "", "Max / Min."),
        Function(
            "Apdex", "agg", frozenset({"delay"}), 1, "%", "Share of delays up to T, those up to 4 T counting half."
        ),
        Function("Last", "agg", NUMERIC, 0, "$unit", "Latest value."),
        Function("Count", "agg", frozenset({"other"}), 0, "", "Number of rows."),
        Function("Uniq", "tag", frozenset({"tag"}), 0, "", "Number of different values, estimated."),
        Function("UniqExact", "tag", frozenset({"tag"}), 0, "", "Number of different values."),
        Function("countDistinct", "tag", frozenset({"tag"}), 0, "", "Number of different values."),
        Function(
            "TopK", "tag", frozenset({"tag"}), 1, "", "The most frequent values, with their counts in a second column."
        ),
        Function("Any", "tag", frozenset({"tag"}), 0, "", "One of the values."),
        Function("PerSecond", "math", frozenset(), 0, "$unit/s", "Divided by the seconds of the interval."),
        Function("Percentage", "math", frozenset(), 1, "%", "a / b * 100."),
        Function(
            "Histogram", "math", frozenset(), 1, "", "Distribution of a function's values: [from, to, height] a bin."
        ),
    )
}
BY_LOWER_NAME = {name.lower(): function for name, function in FUNCTIONS.items()}


@dataclass(frozen=True)
class Reading:
    """What the values of an aggregate are taken from."""

    plan: Plan
    over_slots: bool

    def aggregate(self, name: str, *arguments: Expression, parameters: Sequence[Expression] = ()) -> Expression:
        return self.plan.aggregate(name, arguments, parameters, over_slots=self.over_slots)

    @property
    def time(self) -> Expression:
        return column(SLOT if self.over_slots else "time")


Statistic = Callable[[Reading, Expression, float], Expression]


def _simple(name: str) -> Statistic:
    return lambda read, value, _: read.aggregate(name, value)


def _quantile(name: str) -> Statistic:
    return lambda read, value, level: read.aggregate(name, value, parameters=[number(level / 100)])


def _spread(read: Reading, value: Expression, _: float) -> Expression:
    return arithmetic(exp.Sub, read.aggregate("max", value), read.aggregate("min", value))


def _rspread(read: Reading, value: Expression, _: float) -> Expression:
    return arithmetic(exp.Div, read.aggregate("max", value), read.aggregate("min", value))


def _apdex(read: Reading, value: Expression, threshold: float) -> Expression:
    """(satisfied + tolerated / 2) / all, in percent (Apdex technical specification 1.1)."""
    score = call(
        "multiIf", call("isNull", value), null(), compare("<=", value, number(threshold)), number(100),
        compare("<=", value, number(threshold * 4)), number(50), number(0),
    )  # fmt: skip
    return read.aggregate("avg", score)


STATISTICS: dict[str, Statistic] = {
    "Sum": _simple("sum"),
    "Avg": _simple("avg"),
    "AAvg": _simple("avg"),
    "Max": _simple("max"),
    "Min": _simple("min"),
    "Stddev": _simple("stddevPop"),
    "Percentile": _quantile("quantile"),
    "PercentileExact": _quantile("quantileExact"),
    "Spread": _spread,
    "Rspread": _rspread,
    "Apdex": _apdex,
    "Last": lambda read, value, _: read.aggregate("argMax", value, read.time),
}


class MetricCompiler:
    """Turns a function over a metric into names of aggregates of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._catalogue = plan.source.catalogue
        self._layered = plan.source.layered

    def row_value(self, metric: MetricEntry) -> Expression:
        """The metric of one row; NULL where it says nothing."""
        if metric.kind in RATIOS or (metric.numerator and metric.denominator):
            numerator, denominator = self._quotient(metric)
            return _ratio(metric, numerator, denominator)
        value = self._value(metric.name)
        if metric.kind == "delay":
            return either(compare(">", value, number(0)), value, null())
        return value

    def apply(self, function: Function, metric: MetricEntry, argument: float) -> Expression:
        """The function over the metric, as an expression over names of the plan.

        Raises:
            QueryError: the function does not take this kind of metric.
        """
        if metric.kind not in function.metric_types:
            allowed = [one.name for one in FUNCTIONS.values() if metric.kind in one.metric_types]
            raise QueryError(
                f"{function.name} does not take {metric.name}, a metric of type {metric.kind}; {', '.join(allowed)} do."
            )
        self._rank_by(metric)
        if function.name == "Count":
            return self._plan.aggregate("count", ())
        rule = _RULES[metric.kind]
        return rule(self, function.name, metric, argument)

    def _rank_by(self, metric: MetricEntry) -> None:
        if self._plan.rank is None:
            known = metric.kind in COUNTERS
            self._plan.rank = call("sum", self._value(metric.name)) if known else call("count")

    def counter(self, function: str, metric: MetricEntry, argument: float) -> Expression:
        value = self._value(metric.name)
        rows = Reading(self._plan, over_slots=False)
        if function == "Sum" or not self._layered:
            return STATISTICS[function](rows, value, argument)
        if function == "Avg":
            return arithmetic(exp.Div, rows.aggregate("sum", value), number(self._slots()))
        slots = Reading(self._plan, over_slots=True)
        return self._filled(function, slots, self._plan.slot_sum(value), argument)

    def ratio(self, function: str, metric: MetricEntry, argument: float) -> Expression:
        numerator, denominator = self._quotient(metric)
        rows = Reading(self._plan, over_slots=False)
        if function == "Avg":
            return _ratio(metric, rows.aggregate("sum", numerator), rows.aggregate("sum", denominator))
        if not self._layered:
            return STATISTICS[function](rows, _ratio(metric, numerator, denominator), argument)
        slots = Reading(self._plan, over_slots=True)
        value = _ratio(metric, self._plan.slot_sum(numerator), self._plan.slot_sum(denominator))
        if metric.kind == "quotient":
            return STATISTICS[function](slots, value, argument)
        return self._filled(function, slots, value, argument)

    def delay(self, function: str, metric: MetricEntry, argument: float) -> Expression:
        rows = Reading(self._plan, over_slots=False)
        if function in {"Sum", "Avg"} and metric.numerator and metric.denominator:
            numerator, denominator = self._quotient(metric)
            total = rows.aggregate("sum", numerator)
            return total if function == "Sum" else arithmetic(exp.Div, total, rows.aggregate("sum", denominator))
        value = self.row_value(metric)
        if function == "Min" and metric.kind == "bounded_gauge" and self._layered:
            seen = rows.aggregate("uniqExact", column("time"))
            return self._zero_when_missing(rows.aggregate("min", value), seen)
        return STATISTICS[function](rows, value, argument)

    def _filled(self, function: str, slots: Reading, value: Expression, argument: float) -> Expression:
        """Min, and what is made of it, sees a 0 in every slot that has no rows."""
        if function not in {"Min", "Spread", "Rspread"}:
            return STATISTICS[function](slots, value, argument)
        smallest = self._zero_when_missing(slots.aggregate("min", value), slots.aggregate("count"))
        if function == "Min":
            return smallest
        kind = exp.Sub if function == "Spread" else exp.Div
        return arithmetic(kind, slots.aggregate("max", value), smallest)

    def _zero_when_missing(self, smallest: Expression, seen: Expression) -> Expression:
        expected = self._expected_slots()
        return smallest if expected is None else either(compare("<", seen, expected), number(0), smallest)

    def _expected_slots(self) -> Expression | None:
        """Slots that the interval has inside the time range of WHERE; None when neither is known."""
        precision, group, limits = self._plan.source.seconds, self._plan.time_group, self._plan.time_range
        if group is None:
            return None if limits is None else number(limits.slots(precision))
        covered = group.interval * group.window
        if limits is None:
            return number(covered // precision)
        start = call("toInt64", column(TIME))
        end = exp.Add(this=start.copy(), expression=number(group.interval - 1))
        begin = exp.Sub(this=start.copy(), expression=number(covered - group.interval))
        last = call("intDiv", call("least", end, number(limits.last)), number(precision))
        first = call(
            "intDiv",
            exp.Add(this=call("greatest", begin, number(limits.first)), expression=number(precision - 1)),
            number(precision),
        )
        self._plan.bucket()
        return exp.Paren(this=exp.Add(this=exp.Sub(this=last, expression=first), expression=number(1)))

    def _slots(self) -> int:
        """Slots a counter's average is taken over; 1 when the query names neither an interval nor a time range."""
        precision, group, limits = self._plan.source.seconds, self._plan.time_group, self._plan.time_range
        if group is not None:
            return group.interval * group.window // precision
        return max(limits.slots(precision), 1) if limits is not None else 1

    def _quotient(self, metric: MetricEntry) -> tuple[Expression, Expression]:
        numerator = declared(metric.expr) if metric.expr else self._value(metric.numerator or "")
        return numerator, self._value(metric.denominator or "")

    def _value(self, name: str) -> Expression:
        """A metric or column of one row."""
        if stored := self._catalogue.table.column.get(name):
            self._plan.merged |= stored.merge == "peak" and self._plan.source.rolled_up
            return column(name)
        family, _, member = name.partition(".")
        if family == "metrics" and member:
            position = call("indexOf", column("metrics_float_names"), text(member))
            value = exp.Bracket(this=column("metrics_float_values"), expressions=[position.copy()])
            return either(compare("=", position, number(0)), null(), value)
        metric = self._catalogue.metrics.get(name)
        if metric is None or metric.expr is None:
            raise QueryError(f'Metric "{shown(name)}" cannot be read row by row.')
        return declared(metric.expr)


_RULES: dict[str, Callable[[MetricCompiler, str, MetricEntry, float], Expression]] = {
    **dict.fromkeys(COUNTERS, MetricCompiler.counter),
    **dict.fromkeys(RATIOS, MetricCompiler.ratio),
    **dict.fromkeys(DELAYS, MetricCompiler.delay),
}


def _ratio(metric: MetricEntry, numerator: Expression, denominator: Expression) -> Expression:
    """The quotient, NULL without a denominator; a percentage lies between 0 and 100."""
    quotient = arithmetic(exp.Div, numerator, denominator)
    if metric.kind == "percentage":
        bounded = either(compare(">=", quotient, number(0)), call("least", quotient, number(1)), null())
        return exp.Mul(this=bounded, expression=number(100))
    if metric.kind == "delay":
        return either(
            all_of([compare(">", denominator, number(0)), compare(">", numerator, number(0))]), quotient, null()
        )
    return quotient

"""WHERE: conditions over tags and metrics of a row, and the time range they leave."""

import math
from collections.abc import Callable, Mapping

from sqlglot import exp

from deepflow.query.catalogue import Catalogue
from deepflow.query.comparisons import Filter, number_filter, text_filter
from deepflow.query.constants import Constant, constant, is_constant, unix_seconds
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import (
    Expression,
    all_of,
    any_of,
    call,
    compare,
    name_of,
    negated,
    number,
    text,
)
from deepflow.query.functions import MetricCompiler
from deepflow.query.source import TimeRange
from deepflow.query.tags import bits_filter, enum_filter, resolve

MAX_LIST = 1000
OPERATORS: Mapping[type[Expression], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.Like: "like",
    exp.RegexpLike: "regexp",
}
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXT_FUNCTIONS = {"tostring"}
_NUMBER_FUNCTIONS = {"length", "tounixtimestamp", "tounixtimestamp64micro"}


class FilterCompiler:
    """Conditions of one table. `aliases` are the names that SELECT gives to expressions."""

    def __init__(
        self,
        catalogue: Catalogue,
        metrics: MetricCompiler | None,
        aliases: Mapping[str, Expression],
        scalar: Callable[[Expression], Expression] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._metrics = metrics
        self._aliases = aliases
        self._scalar = scalar

    def condition(self, node: Expression) -> Expression:  # noqa: PLR0911  a table of cases
        """The condition over stored columns.

        Raises:
            QueryError: no condition, or an unknown tag, function or value.
        """
        match node:
            case exp.Paren():
                return exp.Paren(this=self.condition(node.this))
            case exp.And():
                return all_of([self.condition(node.this), self.condition(node.expression)])
            case exp.Or():
                return any_of([self.condition(node.this), self.condition(node.expression)])
            case exp.Not():
                return negated(self.condition(node.this))
            case exp.Boolean():
                return number(int(bool(node.this)))
            case exp.Anonymous() if str(node.this).lower() == "exist" and len(node.expressions) == 1:
                return self._exist(node.expressions[0])
            case exp.Is() if isinstance(node.expression, exp.Null):
                return negated(self._exist(node.this))
            case exp.Between():
                condition = self._filter(node.this)
                return all_of(
                    [condition(">=", constant(node.args["low"])), condition("<=", constant(node.args["high"]))]
                )
            case exp.In():
                return self._in(node)
        operator = OPERATORS.get(type(node))
        if isinstance(node, exp.Like) and node.args.get("negate"):
            return negated(self._compared("like", node.this, node.expression))
        if operator is None:
            raise QueryError(f'"{shown(node.sql())}" is not a condition that WHERE understands.')
        return self._compared(operator, node.this, node.expression)

    def _in(self, node: exp.In) -> Expression:
        if node.args.get("query") or not node.expressions:
            raise QueryError("IN takes a list of values in parentheses; sub-queries are not allowed.")
        if len(node.expressions) > MAX_LIST:
            raise QueryError(f"IN has {len(node.expressions)} values, at most {MAX_LIST} are allowed.")
        condition = self._filter(node.this)
        return exp.Paren(this=any_of([condition("=", constant(value)) for value in node.expressions]))

    def _compared(self, operator: str, left: Expression, right: Expression) -> Expression:
        if is_constant(left):
            if is_constant(right):
                return self._constants(operator, constant(left), constant(right))
            if operator not in _FLIPPED:
                raise QueryError("LIKE and REGEXP need the tag on their left.")
            operator, left, right = _FLIPPED[operator], right, left
        if not is_constant(right):
            raise QueryError(
                f'"{shown(right.sql())}" is not a value; a tag is compared with a number or a quoted string.'
            )
        value = constant(right)
        if value is None:
            raise QueryError("Nothing equals NULL; use exist(tag) or NOT exist(tag).")
        condition = self._filter(left)
        return negated(condition("=", value)) if operator == "!=" else condition(operator, value)

    def _constants(self, operator: str, left: Constant, right: Constant) -> Expression:
        sides = [text(one) if isinstance(one, str) else number(one or 0) for one in (left, right)]
        if isinstance(left, str) != isinstance(right, str) or operator not in _FLIPPED:
            raise QueryError("A condition without a tag compares two numbers or two strings.")
        return negated(compare("=", *sides)) if operator == "!=" else compare(operator, *sides)

    def _exist(self, node: Expression) -> Expression:
        name = name_of(node)
        if name is None:
            raise QueryError("exist takes the name of a tag.")
        aliased = self._aliased(name)
        name = name_of(aliased) or name if aliased is not None else name
        if tag := resolve(self._catalogue, name):
            return exp.Paren(this=tag.exists.copy())
        if sides := self._catalogue.sides(name):
            tags = [resolve(self._catalogue, side.name) for side in sides]
            return exp.Paren(this=any_of([tag.exists for tag in tags if tag is not None]))
        metric = self._catalogue.metric(name)
        if metric is None or self._metrics is None:
            raise self._catalogue.missing(name)
        return call("isNotNull", self._metrics.row_value(metric))

    def _aliased(self, name: str) -> Expression | None:
        """What an alias stands for, when it is a plain tag or the only meaning of the name."""
        node = self._aliases.get(name)
        if node is None or (name_of(node) is None and self._known(name)):
            return None
        return node

    def _known(self, name: str) -> bool:
        return self._catalogue.tag(name) is not None or self._catalogue.metric(name) is not None

    def _filter(self, node: Expression, follow: bool = True) -> Filter:  # noqa: PLR0911  a table of cases
        if isinstance(node, exp.Paren):
            return self._filter(node.this, follow)
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        name = name_of(node)
        if name is None:
            if self._scalar is not None and isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
                return number_filter("the left side", self._scalar(node))
            raise QueryError(f'"{shown(node.sql())}" cannot be compared; the left side is a tag or a metric.')
        aliased = self._aliased(name) if follow else None
        if aliased is not None:
            return self._filter(aliased, follow=False)
        if tag := resolve(self._catalogue, name):
            return tag.filter
        if sides := self._catalogue.sides(name):
            tags = [tag for side in sides if (tag := resolve(self._catalogue, side.name))]
            return lambda operator, value: exp.Paren(this=any_of([tag.filter(operator, value) for tag in tags]))
        metric = self._catalogue.metric(name)
        if metric is None or self._metrics is None:
            raise self._catalogue.missing(name)
        return number_filter(name, self._metrics.row_value(metric))

    def _function(self, node: exp.Anonymous) -> Filter:
        function = str(node.this).lower()
        if function in {"enum", "fastfilter"} and len(node.expressions) == 1:
            name = name_of(node.expressions[0]) or ""
            tag = resolve(self._catalogue, name)
            if tag is None:
                raise self._catalogue.missing(name)
            if function == "fastfilter":
                return tag.filter
            if tag.enum is None:
                raise QueryError(f'Tag "{shown(name)}" is not an enumeration.')
            names = bits_filter if tag.kind == "bit_enum" else enum_filter
            return names(self._catalogue, tag.enum, tag.keys[0])
        if self._scalar is None:
            raise QueryError(f'Function "{shown(str(node.this))}" cannot be used here.')
        value = self._scalar(node)
        if function == "if":
            return lambda operator, wanted: (
                text_filter(call("toString", value)) if isinstance(wanted, str) else number_filter("if", value)
            )(operator, wanted)
        return number_filter(str(node.this), value) if function in _NUMBER_FUNCTIONS else text_filter(value)


def time_range(where: Expression | None, now: int) -> TimeRange | None:
    """The range that conditions on `time`, joined by AND, allow; an open end is `now`; None without a beginning."""
    first, last = -1, -1
    for node in _conjuncts(where):
        if isinstance(node, exp.Between) and name_of(node.this) == "time":
            bounds = [(">=", node.args["low"]), ("<=", node.args["high"])]
        else:
            operator = OPERATORS.get(type(node), "")
            if operator not in _FLIPPED or operator == "!=":
                continue
            left, right = node.this, node.expression
            if name_of(right) == "time":
                operator, left, right = _FLIPPED[operator], right, left
            if name_of(left) != "time":
                continue
            bounds = [(operator, right)]
        for operator, bound in bounds:
            if not is_constant(bound):
                continue
            seconds = unix_seconds(constant(bound))
            if operator in {">=", ">", "="}:
                first = max(first, math.ceil(seconds) if operator != ">" else math.floor(seconds) + 1)
            if operator in {"<=", "<", "="}:
                end = math.floor(seconds) if operator != "<" else math.ceil(seconds) - 1
                last = end if last < 0 else min(last, end)
    if first < 0:
        return None
    return TimeRange(first, last if last >= 0 else max(now, first))


def _conjuncts(node: Expression | None) -> list[Expression]:
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        return _conjuncts(node.this)
    if isinstance(node, exp.And):
        return [*_conjuncts(node.this), *_conjuncts(node.expression)]
    return [node]

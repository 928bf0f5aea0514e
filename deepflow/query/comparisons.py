"""Conditions that compare an expression over stored columns with what a query wrote."""

import re
from collections.abc import Callable

from sqlglot import exp

from deepflow.query.constants import Constant, unix_seconds
from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import Expression, call, compare, number, text

Filter = Callable[[str, Constant], Expression]
"""Operator `=`, `<`, `<=`, `>`, `>=`, `like` or `regexp`, and a value → condition over stored columns."""


def is_text(clickhouse_type: str) -> bool:
    """Whether a column of this type holds text."""
    return clickhouse_type.replace("Nullable(", "").replace("LowCardinality(", "").startswith("String")


def wildcard(pattern: str) -> str:
    """A LIKE pattern: `*` is any text, as `%` is."""
    return pattern.replace("*", "%")


def text_filter(value: Expression) -> Filter:
    """Filter over a string expression; LIKE ignores case as in DeepFlow."""

    def condition(operator: str, wanted: Constant) -> Expression:
        literal = text(str(wanted) if wanted is not None else "")
        if operator == "like":
            return exp.ILike(this=value.copy(), expression=text(wildcard(str(wanted))))
        if operator == "regexp":
            return call("match", value, text(_pattern(str(wanted))))
        return compare(operator, value, literal)

    return condition


_UNSUPPORTED_IN_RE2 = re.compile(r"\(\?(=|!|<=|<!|P=)|\\[1-9]")


def _pattern(pattern: str) -> str:
    if "\0" in pattern or _UNSUPPORTED_IN_RE2.search(pattern):
        raise QueryError(
            f'The pattern "{shown(pattern)}" is not a regular expression of RE2 (no look-around, no back reference).'
        )
    return pattern


def number_filter(name: str, value: Expression) -> Filter:
    """Filter over a number; a quoted number is accepted."""

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            return text_filter(call("toString", value))(operator, wanted)
        return compare(operator, value, number(as_number(name, wanted)))

    return condition


def as_number(name: str, wanted: Constant) -> int | float:
    """The value as a number.

    Raises:
        QueryError: it is not one.
    """
    if isinstance(wanted, str):
        try:
            return int(wanted) if len(wanted) <= 30 else float("nan") // 0
        except (ValueError, ZeroDivisionError):
            raise QueryError(f'"{name}" is a number, "{shown(wanted)}" is not.') from None
    if wanted is None:
        raise QueryError(f'"{name}" cannot be compared with NULL; use exist({name}).')
    return wanted


def time_filter(stored: Expression) -> Filter:
    """Filter over a DateTime."""

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            raise QueryError("time is compared with =, <, <=, > and >=.")
        return compare(operator, stored, number(unix_seconds(wanted)))

    return condition


def micros_filter(name: str, stored: Expression) -> Filter:
    """Filter over a DateTime64(6), by microseconds."""

    def condition(operator: str, wanted: Constant) -> Expression:
        if operator in {"like", "regexp"}:
            raise QueryError(f"{name} is compared with =, <, <=, > and >=.")
        value = int(as_number(name, wanted))
        if not 0 <= value < 2**53:
            raise QueryError(f"{name} is a time in microseconds since 1970.")
        return compare(operator, stored, call("fromUnixTimestamp64Micro", call("toInt64", number(value)), text("UTC")))

    return condition

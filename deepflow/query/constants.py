"""Values written in a query: numbers, strings, arithmetic of numbers, now()."""

import math
import time
from datetime import UTC, datetime

from sqlglot import exp

from deepflow.query.errors import QueryError, shown
from deepflow.query.expressions import Expression

Constant = int | float | str | None
_MAX_DIGITS = 30
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")


def is_constant(node: Expression) -> bool:
    """Whether the expression names no column and calls nothing but now()."""
    for part in node.walk():
        if isinstance(part, exp.Column | exp.Star) or (
            isinstance(part, exp.Anonymous) and str(part.this).lower() != "now"
        ):
            return False
    return True


def constant(node: Expression) -> Constant:  # noqa: PLR0911  a table of cases
    """Value of an expression without columns.

    Raises:
        QueryError: not a constant, division by zero, or too large.
    """
    match node:
        case exp.Literal() if node.is_string:
            return str(node.this)
        case exp.Literal():
            return _number(str(node.this))
        case exp.Null():
            return None
        case exp.Boolean():
            return int(bool(node.this))
        case exp.Paren():
            return constant(node.this)
        case exp.Neg():
            return -numeric(node.this)
        case exp.Anonymous() if str(node.this).lower() == "now" and not node.expressions:
            return int(time.time())
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div():
            return _calculated(node)
    raise QueryError(f'"{shown(node.sql())}" is not a value; a number or a quoted string is expected.')


def numeric(node: Expression) -> int | float:
    """Like `constant`, for a number."""
    value = constant(node)
    if isinstance(value, str) or value is None:
        raise QueryError(f'"{shown(node.sql())}" is not a number.')
    return value


def _number(written: str) -> int | float:
    if len(written) > _MAX_DIGITS:
        raise QueryError(f"A number has more than {_MAX_DIGITS} digits.")
    try:
        value: int | float = int(written) if written.isdigit() else float(written)
    except ValueError:
        raise QueryError(f'"{shown(written)}" is not a number.') from None
    if not math.isfinite(value):
        raise QueryError(f'"{shown(written)}" is too large a number.')
    return value


def _calculated(node: exp.Binary) -> int | float:
    left, right = numeric(node.this), numeric(node.expression)
    if isinstance(node, exp.Div):
        if right == 0:
            raise QueryError("A value in the query divides by zero.")
        return left / right if left % right else left // right
    value = left + right if isinstance(node, exp.Add) else left - right if isinstance(node, exp.Sub) else left * right
    if abs(value) > 1e30:
        raise QueryError("A value in the query is too large a number.")
    return value


def unix_seconds(value: Constant) -> int | float:
    """A time in a query: Unix seconds, or `2026-01-31 12:00:00` in UTC.

    Raises:
        QueryError: neither.
    """
    if isinstance(value, int | float):
        if not 0 <= value <= 4_294_967_295:
            raise QueryError(f"Time {value} is outside of what the store can hold; times are Unix seconds.")
        return value
    written = value or ""
    if written.isdigit() and len(written) <= _MAX_DIGITS:
        return unix_seconds(int(written))
    for form in _TIME_FORMATS:
        try:
            return int(datetime.strptime(written, form).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    raise QueryError(f'"{shown(written)}" is not a time; write Unix seconds or "YYYY-MM-DD HH:MM:SS" in UTC.')

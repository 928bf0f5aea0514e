"""The answer of a query: from Arrow columns to rows of JSON values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from deepflow.query.errors import QueryError

MAX_ROWS = 100_000
"""Rows of an answer, filled intervals included."""


@dataclass(frozen=True)
class Output:
    """One column of an answer."""

    name: str
    asked: str
    """The expression as the query wrote it."""
    role: str
    """`tag` or `metrics`."""
    label_type: str
    unit: str = ""
    is_time: bool = False


@dataclass(frozen=True)
class Result:
    """Columns by name, rows of plain JSON values, and what each column is."""

    columns: list[str]
    values: list[list[Any]]
    schemas: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Filling:
    """Which intervals an answer must have: `first`, `first + interval` … up to `last` (Unix seconds)."""

    interval: int
    fill: str
    """`null` or `0`."""
    first: int | None
    last: int | None
    descending: bool


def answer(rows: pa.Table, outputs: Sequence[Output], filling: Filling | None) -> Result:
    """Turns the result of the store into an answer.

    Raises:
        QueryError: filling would make more than MAX_ROWS rows.
    """
    columns = [python_values(column) for column in rows.columns]
    if filling is not None:
        columns = _filled(columns, outputs, filling)
    schemas = [
        {
            "label_type": output.label_type,
            "pre_as": output.asked,
            "type": 0 if output.role == "tag" else 1,
            "value_type": value_type(column.type),
            "unit": output.unit,
        }
        for output, column in zip(outputs, rows.columns, strict=True)
    ]
    values = [list(row) for row in zip(*columns, strict=True)] if columns else []
    return Result([output.name for output in outputs], values, schemas)


def value_type(arrow: pa.DataType) -> str:
    """`Int`, `Float64`, `Array` or `String`, as DeepFlow names the types of values."""
    if pa.types.is_integer(arrow) or pa.types.is_boolean(arrow):
        return "Int"
    if pa.types.is_floating(arrow) or pa.types.is_decimal(arrow):
        return "Float64"
    return "Array" if pa.types.is_list(arrow) else "String"


def python_values(column: pa.ChunkedArray) -> list[Any]:
    """JSON values of a column; what is no number in JSON (NaN, infinity) becomes null."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [value if value is None or math.isfinite(value) else None for value in values]
    if pa.types.is_binary(column.type) or pa.types.is_fixed_size_binary(column.type):
        return [None if value is None else value.decode(errors="replace") for value in values]
    return values


def _filled(columns: list[list[Any]], outputs: Sequence[Output], filling: Filling) -> list[list[Any]]:
    """Every series gets every interval; rows are ordered by time, then by first appearance of the series."""
    at = next(index for index, output in enumerate(outputs) if output.is_time)
    times = np.asarray(columns[at], dtype=np.int64)
    first = filling.first if filling.first is not None else (int(times.min()) if times.size else 0)
    last = filling.last if filling.last is not None else (int(times.max()) if times.size else -1)
    first -= first % filling.interval
    # Windows reach beyond the range; such rows stay.
    if times.size:
        first, last = min(first, int(times.min())), max(last, int(times.max()))
    steps = max((last - first) // filling.interval + 1, 0)
    tags = [index for index, output in enumerate(outputs) if output.role == "tag" and index != at]
    series: dict[tuple[Any, ...], int] = {}
    identities = zip(*(columns[index] for index in tags), strict=True) if tags else [()] * len(times)
    codes = np.fromiter((series.setdefault(identity, len(series)) for identity in map(_hashable, identities)), np.int64)
    if not tags and not series:
        series[()] = 0
    count = len(series)
    if steps * count > MAX_ROWS:
        raise QueryError(
            f"Filling would make {steps * count} rows, at most {MAX_ROWS} are answered; "
            "take a longer interval or fewer series."
        )
    place = (times - first) // filling.interval * count + codes
    filler = 0 if filling.fill == "0" else None
    grid = first + np.arange(steps) * filling.interval
    filled: list[list[Any]] = []
    for index in range(len(outputs)):
        if index == at:
            cells: list[Any] = np.repeat(grid, count).tolist()
        elif index in tags:
            position = tags.index(index)
            cells = [identity[position] for identity in series] * steps
        else:
            cells = [filler] * (steps * count)
            for target, value in zip(place.tolist(), columns[index], strict=True):
                cells[target] = value
        filled.append(cells)
    if filling.descending:
        order = [step * count + one for step in range(steps - 1, -1, -1) for one in range(count)]
        filled = [[column[index] for index in order] for column in filled]
    return filled


def _hashable(identity: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in identity)

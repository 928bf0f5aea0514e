"""`time(time, interval[, window][, fill])`: grouping by time."""

import math
from dataclasses import dataclass

from sqlglot import exp

from deepflow.query.constants import constant, numeric
from deepflow.query.errors import QueryError
from deepflow.query.expressions import Expression, call, name_of, number, sql_of

_MAX_INTERVAL = 31 * 86_400
_MAX_WINDOW = 1_000
_FILLS = {"none": "", "": "", "null": "null", "0": "0"}


@dataclass(frozen=True)
class TimeGroup:
    """`time(time, interval, window, fill)`; interval in seconds, a multiple of the data precision.

    A row belongs to its own interval and, for a window of w, to the w - 1 following ones.
    """

    interval: int
    window: int
    fill: str

    def bucket(self, seconds: Expression) -> Expression:
        """Start of the interval in Unix seconds."""
        start: Expression = exp.Mul(
            this=call("intDiv", call("toUnixTimestamp", seconds), number(self.interval)),
            expression=number(self.interval),
        )
        if self.window == 1:
            return start
        steps = call("arrayJoin", call("range", number(self.window)))
        return exp.Add(this=start, expression=exp.Mul(this=steps, expression=number(self.interval)))


def time_group(times: list[exp.Anonymous], step: int) -> TimeGroup | None:
    """The grouping that calls of `time()` ask for; `step` is the data precision in seconds.

    Raises:
        QueryError: different calls, or arguments out of range.
    """
    if not times:
        return None
    if len({sql_of(one) for one in times}) > 1:
        raise QueryError("A query can have only one time(time, interval).")
    arguments = times[0].expressions
    if not 2 <= len(arguments) <= 4 or name_of(arguments[0]) != "time":
        raise QueryError("time takes time(time, interval[, window][, fill]), for example time(time, 60, 1, 0).")
    seconds = numeric(arguments[1])
    if not 0 < seconds <= _MAX_INTERVAL:
        raise QueryError(f"The interval of time() must be more than 0 and at most {_MAX_INTERVAL} seconds.")
    window = numeric(arguments[2]) if len(arguments) > 2 else 1
    if window != int(window) or not 1 <= window <= _MAX_WINDOW:
        raise QueryError(f"The window of time() must be a whole number of intervals from 1 to {_MAX_WINDOW}.")
    fill = "none"
    if len(arguments) > 3:
        named = name_of(arguments[3])
        value = named if named is not None else constant(arguments[3])
        fill = "null" if value is None else str(value).lower()
    if fill not in _FILLS:
        raise QueryError("The fill of time() must be none, null or 0.")
    return TimeGroup(max(math.ceil(seconds / step), 1) * step, int(window), _FILLS[fill])

"""Rows of ``l7_flow_log`` that ``*.expected.jsonl`` implies.

A line is one message; what it says of a column stands in `families`. Request and response merge into one row, by the
id that the family pairs by, else in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.replay.families import FAMILIES, Info, Value

Row = dict[str, Any]

#: Columns that may hold nothing at all; the others are empty texts then.
NULLABLE = {"request_id", "response_code", "request_length", "response_length", "sql_affected_rows"}
TYPE_REQUEST, TYPE_RESPONSE, TYPE_SESSION = range(3)


def _read(columns: dict[str, Value], info: Info) -> Row:
    return {name: info.get(how) if isinstance(how, str) else how(info) for name, how in columns.items()}


def _merge(row: Row, said: Row) -> None:
    """What the response says; where both speak of a column, the one that says something."""
    for name, value in said.items():
        if value not in (None, "") or name not in row:
            row[name] = value


def messages(path: Path) -> list[tuple[int, str, Info]]:
    """Line, kind and fields of every message that is to give a row, in the order of the file."""
    family = FAMILIES[path.parent.name]
    found = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        info = entry.get("info")
        if isinstance(info, dict):
            info = info["_value"] if set(info) == {"_variant", "_value"} else info
            kind = family.kind(info)
            if kind:
                found.append((entry["line"], kind, info | {"_time": entry.get("ts")}))
    return found


def rows(path: Path) -> list[Row]:
    """The rows that a file implies, in the order of their first message. `line` is that message's line."""
    family = FAMILIES[path.parent.name]
    made: list[Row] = []
    waiting: list[tuple[Any, Row]] = []
    for line, kind, info in messages(path):
        key = family.key(info) if family.key else None
        if kind == "Response":
            place = next((at for at, (asked, _) in enumerate(waiting) if asked == key), None)
            if place is None:
                made.append({"line": line, "type": TYPE_RESPONSE, **_read(family.response, info)})
                continue
            row = waiting.pop(place)[1]
            _merge(row, _read(family.response, info))
            row["type"] = TYPE_SESSION
            delay = info.get("rrt") or info.get("rtt")
            if delay:
                row["response_duration"] = delay
            continue
        row = {"line": line, "type": TYPE_SESSION if kind == "Session" else TYPE_REQUEST}
        row |= _read(family.request, info)
        made.append(row)
        if kind == "Request":
            waiting.append((key, row))
    return made

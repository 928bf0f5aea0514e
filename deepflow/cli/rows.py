"""Arrow rows as text: times in µs, addresses as people write them."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def print_rows(streams: list[bytes], format: str) -> None:
    """Print Arrow IPC streams of one table, in the order they came."""
    batches: list[pa.RecordBatch] = []
    for stream in streams:
        with pa.ipc.open_stream(stream) as reader:
            batches.extend(reader)
    if format == "table":
        _print_table(batches)
        return
    for batch in batches:
        for row in _readable(batch).to_pylist():
            sys.stdout.write(json.dumps(row, ensure_ascii=False))
            sys.stdout.write("\n")


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = {name: _column(name, batch.column(name)) for name in batch.schema.names}
    return pa.RecordBatch.from_pydict(columns)


def _column(name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    write = next((write for form, write in _WRITTEN if form.search(name)), None)
    if write is None:
        return column
    # Few addresses occur in a capture: each is written once.
    encoded = pc.dictionary_encode(column)
    texts = pa.array([write(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


def _ip(value: int | bytes) -> str:
    return str(ipaddress.ip_address(value))


def _mac(value: int) -> str:
    return value.to_bytes(6).hex(":")


#: Columns of addresses by their names, and how one is written.
_WRITTEN: tuple[tuple[re.Pattern[str], Callable[[Any], str]], ...] = (
    (re.compile(r"(^|_)ip[46](_[01])?$"), _ip),
    (re.compile(r"^mac_[01]$"), _mac),
)


def _print_table(batches: list[pa.RecordBatch]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = ("start_time", "biz_protocol", "client_port", "server_port", "request_type", "request_resource",
             "response_status", "response_code", "response_duration")  # fmt: skip
    sheet = Table(*shown, box=None, pad_edge=False)
    for batch in batches:
        names = [name for name in shown if name in batch.schema.names] or batch.schema.names[:12]
        rows: list[dict[str, Any]] = _readable(batch.select(names)).to_pylist()
        if tuple(names) != shown:
            sheet = Table(*names, box=None, pad_edge=False)
        for row in rows:
            sheet.add_row(*(str(value) for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=10_000)).print(sheet)

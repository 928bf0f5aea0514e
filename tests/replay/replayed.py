"""The rows of `deepflow replay FILE --table TABLE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepflow import _core
from deepflow.agent.settings import AgentSettings


def replayed(path: Path, settings: dict[str, Any] | None = None, table: str = "l7_flow_log") -> list[dict[str, Any]]:
    """Rows in the order of their first message; times in µs since the epoch."""
    config = json.loads(AgentSettings().capture_config()) | (settings or {})
    rows: list[dict[str, Any]] = []
    for name, _, stream in _core.replay(str(path), json.dumps(config)):
        if name == table:
            for batch in pa.ipc.open_stream(stream):
                names = batch.schema.names
                columns = [
                    column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
                    if pa.types.is_timestamp(column.type)
                    else column
                    for column in batch.columns
                ]
                rows.extend(pa.RecordBatch.from_arrays(columns, names=names).to_pylist())
    number = "syscall_cap_seq_{}"
    return sorted(rows, key=lambda row: (row["start_time"], row.get(number.format(0)) or row.get(number.format(1))))

"""A capture file through the core, and what must hold of every row whatever the file says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepflow import _core
from deepflow.agent.settings import AgentSettings


@dataclass
class Replay:
    """Rows by table (times in µs since the epoch), and what was counted."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def l7(self) -> list[dict[str, Any]]:
        """Request logs."""
        return self.tables.get("l7_flow_log", [])

    @property
    def l4(self) -> list[dict[str, Any]]:
        """Flow logs."""
        return self.tables.get("l4_flow_log", [])

    def assert_possible(self, frames: int) -> None:
        """What no input may break: times in order, packets and bytes that were there, delays within their caps."""
        for row in self.l7:
            assert row["start_time"] <= row["end_time"], row
            assert 0 <= row["response_duration"] <= 24 * 3_600_000_000, row
        for row in self.l4:
            assert row["start_time"] <= row["end_time"], row
            assert row["duration"] <= 24 * 3_600_000_000, row
            for side in ("tx", "rx"):
                packets, total = row[f"packet_{side}"], row[f"total_packet_{side}"]
                assert packets <= total <= frames, (side, row)
                layers = [row[f"{layer}byte_{side}"] for layer in ("", "l3_", "l4_")]
                assert layers == sorted(layers, reverse=True), (side, layers, row)
                assert row[f"retrans_{side}"] <= packets and row[f"zero_win_{side}"] <= packets, (side, row)
            # Caps of the definitions: rtt 30 s, srt 10 s.
            assert max(row["rtt"], row["rtt_client"], row["rtt_server"]) <= 30_000_000, row
            assert row["srt_max"] <= 10_000_000, row
        counted = self.counters
        assert counted["frames"] == frames, counted
        unread = sum(counted[name] for name in ("packets_malformed", "packets_foreign", "fragments_tunnelled"))
        in_rows = sum(row["packet_tx"] + row["packet_rx"] for row in self.l4)
        assert in_rows == frames - unread, (in_rows, counted)


def replay(path: Path, settings: dict[str, Any] | None = None) -> Replay:
    """Run a file; raises what the core raises."""
    config = json.loads(AgentSettings().capture_config()) | (settings or {})
    batches, counters = _core.replay_counted(str(path), json.dumps(config))
    seen = Replay(counters=counters)
    for table, _, stream in batches:
        for batch in pa.ipc.open_stream(stream):
            columns = [
                column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
                if pa.types.is_timestamp(column.type)
                else column
                for column in batch.columns
            ]
            rows = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
            seen.tables.setdefault(table, []).extend(rows)
    return seen

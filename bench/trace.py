"""Search and assembly of one trace in a store of many: trace_by_id on random rows of random traces.

    python bench/trace.py [--rows N] [--traces N]

Rows go into a real chDB the way the server stores them: Arrow batches into l7_flow_log, trace_key filled by its view.
Each trace is 3 to 5 nested calls between services on three hosts, seen at both ends (6 to 10 spans), at 2000 rows a
second. Prints one JSON object as its last line; fails when a trace is not complete or a lookup does not use the primary
key.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from deepflow.schema import Schema, Table, load
from deepflow.store import Store, open_store, prepare
from deepflow.trace import trace_by_id

ROWS_PER_S = 2000
BATCH_TRACES = 25_000
MOST_CALLS = 5
SERVICES = 12
LOG = "flow_log.l7_flow_log"

Numbers = NDArray[np.int64]


class Counting:
    """A store that counts its queries and remembers the last lookup in trace_key."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queries = 0
        self.lookup: tuple[str, dict[str, Any]] = ("", {})

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """As the store's own."""
        self.queries += 1
        if "flow_log.trace_key" in sql:
            self.lookup = sql, dict(parameters or {})
        return self._store.query(sql, parameters, settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def calls(rng: np.random.Generator, traces: int, begin_us: int) -> Iterator[dict[str, Numbers]]:
    """Columns of the calls at one place of the traces (first call, second, …), client and server row alike."""
    count = rng.integers(3, MOST_CALLS + 1, traces)
    arrival = begin_us + np.sort(rng.integers(0, traces * 8 * 1_000_000 // ROWS_PER_S, traces))
    spans = np.zeros((MOST_CALLS, traces, 2), np.int64)
    contexts = rng.integers(1, 1 << 62, (MOST_CALLS, traces))
    service = rng.integers(1, SERVICES, (MOST_CALLS, traces))
    every = np.arange(traces)
    for at in range(MOST_CALLS):
        if at == 0:
            caller, context = np.zeros(traces, np.int64), np.zeros(traces, np.int64)
            start, length = arrival, rng.integers(20_000, 60_000, traces)
        else:
            parent = rng.integers(0, at, traces)
            caller, context = service[parent, every], contexts[parent, every]
            outer = spans[parent, every]
            whole = outer[:, 1] - outer[:, 0]
            start = outer[:, 0] + (whole * rng.uniform(0.1, 0.4, traces)).astype(np.int64)
            length = (whole * rng.uniform(0.3, 0.5, traces)).astype(np.int64)
        # What the server spends lies inside what the client waits.
        spans[at, :, 0], spans[at, :, 1] = start + 20, start + length - 20
        numbers = rng.integers(1, 1 << 32, (2, traces))
        yield {
            **{"number": every, "spans": 2 * count, "start": start, "end": start + length, "caller": caller},
            **{"callee": service[at], "client_context": context, "server_context": contexts[at]},
            **{"req_tcp_seq": numbers[0], "resp_tcp_seq": numbers[1], "flow_id": rng.integers(1, 1 << 62, traces)},
            **{"client_port": rng.integers(32768, 61000, traces), "chosen": count > at},
        }


def batch(table: Table, rng: np.random.Generator, traces: int, begin_us: int, first: int) -> tuple[pa.Table, Numbers]:
    """Rows of so many traces in stored form, by end; and for each row how many spans its trace has."""
    ends: list[dict[str, Numbers]] = []
    for whole in calls(rng, traces, begin_us):
        chosen = whole.pop("chosen").astype(bool)
        call = {name: values[chosen] for name, values in whole.items()}
        for server in (0, 1):
            slack = 20 * server
            own = call["callee" if server else "caller"]
            ends.append(
                call
                | {"server": np.full(len(own), server), "agent_id": 1 + own % 3}
                | {"start": call["start"] + slack, "end": call["end"] - slack, "flow_id": call["flow_id"] + server}
                | {"context": call["server_context" if server else "client_context"]}
            )
    rows = {name: np.concatenate([end[name] for end in ends]) for name in ends[0]}
    order = np.argsort(rows["end"], kind="stable")
    rows = {name: values[order] for name, values in rows.items()}
    total = len(order)
    second = rows["end"] // 1_000_000
    counter = (first + np.arange(total)) % (1 << 22)
    paths = pc.binary_join_element_wise(
        pa.scalar("/item/"), pa.array(rows["number"]).cast("string"), pa.scalar("?user=some&lang=en"), ""
    )
    given: dict[str, Any] = {
        **{"time": second, "_id": second << 32 | rows["agent_id"] << 22 | counter, "start_time": rows["start"]},
        **{"end_time": rows["end"], "response_duration": rows["end"] - rows["start"], "flow_id": rows["flow_id"]},
        **{"type": np.full(total, 2), "protocol": np.full(total, 6), "l7_protocol": np.full(total, 20)},
        **{"is_ipv4": np.ones(total), "ip4_0": 0x0A000000 + rows["caller"], "ip4_1": 0x0A000000 + rows["callee"]},
        **{"client_port": rows["client_port"], "server_port": 8000 + rows["callee"]},
        **{name: rows[name] for name in ("req_tcp_seq", "resp_tcp_seq", "agent_id")},
        **{f"syscall_trace_id_{half}": rows["context"] for half in ("request", "response")},
        **{"process_id_0": 1000 + rows["caller"], "process_id_1": 1000 + rows["callee"]},
        **{"signal_source": np.full(total, 3), "observation_point": np.array(["c-p", "s-p"])[rows["server"]]},
        **{"request_type": ["GET"] * total, "request_domain": ["shop.example"] * total, "version": ["1.1"] * total},
        **{"request_resource": paths, "endpoint": ["/item/"] * total, "response_code": np.full(total, 200)},
        **{"process_kname_0": ["client"] * total, "process_kname_1": ["server"] * total},
    }
    return pa.table(
        {field.name: _column(field, given.get(field.name), total) for field in table.stored_schema()}
    ), rows["spans"]


def _column(field: pa.Field, values: Any, total: int) -> pa.Array:
    kind = field.type
    if values is None:
        # What a process seen by eBPF leaves empty costs little, but it is there.
        if field.nullable:
            return pa.nulls(total, kind)
        empty: Any = "" if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else 0
        if pa.types.is_list(kind):
            empty = []
        elif pa.types.is_fixed_size_binary(kind):
            empty = bytes(kind.byte_width)
        return pa.array([empty] * total, kind)
    if isinstance(values, pa.Array | list):
        return pa.array(values, kind) if isinstance(values, list) else values.cast(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values.tolist() if values.dtype.kind == "U" else values.astype(kind.to_pandas_dtype()), kind)


def fill(store: Store, schema: Schema, wanted: int, traces: int) -> tuple[list[tuple[int, int]], int]:
    """Stores at least `wanted` rows that ended a little while ago; random rows as (id, spans of its trace)."""
    rng = np.random.default_rng(20_416)
    table = schema.tables[LOG]
    begin_us = int(time.time() - 300 - 1.05 * wanted / ROWS_PER_S) * 1_000_000
    samples: list[tuple[int, int]] = []
    stored = 0
    while stored < wanted:
        some = min(BATCH_TRACES, (wanted - stored) // 8 + 1)
        rows, spans = batch(table, rng, some, begin_us, stored)
        store.insert(LOG, rows)
        ids = rows.column("_id").to_numpy()
        samples += [(int(ids[at]), int(spans[at])) for at in rng.integers(0, len(ids), traces)]
        stored += rows.num_rows
        begin_us += some * 8 * 1_000_000 // ROWS_PER_S
        if stored // 1_000_000 > (stored - rows.num_rows) // 1_000_000:
            print(f"{stored:,} rows stored", file=sys.stderr, flush=True)
    chosen = rng.permutation(len(samples))[:traces]
    return [samples[at] for at in chosen], stored


def settle(store: Store, seconds: int = 180) -> int:
    """Waits for merges to end; how many parts trace_key has then."""
    for _ in range(seconds):
        if store.query("SELECT count() AS n FROM system.merges").column("n")[0].as_py() == 0:
            break
        time.sleep(1)
    parts = "SELECT count() AS n FROM system.parts WHERE active AND database = 'flow_log' AND table = 'trace_key'"
    return int(store.query(parts).column("n")[0].as_py())


def index_use(store: Store, lookup: tuple[str, dict[str, Any]]) -> dict[str, int]:
    """Granules that the primary key of trace_key leaves of all, by EXPLAIN.

    Raises:
        RuntimeError: the lookup does not use the primary key.
    """
    sql, parameters = lookup
    plan = store.query(f"EXPLAIN indexes = 1 {sql}", parameters).column(0).to_pylist()
    text = "\n".join(line.decode() if isinstance(line, bytes) else line for line in plan)
    found = re.search(r"PrimaryKey\s+Keys:\s+key\b.*?Granules: (\d+)/(\d+)", text, re.DOTALL)
    total = re.findall(r"Granules: \d+/(\d+)", text)
    if found is None or "Condition: true" in text:
        raise RuntimeError(f"the lookup in trace_key does not use the primary key:\n{text}")
    return {"granules_read": int(found[1]), "granules_total": max(map(int, total))}


def main() -> int:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--traces", type=int, default=50, help="traces that are searched")
    wanted = parser.parse_args()
    schema = load()
    with tempfile.TemporaryDirectory(prefix="deepflow-bench-") as directory:
        store = open_store(f"chdb://{directory}/db")
        prepare(store, schema)
        begin = time.perf_counter()
        samples, stored = fill(store, schema, wanted.rows, wanted.traces)
        fill_s = time.perf_counter() - begin
        parts = settle(store)
        counting = Counting(store)
        for row_id, _ in samples[:3]:
            trace_by_id(counting, row_id)
        took: list[float] = []
        rounds: list[int] = []
        for row_id, spans in samples:
            counting.queries = 0
            begin = time.perf_counter()
            trace = trace_by_id(counting, row_id)
            took.append((time.perf_counter() - begin) * 1000)
            # One query finds the row, one reads all columns; the others are rounds.
            rounds.append(counting.queries - 2)
            if len(trace.spans) != spans or trace.truncated:
                print(f"The trace of {row_id} has {len(trace.spans)} spans instead of {spans}.", file=sys.stderr)
                return 1
        use = index_use(store, counting.lookup)
        store.close()
    result = {
        **{"rows": stored, "traces": len(took), "fill_rows_per_s": round(stored / fill_s), "trace_key_parts": parts},
        **{"p50_ms": round(float(np.percentile(took, 50)), 2), "p99_ms": round(float(np.percentile(took, 99)), 2)},
        **{"rounds_p50": int(np.percentile(rounds, 50)), "rounds_max": max(rounds), "primary_key": use},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

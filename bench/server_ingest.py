"""Rows a second through Ingest into chDB, against the bare insert of the same Arrow batch; interleaved rounds, medians.

python bench/server_ingest.py [--rows 50000] [--rounds 20]
"""

import argparse
import json
import os
import platform
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from deepflow.ingest import Ingest  # noqa: E402
from deepflow.ingest.tagging import Tags  # noqa: E402
from deepflow.resources import AgentIdentity, Process, Resources  # noqa: E402
from deepflow.schema import load  # noqa: E402
from deepflow.store import open_store, prepare  # noqa: E402
from tests.ingest.batches import ipc, wire_rows  # noqa: E402


def sample(rows: int, now_s: int) -> pa.Table:
    """HTTP sessions between twenty processes, with the identifiers that real ones carry."""
    random = np.random.default_rng(7)
    start = now_s * 1_000_000 - random.integers(0, 1_000_000, rows)
    paths = random.integers(0, 500, rows)
    columns = {
        "time": np.full(rows, now_s),
        "_id": (now_s << 32) + np.arange(rows),
        "flow_id": random.integers(1, 2**62, rows),
        "start_time": start,
        "end_time": start + 900,
        "process_id_0": random.integers(100, 120, rows),
        "process_id_1": random.integers(100, 120, rows),
        "protocol": np.full(rows, 6),
        "client_port": random.integers(30_000, 60_000, rows),
        "server_port": np.full(rows, 80),
        "req_tcp_seq": random.integers(1, 2**32, rows),
        "resp_tcp_seq": random.integers(1, 2**32, rows),
        "syscall_trace_id_request": random.integers(1, 2**62, rows),
        "request_type": ["GET"] * rows,
        "request_resource": [f"/item/{path}?q={path * 7}" for path in paths.tolist()],
        "endpoint": ["/item/*"] * rows,
        "observation_point": ["s-p"] * rows,
        "response_duration": random.integers(100, 90_000, rows),
    }
    return wire_rows(load().tables["flow_log.l7_flow_log"], rows, **columns)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=50_000)
    options.add_argument("--rounds", type=int, default=20)
    asked = options.parse_args()
    schema = load()
    table = schema.tables["flow_log.l7_flow_log"]
    now_s = int(time.time())
    rows = sample(asked.rows, now_s)
    body = ipc(rows)
    seconds: dict[str, list[float]] = {"ingest": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"chdb://{folder}/store")
        prepare(store, schema)
        resources = Resources(f"sqlite:///{folder}/metadata.sqlite", store)
        agent = resources.register_agent(AgentIdentity("bench", "bench", "", "", "", ""))
        known = [Process(pid, 1, None, f"p{pid}", f"p{pid}", "", "", "", 1) for pid in range(100, 120)]
        resources.upsert_processes(agent, known)
        ingest = Ingest(store, resources, schema, 3600, 3600)
        stored = Tags(table, rows, resources.tagger(), agent).stored(1)
        ways: dict[str, Callable[[], object]] = {
            "ingest": lambda: ingest.submit("l7_flow_log", agent, secrets.randbits(64), 1, body),
            "bare": lambda: store.insert("flow_log.l7_flow_log", stored),
        }
        for number in range(asked.rounds + 1):
            # Turn and turn about: the store still merges what the one before has inserted.
            for name in sorted(ways, reverse=number % 2 > 0):
                begin = time.perf_counter()
                ways[name]()
                # The first round pays for what is loaded once.
                if number:
                    seconds[name].append(time.perf_counter() - begin)
        ingest.close()
        resources.close()
        store.close()
    rate = {name: asked.rows / statistics.median(times) for name, times in seconds.items()}
    result = {
        "bench": "server_ingest",
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]},
        "rows_a_batch": asked.rows,
        "rounds": asked.rounds,
        "body_bytes": len(body),
        "ingest_rows_s": round(rate["ingest"]),
        "bare_insert_rows_s": round(rate["bare"]),
        "ingest_to_bare": round(rate["ingest"] / rate["bare"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

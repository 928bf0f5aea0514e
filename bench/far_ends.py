"""Ingest with and without the naming of far ends, over rows between two hosts; interleaved rounds, medians.

Two shapes: 5,000 connections that go on, and the worst, a new connection with new sequence numbers each row.

python bench/far_ends.py [--rows 50000] [--rounds 9]
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
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.server_ingest import sample  # noqa: E402
from deepflow.ingest import Ingest  # noqa: E402
from deepflow.ingest.far_ends import FarEnds  # noqa: E402
from deepflow.ingest.tagging import Tags  # noqa: E402
from deepflow.resources import AgentIdentity, Process, Resources  # noqa: E402
from deepflow.resources.claims import Tally  # noqa: E402
from deepflow.schema import load  # noqa: E402
from deepflow.store import open_store, prepare  # noqa: E402
from tests.ingest.batches import ipc  # noqa: E402


def between_hosts(rows: int, now_s: int, batch: int, fresh: bool) -> pa.Table:
    """Sessions whose server is on another host."""
    connection = np.arange(rows) + batch * rows if fresh else np.arange(rows) % 5000
    given = {
        "process_id_0": 100 + connection % 20,
        "process_id_1": np.zeros(rows, int),
        "ip4_0": (10 << 24) + (connection >> 14),
        "ip4_1": np.full(rows, 11 << 24),
        "is_ipv4": np.ones(rows, int),
        "client_port": 20_000 + (connection & 0x3FFF),
        "req_tcp_seq": np.arange(rows) + 1 + batch * rows,
        "observation_point": ["c-p"] * rows,
    }
    sessions = sample(rows, now_s)
    for name, values in given.items():
        place = sessions.schema.get_field_index(name)
        field = sessions.schema.field(place)
        sessions = sessions.set_column(place, field, pa.array(values).cast(field.type))
    return sessions


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=50_000)
    options.add_argument("--rounds", type=int, default=9)
    asked = options.parse_args()
    schema = load()
    table = schema.tables["flow_log.l7_flow_log"]
    now_s = int(time.time())
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]}
    result: dict[str, object] = {"bench": "far_ends", "machine": machine, "rows_a_batch": asked.rows}
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"chdb://{folder}/store")
        prepare(store, schema)
        resources = Resources(f"sqlite:///{folder}/metadata.sqlite", store)
        agent = resources.register_agent(AgentIdentity("bench", "bench", "", "", "", ""))
        known = [Process(pid, 1, None, f"p{pid}", f"p{pid}", "", "", "", 1) for pid in range(100, 120)]
        resources.upsert_processes(agent, known)
        ingest = {named: Ingest(store, resources, schema, 3600, 3600, named) for named in (False, True)}
        for shape in ("connections_go_on", "new_connection_each_row"):
            wall: dict[bool, list[float]] = {False: [], True: []}
            work: dict[bool, list[float]] = {False: [], True: []}
            tagging: dict[bool, list[float]] = {False: [], True: []}
            far_ends = FarEnds()
            for number in range(asked.rounds + 1):
                sessions = between_hosts(asked.rows, now_s, number, shape != "connections_go_on")
                body = ipc(sessions)
                for named in (True, False) if number % 2 else (False, True):
                    begin, work_begin = time.perf_counter(), time.process_time()
                    ingest[named].submit("l7_flow_log", agent, secrets.randbits(64), 1, body)
                    end, work_end = time.perf_counter(), time.process_time()
                    alone = time.thread_time()
                    tags = Tags(table, sessions, resources.tagger(), agent)
                    if named:
                        tags.ask(far_ends, Tally())
                    tags.stored(1)
                    # The first round pays for what is loaded once.
                    if number:
                        tagging[named].append(time.thread_time() - alone)
                        wall[named].append(end - begin)
                        work[named].append(work_end - work_begin)
            seconds = {
                name: {named: statistics.median(rounds) for named, rounds in values.items()}
                for name, values in (("wall", wall), ("cpu", work), ("tagging", tagging))
            }
            naming = seconds["tagging"][True] - seconds["tagging"][False]
            result[shape] = {
                "rows_s_without": round(asked.rows / seconds["wall"][False]),
                "rows_s_with": round(asked.rows / seconds["wall"][True]),
                "cpu_with_to_without": round(seconds["cpu"][True] / seconds["cpu"][False], 3),
                "naming_ns_a_row": round(naming / asked.rows * 1e9),
                "naming_to_cpu_of_ingest": round(naming / seconds["cpu"][False], 4),
                "naming_to_wall_of_ingest": round(naming / seconds["wall"][False], 4),
            }
        for one in ingest.values():
            one.close()
        resources.close()
        store.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()

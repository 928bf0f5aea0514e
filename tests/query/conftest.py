"""A real chDB with synthetic rows; the same rows in numpy, so that every answer can be computed a second way."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepflow.query import Result, execute
from deepflow.schema import Schema, load
from deepflow.store import Store, open_store, prepare
from deepflow.store.dictionaries import DEVICE, GPROCESS, HOST, VTAP, Dictionary, reload

START = 1_800_000_000
SECONDS = 600
SERVICES = {1: "shop-api", 2: "shop-web", 3: "redis's \\ db"}


@dataclass
class Rows:
    """Columns of what was stored, by name."""

    log: dict[str, np.ndarray]
    meters: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def schema() -> Schema:
    return load()


def _defaults(field: pa.Field, count: int) -> pa.Array:
    if pa.types.is_list(field.type):
        return pa.array([[]] * count, field.type)
    if pa.types.is_string(field.type):
        return pa.array([""] * count, field.type)
    if pa.types.is_fixed_size_binary(field.type):
        return pa.array([b"\0" * 16] * count, field.type)
    if field.nullable:
        return pa.nulls(count, field.type)
    return pa.array(np.zeros(count, dtype=np.int64)).cast(field.type)


def _table(shape: pa.Schema, given: dict[str, Any], count: int) -> pa.Table:
    columns = [
        pa.array(given[field.name], field.type) if field.name in given else _defaults(field, count) for field in shape
    ]
    return pa.Table.from_arrays(columns, schema=shape)


def _fill(store: Store, dictionary: Dictionary, rows: list[dict[str, Any]]) -> None:
    filled = [
        {**{field.name: "" if field.type == pa.utf8() else 0 for field in dictionary.arrow_schema()}, **row}
        for row in rows
    ]
    store.insert(dictionary.rows_table, pa.Table.from_pylist(filled, schema=dictionary.arrow_schema()))
    reload(store, dictionary)


def _log(random: np.random.Generator, count: int = 4000) -> dict[str, np.ndarray]:
    times = START + random.integers(0, SECONDS, count)
    kind = random.choice([0, 1, 2], count, p=[0.1, 0.05, 0.85])
    service = random.choice([0, 1, 2, 3], count)
    return {
        "time": times,
        "_id": np.arange(1, count + 1, dtype=np.uint64) + (np.uint64(START) << np.uint64(32)),
        "type": kind,
        "response_status": np.where(kind == 0, 2, random.choice([0, 3, 4], count, p=[0.8, 0.1, 0.1])),
        "response_duration": np.where(kind == 2, random.integers(1, 100_000, count), 0),
        "endpoint": random.choice(["/a", "/b", "/c/*", ""], count),
        "l7_protocol": random.choice([20, 80, 120], count),
        "observation_point": random.choice(["c-p", "s-p"], count),
        "auto_service_id_1": service,
        "auto_service_type_1": np.where(service == 0, 255, 120),
        "auto_service_type_0": np.full(count, 255),
        "ip4_0": int(ipaddress.ip_address("10.0.0.0")) + random.integers(0, 8, count),
        "ip4_1": int(ipaddress.ip_address("10.1.0.0")) + random.integers(0, 3, count),
        "is_ipv4": np.ones(count, dtype=int),
        "agent_id": random.choice([1, 2], count),
        "host_id_1": random.choice([0, 1], count),
        "server_port": random.choice([80, 6379], count),
        "response_code": random.choice([200, 404, 500], count),
        "syscall_trace_id_request": random.integers(0, 50, count),
        "syscall_trace_id_response": random.integers(0, 50, count),
        "request_length": random.integers(0, 1000, count),
    }


def _meters(random: np.random.Generator, count: int = 3000) -> dict[str, np.ndarray]:
    # Some seconds stay empty on purpose: Min must see them as 0, AAvg must not.
    times = START + random.choice(np.arange(0, SECONDS)[np.arange(SECONDS) % 7 != 3], count)
    service = random.choice([1, 2, 3], count)
    request = random.integers(0, 20, count)
    rrt_count = random.integers(0, 5, count)
    return {
        "time": times,
        "auto_service_id": service,
        "auto_service_type": np.full(count, 120),
        "request": request,
        "response": random.integers(0, 20, count),
        "error": random.integers(0, 3, count),
        "rrt_sum": (rrt_count * random.integers(100, 900, count)).astype(float),
        "rrt_count": rrt_count,
        "rrt_max": np.where(rrt_count > 0, random.integers(100, 2000, count), 0),
        "is_ipv4": np.ones(count, dtype=int),
        "direction_score": random.integers(100, 256, count),
        "agent_id": np.ones(count, dtype=int),
    }


@pytest.fixture(scope="package")
def filled(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Rows]]:
    store = open_store(f"chdb://{tmp_path_factory.mktemp('query')}/store")
    prepare(store, schema)
    random = np.random.default_rng(20260)
    rows = Rows(_log(random), _meters(random))
    log = schema.tables["flow_log.l7_flow_log"].stored_schema()
    count = len(rows.log["time"])
    given: dict[str, Any] = dict(rows.log)
    stamps = (rows.log["time"] * 1_000_000 + 5).astype("datetime64[us]")
    given |= {"start_time": stamps, "end_time": stamps}
    given["attribute_names"] = [["cc", "a.b"] if row % 2 else [] for row in range(count)]
    given["attribute_values"] = [["opensource", str(row)] if row % 2 else [] for row in range(count)]
    store.insert("flow_log.l7_flow_log", _table(log, given, count))
    application = schema.tables["flow_metrics.application"].stored_schema()
    store.insert("flow_metrics.application.1s", _table(application, rows.meters, len(rows.meters["time"])))
    system = schema.tables["deepflow_system.deepflow_system"].stored_schema()
    own = {
        "time": [START, START + 1, START + 10],
        "virtual_table_name": ["deepflow_agent_capture"] * 2 + ["deepflow_server_ingest"],
        "tag_names": [["cpu"], ["cpu"], []], "tag_values": [["0"], ["1"], []],
        "metrics_float_names": [["rx", "dropped"], ["rx"], ["rows"]],
        "metrics_float_values": [[10.0, 2.0], [30.0], [7.0]],
    }  # fmt: skip
    store.insert("deepflow_system.deepflow_system", _table(system, own, 3))
    _fill(
        store,
        DEVICE,
        [{"devicetype": 120, "deviceid": key, "name": name, "icon_id": 9} for key, name in SERVICES.items()],
    )
    _fill(store, HOST, [{"id": 1, "name": "node-1"}])
    _fill(store, VTAP, [{"id": 1, "name": "agent-one"}, {"id": 2, "name": "agent-two"}])
    _fill(store, GPROCESS, [{"id": 5, "name": "python:1"}])
    yield store, rows
    store.close()


class Ask:
    """Runs queries against the filled store."""

    def __init__(self, store: Store, schema: Schema) -> None:
        self.store, self.schema = store, schema

    def __call__(self, sql: str, db: str = "flow_log", precision: str | None = None) -> Result:
        return execute(self.store, self.schema, sql, db, precision)

    def one(self, sql: str, db: str = "flow_log") -> Any:
        """The only value of the answer."""
        ((value,),) = self(sql, db).values
        return value


@pytest.fixture
def ask(filled: tuple[Store, Rows], schema: Schema) -> Ask:
    return Ask(filled[0], schema)


@pytest.fixture
def rows(filled: tuple[Store, Rows]) -> Rows:
    return filled[1]

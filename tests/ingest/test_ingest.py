"""From batch to store without HTTP; test_the_same_over_chdb repeats it in process."""

import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deepflow.ingest import BatchError, Busy, Ingest
from deepflow.ingest.journal import Journal, Slice
from deepflow.resources import Geography, Resources
from tests.geography_file import write_geography
from tests.ingest.batches import ipc, wire_rows
from tests.ingest.conftest import IDENTITY, Inside, process
from tests.store.stores import run_over_chdb

LOG, FLOWS, METERS = "flow_log.l7_flow_log", "flow_log.l4_flow_log", "flow_metrics.application"
NOW = int(time.time())


def log_batch(inside: Inside, ids: list[int], **columns: Any) -> bytes:
    count = len(ids)
    given = {"time": [NOW] * count, "start_time": [NOW * 1_000_000] * count, "protocol": [6] * count} | columns
    given |= {"req_tcp_seq": [identity % 2**32 + 1 for identity in ids]}
    return ipc(wire_rows(inside.schema.tables[LOG], count, _id=ids, **given))


def meter_batch(inside: Inside, times: list[int], request: int = 1, **columns: Any) -> bytes:
    count = len(times)
    given = {"request": [request] * count, "rrt_sum": [2.0] * count, "rrt_max": list(range(count))} | columns
    return ipc(wire_rows(inside.schema.tables[METERS], count, time=times, **given))


def one(inside: Inside, sql: str) -> dict[str, Any]:
    row: dict[str, Any] = inside.store.query(sql).to_pylist()[0]
    return row


def test_the_same_over_chdb() -> None:
    run_over_chdb("tests/ingest")


def test_a_repeated_batch_is_stored_once(inside: Inside) -> None:
    batch = secrets.randbits(64)
    data = log_batch(inside, list(range(1000, 1100)))
    for attempt in (1, 1, 2):
        assert inside.ingest.submit("l7_flow_log", inside.agent_id, batch, attempt, data) == 100
    inside.reopen_ingest()
    assert inside.ingest.submit("l7_flow_log", inside.agent_id, batch, 2, data) == 100
    assert one(inside, f"SELECT count() AS n FROM {LOG} WHERE _batch = {batch}") == {"n": 100}
    assert one(inside, f"SELECT count() AS n FROM flow_log.trace_key WHERE _batch = {batch}") == {"n": 100}


def test_only_missing_slices_of_a_repeated_batch_are_stored_and_keys_are_repaired(inside: Inside) -> None:
    batch = secrets.randbits(64)
    times = [NOW] * 10 + [NOW - 7200] * 10
    data = log_batch(inside, list(range(20)), time=times)
    assert inside.ingest.submit("l7_flow_log", inside.agent_id, batch, 1, data) == 20
    # What a crash may leave: one partition not written, keys of that one written, keys of the other in part.
    inside.store.command(
        f"ALTER TABLE {LOG} DELETE WHERE _batch = {batch} AND time < {NOW - 100} SETTINGS mutations_sync = 2"
    )
    inside.store.command(
        f"ALTER TABLE flow_log.trace_key DELETE WHERE _batch = {batch} AND _id < 5 SETTINGS mutations_sync = 2"
    )
    inside.reopen_ingest()
    assert inside.ingest.submit("l7_flow_log", inside.agent_id, batch, 2, data) == 20
    found = one(inside, f"SELECT count() AS n, uniqExact(_id) AS u FROM {LOG} WHERE _batch = {batch}")
    assert found == {"n": 20, "u": 20}
    found = one(inside, f"SELECT count() AS n, uniqExact(_id) AS u FROM flow_log.trace_key WHERE _batch = {batch}")
    assert found == {"n": 20, "u": 20}


def meters(inside: Inside, precision: str) -> dict[str, Any]:
    return one(
        inside,
        "SELECT sum(request) AS request, sum(rrt_sum) AS rrt_sum, max(rrt_max) AS rrt_max "
        f"FROM flow_metrics.`application.{precision}`",
    )


def test_minutes_hold_what_seconds_hold_also_after_late_and_repeated_batches(inside: Inside) -> None:
    minute = NOW // 60 * 60 - 600
    first, late = secrets.randbits(64), secrets.randbits(64)
    data = meter_batch(inside, [minute + i for i in range(60)])
    inside.ingest.submit("application.1s", inside.agent_id, first, 1, data)
    assert inside.ingest.roll_up() == 60
    assert inside.ingest.roll_up() == 0
    inside.reopen_ingest()
    inside.ingest.submit("application.1s", inside.agent_id, first, 2, data)
    inside.ingest.submit("application.1s", inside.agent_id, late, 1, meter_batch(inside, [minute + 5], 7))
    assert inside.ingest.roll_up() == 1
    assert meters(inside, "1m") == meters(inside, "1s") == {"request": 67, "rrt_sum": 122.0, "rrt_max": 59}


@pytest.mark.parametrize("stored", [False, True])
def test_a_roll_up_cut_off_by_a_crash_is_finished_once(inside: Inside, stored: bool) -> None:
    batch = secrets.randbits(64)
    inside.ingest.submit("application.1s", inside.agent_id, batch, 1, meter_batch(inside, [NOW] * 3))
    if stored:
        inside.ingest.roll_up()
        rollup = one(
            inside,
            "SELECT max(_batch) AS b FROM flow_metrics.`application.1m` WHERE time = toStartOfMinute("
            f"toDateTime({NOW}))",
        )["b"]
        journal = Journal(inside.resources.metadata)
        journal.begin("flow_metrics.application.1s", [Slice(batch, NOW // 900, 3)])
        journal.stored("flow_metrics.application.1s", [batch])
        assert journal.take("flow_metrics.application.1s", rollup, 10, 10)
    else:
        assert Journal(inside.resources.metadata).take("flow_metrics.application.1s", secrets.randbits(64), 10, 10)
    inside.reopen_ingest()
    inside.ingest.roll_up()
    assert meters(inside, "1m") == meters(inside, "1s")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows.append_column("nix", pa.nulls(rows.num_rows, pa.int8())), "has no column 'nix'"),
        (lambda rows: rows.drop_columns(["flow_id"]), "lacks the column 'flow_id'"),
        (
            lambda rows: rows.set_column(1, "_id", rows["_id"].cast(pa.utf8())),
            "'_id' of l7_flow_log is string, it must be",
        ),
        (
            lambda rows: rows.set_column(1, "_id", pa.nulls(rows.num_rows, pa.uint64())),
            "'_id' of l7_flow_log must not hold",
        ),
        (lambda rows: rows.set_column(0, "time", pa.array([1] * rows.num_rows, pa.uint32())), "older than seven days"),
    ],
)
def test_a_wrong_batch_is_refused_with_a_sentence(inside: Inside, change: Any, sentence: str) -> None:
    rows = change(wire_rows(inside.schema.tables[LOG], 3, time=[NOW] * 3))
    with pytest.raises(BatchError, match=sentence):
        inside.ingest.submit("l7_flow_log", inside.agent_id, secrets.randbits(64), 1, ipc(rows))


def test_a_cut_or_flipped_batch_never_stores_anything_wrong(inside: Inside) -> None:
    before = one(inside, f"SELECT count() AS n FROM {LOG}")
    data = log_batch(inside, list(range(50)))
    for end in (0, 1, 100, len(data) // 2, len(data) - 20):
        if end == len(data) - 20:
            continue
        with pytest.raises(BatchError, match="not a valid Arrow IPC stream"):
            inside.ingest.submit("l7_flow_log", inside.agent_id, secrets.randbits(64), 1, data[:end])
    with pytest.raises(BatchError, match="not a valid Arrow IPC stream"):
        inside.ingest.submit("l7_flow_log", inside.agent_id, 1, 1, b"\xff" * 4096)
    assert one(inside, f"SELECT count() AS n FROM {LOG}") == before


def test_strings_may_come_dictionary_encoded_and_columns_in_any_order(inside: Inside) -> None:
    rows = wire_rows(inside.schema.tables[LOG], 3, time=[NOW] * 3, request_type=["GET", "GET", "PUT"])
    encoded = rows.set_column(
        rows.column_names.index("request_type"), "request_type", rows["request_type"].dictionary_encode()
    ).select(rows.column_names[::-1])
    batch = secrets.randbits(64)
    assert inside.ingest.submit("l7_flow_log", inside.agent_id, batch, 1, ipc(encoded)) == 3
    found = one(inside, f"SELECT groupArray(request_type) AS types FROM {LOG} WHERE _batch = {batch}")
    assert sorted(found["types"]) == ["GET", "GET", "PUT"]


def test_unknown_tables_and_agents_are_named(inside: Inside) -> None:
    data = log_batch(inside, [1])
    with pytest.raises(BatchError, match="There is no table 'nix'"):
        inside.ingest.submit("nix", inside.agent_id, 1, 1, data)
    with pytest.raises(Busy, match="Agent 900 is unknown"):
        inside.ingest.submit("l7_flow_log", 900, 1, 1, data)


def test_both_sides_are_tagged_and_a_rename_shows_on_old_rows(inside: Inside) -> None:
    start = NOW * 1_000_000 - 5_000_000
    inside.resources.upsert_processes(
        inside.agent_id, [process(41, start, "shop"), process(42, start, "shop"), process(43, start, "db")]
    )
    batch = secrets.randbits(64)
    data = log_batch(inside, [1, 2, 3], process_id_0=[41, 42, 0], process_id_1=[43, 43, 4242])
    inside.ingest.submit("l7_flow_log", inside.agent_id, batch, 1, data)
    inside.resources.upsert_processes(inside.agent_id, [process(41, start, "store")])
    inside.resources.flush_names()
    name = "dictGet('flow_tag.device_map', 'name', (toUInt64(120), toUInt64({})))"
    rows = inside.store.query(
        f"SELECT auto_instance_type_0 AS type_0, auto_instance_type_1 AS type_1, host_id_0 > 0 AS host, "
        f"auto_service_id_0 AS service, {name.format('auto_instance_id_0')} AS instance, "
        f"dictGet('flow_tag.gprocess_map', 'name', toUInt64(gprocess_id_0)) AS process, "
        f"{name.format('auto_service_id_1')} AS server FROM {LOG} WHERE _batch = {batch} ORDER BY _id"
    ).to_pylist()
    assert [row["instance"] for row in rows] == ["store:41", "shop:42", ""]
    assert [row["process"] for row in rows] == ["store", "shop", ""]
    assert [row["server"] for row in rows] == ["db", "db", ""]
    assert [(row["type_0"], row["type_1"], row["host"]) for row in rows] == [
        (120, 120, 1),
        (120, 120, 1),
        (255, 255, 0),
    ]
    assert rows[0]["service"] == rows[1]["service"] != 0, "processes of one host and name are one service"


def test_ids_survive_a_restart_and_are_not_given_twice_when_the_metadata_is_lost(inside: Inside) -> None:
    start = NOW * 1_000_000
    inside.resources.upsert_processes(inside.agent_id, [process(77, start, "kept")])
    inside.resources.flush_names()
    again = Resources(inside.metadata_url, inside.store)
    assert again.list_agents()[0]["agent_id"] == inside.agent_id
    again.close()
    highest = one(inside, "SELECT max(deviceid) AS n FROM flow_tag.device_rows WHERE devicetype = 120")["n"]
    lost = Resources(inside.metadata_url.replace("metadata.sqlite", "new.sqlite"), inside.store)
    agent_id = lost.register_agent(IDENTITY)
    assert agent_id > inside.agent_id
    lost.upsert_processes(agent_id, [process(77, start, "fresh")])
    lost.flush_names()
    fresh = one(inside, "SELECT min(deviceid) AS n FROM flow_tag.device_map WHERE name LIKE 'fresh%'")["n"]
    lost.close()
    assert fresh > highest


@pytest.mark.parametrize("named", [True, False])
def test_the_far_end_is_stored_with_the_name_that_its_own_agent_gave(inside: Inside, named: bool) -> None:
    """Both agents' rows of one call, in the store; the setting switches it off."""
    other = inside.resources.register_agent(replace(IDENTITY, name="host2", machine_id="machine2"))
    inside.resources.upsert_processes(inside.agent_id, [process(51, 1, "front")])
    inside.resources.upsert_processes(other, [process(52, 1, "back")])
    inside.resources.flush_names()
    ingest = Ingest(inside.store, inside.resources, inside.schema, 3600, 3600, named)
    batches = {inside.agent_id: secrets.randbits(64), other: secrets.randbits(64)}
    ends = {"ip4_0": [0x0A000001], "ip4_1": [0x0A000002], "is_ipv4": [1], "client_port": [5], "server_port": [80]}
    for agent, side, pid in ((inside.agent_id, 0, 51), (other, 1, 52)):
        data = log_batch(inside, [agent], **ends, **{f"process_id_{side}": [pid]})
        assert ingest.submit("l7_flow_log", agent, batches[agent], 1, data) == 1
    counted = ingest.counters()["l7_flow_log"]
    ingest.close()
    name = "dictGet('flow_tag.gprocess_map', 'name', toUInt64({}))"
    found = one(
        inside,
        f"SELECT {name.format('gprocess_id_0')} AS client, {name.format('gprocess_id_1')} AS server, "
        "process_id_0 AS pid, dictGet('flow_tag.chost_map', 'name', toUInt64(host_id_0)) AS host "
        f"FROM {LOG} WHERE _batch = {batches[other]}",
    )
    assert found == {"client": "front" if named else "", "server": "back", "pid": 0, "host": "host1" if named else ""}
    assert (counted["ends_found"], counted["ends_learned"] > 0) == ((1, True) if named else (0, False))


@pytest.mark.parametrize("told", [True, False])
def test_flows_have_the_provinces_of_their_public_ends(inside: Inside, tmp_path: Path, told: bool) -> None:
    geography = Geography(write_geography(tmp_path / "places.mmdb")) if told else None
    ingest = Ingest(inside.store, inside.resources, inside.schema, 3600, 3600, geography=geography)
    batch = secrets.randbits(64)
    # England calls a private address, which calls Sweden; Norway calls England, where ip4_0 does not count.
    rows = wire_rows(
        inside.schema.tables[FLOWS],
        3,
        time=[NOW] * 3,
        _id=[1, 2, 3],
        start_time=[NOW * 1_000_000] * 3,
        is_ipv4=[1, 1, 0],
        ip4_0=[0x51024501, 0x0A000001, 0x51024501],
        ip4_1=[0x0A000001, 0x59A01471, 0],
        ip6_0=[bytes(16), bytes(16), bytes.fromhex("2a02cf40") + bytes(12)],
        ip6_1=[bytes(16), bytes(16), bytes.fromhex("2400cb00") + bytes(12)],
    )
    assert ingest.submit("l4_flow_log", inside.agent_id, batch, 1, ipc(rows)) == 3
    ingest.close()
    found = inside.store.query(f"SELECT province_0, province_1 FROM {FLOWS} WHERE _batch = {batch} ORDER BY _id")
    texts = [("England", ""), ("", "Sweden"), ("Norway", "England")] if told else [("", "")] * 3
    assert [tuple(row.values()) for row in found.to_pylist()] == texts


def test_counters_become_rows(inside: Inside) -> None:
    inside.ingest.report()
    inside.reopen_ingest()
    row = one(
        inside,
        "SELECT sum(v) AS stored FROM (SELECT arrayJoin(arrayZip(metrics_float_names, metrics_float_values)) AS c, "
        "c.2 AS v FROM deepflow_system.deepflow_system WHERE virtual_table_name = 'deepflow_server_ingest' "
        "AND agent_id = 0 AND c.1 = 'rows_in')",
    )
    assert row["stored"] > 0

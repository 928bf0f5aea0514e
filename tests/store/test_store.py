"""The store over HTTP; test_the_same_over_chdb repeats all of it in process."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from deepflow.schema import ddl, load
from deepflow.store import Store, StoreError, open_store, prepare
from deepflow.store.prepare import stored_columns
from tests.conftest import ROOT
from tests.ingest.batches import zeros
from tests.store.stores import run_over_chdb

NOW = int(time.time())


def log_rows(count: int, **columns: object) -> pa.Table:
    schema = load().tables["flow_log.l7_flow_log"].stored_schema()
    given = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    return pa.table([given.get(field.name, zeros(field, count)) for field in schema], schema=schema)


def test_the_same_over_chdb() -> None:
    run_over_chdb("tests/store")


def test_stored_tables_have_the_columns_of_the_schema(store: Store) -> None:
    for table in load().tables.values():
        for precision in table.precisions:
            wanted = {column.name: column.type for column in table.stored_columns()}
            assert stored_columns(store, table.database, table.stored_name(precision)) == wanted


def test_stored_tables_have_the_order_partition_and_indexes_of_the_schema(store: Store) -> None:
    for table in load().tables.values():
        for precision, kept in table.precisions.items():
            found = store.query(
                "SELECT sorting_key, partition_key, create_table_query FROM system.tables "
                "WHERE database = {database:String} AND name = {name:String}",
                {"database": table.database, "name": table.stored_name(precision)},
            ).to_pylist()[0]
            assert found["sorting_key"] == ", ".join(table.order_by)
            unit = re.sub(r"INTERVAL (\d+) HOUR", r"toIntervalHour(\1)", kept.partition_by)
            assert found["partition_key"] == unit
            assert f"toIntervalHour({kept.ttl_hours})" in found["create_table_query"]
            for column in table.stored_columns():
                assert (f"INDEX idx_{column.name} " in found["create_table_query"]) == (column.index is not None)


def test_prepare_repeated_changes_nothing_and_adds_a_lost_column(store: Store) -> None:
    schema = load()
    store.command("ALTER TABLE flow_log.l7_flow_log DROP INDEX idx_is_tls")
    store.command("ALTER TABLE flow_log.l7_flow_log DROP COLUMN is_tls")
    prepare(store, schema)
    prepare(store, schema)
    names = [column.name for column in schema.tables["flow_log.l7_flow_log"].stored_columns()]
    assert list(stored_columns(store, "flow_log", "l7_flow_log")) == names


def test_prepare_refuses_a_column_of_another_type(store: Store) -> None:
    store.command("ALTER TABLE flow_log.trace_key MODIFY COLUMN _id Int64")
    with pytest.raises(StoreError, match=r"_id of flow_log.trace_key is Int64"):
        prepare(store, load())
    store.command("ALTER TABLE flow_log.trace_key MODIFY COLUMN _id UInt64")
    prepare(store, load())


def test_rows_come_back_as_they_were_inserted(store: Store) -> None:
    rows = log_rows(
        2,
        time=[NOW, NOW],
        _id=[2**64 - 1, 2**63],
        start_time=[1_700_000_000_123_456, NOW * 1_000_000],
        ip4_0=[0x7F000001, 1],
        ip6_1=[bytes(range(16)), bytes(16)],
        request_resource=["it's \\ ü \n", ""],
        response_code=[None, -1],
        attribute_names=[["a", "b"], []],
        attribute_values=[["1", ""], []],
        _batch=[1, 1],
    )
    store.insert("flow_log.l7_flow_log", rows)
    listed = ", ".join(rows.column_names)
    found = store.query(f"SELECT {listed} FROM flow_log.l7_flow_log WHERE _batch = 1 ORDER BY _id DESC")
    assert found.to_pylist() == rows.to_pylist()


def test_trace_keys_follow_the_rows(store: Store) -> None:
    columns = {
        "protocol": [6, 6, 17],
        "req_tcp_seq": [5, 5, 5],
        "resp_tcp_seq": [9, 0, 9],
        "client_port": [1000, 1000, 1000],
        "syscall_trace_id_request": [77, 0, 0],
        "syscall_trace_id_response": [77, 78, 0],
        "x_request_id_1": ["x", "", ""],
        "trace_id": ["x", "", ""],
    }
    store.insert("flow_log.l7_flow_log", log_rows(3, time=[NOW] * 3, _id=[11, 12, 13], _batch=[2] * 3, **columns))
    counted = store.query(
        "SELECT _id, count() AS keys FROM flow_log.trace_key WHERE _batch = 2 GROUP BY _id ORDER BY _id"
    )
    # Row 11: two sequence numbers, one context twice, an X-Request-ID and an equal trace id of another kind.
    assert counted.to_pylist() == [{"_id": 11, "keys": 5}, {"_id": 12, "keys": 2}]
    shared = store.query("SELECT key FROM flow_log.trace_key WHERE _batch = 2 GROUP BY key HAVING uniqExact(_id) = 2")
    assert shared.num_rows == 1, "both rows name the same request on the wire"
    whole = store.query(
        "SELECT _id, uniqExact(arraySort(arrayPushBack(other_keys, key))) AS sets, "
        "uniqExact(key) AS own, any(length(other_keys)) AS others FROM flow_log.trace_key WHERE _batch = 2 "
        "GROUP BY _id ORDER BY _id"
    )
    wanted = [{"_id": 11, "sets": 1, "own": 5, "others": 4}, {"_id": 12, "sets": 1, "own": 2, "others": 1}]
    assert whole.to_pylist() == wanted, "each row of trace_key names all keys of its session"


def test_keys_of_datagrams_and_of_halves(store: Store) -> None:
    columns = {
        "protocol": [17, 17, 17, 6, 6, 6],
        "client_port": [40000, 40000, 40001, 1, 1, 1],
        "server_port": [53, 53, 53, 2, 2, 2],
        "request_id": [7, 7, 7, None, None, None],
        "type": [2, 2, 2, 0, 1, 2],
        "flow_id": [1, 2, 3, 4, 4, 4],
        "syscall_cap_seq_0": [1, 1, 1, 3, 0, 3],
        "syscall_cap_seq_1": [2, 2, 2, 0, 4, 4],
    }
    rows = log_rows(6, time=[NOW] * 6, _id=list(range(21, 27)), _batch=[9] * 6, **columns)
    store.insert("flow_log.l7_flow_log", rows)
    shared = store.query(
        "SELECT arraySort(groupArray(_id)) AS ids FROM flow_log.trace_key WHERE _batch = 9 GROUP BY key ORDER BY ids"
    )
    # Both ends of one exchange; a request given up and its late response; never a session, which is whole.
    assert shared.column("ids").to_pylist() == [[21, 22], [23], [24, 25]]


def test_enumerations_are_dictionaries(store: Store) -> None:
    names = store.query(
        "SELECT dictGet('flow_tag.int_enum_map', 'name_en', ('response_status', toUInt64(3))) AS status, "
        "dictGet('flow_tag.string_enum_map', 'name_en', ('observation_point', 's-p')) AS point"
    )
    assert names.to_pylist() == [{"status": "Server Error", "point": "Server Process"}]


def test_errors_are_one_sentence_with_a_code(store: Store) -> None:
    with pytest.raises(StoreError, match="Unknown expression identifier `nix`") as caught:
        store.query("SELECT nix FROM flow_log.l7_flow_log")
    assert caught.value.code == 47
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)


def test_an_insert_of_more_than_a_million_rows_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="too large"):
        store.insert("flow_log.l7_flow_log", pa.table({"_id": pa.nulls(1_000_001, pa.uint64())}))


def test_many_threads_share_the_store(store: Store) -> None:
    found: list[int] = []

    def count() -> None:
        found.extend(store.query("SELECT sum(number) AS n FROM numbers(100000)").column("n").to_pylist())

    threads = [threading.Thread(target=count) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4_999_950_000] * 24


@pytest.mark.parametrize("url", ["chdb://relative", "ftp://x", "http://", "http://h:port", "nonsense"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="store address"):
        open_store(url)


def test_a_clickhouse_server_that_is_away_is_named(free_port: int) -> None:
    with pytest.raises(StoreError, match=f"127.0.0.1:{free_port} does not answer"):
        open_store(f"http://127.0.0.1:{free_port}")


def test_a_path_in_use_by_another_process_is_named(tmp_path: Path) -> None:
    hold = (
        "import sys; from deepflow.store import open_store; s = open_store(sys.argv[1]); print('open', flush=True); "
        "sys.stdin.read(); s.close()"
    )
    url = f"chdb://{tmp_path}/store"
    command = [sys.executable, "-c", hold, url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=f"already in use by process {holder.pid}; stop it or choose another"):
            open_store(url)
        holder.stdin.close()
        assert holder.wait() == 0


def test_ddl_names_every_stored_column() -> None:
    for table in load().tables.values():
        for precision in table.precisions:
            text = ddl(table, precision)
            assert all(f"`{column.name}` {column.type}" in text for column in table.stored_columns())


def test_failed_query_leaves_nothing_in_the_next_answer(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(StoreError):
            store.query("SELECT number, throwIf(number = 500000) FROM numbers(1000000) SETTINGS max_block_size = 1000")
        assert store.query("SELECT 1 AS a").to_pylist() == [{"a": 1}]

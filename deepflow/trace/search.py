"""Finds the rows of a trace: rounds of one primary-key lookup each in `flow_log.trace_key`, then all their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deepflow.trace.assemble import assemble, forest
from deepflow.trace.network import Tolerance
from deepflow.trace.row import Row
from deepflow.trace.span import Trace

if TYPE_CHECKING:
    from deepflow.store import Store

#: Seconds before and after the start row in which its trace is searched.
WINDOW_S = 300
MAX_ROUNDS = 30
#: Rows a trace may have.
LIMIT = 1000

_LOG_COLUMNS = (
    *("observation_point", "agent_id", "process_id_0", "process_id_1", "flow_id", "protocol", "l7_protocol", "type"),
    *("client_port", "server_port", "req_tcp_seq", "resp_tcp_seq", "signal_source", "version", "capture_nic"),
    *("syscall_trace_id_request", "syscall_trace_id_response", "syscall_cap_seq_0", "syscall_cap_seq_1"),
    *("x_request_id_0", "x_request_id_1", "trace_id", "span_id", "request_id"),
    *("request_type", "request_domain", "request_resource", "endpoint"),
    *("response_status", "response_code", "response_exception", "process_kname_0", "process_kname_1"),
    *("auto_service_id_0", "auto_service_id_1", "auto_service_type_0", "auto_service_type_1"),
)


class TraceNotFound(LookupError):
    """No row has the wanted id; the message is a sentence for the user."""


def trace_by_id(
    store: Store,
    row_id: int,
    *,
    window_s: int = WINDOW_S,
    max_rounds: int = MAX_ROUNDS,
    limit: int = LIMIT,
    tolerance: Tolerance | None = None,
) -> Trace:
    """The trace that holds the row `row_id` of `flow_log.l7_flow_log`.

    Args:
        window_s: seconds searched before and after the row.
        max_rounds: lookups at most; each finds what is related to the rows found before.
        limit: rows at most. Where a limit cut the search the trace says `truncated`.

    Raises:
        TraceNotFound: no such row.
        StoreError: the store failed.
    """
    second = row_id >> 32
    if not 0 < second < 1 << 32:
        raise TraceNotFound(f"{row_id} is no row id: copy the _id of a request, for example from the request list.")
    # Who only prints a tree must not load the store.
    from deepflow.store.trace_keys import keys_of_row  # noqa: PLC0415

    # The second is the primary key of the log; in trace_key nothing leads to a row but its keys.
    found = store.query(
        f"SELECT {keys_of_row()} AS association_keys FROM flow_log.l7_flow_log "
        "WHERE time = toDateTime({second:UInt32}) AND _id = {id:UInt64} LIMIT 1",
        {"second": second, "id": row_id},
    ).to_pylist()
    if not found:
        raise TraceNotFound(f"There is no request with the id {row_id}: it is mistyped, or older than the log is kept.")
    search = _Search(store, second - window_s, second + window_s, max_rounds, limit)
    search.kept.add(row_id)
    search.follow(found[0]["association_keys"])
    return assemble(search.rows(), row_id, tolerance=tolerance, truncated=search.truncated)


def trace_by_trace_id(
    store: Store,
    trace_id: str,
    start_s: int,
    end_s: int,
    *,
    max_rounds: int = MAX_ROUNDS,
    limit: int = LIMIT,
    tolerance: Tolerance | None = None,
) -> Trace:
    """The trace of the sessions that carried `trace_id` and ended in [start_s, end_s] (seconds since the epoch).

    Where they make several trees, the largest one with that trace id, of equals the earliest. Limits and errors as
    `trace_by_id`.
    """
    search = _Search(store, start_s, end_s, max_rounds, limit)
    if trace_id:
        search.follow(search.keys_of_trace_id(trace_id))
    trees = forest(search.rows(), tolerance=tolerance)
    named = [tree for tree in trees if any(span.row.trace_id == trace_id for span in tree.spans)]
    if not named:
        raise TraceNotFound(
            f"No request with the trace id {trace_id or '(empty)'} ended in that time: widen the time, or check the id."
        )
    largest = max(named, key=lambda tree: (len(tree.spans), -tree.root.start_us, -tree.root.row.id))
    return Trace(largest.spans, search.truncated, largest.clock_corrections)


def rows_by_id(store: Store, ids: Iterable[int]) -> list[Row]:
    """Rows of the log with all columns that relation and assembly read, in no order."""
    wanted = sorted(set(ids))
    # A row id begins with the second in which the session ended, which is the primary key of the log.
    times = sorted({row_id >> 32 for row_id in wanted})
    found = store.query(
        f"SELECT {_log_columns()} FROM flow_log.l7_flow_log "
        "WHERE time IN {times:Array(UInt32)} AND _id IN {ids:Array(UInt64)} LIMIT 1 BY _id",
        {"times": times, "ids": wanted},
    ).to_pylist()
    return [_row(record) for record in found]


def _log_columns() -> str:
    sides = [
        f"if(is_ipv4 = 1, toString(ip4_{side}), toString(ip6_{side})) AS ip_{side}, "
        f"{_device('auto_service', side)}, {_device('auto_instance', side)}"
        for side in (0, 1)
    ]
    times = [f"toUnixTimestamp64Micro({name}_time) AS {name}_us" for name in ("start", "end")]
    protocol = "dictGet('flow_tag.int_enum_map', 'name_en', ('l7_protocol', toUInt64(l7_protocol)))"
    name = f"if(biz_protocol != '', toString(biz_protocol), {protocol}) AS l7_protocol_str"
    agent = "dictGet('flow_tag.vtap_map', 'name', toUInt64(agent_id)) AS agent"
    interface = [
        f"dictGet('flow_tag.vtap_port_map', '{attribute}', (toUInt64(agent_id), toUInt64(capture_nic))) {shown}"
        for attribute, shown in (
            ("name", "AS capture_nic_name"),
            ("device_name", "AS capture_nic_owner"),
            ("behind", "!= 0 AS capture_nic_leads"),
        )
    ]
    return ", ".join(["_id", *times, *_LOG_COLUMNS, *sides, name, agent, *interface])


def _device(name: str, side: int) -> str:
    identity = f"(toUInt64({name}_type_{side}), toUInt64({name}_id_{side}))"
    return f"dictGet('flow_tag.device_map', 'name', {identity}) AS {name}_{side}"


def _row(record: dict[str, Any]) -> Row:
    record["start_time"] = record.pop("start_us")
    if "end_us" in record:
        record["end_time"] = record.pop("end_us")
    for side in (0, 1):
        # Without a process or resource the address is the name.
        for name in (f"auto_service_{side}", f"auto_instance_{side}"):
            if name in record:
                record[name] = record[name] or record[f"ip_{side}"]
    return Row.of(record)


class _Search:
    """Grows a set of row ids round by round: who shares a key with a row of the set belongs to it.

    A key is 64 bits of what does not agree by chance within minutes, so that no row is read before the set is complete;
    what it holds too much is told apart when the edges are made.
    """

    def __init__(self, store: Store, start_s: int, end_s: int, max_rounds: int, limit: int) -> None:
        self._store = store
        self._time = {"start": min(max(0, start_s), (1 << 32) - 1), "end": min(max(0, end_s), (1 << 32) - 1)}
        self._max_rounds = max_rounds
        self._limit = limit
        self.kept: set[int] = set()
        self.truncated = False

    def keys_of_trace_id(self, trace_id: str) -> list[int]:
        """The one key of a trace id."""
        from deepflow.store.trace_keys import trace_id as key_of  # noqa: PLC0415

        found = self._store.query(f"SELECT {key_of('{trace_id:String}')} AS key", {"trace_id": trace_id})
        keys: list[int] = found.column("key").to_pylist()
        return keys

    def follow(self, keys: Iterable[int]) -> None:
        """Keeps the rows that have one of the keys, and those that share a key with them."""
        asked: set[int] = set()
        open_keys = set(keys)
        for _ in range(self._max_rounds):
            if not open_keys or self.truncated:
                return
            asked |= open_keys
            found = self._look_up(sorted(open_keys))
            open_keys = set()
            for record in found:
                if record["_id"] not in self.kept and len(self.kept) >= self._limit:
                    self.truncated = True
                    return
                self.kept.add(record["_id"])
                open_keys.update(record["other_keys"])
            open_keys -= asked
        self.truncated = self.truncated or bool(open_keys)

    def _look_up(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        # Rows already known come again with their other keys, so they do not count against the limit. A row that is
        # found by one of two keys names the other, so one of its rows is enough.
        most = self._limit + len(self.kept) + 1
        found: list[dict[str, Any]] = self._store.query(
            "SELECT _id, other_keys FROM flow_log.trace_key WHERE key IN {wanted:Array(UInt64)} "
            "AND time BETWEEN toDateTime({start:UInt32}) AND toDateTime({end:UInt32}) "
            "ORDER BY time, _id LIMIT 1 BY _id LIMIT {most:UInt32}",
            {**self._time, "wanted": list(keys), "most": most},
        ).to_pylist()
        self.truncated = self.truncated or len(found) == most
        return found

    def rows(self) -> list[Row]:
        """All columns of the rows kept."""
        return rows_by_id(self._store, self.kept)

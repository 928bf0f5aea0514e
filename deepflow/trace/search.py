"""Finds the rows of a trace: rounds of one primary-key lookup each in `flow_log.trace_key`, then all columns in one query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deepflow.trace.assemble import assemble, forest
from deepflow.trace.network import Tolerance, covers, sequences_agree
from deepflow.trace.row import Row
from deepflow.trace.span import Trace

if TYPE_CHECKING:
    from deepflow.store import Store

#: Seconds before and after the start row in which its trace is searched.
WINDOW_S = 300
MAX_ROUNDS = 30
#: Rows a trace may have.
LIMIT = 1000

_PLAIN_COLUMNS = (
    *("observation_point", "agent_id", "process_id_0", "process_id_1", "flow_id", "protocol", "l7_protocol", "type"),
    *(
        "client_port",
        "server_port",
        "req_tcp_seq",
        "resp_tcp_seq",
        "syscall_trace_id_request",
        "syscall_trace_id_response",
    ),
    *("x_request_id_0", "x_request_id_1", "trace_id", "span_id"),
)
_LOG_COLUMNS = (
    *_PLAIN_COLUMNS,
    *("signal_source", "version", "request_id", "request_type", "request_domain", "request_resource", "endpoint"),
    *("response_status", "response_code", "response_exception", "syscall_cap_seq_0", "syscall_cap_seq_1"),
    *("process_kname_0", "process_kname_1", "auto_service_id_0", "auto_service_id_1"),
    *("auto_service_type_0", "auto_service_type_1"),
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
    # The second is the primary key of the log; in trace_key nothing leads to a row but its keys.
    found = store.query(
        f"SELECT {_key_columns()} FROM flow_log.l7_flow_log WHERE time = toDateTime({{second:UInt32}}) AND _id = {{id:UInt64}} LIMIT 1",
        {"second": second, "id": row_id},
    ).to_pylist()
    if not found:
        raise TraceNotFound(f"There is no request with the id {row_id}: it is mistyped, or older than the log is kept.")
    search = _Search(store, second - window_s, second + window_s, max_rounds, limit, tolerance or Tolerance())
    search.begin(found)
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

    Where they make several trees, the largest one with that trace id, of equals the earliest. Limits and errors as `trace_by_id`.
    """
    search = _Search(store, start_s, end_s, max_rounds, limit, tolerance or Tolerance())
    if trace_id:
        search.begin(search.by_trace_id(trace_id))
    if not search.kept:
        raise TraceNotFound(
            f"No request with the trace id {trace_id or '(empty)'} ended in that time: widen the time, or check the id."
        )
    trees = forest(search.rows(), tolerance=tolerance)
    named = [tree for tree in trees if any(span.row.trace_id == trace_id for span in tree.spans)]
    largest = max(named, key=lambda tree: (len(tree.spans), -tree.root.start_us, -tree.root.row.id))
    return Trace(largest.spans, search.truncated, largest.clock_corrections)


def _key_columns() -> str:
    from deepflow.store.trace_keys import keys_of_row

    return (
        f"_id, toUnixTimestamp(time) AS ended_s, toUnixTimestamp64Micro(start_time) AS start_us, response_duration, "
        f"{', '.join(_PLAIN_COLUMNS)}, {keys_of_row()} AS association_keys"
    )


def _log_columns() -> str:
    sides = [
        f"if(is_ipv4 = 1, toString(ip4_{side}), toString(ip6_{side})) AS ip_{side}, "
        f"dictGet('flow_tag.device_map', 'name', (toUInt64(auto_service_type_{side}), toUInt64(auto_service_id_{side}))) AS auto_service_{side}, "
        f"dictGet('flow_tag.device_map', 'name', (toUInt64(auto_instance_type_{side}), toUInt64(auto_instance_id_{side}))) AS auto_instance_{side}"
        for side in (0, 1)
    ]
    protocol = "dictGet('flow_tag.int_enum_map', 'name_en', ('l7_protocol', toUInt64(l7_protocol)))"
    return (
        f"_id, toUnixTimestamp64Micro(start_time) AS start_us, toUnixTimestamp64Micro(end_time) AS end_us, {', '.join(_LOG_COLUMNS)}, "
        f"{', '.join(sides)}, if(biz_protocol != '', toString(biz_protocol), {protocol}) AS l7_protocol_str"
    )


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
    """Grows a set of rows round by round; a row is kept when it is related to one that is."""

    def __init__(
        self, store: Store, start_s: int, end_s: int, max_rounds: int, limit: int, tolerance: Tolerance
    ) -> None:
        self._store = store
        self._time = {"start": min(max(0, start_s), (1 << 32) - 1), "end": min(max(0, end_s), (1 << 32) - 1)}
        self._max_rounds = max_rounds
        self._limit = limit
        self._tolerance = tolerance
        self._asked: set[int] = set()
        self._keys: dict[int, list[int]] = {}
        self._ended_s: dict[int, int] = {}
        self._candidates: dict[int, Row] = {}
        self.kept: dict[int, Row] = {}
        self.truncated = False

    def begin(self, records: list[dict[str, Any]]) -> None:
        """Keeps these rows and all that is related to them."""
        frontier: list[Row] = []
        for row in self._read(records)[: self._limit]:
            self.kept[row.id] = row
            frontier.append(row)
        for _ in range(self._max_rounds):
            keys = sorted({key for row in frontier for key in self._keys[row.id]} - self._asked)
            if not keys or self.truncated:
                return
            self._read(self._look_up(keys))
            frontier = self._keep_related(frontier)
        self.truncated = self.truncated or bool(frontier)

    def by_trace_id(self, trace_id: str) -> list[dict[str, Any]]:
        """Rows that carry the trace id itself, earliest first."""
        from deepflow.store.trace_keys import trace_id as key_of

        return self._query(
            f"key = {key_of('{trace_id:String}')} AND trace_id = {{trace_id:String}}", {"trace_id": trace_id}
        )

    def _look_up(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        self._asked.update(keys)
        return self._query("key IN {wanted:Array(UInt64)}", {"wanted": list(keys)})

    def _query(self, condition: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        # Rows already known come again with their other keys, so they do not count against the limit.
        most = self._limit + len(self.kept) + 1
        found: list[dict[str, Any]] = self._store.query(
            f"SELECT {_key_columns()} FROM flow_log.trace_key WHERE {condition} "
            "AND time BETWEEN toDateTime({start:UInt32}) AND toDateTime({end:UInt32}) "
            "ORDER BY start_time, _id LIMIT 1 BY _id LIMIT {most:UInt32}",
            {**self._time, **parameters, "most": most},
        ).to_pylist()
        self.truncated = self.truncated or len(found) == most
        return found

    def _read(self, records: list[dict[str, Any]]) -> list[Row]:
        rows = []
        for record in records:
            if record["_id"] in self.kept or record["_id"] in self._candidates:
                continue
            keys, ended = record.pop("association_keys"), record.pop("ended_s")
            row = _row(record)
            self._keys[row.id], self._ended_s[row.id] = keys, ended
            self._candidates[row.id] = row
            rows.append(row)
        return rows

    def _keep_related(self, frontier: Sequence[Row]) -> list[Row]:
        """Moves candidates that are related to the frontier into the trace; they are the next frontier."""
        by_key: dict[int, list[Row]] = defaultdict(list)
        for row in self._candidates.values():
            if row.id not in self.kept:
                for key in self._keys[row.id]:
                    by_key[key].append(row)
        fresh: list[Row] = []
        for row in frontier:
            for other in _distinct(by_key.get(key, ()) for key in self._keys[row.id]):
                if other.id in self.kept or not related(row, other, self._tolerance):
                    continue
                if len(self.kept) >= self._limit:
                    self.truncated = True
                    return fresh
                self.kept[other.id] = other
                fresh.append(other)
        return fresh

    def rows(self) -> list[Row]:
        """All columns of the rows kept."""
        times = sorted({self._ended_s[row_id] for row_id in self.kept})
        found = self._store.query(
            f"SELECT {_log_columns()} FROM flow_log.l7_flow_log "
            "WHERE time IN {times:Array(UInt32)} AND _id IN {ids:Array(UInt64)} LIMIT 1 BY _id",
            {"times": times, "ids": sorted(self.kept)},
        ).to_pylist()
        return [_row(record) for record in found]


def _distinct(groups: Iterable[Iterable[Row]]) -> list[Row]:
    return list({row.id: row for group in groups for row in group}.values())


def related(one: Row, other: Row, tolerance: Tolerance) -> bool:
    """Whether two rows can be neighbours or siblings in one trace, by what trace_key holds of them.

    Keys are hashes and sequence numbers return, so values, protocol and time are compared. It is a sieve, not the judgement:
    ports behind address translation and texts are compared when the edges are made.
    """
    if one.trace_ids and other.trace_ids:
        if one.trace_ids.isdisjoint(other.trace_ids):
            return False
        return True
    if one.x_request_ids & other.x_request_ids:
        return True
    contexts = {one.syscall_trace_id_request, one.syscall_trace_id_response} - {0}
    if one.agent_id == other.agent_id and contexts & {other.syscall_trace_id_request, other.syscall_trace_id_response}:
        return True
    if one.l7_protocol != other.l7_protocol or one.protocol != other.protocol:
        return False
    equal = sequences_agree(one, other)
    if not equal:
        return False
    outer, inner = (one, other) if one.rank <= other.rank else (other, one)
    return covers(outer, inner, tolerance.between(outer, inner, sure=equal == 2), tolerance.unanswered_us)

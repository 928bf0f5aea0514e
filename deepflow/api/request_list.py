"""`/v1/web/requests`: calls, newest first, with filters.

A call has a row at each place it was seen at; the one shown is the best witness: the server's process, else the
client's, else packets in the order of `each_once.PACKETS`. Rows of one call share TCP sequence numbers, through address
translation too; datagrams share ports and id, or DNS id and name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deepflow.api.each_once import POINTS, SOCKETS
from deepflow.api.own_calls import NOT_OWN, OwnAddress
from deepflow.schema import Schema
from deepflow.store import Store

MAX_ROWS = 1000
_ADDRESS = "if(is_ipv4 = 1, IPv4NumToString(ip4_{0}), IPv6NumToString(ip6_{0}))"
_NAME = (
    "if(auto_service_type_{0} = 120, dictGet('flow_tag.device_map', 'name', (toUInt64(120), "
    "toUInt64(auto_service_id_{0}))), " + _ADDRESS + ")"
)
_SELECT = (
    "SELECT toString(_id) AS `_id`, toUnixTimestamp64Micro(start_time) AS start_time_us, "
    "response_duration AS duration_us, "
    f"{_NAME.format(0)} AS client, {_NAME.format(1)} AS server, "
    "l7_protocol, request_type, request_resource, endpoint, response_status AS status, "
    "response_code AS code, observation_point, agent_id, protocol, client_port, server_port, request_id, req_tcp_seq, "
    "resp_tcp_seq, time "
    "FROM flow_log.l7_flow_log AS l"
)
_HIDDEN = (
    *("agent_id", "protocol", "client_port", "server_port", "request_id", "req_tcp_seq", "resp_tcp_seq", "time"),
)
# A call whose server is a process of the same agent has a row there, which is the one shown.
_CANDIDATE = "(observation_point != 'c-p' OR gprocess_id_1 = 0)"
_SIGHTINGS = (
    "SELECT toString(_id) AS `_id`, toUnixTimestamp64Micro(start_time) AS start_time_us, observation_point, agent_id, "
    "protocol, l7_protocol, client_port, server_port, request_resource, request_id, req_tcp_seq, resp_tcp_seq "
    "FROM flow_log.l7_flow_log AS l"
)
# Sightings of one call on several hosts end within this, s, and begin within it, µs.
_APART_S = 6
_DNS_APART_US = 1_000_000
_TCP = 6
_DNS = 120
_BEST = {point: number for number, point in enumerate(POINTS)}
#: Rows looked at for one page, as a multiple of its length; a call may be seen at many places.
_MOST_LOOKED_AT = 32
_NAMED = "(SELECT deviceid FROM flow_tag.device_map WHERE devicetype = 120 AND name = {{{0}:String}})"


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """What to show: sessions that ended in [start_s, end_s), and those of them that all given texts fit."""

    start_s: int
    end_s: int
    own: OwnAddress
    """Calls to this server itself are left out."""
    client: str = ""
    server: str = ""
    service: str = ""
    path: str = ""
    status: str = ""
    protocol: str = ""
    min_us: int | None = None
    max_us: int | None = None
    limit: int = 100
    before: int | None = None
    """Row id; only older rows are shown. A row id begins with its second."""


def request_list(store: Store, schema: Schema, wanted: RequestFilter) -> dict[str, Any]:
    """Rows as docs/architecture.md section 5 names them, and the `before` of the next page.

    Raises:
        ValueError: an unknown status or protocol, as a sentence.
        StoreError: the store failed.
    """
    conditions = [NOT_OWN]
    values: dict[str, Any] = wanted.own.parameters()
    for side, name in ((0, "client"), (1, "server")):
        if text := getattr(wanted, name):
            conditions.append(_end_is(side, name))
            values[name] = text
    if wanted.service:
        conditions.append(f"({_end_is(0, 'service')} OR {_end_is(1, 'service')})")
        values["service"] = wanted.service
    if wanted.path:
        conditions.append(
            "(position(l.request_resource, {path:String}) > 0 OR position(l.endpoint, {path:String}) > 0)"
        )
        values["path"] = wanted.path
    if wanted.status:
        conditions.append(_status(schema, wanted.status))
    if wanted.protocol:
        conditions.append(f"l.l7_protocol = {_number(schema, 'l7_protocol', wanted.protocol)}")
    for sign, bound in ((">=", wanted.min_us), ("<=", wanted.max_us)):
        if bound is not None:
            conditions.append(f"l.response_duration {sign} {bound}")
    page: list[dict[str, Any]] = []
    before, looked_at, step = wanted.before, 0, wanted.limit + 1
    while True:
        rows = store.query(_page_sql(wanted, conditions, before, step), values).to_pylist()
        shown = _best_witnesses(store, rows, conditions, values)
        page += [row for row in rows if row["_id"] in shown]
        looked_at += len(rows)
        more = len(rows) == step
        if not more or len(page) > wanted.limit or looked_at >= _MOST_LOOKED_AT * wanted.limit:
            break
        before, step = int(rows[-1]["_id"]), min(2 * step, MAX_ROWS + 1)
    if len(page) > wanted.limit:
        page = page[: wanted.limit]
        after = page[-1]["_id"]
    else:
        after = rows[-1]["_id"] if more else None
    return {"rows": [_named(row, schema.enums) for row in page], "next": after}


def _page_sql(wanted: RequestFilter, conditions: list[str], before: int | None, limit: int) -> str:
    bounds = [f"l.time >= {wanted.start_s}", f"l.time < {wanted.end_s}"]
    if before is not None:
        bounds.append(f"l._id < {before} AND l.time <= {before >> 32}")
    where = " AND ".join([*bounds, _CANDIDATE, *conditions])
    return f"{_SELECT} WHERE {where} ORDER BY l.time DESC, l._id DESC LIMIT {limit}"


def _best_witnesses(
    store: Store, rows: list[dict[str, Any]], conditions: list[str], values: Mapping[str, Any]
) -> set[str]:
    """Ids of the rows that no better witness of the same call makes superfluous.

    A witness must pass the same filters: the reader who asks for a client by name must not lose the call to a row that
    knows only its address.
    """
    doubted = [row for row in rows if row["observation_point"] != POINTS[0]]
    if not doubted:
        return {row["_id"] for row in rows}
    requests = {row["req_tcp_seq"] for row in doubted} - {0}
    responses = {row["resp_tcp_seq"] for row in doubted if not row["req_tcp_seq"]} - {0}
    numbers = {row["request_id"] for row in doubted if row["protocol"] != _TCP} - {None}
    same = [
        f"l.{column} IN {{{column}:Array(UInt64)}}"
        for column, known in (("req_tcp_seq", requests), ("resp_tcp_seq", responses))
        if known
    ]
    same += [f"(l.protocol != {_TCP} AND l.request_id IN {{numbers:Array(UInt64)}})"] if numbers else []
    if not same:
        return {row["_id"] for row in rows}
    seconds = [row["time"] for row in doubted]
    bounds = f"l.time >= {max(0, min(seconds) - _APART_S)} AND l.time <= {max(seconds) + _APART_S}"
    where = " AND ".join([bounds, f"({' OR '.join(same)})", *conditions])
    found = store.query(
        f"{_SIGHTINGS} WHERE {where}",
        {**values, "req_tcp_seq": sorted(requests), "resp_tcp_seq": sorted(responses), "numbers": sorted(numbers)},
    ).to_pylist()
    witnesses: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
    for sighting in found:
        for mark in _marks(sighting):
            witnesses[mark].append(sighting)
    return {
        row["_id"]
        for row in rows
        if not any(_outdoes(other, row) for mark in _marks(row) for other in witnesses.get(mark, ()))
    }


def _marks(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """What two sightings of one call have in common; one of them is enough to compare the two."""
    for name in ("req_tcp_seq", "resp_tcp_seq"):
        if row[name]:
            yield name, row[name]
    if row["protocol"] != _TCP and row["request_id"] is not None:
        yield "request_id", (row["request_id"], row["request_resource"])


def _outdoes(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    if other["_id"] == row["_id"] or not _one_call(other, row):
        return False
    place, other_place = (_BEST.get(one["observation_point"], len(_BEST)) for one in (row, other))
    if place != other_place:
        return other_place < place
    # A segment sent again, or the two ends of a veth: the row with the answer stays. What a process did twice stands.
    return row["observation_point"] not in SOCKETS and _completeness(other) > _completeness(row)


def _completeness(row: Mapping[str, Any]) -> tuple[int, int]:
    return bool(row["req_tcp_seq"]) + bool(row["resp_tcp_seq"]), -int(row["_id"])


def _one_call(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows that have a mark in common are of one call."""
    apart_us = abs(one["start_time_us"] - other["start_time_us"])
    if apart_us > _APART_S * 1_000_000:
        return False
    if one["protocol"] == _TCP:
        numbers = ((one[name], other[name]) for name in ("req_tcp_seq", "resp_tcp_seq"))
        return all(a == b for a, b in numbers if a and b)
    if all(one[name] == other[name] for name in ("client_port", "server_port")):
        return True
    # A resolver may ask further under the id it was asked with; its own host sees that as two exchanges.
    two_sockets = {one["observation_point"], other["observation_point"]} == set(SOCKETS)
    asks_further = two_sockets and one["agent_id"] == other["agent_id"]
    return one["l7_protocol"] == other["l7_protocol"] == _DNS and apart_us <= _DNS_APART_US and not asks_further


def _end_is(side: int, parameter: str) -> str:
    """The end has this service name, instance name or address."""
    named = _NAMED.format(parameter)
    return (
        f"((auto_service_type_{side} = 120 AND (auto_service_id_{side} IN {named} "
        f"OR auto_instance_id_{side} IN {named}))"
        f" OR {_ADDRESS.format(side)} = {{{parameter}:String}})"
    )


def _status(schema: Schema, text: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{2,4}", text):
        return f"l.response_code = {text}"
    if text.lower() == "error":
        return "l.response_status IN (3, 4)"
    return f"l.response_status = {_number(schema, 'response_status', text)}"


def _number(schema: Schema, enum: str, text: str) -> int:
    for value, name in schema.enums[enum].items():
        if text.lower() == name.lower() or text == str(value):
            return int(value)
    known = ", ".join(schema.enums[enum].values())
    raise ValueError(f"There is no {enum.replace('_', ' ')} {text[:100]!r}; there are {known}.")


def _named(row: dict[str, Any], enums: Mapping[str, Mapping[int | str, str]]) -> dict[str, Any]:
    protocol, status = row["l7_protocol"], row["status"]
    shown = {name: value for name, value in row.items() if name not in _HIDDEN}
    return {
        **shown,
        "l7_protocol": protocol,
        "protocol": enums["l7_protocol"].get(protocol, str(protocol)),
        "status": enums["response_status"].get(status, str(status)),
    }

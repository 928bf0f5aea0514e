"""`/v1/web/requests`: sessions, newest first, with filters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    "response_code AS code, observation_point FROM flow_log.l7_flow_log AS l"
)
# A call whose server is a process of the same agent is there twice; the server's row is the one shown.
_EACH_ONCE = "(observation_point = 's-p' OR gprocess_id_1 = 0)"
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
    conditions = ["l.time >= {from:UInt32}", "l.time < {to:UInt32}", NOT_OWN, _EACH_ONCE]
    values: dict[str, Any] = {"from": wanted.start_s, "to": wanted.end_s, **wanted.own.parameters()}
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
    if wanted.before is not None:
        conditions.append(f"l._id < {wanted.before} AND l.time <= {wanted.before >> 32}")
    sql = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY l.time DESC, l._id DESC LIMIT {wanted.limit + 1}"
    rows = store.query(sql, values).to_pylist()
    page = [_named(row, schema.enums) for row in rows[: wanted.limit]]
    return {"rows": page, "next": page[-1]["_id"] if len(rows) > wanted.limit else None}


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
    return {
        **row,
        "protocol": enums["l7_protocol"].get(protocol, str(protocol)),
        "status": enums["response_status"].get(status, str(status)),
    }

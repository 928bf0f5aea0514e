"""One session of `flow_log.l7_flow_log` as relation and assembly read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

EBPF = 3
OTEL = 4
PACKET = 0
CLIENT_PROCESS = "c-p"
SERVER_PROCESS = "s-p"
#: Places on the way from client to server, in the order of the way. The names of others (`local`, `rest`) do not say
#: where they lie: between the processes, by the time.
WAY = ("c-p", "c", "c-nd", "c-hv", "c-gw-hv", "c-gw", "s-gw", "s-gw-hv", "s-hv", "s-nd", "s", "s-p")
RANK = {place: rank for rank, place in enumerate(WAY, 1)}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REQUEST_ONLY, _RESPONSE_ONLY, _SESSION = 0, 1, 2


def microseconds(value: datetime | int | None) -> int:
    """µs since the epoch of a point in time (a datetime without zone is UTC), 0 for none."""
    if value is None:
        return 0
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1)
    return int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Client (0) or server (1) end of a session."""

    process_id: int = 0
    process_kname: str = ""
    ip: str = ""
    auto_instance: str = ""
    auto_service: str = ""
    auto_service_id: int = 0
    auto_service_type: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any], side: int) -> Side:
        """The end of a record whose columns are named `name_0` and `name_1`; missing columns count as unknown."""
        text: dict[str, Any] = {name: str(record.get(f"{name}_{side}") or "") for name in _SIDE_TEXT}
        number: dict[str, Any] = {name: int(record.get(f"{name}_{side}") or 0) for name in _SIDE_NUMBER}
        return cls(**text, **number)


_SIDE_TEXT = ("process_kname", "ip", "auto_instance", "auto_service")
_SIDE_NUMBER = ("process_id", "auto_service_id", "auto_service_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A session (or half of one). Times in µs since the epoch; 0 and an empty text mean unknown."""

    ids: tuple[int, ...]
    start_us: int
    end_us: int
    observation_point: str = ""
    signal_source: int = EBPF
    type: int = _SESSION
    agent_id: int = 0
    agent: str = ""
    #: Number of the interface that a packet was seen at, its name, and what lives there or behind it.
    capture_nic: int = 0
    capture_nic_name: str = ""
    capture_nic_owner: str = ""
    #: Whether the interface leads to its owner, rather than being in its network namespace.
    capture_nic_leads: int = 0
    flow_id: int = 0
    protocol: int = 6
    l7_protocol: int = 0
    l7_protocol_str: str = ""
    version: str = ""
    client_port: int = 0
    server_port: int = 0
    req_tcp_seq: int = 0
    resp_tcp_seq: int = 0
    syscall_trace_id_request: int = 0
    syscall_trace_id_response: int = 0
    syscall_cap_seq_0: int = 0
    syscall_cap_seq_1: int = 0
    x_request_id_0: str = ""
    x_request_id_1: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    request_id: int | None = None
    request_type: str = ""
    request_domain: str = ""
    request_resource: str = ""
    endpoint: str = ""
    response_status: int = 0
    response_code: int | None = None
    response_exception: str = ""
    client: Side = Side()
    server: Side = Side()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """A row from a record keyed by column names; `end_time` may be given as `response_duration` (µs) instead."""
        start = microseconds(record["start_time"])
        end = microseconds(record["end_time"]) if "end_time" in record else start + int(record["response_duration"])
        text: dict[str, Any] = {name: str(record.get(name) or "") for name in _TEXT}
        number: dict[str, Any] = {name: int(record[name]) for name in _NUMBER if record.get(name) is not None}
        optional: dict[str, Any] = {name: None if record.get(name) is None else int(record[name]) for name in _OPTIONAL}
        return cls(
            ids=(int(record["_id"]),),
            start_us=start,
            end_us=max(start, end),
            client=Side.of(record, 0),
            server=Side.of(record, 1),
            **text,
            **number,
            **optional,
        )

    @property
    def id(self) -> int:
        return self.ids[0]

    @property
    def has_request(self) -> bool:
        return self.type != _RESPONSE_ONLY

    @property
    def has_response(self) -> bool:
        return self.type != _REQUEST_ONLY

    @property
    def duration_us(self) -> int:
        return self.end_us - self.start_us

    @property
    def is_client_process(self) -> bool:
        return self.observation_point == CLIENT_PROCESS

    @property
    def is_server_process(self) -> bool:
        return self.observation_point == SERVER_PROCESS

    @property
    def is_application(self) -> bool:
        return self.signal_source == OTEL

    @property
    def rank(self) -> int | None:
        """Place on the way from client (low) to server (high), None where the name of the place does not say it."""
        return RANK.get(self.observation_point)

    @property
    def own(self) -> Side:
        """The side at which the session was seen."""
        return self.client if self.observation_point.startswith("c") else self.server

    @property
    def context(self) -> int:
        """Causal context of the request; a lone response knows that of its request. 0 none."""
        return self.syscall_trace_id_request if self.has_request else self.syscall_trace_id_response

    @property
    def trace_ids(self) -> frozenset[str]:
        """A header may name several trace ids, separated by commas."""
        if not self.trace_id:
            return frozenset()
        return frozenset(part for part in (p.strip() for p in self.trace_id.split(",")) if part)

    @property
    def x_request_ids(self) -> frozenset[str]:
        return frozenset(value for value in (self.x_request_id_0, self.x_request_id_1) if value)


_TEXT = (
    "agent",
    "capture_nic_name",
    "capture_nic_owner",
    "observation_point",
    "l7_protocol_str",
    "version",
    "x_request_id_0",
    "x_request_id_1",
    "trace_id",
    "span_id",
    "parent_span_id",
    "request_type",
    "request_domain",
    "request_resource",
    "endpoint",
    "response_exception",
)
_NUMBER = (
    "signal_source",
    "type",
    "agent_id",
    "capture_nic",
    "capture_nic_leads",
    "flow_id",
    "protocol",
    "l7_protocol",
    "client_port",
    "server_port",
    "req_tcp_seq",
    "resp_tcp_seq",
    "syscall_trace_id_request",
    "syscall_trace_id_response",
    "syscall_cap_seq_0",
    "syscall_cap_seq_1",
    "response_status",
)
_OPTIONAL = ("request_id", "response_code")


def sessions(rows: Iterable[Row]) -> list[Row]:
    """Distinct rows by start time, each lone response joined to the lone request it answers.

    A pair: same agent, connection, place, protocol and request id; the response is later and is the next message of
    the socket.
    """
    distinct = {row.id: row for row in rows}
    ordered = sorted(distinct.values(), key=lambda row: (row.start_us, row.id))
    waiting: dict[tuple[object, ...], list[Row]] = {}
    answered: dict[int, Row] = {}
    merged: set[int] = set()
    for row in ordered:
        if row.type == _SESSION or not row.flow_id:
            continue
        line = (row.agent_id, row.flow_id, row.observation_point, row.l7_protocol, row.request_id)
        if row.type == _REQUEST_ONLY:
            waiting.setdefault(line, []).append(row)
            continue
        asked = waiting.get(line, [])
        for request in reversed(asked):
            if _answers(row, request):
                asked.remove(request)
                answered[request.id] = _joined(request, row)
                merged.add(row.id)
                break
    return [answered.get(row.id, row) for row in ordered if row.id not in merged]


def _answers(response: Row, request: Row) -> bool:
    # Two messages of one socket count up; with pipelining the numbers do not tell, and the core pairs those itself.
    follows = response.syscall_cap_seq_1 == request.syscall_cap_seq_0 + 1
    return follows and response.end_us >= request.start_us


def _joined(request: Row, response: Row) -> Row:
    return replace(
        request,
        ids=request.ids + response.ids,
        type=_SESSION,
        end_us=response.end_us,
        resp_tcp_seq=response.resp_tcp_seq,
        syscall_trace_id_response=response.syscall_trace_id_response,
        syscall_cap_seq_1=response.syscall_cap_seq_1,
        x_request_id_1=response.x_request_id_1,
        response_status=response.response_status,
        response_code=response.response_code,
        response_exception=response.response_exception,
    )

"""A span of an assembled trace and the trace itself, in the shape of DeepFlow's L7FlowTracing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepflow.trace.relate import Edge
from deepflow.trace.row import PACKET, Row, Side
from deepflow.trace.text import tree_text


@dataclass(slots=True)
class Span:
    """One row in its tree. Times in µs since the epoch, on the clock of the root's host."""

    index: int
    row: Row
    start_us: int
    end_us: int
    cause: Edge | None = None
    parent: Span | None = None
    children: list[Span] = field(default_factory=list)
    #: Begins before its parent or ends after it, by more than the order of hooks explains: asynchronous work, or a
    #: parent without answer.
    outside_parent: bool = False
    #: The process or address that answers for the time of this span; None for a sighting on the way.
    service: Side | None = None

    @property
    def duration_us(self) -> int:
        return self.end_us - self.start_us

    @property
    def selftime_us(self) -> int:
        """Duration without the time in which at least one child ran."""
        covered, reached = 0, self.start_us
        for child in sorted(self.children, key=lambda span: span.start_us):
            begin, end = max(child.start_us, reached), min(child.end_us, self.end_us)
            if end > begin:
                covered += end - begin
                reached = end
        return self.duration_us - covered

    @property
    def span_id(self) -> str:
        """16 hex digits, the same each time the trace is assembled: the row's `_id`."""
        return f"{self.row.id:016x}"

    @property
    def service_uid(self) -> str:
        if self.service is None:
            return ""
        kind, number = self.service.auto_service_type, self.service.auto_service_id
        return f"{kind}-{number}" if number else f"{kind}-{self.service_uname}"

    @property
    def service_uname(self) -> str:
        side = self.service
        return (side.auto_service or side.process_kname or side.ip) if side else ""

    def to_dict(self) -> dict[str, Any]:
        """The span as it stands in `tracing`; 64-bit ids are strings, since JavaScript cannot hold them."""
        row, own = self.row, self.row.own
        return {
            "_ids": [str(value) for value in row.ids],
            "id": self.index,
            "parent_id": self.parent.index if self.parent else -1,
            "childs": [child.index for child in self.children],
            "deepflow_span_id": self.span_id,
            "deepflow_parent_span_id": self.parent.span_id if self.parent else "",
            "set_parent_info": self.cause.reason if self.cause else None,
            "outside_parent": self.outside_parent,
            "start_time_us": self.start_us,
            "end_time_us": self.end_us,
            "duration": self.duration_us,
            "selftime": self.selftime_us,
            "signal_source": row.signal_source,
            "type": row.type,
            "tap_side": row.observation_point,
            "agent_id": row.agent_id,
            "agent": row.agent,
            "capture_nic": row.capture_nic,
            "capture_nic_name": row.capture_nic_name,
            "flow_id": str(row.flow_id),
            "l7_protocol": row.l7_protocol,
            "l7_protocol_str": row.l7_protocol_str,
            "endpoint": row.endpoint,
            "request_id": row.request_id,
            "request_type": row.request_type,
            "request_domain": row.request_domain,
            "request_resource": row.request_resource,
            "response_status": row.response_status,
            "response_code": row.response_code,
            "response_exception": row.response_exception,
            "req_tcp_seq": row.req_tcp_seq,
            "resp_tcp_seq": row.resp_tcp_seq,
            "syscall_trace_id_request": str(row.syscall_trace_id_request),
            "syscall_trace_id_response": str(row.syscall_trace_id_response),
            "syscall_cap_seq_0": row.syscall_cap_seq_0,
            "syscall_cap_seq_1": row.syscall_cap_seq_1,
            "x_request_id_0": row.x_request_id_0,
            "x_request_id_1": row.x_request_id_1,
            "trace_id": row.trace_id,
            "span_id": row.span_id,
            "parent_span_id": row.parent_span_id,
            "client_port": row.client_port,
            "server_port": row.server_port,
            "ip": own.ip,
            "ip_0": row.client.ip,
            "ip_1": row.server.ip,
            "process_id": own.process_id,
            "process_kname": own.process_kname,
            "auto_instance": own.auto_instance,
            "auto_service": own.auto_service,
            "service_uid": self.service_uid,
            "service_uname": self.service_uname,
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """One tree, depth first, children by start time; `spans[0]` is the root and holds no parent."""

    spans: Sequence[Span]
    #: The search met a limit: there may be more spans than these.
    truncated: bool = False
    #: Agent id → µs that were added to its times.
    clock_corrections: Mapping[int, int] = field(default_factory=dict)

    @property
    def root(self) -> Span:
        return self.spans[0]

    def services(self) -> list[dict[str, Any]]:
        """Who spent the time: sum of selftime (µs) and its share (text, %, two decimals), longest first."""
        durations: dict[str, int] = defaultdict(int)
        names: dict[str, str] = {}
        for span in self.spans:
            if span.service is not None:
                durations[span.service_uid] += span.selftime_us
                names[span.service_uid] = span.service_uname
        whole = sum(durations.values())
        return [
            {
                "service_uid": uid,
                "service_uname": names[uid],
                "duration": duration,
                "duration_ratio": f"{100 * duration / whole if whole else 0:.2f}",
            }
            for uid, duration in sorted(durations.items(), key=lambda item: (-item[1], item[0]))
        ]

    def to_dict(self) -> dict[str, Any]:
        """DATA of L7FlowTracing."""
        return {
            "tracing": [span.to_dict() for span in self.spans],
            "services": self.services(),
            "truncated": self.truncated,
            "host_clock_correction": {str(agent): us for agent, us in sorted(self.clock_corrections.items()) if us},
        }

    def to_text(self, *, rules: bool = False, color: bool = False) -> str:
        """The tree as text, one line a span (`text.py`)."""
        return tree_text(self.to_dict(), rules=rules, color=color)


def responsible(row: Row, alone: bool) -> Side | None:
    """Who answers for the time of a span: the process it was seen in.

    A packet counts for its server's address only when no process of that call was seen (`alone`).
    """
    if row.signal_source != PACKET:
        return row.own
    return row.server if alone else None

"""Which row caused which: the rules that make the edges of a trace.

In this order, each only where the ones before did not decide:

1. `network`: sightings of one call share TCP sequence numbers, or the id of a UDP request (`network.py`);
2. `app`: OTel spans name their parent span;
3. `syscall`: a server process and what it called share a causal context;
4. `x_request_id`: request and response headers carry the same X-Request-ID;
5. `app`: sessions carry the same trace id (and span id).

A row has one parent at most. What is ambiguous stays apart: an absent edge is a smaller fault than a wrong one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from deepflow.trace.network import UDP, Call, Tolerance, calls, covers, same_exchange, sequences_agree
from deepflow.trace.row import Row


@dataclass(frozen=True, slots=True)
class Edge:
    """`parent` caused `child`; `rule` is network, syscall, x_request_id or app, `reason` says it in words."""

    parent: Row
    child: Row
    rule: str
    reason: str


class Forest:
    """Edges added one by one; one parent a row and no cycle."""

    def __init__(self) -> None:
        self.edges: dict[int, Edge] = {}

    def has_parent(self, row: Row) -> bool:
        return row.id in self.edges

    def root(self, row_id: int) -> int:
        while row_id in self.edges:
            row_id = self.edges[row_id].parent.id
        return row_id

    def join(self, edge: Edge) -> bool:
        """Adds the edge unless the child has a parent or is an ancestor of the parent."""
        if edge.child.id in self.edges or self.root(edge.parent.id) == edge.child.id:
            return False
        self.edges[edge.child.id] = edge
        return True


def relate(rows: Sequence[Row], tolerance: Tolerance | None = None) -> list[Edge]:
    """All edges between distinct rows, in no order. Rows that stand alone have none."""
    tolerance = tolerance or Tolerance()
    forest = Forest()
    spans = [row for row in rows if row.is_application]
    found = calls([row for row in rows if not row.is_application], tolerance)
    for call in found:
        for parent, child in call.links():
            forest.join(Edge(parent, child, "network", _network_reason(parent, child)))
    _join_application(forest, spans, found)
    _join_contexts(forest, found, tolerance)
    _join_headers(forest, found, tolerance)
    return list(forest.edges.values())


def _network_reason(parent: Row, child: Row) -> str:
    if known := same_exchange(parent, child):
        name = f" for {parent.request_resource}, an address was translated" if known == 1 else ""
        transport = "UDP" if parent.protocol == UDP else "ICMP"
        return f"network: same {transport} exchange, request id {parent.request_id}{name}"
    if parent.req_tcp_seq and parent.req_tcp_seq == child.req_tcp_seq:
        reason = f"network: same TCP request sequence {parent.req_tcp_seq}"
        both = sequences_agree(parent, child) == 2
        return f"{reason} and response sequence {parent.resp_tcp_seq}" if both else reason
    return f"network: same TCP response sequence {parent.resp_tcp_seq}"


def process_name(row: Row) -> str:
    """`NAME (PID)` of the process that a row was seen in."""
    name = row.own.auto_service or row.own.process_kname or "process"
    return f"{name} ({row.own.process_id})"


def same_process(server: Row, client: Row) -> bool:
    """Whether what was served and what was called were seen in one process."""
    ours, theirs = server.server.process_id, client.client.process_id
    return server.agent_id == client.agent_id and ours != 0 and ours == theirs


# --- causal context ----------------------------------------------------------------------------


def _join_contexts(forest: Forest, found: Sequence[Call], tolerance: Tolerance) -> None:
    servers: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for call in found:
        if call.last.is_server_process and call.last.context:
            servers[call.last.agent_id, call.last.context].append(call.last)
    for call in _roots(forest, found):
        client = call.first
        if not client.is_client_process or not client.context:
            continue
        causes = [
            server for server in servers.get((client.agent_id, client.context), ()) if caused(server, client, tolerance)
        ]
        # A response that came too late for its request is the same arrival, told twice.
        causes = [server for server in causes if server.has_request] or causes
        # An id names one arrival. Should two claim it, neither is believed.
        if len(causes) == 1:
            reason = f"syscall: same causal context {client.context} in process {process_name(causes[0])}"
            forest.join(Edge(causes[0], client, "syscall", reason))


def caused(server: Row, client: Row, tolerance: Tolerance) -> bool:
    """Whether the request that `server` took in caused the one that `client` sent: one context, one process, meanwhile.

    Both were seen by one clock, so there is no slack: what a thread sends after the response has left belongs to
    something else.
    """
    if not server.context or server.context != client.context or server.agent_id != client.agent_id:
        return False
    ours, theirs = server.server.process_id, client.client.process_id
    if ours and theirs and ours != theirs:
        return False
    if server.trace_ids and client.trace_ids and server.trace_ids.isdisjoint(client.trace_ids):
        return False
    return _began_within(server, client, tolerance.unanswered_us)


def _began_within(server: Row, client: Row, unanswered_us: int) -> bool:
    if not server.has_request:
        return client.start_us <= server.end_us
    end = server.end_us if server.has_response else server.start_us + unanswered_us
    return server.start_us <= client.start_us <= end


# --- headers -----------------------------------------------------------------------------------


def _join_headers(forest: Forest, found: Sequence[Call], tolerance: Tolerance) -> None:
    by_request_id: dict[str, list[Call]] = defaultdict(list)
    by_trace_id: dict[str, list[Call]] = defaultdict(list)
    for call in found:
        for value in call.last.x_request_ids:
            by_request_id[value].append(call)
        for value in call.last.trace_ids:
            by_trace_id[value].append(call)

    def parents(index: dict[str, list[Call]], values: Iterable[str], child: Call) -> list[Call]:
        known = {call.last.id: call for value in values for call in index.get(value, ())}
        return [call for call in known.values() if call is not child and _may_lead_to(call, child, tolerance)]

    for call in _roots(forest, found):
        possible = parents(by_request_id, call.first.x_request_ids, call)
        _adopt(forest, possible, call, "x_request_id", _request_id_reason, tolerance)
    for call in _roots(forest, found):
        possible = parents(by_trace_id, call.first.trace_ids, call)
        same_span = [p for p in possible if call.first.span_id and p.last.span_id == call.first.span_id]
        _adopt(forest, same_span or possible, call, "app", _trace_id_reason, tolerance)


def _may_lead_to(parent: Call, child: Call, tolerance: Tolerance) -> bool:
    """Whether the far end of one call can have led to the near end of another, by who they are and by time."""
    leaf, root = parent.last, child.first
    if leaf.trace_ids and root.trace_ids and leaf.trace_ids.isdisjoint(root.trace_ids):
        return False
    if leaf.is_server_process and root.is_client_process:
        # What a process called is its own doing only; its context rule had the first word.
        return same_process(leaf, root) and _began_within(leaf, root, tolerance.unanswered_us)
    if leaf.is_client_process and root.is_client_process:
        return False
    if leaf.is_server_process and root.is_server_process and _one_service(leaf, root):
        # A retry that reaches the same service twice is not a call of the service to itself.
        return False
    if leaf.is_client_process and same_process(root, leaf):
        return False
    return _encloses(leaf, root, tolerance)


def _encloses(leaf: Row, root: Row, tolerance: Tolerance) -> bool:
    if leaf.has_response and root.has_response and root.duration_us > leaf.duration_us:
        return False
    # One clock needs no tolerance: these are two calls, the second begun and answered while the first was worked on.
    slack = 0 if leaf.agent_id == root.agent_id else tolerance.between(leaf, root)
    return covers(leaf, root, slack, tolerance.unanswered_us)


def _one_service(one: Row, other: Row) -> bool:
    return one.server_port == other.server_port or (
        one.server.process_kname == other.server.process_kname and one.agent_id == other.agent_id
    )


def _adopt(
    forest: Forest,
    possible: Sequence[Call],
    child: Call,
    rule: str,
    reason: Callable[[Row, Row], str],
    tolerance: Tolerance,
) -> None:
    """Takes the innermost of the parents that enclose one another; overlapping ones decide nothing."""
    open_parents = [call for call in possible if forest.root(call.last.id) != child.first.id]
    # Who encloses the child as the clocks stand goes before who does so only when they are wrong.
    exact = [call for call in open_parents if covers(call.last, child.first, 0, tolerance.unanswered_us)]
    open_parents = exact or open_parents
    if not open_parents:
        return
    inner = max(open_parents, key=lambda call: (call.last.start_us, -call.last.end_us, call.last.id))
    nested = all(
        call is inner or (call.last.start_us <= inner.last.start_us and call.last.end_us >= inner.last.end_us)
        for call in open_parents
    )
    if nested:
        forest.join(Edge(inner.last, child.first, rule, reason(inner.last, child.first)))


def _request_id_reason(parent: Row, child: Row) -> str:
    shared = min(parent.x_request_ids & child.x_request_ids)
    where = "response" if parent.x_request_id_0 != shared else "request"
    there = "request" if child.x_request_id_0 == shared else "response"
    return f"x_request_id: {shared} in the {where} of the parent and the {there} of the child"


def _trace_id_reason(parent: Row, child: Row) -> str:
    shared = min(parent.trace_ids & child.trace_ids)
    if child.span_id and parent.span_id == child.span_id:
        return f"app: same trace id {shared} and span id {child.span_id}"
    return f"app: same trace id {shared}"


# --- application spans -------------------------------------------------------------------------


def _join_application(forest: Forest, spans: Sequence[Row], found: Sequence[Call]) -> None:
    """OTel spans below the span they name or the call that brought them, calls below the span that sent them."""
    by_span: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in spans:
        for trace_id in row.trace_ids:
            by_span[trace_id, row.span_id].append(row)
    arrivals: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for call in found:
        senders = _only(by_span, call.first.trace_ids, call.first.span_id)
        if senders is not None and not forest.has_parent(call.first):
            reason = f"app: sent by span {senders.span_id} of trace {senders.trace_id}"
            forest.join(Edge(senders, call.first, "app", reason))
        if call.last.span_id:
            for trace_id in call.last.trace_ids:
                arrivals[trace_id, call.last.span_id].append(call.last)
    for row in spans:
        parent = _only(arrivals, row.trace_ids, row.parent_span_id) or _only(by_span, row.trace_ids, row.parent_span_id)
        if parent is not None and parent.id != row.id:
            forest.join(Edge(parent, row, "app", f"app: parent span {row.parent_span_id} of trace {row.trace_id}"))


def _only(index: dict[tuple[str, str], list[Row]], trace_ids: Iterable[str], span_id: str) -> Row | None:
    """The single row with that span id, None when there is none or several."""
    if not span_id:
        return None
    rows = {row.id: row for trace_id in trace_ids for row in index.get((trace_id, span_id), ())}
    return next(iter(rows.values())) if len(rows) == 1 else None


def _roots(forest: Forest, found: Sequence[Call]) -> Iterator[Call]:
    """Calls whose first sighting has no parent, by start time."""
    waiting = [call for call in found if not forest.has_parent(call.first)]
    yield from sorted(waiting, key=lambda call: (call.first.start_us, call.first.id))

"""From rows to one tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from deepflow.trace.clock import clock_corrections
from deepflow.trace.network import Tolerance
from deepflow.trace.relate import Edge, relate
from deepflow.trace.row import PACKET, Row, sessions
from deepflow.trace.span import Span, Trace, responsible


def assemble(
    rows: Iterable[Row],
    start_id: int,
    *,
    tolerance: Tolerance | None = None,
    truncated: bool = False,
) -> Trace:
    """The tree that holds row `start_id`; rows that do not belong to it are left out.

    Raises:
        KeyError: no row has the id `start_id`.
    """
    tolerance = tolerance or Tolerance()
    distinct = sessions(rows)
    edges = {edge.child.id: edge for edge in relate(distinct, tolerance)}
    start = next((row for row in distinct if start_id in row.ids), None)
    if start is None:
        raise KeyError(start_id)
    return _tree(_root_of(start, edges), edges, tolerance, truncated)


def forest(rows: Iterable[Row], *, tolerance: Tolerance | None = None) -> list[Trace]:
    """All trees that the rows make, by start time of their roots."""
    tolerance = tolerance or Tolerance()
    distinct = sessions(rows)
    edges = {edge.child.id: edge for edge in relate(distinct, tolerance)}
    return [_tree(row, edges, tolerance, False) for row in distinct if row.id not in edges]


def _root_of(row: Row, edges: dict[int, Edge]) -> Row:
    while row.id in edges:
        row = edges[row.id].parent
    return row


def _tree(root: Row, edges: dict[int, Edge], tolerance: Tolerance, truncated: bool) -> Trace:
    caused: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges.values():
        caused[edge.parent.id].append(edge)
    inside: list[Edge] = []
    waiting = [root]
    while waiting:
        below = caused[waiting.pop().id]
        inside += below
        waiting += [edge.child for edge in below]
    corrections = clock_corrections(root.agent_id, inside)

    spans: list[Span] = []
    stack: list[tuple[Row, Edge | None, Span | None]] = [(root, None, None)]
    while stack:
        row, cause, parent = stack.pop()
        offset = corrections.get(row.agent_id, 0)
        span = Span(len(spans), row, row.start_us + offset, row.end_us + offset, cause, parent)
        spans.append(span)
        if parent is not None and cause is not None:
            parent.children.append(span)
            if cause.rule == "network":
                _order_hooks(parent, span, tolerance.hook_order_us)
            slack = tolerance.hook_order_us if cause.rule == "network" else 0
            span.outside_parent = span.start_us < parent.start_us - slack or span.end_us > parent.end_us + slack
        order = sorted(
            caused[row.id],
            key=lambda edge: (edge.child.start_us + corrections.get(edge.child.agent_id, 0), edge.child.id),
            reverse=True,
        )
        stack += [(edge.child, edge, span) for edge in order]
    _name_services(spans)
    return Trace(spans, truncated, corrections)


def _order_hooks(parent: Span, child: Span, most_us: int) -> None:
    """A send is stamped when its call is done; where its bytes were seen before, it was done by then at the latest.

    Both were stamped by one clock. What deviates by more than `most_us` has another cause and stays as it is.
    """
    above, below = parent.row, child.row
    if above.agent_id != below.agent_id:
        return
    if above.has_request and below.has_request and 0 < parent.start_us - child.start_us <= most_us:
        parent.start_us = child.start_us
    if above.has_response and below.has_response and 0 < child.end_us - parent.end_us <= most_us:
        child.end_us = max(child.start_us, parent.end_us)


def _name_services(spans: list[Span]) -> None:
    """The last packet sighting of a call that no process saw stands for the server; others are on the way only."""
    for span in spans:
        same_call = [child for child in span.children if child.cause is not None and child.cause.rule == "network"]
        is_last = not same_call
        seen_by_process, above = False, span
        while above.cause is not None and above.cause.rule == "network" and above.parent is not None:
            above = above.parent
            seen_by_process = seen_by_process or above.row.signal_source != PACKET
        span.service = responsible(span.row, alone=is_last and not seen_by_process)

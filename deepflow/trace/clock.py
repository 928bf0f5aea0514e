"""Clock differences between hosts, from the rule that a caused span lies inside the one that caused it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from deepflow.trace.relate import Edge


def clock_corrections(root_agent: int, edges: Iterable[Edge]) -> dict[int, int]:
    """Agent id → µs to add to its times so that spans lie inside their parents; 0 for the root's agent and where
    nothing is wrong.

    Each edge between two agents allows a range of corrections; of the range that all edges of the pair allow, the
    smallest correction is taken. A child longer than its parent says nothing. Rows without answer have no known end and
    say nothing.
    """
    ranges: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for edge in edges:
        parent, child = edge.parent, edge.child
        if parent.agent_id == child.agent_id or not (parent.has_response and child.has_response):
            continue
        low, high = parent.start_us - child.start_us, parent.end_us - child.end_us
        if low <= high:
            ranges[parent.agent_id][child.agent_id].append((low, high))
            ranges[child.agent_id][parent.agent_id].append((-high, -low))
    corrections = {root_agent: 0}
    waiting = deque([root_agent])
    while waiting:
        known = waiting.popleft()
        for agent in sorted(ranges[known]):
            if agent not in corrections:
                corrections[agent] = corrections[known] + _smallest(ranges[known][agent])
                waiting.append(agent)
    return corrections


def _smallest(allowed: list[tuple[int, int]]) -> int:
    """The value nearest to 0 in all ranges; of ranges that exclude each other the one that the narrowest allows."""
    low, high = max(low for low, _ in allowed), min(high for _, high in allowed)
    if low > high:
        low, high = min(allowed, key=lambda span: (span[1] - span[0], span))
    return min(max(0, low), high)

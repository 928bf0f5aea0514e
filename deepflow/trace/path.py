"""The path of calls: a line an observation point, and the delay of each hop between two of them.

The delay of a hop is the difference of two durations: what a call took as seen at one point, less what it took at the
next. It needs no common clock, and holds both directions, the request's and the response's. What is left at the last
point is the time of the server, or of what nobody saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from deepflow.trace.network import Call
from deepflow.trace.order import in_order
from deepflow.trace.row import PACKET, RANK, Row
from deepflow.trace.span import Span, Trace
from deepflow.trace.text import duration_text

#: A hop stands out from this share of the whole time on.
LOUD = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sighting was made: a process, or an interface of a host."""

    observation_point: str
    agent_id: int
    agent: str
    nic: int
    process: str = ""
    interface: str = ""

    @classmethod
    def of(cls, row: Row) -> Place:
        """The place of a row."""
        agent = row.agent or (f"agent {row.agent_id}" if row.agent_id else "")
        process = "" if row.signal_source == PACKET else row.own.auto_instance or row.own.process_kname
        return cls(row.observation_point, row.agent_id, agent, row.capture_nic, process, _interface(row))

    @property
    def text(self) -> str:
        """`nginx:71 on node1`, `eth0 of nginx on node1`, `veth1 to nginx on node1`."""
        return " on ".join(part for part in (self.process or self.interface, self.agent) if part) or "unknown"


def _interface(row: Row) -> str:
    if row.capture_nic_name:
        relation = " to " if row.capture_nic_leads else " of "
        return relation.join(part for part in (row.capture_nic_name, row.capture_nic_owner) if part)
    # Its agent did not tell: the end of the Ethernet address.
    return "…" + ":".join(f"{byte:02x}" for byte in row.capture_nic.to_bytes(4, "big")) if row.capture_nic else ""


def ends(row: Row) -> str:
    """`10.1.0.5:40000 → 10.96.0.1:80`: both ends as they stand at this point."""
    client, server = (
        f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        for ip, port in ((row.client.ip, row.client_port), (row.server.ip, row.server_port))
    )
    return f"{client} → {server}"


def way_of(trace: Trace, row_id: int) -> list[Span]:
    """The spans of the call that holds a row, from client to server; empty when the trace has no such row."""
    span = next((span for span in trace.spans if row_id in span.row.ids), None)
    if span is None:
        return []
    while span.parent is not None and span.cause is not None and span.cause.rule == "network":
        span = span.parent
    way = [span]
    while (below := next((child for child in span.children if _is_network(child)), None)) is not None:
        way.append(below)
        span = below
    return way


def _is_network(span: Span) -> bool:
    return span.cause is not None and span.cause.rule == "network"


def hop_delays(rows: Sequence[Row]) -> list[int | None]:
    """µs between each point of one call and the next that saw the whole of it; what is left of it at the last one.

    None where request or response were not seen; one value a row.
    """
    delays: list[int | None] = [None] * len(rows)
    whole = _whole(rows)
    for here, there in pairwise(whole):
        delays[here] = rows[here].duration_us - rows[there].duration_us
    if whole:
        delays[whole[-1]] = rows[whole[-1]].duration_us
    return delays


def _whole(rows: Sequence[Row]) -> list[int]:
    """The points that saw the whole call: between them are the hops."""
    return [at for at, row in enumerate(rows) if row.has_request and row.has_response]


def path_of_call(way: Sequence[Span], repeats: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """One call, point by point.

    Args:
        way: spans from client to server.
        repeats: (agent, flow) → packets that its flow sent again, where the flow log knows it.
    """
    rows = [span.row for span in way]
    delays = hop_delays(rows)
    begin = way[0].start_us
    whole = max((row.duration_us for row in rows), default=0)
    points = [
        _point(Place.of(span.row))
        | {
            "_id": str(span.row.id),
            "ends": ends(span.row),
            "signal_source": span.row.signal_source,
            "type": span.row.type,
            "request_us": span.start_us - begin if span.row.has_request else None,
            "response_us": span.end_us - begin if span.row.has_response else None,
            "duration_us": span.row.duration_us if span.row.type == 2 else None,
            "delay_us": delay,
            "share": _share(delay, whole),
            "retransmissions": repeats.get((span.row.agent_id, span.row.flow_id)),
        }
        for span, delay in zip(way, delays, strict=True)
    ]
    return {"points": points, "whole_us": whole, **_verdict(points, "duration_us", dict(pairwise(_whole(rows))))}


@dataclass(slots=True)
class _Stop:
    """One place that calls came by."""

    durations: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    flows: set[tuple[int, int]] = field(default_factory=set)
    #: Where the hop behind it ended.
    following: Counter[Place] = field(default_factory=Counter)
    calls: int = 0


def path_of_calls(calls: Iterable[Call], repeats: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """Many calls between the same services: each place with the median and 95th percentile of its hop.

    Places stand in the order in which most calls came by. Two clients that call from two hosts come by other places;
    `calls` says how many came by each.
    """
    stops: dict[Place, _Stop] = defaultdict(_Stop)
    wholes: list[int] = []
    ways: list[list[Place]] = []
    for call in calls:
        way = [_without_process_id(row) for row in call.rows]
        ways.append(way)
        if answered := [row.duration_us for row in call.rows if row.has_request and row.has_response]:
            wholes.append(max(answered))
        for here, there in pairwise(_whole(call.rows)):
            stops[way[here]].following[way[there]] += 1
        for place, row, delay in zip(way, call.rows, hop_delays(call.rows), strict=True):
            stop = stops[place]
            stop.calls += 1
            stop.ends[ends(row)] += 1
            stop.flows.add((row.agent_id, row.flow_id))
            if delay is not None:
                stop.durations.append(row.duration_us)
                stop.delays.append(delay)
    whole = sum(wholes)
    ordered = in_order(ways, lambda place: (RANK.get(place.observation_point, len(RANK)), place.text))
    points = [
        _point(place)
        | {
            "ends": stop.ends.most_common(1)[0][0],
            "calls": stop.calls,
            "duration_median_us": quantile(stop.durations, 0.5),
            "delay_median_us": quantile(stop.delays, 0.5),
            "delay_p95_us": quantile(stop.delays, 0.95),
            "share": _share(sum(stop.delays), whole) if stop.delays else None,
            "retransmissions": _sum_known(stop.flows, repeats),
        }
        for place, stop in ((place, stops[place]) for place in ordered)
    ]
    numbers = {place: number for number, place in enumerate(ordered)}
    hops = {
        numbers[place]: numbers[stop.following.most_common(1)[0][0]]
        for place, stop in stops.items()
        if 2 * stop.following.total() > len(stop.delays)
    }
    summary = {"calls": len(ways), "median_us": quantile(wholes, 0.5), "p95_us": quantile(wholes, 0.95)}
    return {**summary, "points": points, **_verdict(points, "duration_median_us", hops)}


def quantile(values: Sequence[int], part: float) -> int | None:
    """The value that `part` of all values do not exceed; None without any."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else None


def _without_process_id(row: Row) -> Place:
    place = Place.of(row)
    # Workers of one service share a line.
    service = row.own.auto_service if place.process else ""
    return replace(place, process=service or place.process)


def _point(place: Place) -> dict[str, Any]:
    return {
        "observation_point": place.observation_point,
        "agent_id": place.agent_id,
        "agent": place.agent,
        "where": place.text,
    }


def _share(delay: int | None, whole: int) -> float | None:
    return None if delay is None else max(0.0, delay / whole) if whole else 0.0


def _sum_known(flows: Iterable[tuple[int, int]], repeats: Mapping[tuple[int, int], int]) -> int | None:
    known = [repeats[flow] for flow in flows if flow in repeats]
    return sum(known) if known else None


def _verdict(points: Sequence[Mapping[str, Any]], duration: str, hops: Mapping[int, int]) -> dict[str, Any]:
    """Which hop took the time, and a sentence that says so; `hops`: to which point the hop behind each leads."""
    timed = [at for at, point in enumerate(points) if point["share"] is not None]
    if not timed:
        return {"slowest": None, "sentence": "No point saw both the request and the response."}
    slowest = max(timed, key=lambda at: points[at]["share"])
    if len(timed) == 1:
        return {"slowest": None, "sentence": f"Only {_name(points[timed[0]])} saw it: there is no hop to compare."}
    first, last = points[timed[0]], points[timed[-1]]
    says = f"{_name(first)} says {duration_text(first[duration])}, {_name(last)} says {duration_text(last[duration])}: "
    share = f"{100 * points[slowest]['share']:.0f} % of the time"
    if slowest not in hops:
        end = points[slowest]
        behind = "in the server" if end["observation_point"] == "s-p" else f"behind {_name(end)}"
        return {"slowest": slowest, "sentence": f"{says}{share} is {behind}."}
    return {
        "slowest": slowest,
        "sentence": f"{says}{share} is between {_name(points[slowest])} and {_name(points[hops[slowest]])}.",
    }


_NAMES = {"c-p": "the client", "s-p": "the server"}


def _name(point: Mapping[str, Any]) -> str:
    place = point["observation_point"]
    return str(_NAMES.get(place) or f"{place} ({point['where']})")

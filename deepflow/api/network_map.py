"""`/v1/web/network-map`: who exchanges packets with whom in a time range and how well, each flow counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from deepflow.api import map_ends, translation
from deepflow.api.each_once import PACKETS, End, Sighting, each_once, share
from deepflow.api.own_calls import NOT_OWN, OwnAddress
from deepflow.schema import Schema, Table
from deepflow.store import Store

TABLE = "flow_metrics.network_map"
#: Sums of counters, under the names of the table's columns and metrics.
COUNTERS = (
    *("byte", "byte_tx", "byte_rx", "packet", "packet_tx", "packet_rx", "new_flow", "closed_flow"),
    *("syn_count", "synack_count", "retrans", "retrans_tx", "retrans_rx", "retrans_syn", "retrans_synack"),
    *("zero_win", "zero_win_tx", "zero_win_rx", "ooo", "client_establish_fail", "server_establish_fail"),
    *("tcp_establish_fail", "tcp_transfer_fail"),
)
DELAYS = ("rtt", "rtt_client", "rtt_server", "srt", "art", "cit")


@dataclass(slots=True)
class Flows(Sighting):
    """What was seen of the flows between two ends at one observation point."""

    #: Most flows that were open in one second (of a range read by minutes: the most of each kind of row, added up).
    active: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    largest: dict[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """Packets."""
        return self.sums["packet"]

    def part(self, low: float, high: float) -> Self:
        """The share of it between two fractions."""
        sums = Counter({name: share(round(value), low, high) for name, value in self.sums.items()})
        return replace(self, sums=sums, active=share(self.active, low, high))


def network_map(store: Store, schema: Schema, start_s: int, end_s: int, own: OwnAddress) -> dict[str, Any]:
    """Nodes and edges of [start_s, end_s), as docs/architecture.md section 5 names them; delays in µs, rates in 1/s.

    Traffic with this server itself, at `own`, is left out.

    Raises:
        StoreError: the store failed.
    """
    table = schema.tables[TABLE]
    precision = "1s" if end_s - start_s <= map_ends.FINE_RANGE_S else "1m"
    values = {"from": start_s, "to": end_s, "points": list(PACKETS), **own.parameters()}
    groups = []
    for row in store.query(_sql(table, precision), values).to_pylist():
        sums: Counter[str] = Counter({name: row[name] for name in COUNTERS})
        sums.update({name: row[name] for delay in DELAYS for name in (f"{delay}_sum", f"{delay}_count")})
        largest = {delay: row[f"{delay}_max"] for delay in DELAYS}
        groups.append(Flows(**map_ends.sighting(row), active=row["active"], sums=sums, largest=largest))
    chosen = each_once(groups)
    if translation.is_cut(chosen):
        total = sum(flows.sums["new_flow"] for flows in chosen)
        log = schema.tables["flow_log.l4_flow_log"]
        chosen = translation.joined(chosen, translation.ways(store, log, translation.FLOWS, start_s, end_s + 60, total))
    edges = _merge(chosen)
    known = map_ends.names(store, edges)
    seconds = end_s - start_s
    return {
        "nodes": _nodes(edges, known),
        "edges": [_edge(flows, seconds, schema) for flows in edges],
    }


def _sql(table: Table, precision: str) -> str:
    metrics = {metric.name: metric.expr for metric in table.metrics if metric.expr}
    sums = ", ".join(f"sum({metrics.get(name, name)}) AS sum_{name}" for name in COUNTERS)
    delays = ", ".join(
        f"sum({name}_sum) AS sum_{name}_sum, sum({name}_count) AS sum_{name}_count, max({name}_max) AS max_{name}"
        for name in DELAYS
    )
    # Open flows are a gauge: those of one second add up, those of two seconds do not.
    seconds = (
        f"SELECT {map_ends.group_columns(table, 'protocol')}, time, groupUniqArray(agent_id) AS some_agents, "
        f"sum(flow_load) AS load, {sums}, {delays} FROM flow_metrics.`network_map.{precision}` "
        "WHERE time >= {from:UInt32} AND time < {to:UInt32} AND observation_point IN {points:Array(String)} "
        f"AND {NOT_OWN} {map_ends.group_by()}, time"
    )
    outer = ", ".join(f"sum(sum_{name}) AS `{name}`" for name in COUNTERS)
    outer_delays = ", ".join(
        f"sum(sum_{name}_sum) AS {name}_sum, sum(sum_{name}_count) AS {name}_count, max(max_{name}) AS {name}_max"
        for name in DELAYS
    )
    keys = map_ends.group_by().removeprefix("GROUP BY ")
    return (
        f"SELECT {keys}, groupUniqArrayArray(some_agents) AS agents, max(load) AS active, {outer}, {outer_delays} "
        f"FROM ({seconds}) {map_ends.group_by()} ORDER BY byte DESC LIMIT {map_ends.MAX_GROUPS}"
    )


def _merge(groups: Iterable[Flows]) -> list[Flows]:
    """One group an edge: client, server, IP protocol."""
    edges: dict[tuple[str, str, int], Flows] = {}
    for flows in groups:
        edge = edges.get(flows.pair)
        if edge is None:
            edges[flows.pair] = replace(flows, sums=Counter(flows.sums), largest=dict(flows.largest))
            continue
        edge.active += flows.active
        edge.sums.update(flows.sums)
        edge.largest = {name: max(value, flows.largest[name]) for name, value in edge.largest.items()}
        edge.point = edge.point if edge.point == flows.point else ""
    return list(edges.values())


def _nodes(edges: Iterable[Flows], known: dict[int, str]) -> list[dict[str, Any]]:
    ends: dict[str, End] = {}
    through: Counter[str] = Counter()
    for flows in edges:
        for end in {flows.client, flows.server}:
            ends[end.key] = end
            through[end.key] += flows.sums["byte"]
    return [map_ends.node(end, known) | {"byte": through[key]} for key, end in sorted(ends.items())]


def _edge(flows: Flows, seconds: int, schema: Schema) -> dict[str, Any]:
    sums = flows.sums
    failed = sums["tcp_establish_fail"] + sums["tcp_transfer_fail"]
    number = flows.link[3]
    delays = {
        key: value
        for name in DELAYS
        for key, value in (
            (f"{name}_avg_us", _quotient(sums[f"{name}_sum"], sums[f"{name}_count"])),
            (f"{name}_max_us", flows.largest[name] if sums[f"{name}_count"] else None),
        )
    }
    return {
        "source": flows.client.key,
        "target": flows.server.key,
        "protocol": schema.enums["protocol"].get(number, str(number)),
        "observation_point": flows.point,
        **{name: sums[name] for name in COUNTERS},
        "byte_rate": sums["byte"] / seconds,
        "packet_rate": sums["packet"] / seconds,
        "active_flow": flows.active,
        "retrans_ratio": _quotient(sums["retrans"], sums["packet"]),
        "retrans_syn_ratio": _quotient(sums["retrans_syn"], sums["syn_count"]),
        "connection_error": failed,
        "connection_error_ratio": _quotient(failed, max(sums["closed_flow"], failed)),
        **delays,
    }


def _quotient(above: float, below: float) -> float | None:
    return above / below if below else None

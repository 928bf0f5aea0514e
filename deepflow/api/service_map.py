"""`/v1/web/map`: services and their calls in a time range, each call counted once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from deepflow.api import map_ends, translation
from deepflow.api.each_once import POINTS, SOCKETS, End, Sighting, each_once, share
from deepflow.api.own_calls import NOT_OWN, OwnAddress
from deepflow.schema import Schema, Table
from deepflow.store import Store

TABLE = "flow_metrics.application_map"
_QUANTILE_RANGE_S = 6 * 3600
# Delays are counted in buckets of 1/16 octave: counts of several groups add up, and a quantile is right within 2.2 %.
_BUCKETS_AN_OCTAVE = 16


@dataclass(slots=True)
class Calls(Sighting):
    """What was seen of the calls between two ends at one observation point."""

    request: int = 0
    response: int = 0
    error: int = 0
    rrt_sum: float = 0.0
    rrt_count: int = 0
    rrt_max: int = 0
    delays: Counter[int] = field(default_factory=Counter)

    @property
    def weight(self) -> int:
        """Requests."""
        return self.request

    def part(self, low: float, high: float) -> Self:
        """The share of it between two fractions."""
        names = ("request", "response", "error", "rrt_count")
        counts: dict[str, Any] = {name: share(getattr(self, name), low, high) for name in names}
        delays = Counter({bucket: share(count, low, high) for bucket, count in self.delays.items()})
        return replace(self, **counts, rrt_sum=self.rrt_sum * (high - low), delays=delays)


def service_map(store: Store, schema: Schema, start_s: int, end_s: int, own: OwnAddress) -> dict[str, Any]:
    """Nodes and edges of [start_s, end_s), as docs/architecture.md section 5 names them; delays in µs, rate in 1/s.

    Calls to this server itself, at `own`, are left out.

    Raises:
        StoreError: the store failed.
    """
    precision = "1s" if end_s - start_s <= map_ends.FINE_RANGE_S else "1m"
    meters = schema.tables[TABLE]
    bounds: dict[str, Any] = {"from": start_s, "to": end_s, **own.parameters()}
    bounds |= {"points": list(POINTS), "sockets": list(SOCKETS)}
    groups: dict[tuple[Any, ...], Calls] = {}
    for row in store.query(_meters_sql(meters, precision), bounds).to_pylist():
        calls = groups.setdefault(map_ends.sighting_key(row), Calls(**map_ends.sighting(row)))
        for name in ("request", "response", "error", "rrt_sum", "rrt_count", "rrt_max"):
            setattr(calls, name, row[name])
    chosen = each_once(groups.values())
    if end_s - start_s <= _QUANTILE_RANGE_S:
        bounds["points"] = sorted({calls.point for calls in chosen})
        for row in store.query(_delays_sql(meters), bounds).to_pylist():
            if (found := groups.get(map_ends.sighting_key(row))) is not None:
                buckets, counts = _pair(row["delays"])
                # A group that was chosen under another name still holds the same counter.
                found.delays.update(dict(zip(buckets, counts, strict=True)))
    if translation.is_cut(chosen):
        total = sum(calls.request for calls in chosen)
        log = schema.tables["flow_log.l7_flow_log"]
        chosen = translation.joined(chosen, translation.ways(store, log, translation.CALLS, start_s, end_s, total))
    edges = _merge(chosen)
    return {
        "nodes": _nodes(edges, map_ends.names(store, edges), schema.enums["l7_protocol"]),
        "edges": [_edge(calls, end_s - start_s, schema) for calls in edges],
    }


def quantile_us(delays: Counter[int], part: float) -> int | None:
    """Quantile of bucketed delays in µs, None without any."""
    left = part * delays.total()
    for bucket in sorted(delays):
        left -= delays[bucket]
        if left <= 0:
            return round(2 ** ((bucket + 0.5) / _BUCKETS_AN_OCTAVE))
    return None


def _meters_sql(table: Table, precision: str) -> str:
    return (
        f"SELECT {map_ends.group_columns(table, 'l7_protocol')}, groupUniqArray(agent_id) AS agents, "
        "sum(request) AS request, sum(response) AS response, sum(error) AS error, "
        "sum(rrt_sum) AS rrt_sum, sum(rrt_count) AS rrt_count, max(rrt_max) AS rrt_max "
        f"FROM flow_metrics.`application_map.{precision}` WHERE time >= {{from:UInt32}} AND time < {{to:UInt32}} "
        f"AND observation_point IN {{points:Array(String)}} AND {NOT_OWN} {map_ends.group_by()} "
        # Should there be too many, what sockets saw goes first.
        "ORDER BY observation_point IN {sockets:Array(String)} DESC, request DESC "
        f"LIMIT {map_ends.MAX_GROUPS}"
    )


def _delays_sql(meters: Table) -> str:
    buckets = f"[toUInt16(floor(log2(greatest(response_duration, 1)) * {_BUCKETS_AN_OCTAVE}))]"
    return (
        f"SELECT {map_ends.group_columns(meters, 'l7_protocol')}, sumMap({buckets}, [toUInt64(1)]) AS delays "
        "FROM flow_log.l7_flow_log WHERE time >= {from:UInt32} AND time < {to:UInt32} "
        "AND type = 2 AND response_status != 2 AND observation_point IN {points:Array(String)} "
        f"AND {NOT_OWN} {map_ends.group_by()} LIMIT {map_ends.MAX_GROUPS}"
    )


def _merge(groups: Iterable[Calls]) -> list[Calls]:
    """One group an edge: client, server, application protocol."""
    edges: dict[tuple[str, str, int], Calls] = {}
    for calls in groups:
        edge = edges.get(calls.pair)
        if edge is None:
            edges[calls.pair] = replace(calls, delays=Counter(calls.delays))
            continue
        for name in ("request", "response", "error", "rrt_sum", "rrt_count"):
            setattr(edge, name, getattr(edge, name) + getattr(calls, name))
        edge.rrt_max = max(edge.rrt_max, calls.rrt_max)
        edge.delays.update(calls.delays)
    return list(edges.values())


def _nodes(
    edges: Iterable[Calls], names: Mapping[int, str], protocols: Mapping[int | str, str]
) -> list[dict[str, Any]]:
    ends: dict[str, End] = {}
    served: dict[str, Counter[int]] = defaultdict(Counter)
    for calls in edges:
        ends[calls.client.key] = calls.client
        ends[calls.server.key] = calls.server
        served[calls.server.key][calls.link[3]] += calls.request
    return [
        map_ends.node(end, names)
        | {
            "protocol": _protocol(protocols, served[key].most_common(1)[0][0]) if served[key] else None,
            "requests": served[key].total(),
        }
        for key, end in sorted(ends.items())
    ]


def _edge(calls: Calls, seconds: int, schema: Schema) -> dict[str, Any]:
    return {
        "source": calls.client.key,
        "target": calls.server.key,
        "protocol": _protocol(schema.enums["l7_protocol"], calls.link[3]),
        "l7_protocol": calls.link[3],
        "request": calls.request,
        "rate": calls.request / seconds,
        "error": calls.error,
        "error_ratio": calls.error / calls.response if calls.response else None,
        "rrt_avg_us": calls.rrt_sum / calls.rrt_count if calls.rrt_count else None,
        "rrt_max_us": calls.rrt_max if calls.rrt_count else None,
        "rrt_p95_us": _capped(quantile_us(calls.delays, 0.95), calls.rrt_max),
    }


def _capped(value: int | None, largest: int) -> int | None:
    return value if value is None or not largest else min(value, largest)


def _protocol(protocols: Mapping[int | str, str], number: int) -> str:
    return protocols.get(number, str(number))


def _pair(value: Any) -> tuple[list[int], list[int]]:
    """A tuple of ClickHouse: a struct of two fields in Arrow."""
    buckets, counts = value.values() if isinstance(value, dict) else value
    return buckets, counts

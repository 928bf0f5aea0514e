"""Finds the calls between two services, and what the flow log knows of their connections."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from deepflow.trace.network import Call, Tolerance, calls
from deepflow.trace.path import path_of_call, path_of_calls, way_of
from deepflow.trace.row import PACKET, Row, sessions
from deepflow.trace.search import TraceNotFound, rows_by_id, trace_by_id

if TYPE_CHECKING:
    from deepflow.store import Store

#: Calls that a path is made from at most.
MAX_CALLS = 1000
#: A long flow is told of once a minute: its first row comes so long after its first packet.
_FLOW_ROWS_S = 90
#: Sightings of one call on several hosts end within this.
_APART_S = 6
_SIGHTINGS_A_CALL = 16
# One value a call, at every place and through address translation: both sequence numbers, or the id and what is asked.
_SAME = (
    "if(protocol = 6, cityHash64(req_tcp_seq, resp_tcp_seq), "
    "cityHash64(ifNull(request_id, 0), toString(request_resource)))"
)
_WHOLE = "type = 2 AND (protocol != 6 OR (req_tcp_seq != 0 AND resp_tcp_seq != 0))"
_NAMED = (
    "((auto_service_type_{0} = 120 AND auto_service_id_{0} IN (SELECT deviceid FROM flow_tag.device_map "
    "WHERE devicetype = 120 AND name = {{{1}:String}})) OR "
    "if(is_ipv4 = 1, toString(ip4_{0}), toString(ip6_{0})) = {{{1}:String}})"
)


def path_by_id(store: Store, row_id: int) -> dict[str, Any]:
    """The path of the call that a row of the request log belongs to (`path.path_of_call`).

    Raises:
        TraceNotFound: no such row.
        StoreError: the store failed.
    """
    way = way_of(trace_by_id(store, row_id), row_id)
    if not way:
        raise TraceNotFound(f"There is no request with the id {row_id}.")
    return path_of_call(way, retransmissions(store, [span.row for span in way]))


def path_between(store: Store, client: str, server: str, start_s: int, end_s: int, limit: int) -> dict[str, Any]:
    """The path of the newest `limit` answered calls that ended in [start_s, end_s) (`path.path_of_calls`).

    Args:
        client, server: names of services, or addresses, as the map shows them.

    Raises:
        StoreError: the store failed.
    """
    values: dict[str, Any] = {"from": start_s, "to": end_s, "client": client, "server": server}
    bounds = "time >= {from:UInt32} AND time < {to:UInt32}"
    # Behind address translation no single row need know both names: one sighting knows the client, one the server.
    found = store.query(
        f"SELECT {_SAME} AS same, max(time) AS last FROM flow_log.l7_flow_log WHERE {bounds} AND {_WHOLE} "
        f"AND {_NAMED.format(0, 'client')} AND same IN (SELECT {_SAME} FROM flow_log.l7_flow_log "
        f"WHERE {bounds} AND {_WHOLE} AND {_NAMED.format(1, 'server')}) "
        f"GROUP BY same ORDER BY last DESC LIMIT {min(limit, MAX_CALLS)}",
        values,
    ).to_pylist()
    if not found:
        return path_of_calls([], {})
    seconds = [record["last"] for record in found]
    ids = store.query(
        f"SELECT _id FROM flow_log.l7_flow_log WHERE time >= {{from:UInt32}} AND time <= {{to:UInt32}} AND {_WHOLE} "
        f"AND {_SAME} IN {{same:Array(UInt64)}} ORDER BY time DESC LIMIT {_SIGHTINGS_A_CALL * len(found)}",
        {
            "from": max(0, min(seconds) - _APART_S),
            "to": max(seconds) + _APART_S,
            "same": [record["same"] for record in found],
        },
    )
    rows = sessions(rows_by_id(store, ids.column("_id").to_pylist()))
    ways = [call for call in calls(rows, Tolerance()) if _is_between(call, client, server)]
    return path_of_calls(ways, retransmissions(store, [row for call in ways for row in call.rows]))


def _is_between(call: Call, client: str, server: str) -> bool:
    return any(client in (row.client.auto_service, row.client.ip) for row in call.rows) and any(
        server in (row.server.auto_service, row.server.ip) for row in call.rows
    )


def retransmissions(store: Store, rows: Iterable[Row]) -> dict[tuple[int, int], int]:
    """(agent, flow) → data and SYN packets sent again, of the flows of packet rows that the flow log has.

    Of a flow that lasts, rows of the minutes in which the calls lie.
    """
    seen = [row for row in rows if row.signal_source == PACKET and row.flow_id]
    flows: Collection[int] = {row.flow_id for row in seen}
    if not flows:
        return {}
    start, end = (edge // 1_000_000 for edge in (min(r.start_us for r in seen), max(r.end_us for r in seen)))
    found = store.query(
        "SELECT agent_id, flow_id, sum(retrans_tx + retrans_rx + retrans_syn + retrans_synack) AS again "
        "FROM flow_log.l4_flow_log WHERE time >= {from:UInt32} AND time <= {to:UInt32} "
        "AND flow_id IN {flows:Array(UInt64)} GROUP BY agent_id, flow_id",
        {"from": max(0, start - 1), "to": end + _FLOW_ROWS_S, "flows": sorted(flows)},
    ).to_pylist()
    return {(record["agent_id"], record["flow_id"]): record["again"] for record in found}

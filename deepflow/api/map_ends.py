"""The ends of the two maps: which rows belong to one edge, and what their nodes are called."""

from collections.abc import Iterable, Mapping
from typing import Any

from deepflow.api.each_once import End, Sighting
from deepflow.schema import Table
from deepflow.store import Store

#: Groups of rows that one map reads at most.
MAX_GROUPS = 20_000
#: Longest range that is read second by second; above it the minutes are.
FINE_RANGE_S = 2 * 3600
_PROCESS = 120
_ADDRESS = "if(is_ipv4 = 1, IPv4NumToString(ip4_{0}), IPv6NumToString(ip6_{0}))"
_NAMES_SQL = "SELECT deviceid, name FROM flow_tag.device_map WHERE devicetype = 120 AND deviceid IN {ids:Array(UInt64)}"
_KEYS = (
    *("type_0", "id_0", "address_0", "type_1", "id_1", "address_1"),
    *("server_port", "link_protocol", "observation_point", "nic"),
)


def group_columns(table: Table, protocol: str) -> str:
    """The columns that `sighting_key` and `sighting` read, as SQL; `protocol` tells edges of two nodes apart."""
    # Tables of sessions and of calls may not know the interface.
    nic = "capture_nic" if any(column.name == "capture_nic" for column in table.columns) else "toUInt32(0)"
    ends = ", ".join(
        f"auto_service_type_{side} AS type_{side}, auto_service_id_{side} AS id_{side}, "
        f"{_ADDRESS.format(side)} AS address_{side}"
        for side in (0, 1)
    )
    return f"{ends}, server_port, {protocol} AS link_protocol, observation_point, {nic} AS nic"


def group_by() -> str:
    """GROUP BY of `group_columns`."""
    return f"GROUP BY {', '.join(_KEYS)}"


def sighting_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Identity of a group."""
    return tuple(row[name] for name in _KEYS)


def sighting(row: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a `Sighting`."""
    client, server = (
        End(row[f"id_{side}"] if row[f"type_{side}"] == _PROCESS else 0, row[f"address_{side}"]) for side in (0, 1)
    )
    link = (row["address_0"], row["address_1"], row["server_port"], row["link_protocol"])
    found = {"client": client, "server": server, "link": link, "point": row["observation_point"]}
    return found | {"agents": frozenset(row.get("agents", ())), "nic": row["nic"]}


def names(store: Store, edges: Iterable[Sighting]) -> dict[int, str]:
    """Names of the services at the ends of edges."""
    ids = sorted({end.service_id for seen in edges for end in (seen.client, seen.server) if end.service_id})
    if not ids:
        return {}
    found = store.query(_NAMES_SQL, {"ids": ids})
    return dict(zip(found.column("deviceid").to_pylist(), found.column("name").to_pylist(), strict=True))


def node(end: End, known: Mapping[int, str]) -> dict[str, Any]:
    """What every node of a map says of itself."""
    name = known.get(end.service_id, f"process {end.service_id}") if end.service_id else end.address
    return {"id": end.key, "name": name, "type": "Process" if end.service_id else "IP"}

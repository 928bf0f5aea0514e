"""Edges that address translation cut in two: client → service address, and node → server.

Meters know addresses only. The logs know more: both halves of a call carry the same TCP sequence numbers, both halves
of a flow those of its handshake. A sample of them says which links are one way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from deepflow.api import map_ends
from deepflow.api.each_once import End, Link, Sighting
from deepflow.schema import Table
from deepflow.store import Store

#: Calls or flows that are looked at, about.
SAMPLE = 50_000
_SIDES = ("client", "server")

Seen = TypeVar("Seen", bound=Sighting)


@dataclass(frozen=True, slots=True)
class Way:
    """So much of what was sampled went from the client, seen under one link, to the server, seen under another."""

    client: End | None
    """None where nobody saw the client's end."""
    client_link: Link | None
    server: End
    server_link: Link
    weight: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What the two halves have in common in a log: columns that are not 0, the same in all sightings of one thing."""

    table: str
    columns: tuple[str, str]
    protocol: str
    """The column that tells edges of two nodes apart."""
    weight: str
    """SQL aggregate: how much one group of sightings stands for."""
    where: str = "1"


CALLS = Identity("l7_flow_log", ("req_tcp_seq", "resp_tcp_seq"), "l7_protocol", "1", "type = 2")
FLOWS = Identity("l4_flow_log", ("syn_seq", "syn_ack_seq"), "protocol", "max(packet_tx + packet_rx)")


def is_cut(chosen: Iterable[Sighting]) -> bool:
    """Whether there may be two halves: a service that calls an address, and an address that calls a service."""
    halves = {(bool(seen.client.service_id), bool(seen.server.service_id)) for seen in chosen}
    return {(True, False), (False, True)} <= halves


def ways(store: Store, table: Table, what: Identity, start_s: int, end_s: int, total: int) -> list[Way]:
    """What a sample of the log of [start_s, end_s) says; `total` is about how many things there are.

    Raises:
        StoreError: the store failed.
    """
    one, other = what.columns
    same = f"cityHash64({one}, {other})"
    end = "tuple(type_{0}, id_{0}, address_0, address_1, server_port, link_protocol)"
    # What an end calls itself goes before what it is called behind the translation.
    halves = ", ".join(
        f"argMinIf({end.format(number)}, observation_point NOT IN ('{side[0]}-p', '{side[0]}'), {known}) AS {side}, "
        f"countIf({known}) > 0 AS has_{side}"
        for number, side in enumerate(_SIDES)
        for known in [f"type_{number} = 120 AND startsWith(observation_point, '{side[0]}')"]
    )
    pieces = ", ".join(
        f"{name}.{index} AS {name}_{piece}"
        for name in _SIDES
        for index, piece in enumerate(("type", "id", "from", "to", "port", "protocol"), 1)
    )
    found = store.query(
        f"SELECT {pieces}, has_client, sum(weight) AS weight FROM ("
        f"SELECT {same} AS same, {halves}, toUInt64({what.weight}) AS weight FROM ("
        f"SELECT *, {map_ends.group_columns(table, what.protocol)} FROM flow_log.{what.table} "
        f"WHERE time >= {{from:UInt32}} AND time < {{to:UInt32}} AND protocol = 6 AND {one} != 0 AND {other} != 0 "
        f"AND {what.where} AND {same} % {{every:UInt64}} = 0) GROUP BY same) "
        f"WHERE has_server GROUP BY {', '.join(_SIDES)}, has_client ORDER BY weight DESC LIMIT {map_ends.MAX_GROUPS}",
        {"from": start_s, "to": end_s, "every": max(1, total // SAMPLE)},
    ).to_pylist()
    return [
        Way(
            End(row["client_id"], row["client_from"]) if row["has_client"] else None,
            _link(row, "client") if row["has_client"] else None,
            End(row["server_id"], row["server_to"]),
            _link(row, "server"),
            row["weight"],
        )
        for row in found
    ]


def _link(row: dict[str, int | str], side: str) -> Link:
    start, to, port, protocol = (row[f"{side}_{piece}"] for piece in ("from", "to", "port", "protocol"))
    return str(start), str(to), int(port), int(protocol)


def joined(chosen: Iterable[Seen], found: Sequence[Way]) -> list[Seen]:
    """`chosen` with halves of one way made one: the client's half stays and gets the server's name.

    A service address with several servers behind it is split as the sample is; of what a server says of a node, the
    part that clients told of goes.
    """
    servers: dict[tuple[End, Link], dict[End, int]] = defaultdict(lambda: defaultdict(int))
    told: dict[tuple[End, Link], list[int]] = defaultdict(lambda: [0, 0])
    for way in found:
        told[way.server, way.server_link][1] += way.weight
        if way.client is not None and way.client_link is not None and way.client_link != way.server_link:
            told[way.server, way.server_link][0] += way.weight
            servers[way.client, way.client_link][way.server] += way.weight
    result: list[Seen] = []
    for seen in chosen:
        if seen.client.service_id and not seen.server.service_id and (seen.client, seen.link) in servers:
            result += _split(seen, servers[seen.client, seen.link])
        elif seen.server.service_id and not seen.client.service_id and (seen.server, seen.link) in told:
            by_clients, whole = told[seen.server, seen.link]
            if by_clients < whole:
                part = seen.part(by_clients / whole, 1.0)
                result += [part] if part.weight else []
        else:
            result.append(seen)
    return result


def _split(seen: Seen, servers: dict[End, int]) -> list[Seen]:
    whole, below = sum(servers.values()), 0
    pieces: list[Seen] = []
    for server, weight in sorted(servers.items(), key=lambda item: (-item[1], item[0].key)):
        piece = seen.part(below / whole, (below + weight) / whole)
        below += weight
        if piece.weight:
            pieces.append(replace(piece, server=server))
    return pieces

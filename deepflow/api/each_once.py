"""Counts every call (or flow) once: it is seen by its client, by its server, and at places on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

#: Places of observation, the best witness first: sockets know both what was asked and who asked.
SOCKETS = ("s-p", "c-p")
PACKETS = (
    *("c", "s", "c-nd", "s-nd", "c-hv", "s-hv", "c-gw-hv", "s-gw-hv", "c-gw", "s-gw"),
    *("local", "rest"),
)
POINTS = (*SOCKETS, *PACKETS)
_ENDS = (*SOCKETS, "c", "s")

Link = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class End:
    """One end of a call: a service by its id, or an address."""

    service_id: int
    address: str

    @property
    def key(self) -> str:
        """Identity of the node."""
        return f"service:{self.service_id}" if self.service_id else f"ip:{self.address}"


@dataclass(slots=True)
class Sighting(ABC):
    """What was seen between two ends at one place of observation; how much, says a subclass."""

    client: End
    server: End
    link: Link
    """Client address, server address, server port, protocol: the same at both ends unless an address is translated."""
    point: str
    agents: frozenset[int] = frozenset()
    nic: int = 0
    """The interface, where the place is one."""

    @property
    @abstractmethod
    def weight(self) -> int:
        """How much was seen; of two views of one thing the larger is taken."""

    @abstractmethod
    def part(self, low: float, high: float) -> Self:
        """The share of it between two fractions; shares that follow one another add up to the whole."""

    @property
    def pair(self) -> tuple[str, str, int]:
        """Client, server and protocol: an edge of the map."""
        return self.client.key, self.server.key, self.link[3]


Seen = TypeVar("Seen", bound=Sighting)


def share(value: int, low: float, high: float) -> int:
    """The part of a count between two fractions of it."""
    return round(value * high) - round(value * low)


def each_once(groups: Iterable[Seen]) -> list[Seen]:
    """The groups that count everything once, their ends named as well as any view of them can.

    Sockets go first. Packets count only where sockets saw nothing of it: neither the link, nor the pair of services,
    nor anything that the client's or the server's own sockets would have told.
    """
    everything = list(groups)
    sockets = [seen for seen in everything if seen.point in SOCKETS]
    names = _names(everything)
    chosen = _one_view_a_pair((_named(seen, names), sides) for seen, sides in _by_sockets(sockets))
    links = {seen.link for seen in sockets}
    pairs = {seen.pair for seen in (*sockets, *chosen)}
    callers = {(seen.client.service_id, seen.link[3]) for seen in sockets if seen.point == "c-p"}
    called = {(seen.server.service_id, seen.link[3]) for seen in sockets if seen.point == "s-p"}
    told = {agent for seen in everything if seen.point in _ENDS for agent in seen.agents}
    packets = _by_packets([seen for seen in everything if seen.point in PACKETS and seen.link not in links])
    fresh = [
        (seen, sides)
        for seen, sides in ((_named(seen, names), sides) for seen, sides in packets)
        if seen.pair not in pairs
        and not (seen.client.service_id and (seen.client.service_id, seen.link[3]) in callers)
        and not (seen.server.service_id and (seen.server.service_id, seen.link[3]) in called)
        and not _in_passing(seen, told)
    ]
    return chosen + _one_view_a_pair(fresh)


def _names(groups: Iterable[Sighting]) -> dict[Link, tuple[End | None, End | None]]:
    """Client and server of each link, where the views from that end know one service and nothing else there."""
    ends: dict[Link, tuple[set[End], set[End]]] = defaultdict(lambda: (set(), set()))
    for seen in groups:
        if seen.point[0] in "cs":
            server_side = seen.point[0] == "s"
            ends[seen.link][server_side].add(seen.server if server_side else seen.client)
    return {link: (_only_service(clients), _only_service(servers)) for link, (clients, servers) in ends.items()}


def _only_service(ends: set[End]) -> End | None:
    found = next(iter(ends)) if len(ends) == 1 else None
    return found if found and found.service_id else None


def _named(seen: Seen, names: Mapping[Link, tuple[End | None, End | None]]) -> Seen:
    client, server = names.get(seen.link, (None, None))
    if (seen.client.service_id or not client) and (seen.server.service_id or not server):
        return seen
    return replace(
        seen,
        client=seen.client if seen.client.service_id else client or seen.client,
        server=seen.server if seen.server.service_id else server or seen.server,
    )


def _by_sockets(groups: Iterable[Seen]) -> list[tuple[Seen, str]]:
    """Each with the sides ("c", "s", "cs") that saw its link.

    A call between processes that are observed is seen by its client and by its server, and the two agree on the link.
    The server's view is taken. Where it does not know all clients (which are on another host) and the client's view of
    the link exists, that one is taken, with the server that the server's view names. Either agent may have learned the
    far end in between, so that one view is of several groups.
    """
    links: dict[Link, tuple[list[Seen], list[Seen]]] = defaultdict(lambda: ([], []))
    for seen in groups:
        links[seen.link][seen.point == "s-p"].append(seen)
    chosen: list[tuple[Seen, str]] = []
    for by_client, by_server in links.values():
        sides = ("c" if by_client else "") + ("s" if by_server else "")
        if by_client and not all(seen.client.service_id for seen in by_server):
            server = max(by_server, key=lambda seen: seen.weight).server if by_server else None
            taken = [replace(seen, server=server) if server else seen for seen in by_client]
        else:
            taken = by_server or by_client
        chosen += [(seen, sides) for seen in taken]
    return chosen


def _by_packets(groups: Iterable[Seen]) -> list[tuple[Seen, str]]:
    """Each link at its best place, with the sides that saw it."""
    links: dict[Link, list[Seen]] = defaultdict(list)
    for seen in groups:
        links[seen.link].append(seen)
    chosen: list[tuple[Seen, str]] = []
    for views in links.values():
        best = min(views, key=lambda seen: PACKETS.index(seen.point)).point
        sides = "".join(sorted({seen.point[0] for seen in views} & {"c", "s"}))
        # The two ends of a veth are one place and see the same packets.
        through: Counter[int] = Counter()
        for seen in views:
            if seen.point == best:
                through[seen.nic] += seen.weight
        nic = max(through, key=lambda one: (through[one], one))
        chosen += [(seen, sides) for seen in views if seen.point == best and seen.nic == nic]
    return chosen


def _one_view_a_pair(groups: Iterable[tuple[Seen, str]]) -> list[Seen]:
    """Behind address translation client and server see one call under two links; two services tell that it is one.

    Links that both sides saw stand. Of those that only the client's side saw and those that only the server's side saw,
    the larger view is taken, the server's when they are equal.
    """
    pairs: dict[tuple[str, str, int], list[tuple[Seen, str]]] = defaultdict(list)
    chosen: list[Seen] = []
    for seen, sides in groups:
        if seen.client.service_id and seen.server.service_id:
            pairs[seen.pair].append((seen, sides))
        else:
            chosen.append(seen)
    for views in pairs.values():
        by_client, by_server, by_others = ([seen for seen, sides in views if sides == side] for side in ("c", "s", ""))
        chosen += [seen for seen, sides in views if sides == "cs"]
        larger = max((by_server, by_client), key=lambda side: sum(seen.weight for seen in side))
        chosen += larger or ([] if any(sides == "cs" for _, sides in views) else by_others)
    return chosen


def _in_passing(seen: Sighting, told: set[int]) -> bool:
    """Whether this is a translated view, between two addresses, of what the same host tells better: its node's
    interface repeats what its pods' interfaces and sockets said."""
    between_addresses = not seen.client.service_id and not seen.server.service_id
    behind_an_end = seen.point not in _ENDS and seen.point[0] in "cs" and "-" in seen.point
    return between_addresses and behind_an_end and bool(seen.agents) and seen.agents <= told

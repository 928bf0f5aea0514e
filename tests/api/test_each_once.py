"""Every call is counted once, whoever saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import pytest

from deepflow.api.each_once import End, Sighting, each_once, share

HTTP = 20
SHOP, CART = "10.1.0.5", "10.2.0.7"
SERVICE_ADDRESS, NODE = "10.96.0.1", "192.0.2.1"
NAMES = {SHOP: 1, CART: 2}


@dataclass(slots=True)
class Seen(Sighting):
    requests: int = 0

    def part(self, low: float, high: float) -> Self:
        return replace(self, requests=share(self.requests, low, high))

    @property
    def weight(self) -> int:
        return self.requests


def seen(
    point: str,
    client: str,
    server: str,
    requests: int = 10,
    known: str = "",
    port: int = 80,
    agent: int = 1,
    nic: int = 0,
) -> Seen:
    """`known`: which ends the agent knows the process of, "c", "s" or both."""
    ends = (
        End(NAMES.get(client, 9) if "c" in known else 0, client),
        End(NAMES.get(server, 9) if "s" in known else 0, server),
    )
    return Seen(*ends, (client, server, port, HTTP), point, frozenset((agent,)), nic, requests)


def counted(*groups: Seen) -> list[tuple[str, str, int]]:
    chosen = each_once(groups)
    assert {(s.client.key, s.server.key, s.requests) for s in each_once(reversed(groups))} == {
        (s.client.key, s.server.key, s.requests) for s in chosen
    }
    return sorted((s.client.key, s.server.key, s.requests) for s in chosen)


BOTH = ("service:1", "service:2")
CASES: dict[str, tuple[list[Seen], list[tuple[str, str, int]]]] = {
    "sockets of both ends: the server's view": (
        [seen("c-p", SHOP, CART, 11, "cs"), seen("s-p", SHOP, CART, 10, "cs")],
        [(*BOTH, 10)],
    ),
    "two hosts: each knows its own process": (
        [seen("c-p", SHOP, CART, 10, "c"), seen("s-p", SHOP, CART, 10, "s", agent=2)],
        [(*BOTH, 10)],
    ),
    "packets beside sockets add nothing": (
        [seen("c-p", SHOP, CART, 10, "c"), seen("s-p", SHOP, CART, 10, "s", agent=2)]
        + [seen(point, SHOP, CART, 10) for point in ("c", "c-nd", "rest", "local")]
        + [seen(point, SHOP, CART, 10, agent=2) for point in ("s", "s-nd")],
        [(*BOTH, 10)],
    ),
    "packets alone: the client's interface": (
        [seen(point, SHOP, CART, n) for n, point in enumerate(("rest", "local", "s-nd", "c-nd", "s", "c"), 1)],
        [(f"ip:{SHOP}", f"ip:{CART}", 6)],
    ),
    "packets alone, without the client's interface: the server's": (
        [seen(point, SHOP, CART, n) for n, point in enumerate(("rest", "local", "s-nd", "c-nd", "s"), 1)],
        [(f"ip:{SHOP}", f"ip:{CART}", 5)],
    ),
    "a bridge alone": ([seen("rest", SHOP, CART, 3)], [(f"ip:{SHOP}", f"ip:{CART}", 3)]),
    "packets that know the processes (an agent without eBPF) name both ends": (
        [seen("c", SHOP, CART, 10, "c"), seen("s", SHOP, CART, 10, "s", agent=2)],
        [(*BOTH, 10)],
    ),
    "packets name an end that no socket saw, and count nothing": (
        [seen("c-p", SHOP, CART, 10, "c"), seen("s", SHOP, CART, 9, "s", agent=2)],
        [(*BOTH, 10)],
    ),
    "packets of other links stay": (
        [seen("c-p", SHOP, CART, 10, "c"), seen("c", SHOP, CART, 7, port=81), seen("c", NODE, CART, 4)],
        [(f"ip:{SHOP}", f"ip:{CART}", 7), (f"ip:{NODE}", f"ip:{CART}", 4), ("service:1", f"ip:{CART}", 10)],
    ),
    "what a node's interface repeats behind masquerade is not another call": (
        [seen("c-p", SHOP, SERVICE_ADDRESS, 10, "c"), seen("c", SHOP, SERVICE_ADDRESS), seen("c-nd", NODE, CART)],
        [("service:1", f"ip:{SERVICE_ADDRESS}", 10)],
    ),
    "what a host sees only in passing is all there is of it": (
        [seen("c-nd", NODE, CART, 10, agent=5)],
        [(f"ip:{NODE}", f"ip:{CART}", 10)],
    ),
    "two hosts that learn of each other in the middle": (
        [seen("c-p", SHOP, CART, n, known) for n, known in ((2, "c"), (10, "cs"))]
        + [seen("s-p", SHOP, CART, n, known, agent=2) for n, known in ((9, "s"), (3, "cs"))],
        [(*BOTH, 2), (*BOTH, 10)],
    ),
    "the server's agent came late and knows all clients": (
        [seen("c-p", SHOP, CART, 5, "c"), seen("c-p", SHOP, CART, 5, "cs"), seen("s-p", SHOP, CART, 10, "cs", agent=2)],
        [(*BOTH, 10)],
    ),
    "two clients at one address, of which the server's agent learned one": (
        [seen("c-p", SHOP, CART, n, known) for n, known in ((4, "c"), (6, "cs"))]
        + [seen("s-p", SHOP, CART, n, known, agent=2) for n, known in ((6, "s"), (4, "cs"))],
        [(*BOTH, 4), (*BOTH, 6)],
    ),
    "the two ends of a veth": (
        [seen("c", SHOP, CART, 10, nic=1), seen("c", SHOP, CART, 9, nic=2), seen("c", SHOP, CART, 3, port=81, nic=2)],
        [(f"ip:{SHOP}", f"ip:{CART}", 3), (f"ip:{SHOP}", f"ip:{CART}", 10)],
    ),
    "two clients at one address": (
        [seen("c-p", SHOP, CART, 4, "c"), seen("s-p", SHOP, CART, 10, "s", agent=2)],
        [(*BOTH, 4)],
    ),
}


@pytest.mark.parametrize("groups, wanted", CASES.values(), ids=CASES.keys())
def test_each_once(groups: list[Seen], wanted: list[tuple[str, str, int]]) -> None:
    assert counted(*groups) == wanted


@pytest.mark.parametrize("points", [("c-p", "s-p"), ("c", "s")])
@pytest.mark.parametrize("more", [0, 3])
def test_two_links_of_two_services_are_one_call_behind_address_translation(points: tuple[str, str], more: int) -> None:
    client, server = End(1, SHOP), End(2, CART)
    views = [
        Seen(client, server, (SHOP, SERVICE_ADDRESS, 80, HTTP), points[0], frozenset((1,)), requests=10 + more),
        Seen(client, server, (NODE, CART, 8080, HTTP), points[1], frozenset((2,)), requests=10),
    ]
    assert counted(*views) == [(*BOTH, 10 + more)]
    both = [seen(point, SHOP, CART, 5, "cs") for point in points]
    assert sum(requests for *_, requests in counted(*views, *both)) == 15 + more

"""Halves of one way behind address translation become one edge; the sums stay what they were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from deepflow.api.each_once import End, Link, Sighting, share
from deepflow.api.translation import Way, is_cut, joined

SHOP, WEB, CART, STOCK, OTHER = (End(number, f"10.0.0.{number}") for number in (1, 2, 3, 4, 0))
SERVICE, NODE = End(0, "10.96.0.1"), End(0, "192.0.2.1")


@dataclass(slots=True)
class Seen(Sighting):
    requests: int = 0

    @property
    def weight(self) -> int:
        return self.requests

    def part(self, low: float, high: float) -> Self:
        return replace(self, requests=share(self.requests, low, high))


def link(client: End, server: End) -> Link:
    return client.address, server.address, 80, 20


def seen(client: End, server: End, requests: int) -> Seen:
    return Seen(client, server, link(client, server), "c-p" if client.service_id else "s-p", requests=requests)


def way(client: End | None, server: End, weight: int, *, translated: bool = True) -> Way:
    if client is None:
        return Way(None, None, server, link(NODE, server), weight)
    before = link(client, SERVICE if translated else server)
    return Way(client, before, server, link(NODE, server) if translated else before, weight)


def edges(found: list[Seen]) -> list[tuple[str, str, int]]:
    return sorted((one.client.key, one.server.key, one.requests) for one in found)


def test_two_halves_are_one_edge() -> None:
    halves = [seen(SHOP, SERVICE, 10), seen(NODE, CART, 10), seen(CART, STOCK, 4)]
    assert is_cut(halves)
    assert edges(joined(halves, [way(SHOP, CART, 3)])) == [
        ("service:1", "service:3", 10),
        ("service:3", "service:4", 4),
    ]


def test_a_service_address_is_split_as_the_sample_is_and_loses_nothing() -> None:
    halves = [seen(SHOP, SERVICE, 100), seen(WEB, SERVICE, 7), seen(NODE, CART, 70), seen(NODE, STOCK, 37)]
    found = edges(joined(halves, [way(SHOP, CART, 2), way(SHOP, STOCK, 1), way(WEB, CART, 1)]))
    assert found == [("service:1", "service:3", 67), ("service:1", "service:4", 33), ("service:2", "service:3", 7)]


def test_what_no_client_told_of_stays() -> None:
    halves = [seen(SHOP, SERVICE, 30), seen(NODE, CART, 40)]
    found = edges(joined(halves, [way(SHOP, CART, 3), way(None, CART, 1)]))
    assert found == [("ip:192.0.2.1", "service:3", 10), ("service:1", "service:3", 30)]


def test_strangers_stay_apart() -> None:
    halves = [seen(SHOP, SERVICE, 30), seen(OTHER, CART, 40)]
    assert edges(joined(halves, [])) == edges(halves)
    assert edges(joined(halves, [way(SHOP, CART, 3, translated=False)])) == edges(halves)
    assert not is_cut([seen(SHOP, SERVICE, 1), seen(SHOP, CART, 1)])

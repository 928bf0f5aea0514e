"""Calls across two nodes, a tunnel and two NATs: each is one trace with its network spans in order, both processes
named; a delay on the way appears at its hop and at no other."""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import eventually
from tests.network.programs import CALLS, DATABASE, DOMAIN, WEB, Shop
from tests.network.topology import Topology, topology
from tests.network.watched import PACKET, Watch, Watched

#: Where a call from pod a1 to pod b1 is captured, in the order of its way.
WEB_WAY = [
    *("a1/eth0", "a/vetha1", "a/cni0", "a/vxlan0", "a/eth0"),
    *("b/eth0", "b/vxlan0", "b/cni0", "b/vethb1", "b1/eth0"),
]
REQUESTS = 20
DELAY_US = 10_000


def ready(watched: Watched, shop: Shop) -> None:
    """Wait until both ends and the network between them are seen; the connections that stay open are known then."""

    def seen() -> bool:
        shop.buy("first", 4, connections=2)
        points = {row["observation_point"] for row in watched.calls("first", "observation_point, server_port")}
        return {"c-p", "s-p", "c", "s"} <= points

    assert eventually(seen, 60, 1), watched.agent.said()


def chain(spans: list[dict[str, Any]], client: dict[str, Any]) -> list[dict[str, Any]]:
    """The spans of one call from its client process to its server process, each the only child of the one before."""
    found = [client]
    while found[-1]["tap_side"] != "s-p":
        below = [span for span in spans if span["parent_id"] == found[-1]["id"]]
        same = [span for span in below if span["tap_side"] != "c-p"]
        assert len(same) == 1, (found[-1], below)
        found.append(same[0])
    return found


def test_each_call_is_one_trace_with_its_network_spans_in_order(plain: Topology, watch: Watch) -> None:
    shop = Shop(plain)
    watched = watch(plain)
    ready(watched, shop)
    shop.buy("path", REQUESTS, connections=4, pause_ms=20)
    for call in (5, 6):
        shop.curl(f"/item/{call}-curl")
    web = f"server_port IN ({WEB[1]}, {WEB[3]})"
    watched.await_rows("path", REQUESTS * (2 + len(WEB_WAY)), web)
    watched.await_rows("path", REQUESTS, "l7_protocol = 60 AND observation_point = 's-p'")

    roots = watched.calls("path", "_id, process_kname_0", f"{web} AND observation_point = 'c-p'")
    assert len(roots) == REQUESTS
    for root in roots:
        spans = watched.trace(root["_id"])
        assert [span["auto_service"] for span in spans if not span["deepflow_parent_span_id"]] == ["shopper"]
        for client, server, protocol in CALLS:
            first = [
                span
                for span in spans
                if (span["tap_side"], span["auto_service"], span["l7_protocol_str"]) == ("c-p", client, protocol)
                and "-path" in span["request_resource"]  # not the login of a new connection
            ]
            assert len(first) == 1, [(span["tap_side"], span["request_resource"], span["parent_id"]) for span in spans]
            way = chain(spans, first[0])
            assert way[-1]["auto_service"] == server
            network = way[1:-1]
            assert network and all(span["signal_source"] == PACKET for span in network), way
            sides = [span["tap_side"] for span in network]
            assert (sides[0], sides[-1]) == ("c", "s"), sides
            assert [side[0] for side in sides] == sorted(side[0] for side in sides), sides
            assert {"c", "c-nd", "s-nd", "s"} == set(sides), sides
            # One clock stamps all packets: what is farther on the way begins later and ends earlier.
            for outer, inner in pairwise(network):
                assert outer["start_time_us"] <= inner["start_time_us"], way
                assert outer["end_time_us"] >= inner["end_time_us"], way


def test_every_interface_on_the_way_is_a_point(plain: Topology, watch: Watch) -> None:
    shop = Shop(plain)
    watched = watch(plain)
    ready(watched, shop)
    shop.buy("point", REQUESTS, connections=2, pause_ms=20)
    where = f"signal_source = {PACKET} AND server_port IN ({WEB[1]}, {WEB[3]})"
    watched.await_rows("point", REQUESTS * len(WEB_WAY), where)
    names = watched.interfaces()
    by_call: dict[str, list[str]] = defaultdict(list)
    columns = "request_resource, capture_nic, start_time, observation_point, tunnel_type"
    rows = [(row, names.get(row["capture_nic"], "?")) for row in watched.calls("point", columns, where)]
    # A frame may pass two interfaces within one microsecond: their order is then not to be seen.
    place_on_way = {name: at for at, name in enumerate(WEB_WAY)}
    for row, name in sorted(rows, key=lambda one: (one[0]["start_time"], place_on_way.get(one[1], -1))):
        by_call[row["request_resource"]].append(name)
    assert len(by_call) == REQUESTS
    for resource, way in by_call.items():
        assert way == WEB_WAY, resource


def test_names_are_looked_up_through_both_nats(plain: Topology, watch: Watch) -> None:
    """A DNS question keeps neither its address nor its port on the way: getent asks, dnsmasq answers."""
    shop = Shop(plain)
    watched = watch(plain)
    ready(watched, shop)
    asked_for = [f"n{number}.many.{DOMAIN}" for number in range(REQUESTS)]
    for name in asked_for:
        assert WEB[0] in plain.place("a1").run("getent", "ahostsv4", name)
    where = f"l7_protocol = 120 AND signal_source = {PACKET} AND request_type = 'A'"
    watched.await_rows("many", REQUESTS * len(WEB_WAY), where)
    watched.await_rows("many", REQUESTS * (2 + len(WEB_WAY)), "l7_protocol = 120 AND request_type = 'A'")
    columns = "_id, request_resource, request_type"
    asked = watched.calls("many", columns, "observation_point = 'c-p' AND request_type = 'A'")
    assert sorted(row["request_resource"] for row in asked) == sorted(asked_for)
    # The server writes new names to its dictionary within a second.
    eventually(lambda: watched.trace(asked[0]["_id"])[0]["auto_service"] == "getent", 10)
    for row in asked:
        way = watched.trace(row["_id"])
        assert [way[0]["auto_service"], way[-1]["auto_service"]] == ["getent", "dnsmasq"], way
        assert all(span["signal_source"] == PACKET for span in way[1:-1]) and len(way) == 2 + len(WEB_WAY), way
        assert [span["parent_id"] for span in way] == [-1, *(span["id"] for span in way[:-1])]


def test_the_map_shows_services_and_no_node(plain: Topology, watch: Watch) -> None:
    shop = Shop(plain)
    watched = watch(plain)
    ready(watched, shop)
    shop.buy("map", REQUESTS, connections=2)
    word = "/item/*"
    watched.await_rows("map", 2 * REQUESTS, "l7_protocol = 60 AND observation_point IN ('c-p', 's-p')")

    def edges() -> dict[tuple[str, str, str], int]:
        ours = {name for client, server, _ in CALLS for name in (client, server)}
        return {
            (edge["client"], edge["server"], edge["protocol"]): edge["request"]
            for edge in watched.map()
            if {edge["client"], edge["server"]} & ours
        }

    def counted() -> bool:
        asked = watched.query(
            "SELECT Sum(request) AS calls FROM application_map WHERE auto_service_0 = 'shopper' "
            f"AND observation_point = 'c-p' AND endpoint LIKE '{word}'",
            "flow_metrics",
            "1s",
        )
        return bool(asked) and edges().get(("shopper", "nginx", "HTTP"), 0) == int(asked[0]["calls"] or 0) >= REQUESTS

    assert eventually(counted), edges()
    assert set(CALLS) <= set(edges()), edges()
    addresses = [edge for edge in edges() if any(name.startswith(("10.", "192.168.")) for name in edge[:2])]
    assert not addresses, edges()


@pytest.mark.parametrize("hop", ["wire", "b1"])
def test_a_delay_appears_at_its_hop_only(hop: str, tmp_path: Path, watch: Watch) -> None:
    """The delay of a hop is the difference of the call's durations at its two ends: 2 x DELAY_US where it was put."""
    folder = tmp_path / "topology"
    folder.mkdir()
    with topology(folder, delay_us=DELAY_US if hop == "wire" else None) as made:
        shop = Shop(made)
        if hop != "wire":
            made.slow_down(hop, DELAY_US)
        watched = watch(made)
        ready(watched, shop)
        word = f"slow{hop}"
        shop.buy(word, REQUESTS, connections=2, pause_ms=50)
        where = f"signal_source = {PACKET} AND server_port IN ({WEB[1]}, {WEB[3]})"
        watched.await_rows(word, REQUESTS * len(WEB_WAY), where)
        delays = hop_delays(watched, word, where)
    slow = ("a/eth0", "b/eth0") if hop == "wire" else ("b/cni0", "b/vethb1")
    medians = {ends: statistics.median(values) for ends, values in delays.items()}
    assert list(medians) == list(pairwise(WEB_WAY)), medians
    assert 2 * DELAY_US <= medians.pop(slow) <= 3 * DELAY_US, medians
    assert all(median < 0.1 * 2 * DELAY_US for median in medians.values()), medians


def hop_delays(watched: Watched, word: str, where: str) -> dict[tuple[str, str], list[int]]:
    """Delay of each hop, µs, of every call with `word`, hops in the order of the way."""
    names = watched.interfaces()
    durations: dict[str, dict[str, int]] = defaultdict(dict)
    for row in watched.calls(word, "request_resource, capture_nic, response_duration", where):
        durations[row["request_resource"]][names.get(row["capture_nic"], "?")] = row["response_duration"]
    delays: dict[tuple[str, str], list[int]] = {ends: [] for ends in pairwise(WEB_WAY)}
    for points in durations.values():
        for (near, far), found in delays.items():
            found.append(points[near] - points[far])
    return delays


def test_the_way_to_the_database(plain: Topology, watch: Watch) -> None:
    """A connection that was there before the agent: no SYN was seen, and still both ends are found."""
    shop = Shop(plain)
    shop.buy("before", 8, connections=4)
    watched = watch(plain)
    ready(watched, shop)
    shop.buy("database", REQUESTS, connections=4, pause_ms=20)
    where = f"l7_protocol = 60 AND server_port = {DATABASE[1]}"
    columns = "request_resource, observation_point, process_kname_0, process_kname_1"

    def seen() -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
        rows = watched.calls("database", columns, where)
        points = defaultdict(set)
        for row in rows:
            points[row["request_resource"]].add(row["observation_point"])
        return rows, points

    def whole() -> bool:
        points = seen()[1]
        return len(points) == REQUESTS and all({"c-p", "c", "s", "s-p"} <= those for those in points.values())

    assert eventually(whole, 60), seen()[1]
    rows, _ = seen()
    for row in rows:
        if row["observation_point"] == "c-p":
            assert row["process_kname_0"] == "api", row
        if row["observation_point"] == "s-p":
            assert row["process_kname_1"] == "mariadbd", row

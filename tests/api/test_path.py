"""The path of calls through two translations, between two nodes whose clocks disagree."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.test_server import NOW, client
from tests.conftest import ROOT, Running
from tests.e2e.conftest import eventually
from tests.two_nodes import CART_US, WAY, Cluster

COUNT, SLOW_US = 50, 3_000_000
QUICK, SLOW = NOW - 300, NOW - 200
WHERE = [
    *("shop on node1", "eth0 of shop on node1", "eth0 on node1"),
    *("eth0 on node2", "veth7 to cart on node2", "cart on node2"),
]
POINTS = ["c-p", "c", "c-nd", "s-nd", "s", "s-p"]


@pytest.fixture(scope="module")
def http(shared_server: Running) -> Iterator[httpx.Client]:
    with client(shared_server) as opened:
        cluster = Cluster(opened, NOW)
        cluster.fill(QUICK, COUNT)
        cluster.fill(SLOW, COUNT, "c-nd", SLOW_US, {"c": 2, "c-nd": 2})
        # The server writes new names to its dictionaries within a second or two.
        named = eventually(lambda: [point["where"] for point in path(opened, **asked(SLOW))["points"]] == WHERE)
        assert named, path(opened, **asked(SLOW))
        yield opened


def path(http: httpx.Client, **wanted: Any) -> dict[str, Any]:
    answer = http.get("/v1/web/path", params=wanted)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asked(second: int) -> dict[str, Any]:
    return {"client": "shop", "server": "cart", "from": second, "to": second + 60}


def test_the_hop_that_takes_the_time_stands_out(http: httpx.Client) -> None:
    found = path(http, **asked(SLOW))
    assert [point["observation_point"] for point in found["points"]] == POINTS
    assert found["calls"] == COUNT and {point["calls"] for point in found["points"]} == {COUNT}
    hops = [took + (SLOW_US if point == "c-nd" else 0) for point, _, _, took in WAY]
    hops[-1] = CART_US
    assert [point["delay_median_us"] for point in found["points"]] == hops
    assert [point["delay_p95_us"] for point in found["points"]] == hops
    whole = sum(hops)
    assert [point["share"] for point in found["points"]] == pytest.approx([hop / whole for hop in hops])
    assert found["slowest"] == POINTS.index("c-nd")
    assert found["sentence"].startswith(
        "the client says 3.00 s, the server says 3.00 ms: 100 % of the time is between c-nd"
    )
    assert [point["retransmissions"] for point in found["points"]] == [None, 2 * COUNT, 2 * COUNT, 0, 0, None]
    assert [point["where"] for point in found["points"]] == WHERE


def test_without_a_slow_hop_the_server_takes_the_time(http: httpx.Client) -> None:
    found = path(http, **asked(QUICK), limit=10)
    assert found["calls"] == 10
    assert found["points"][found["slowest"]]["observation_point"] == "s-p"
    assert found["sentence"].endswith("is in the server.")


def test_one_call_shows_both_ends_at_each_point(http: httpx.Client) -> None:
    rows = eventually(
        lambda: http.get("/v1/web/requests", params=asked(SLOW) | {"client": "", "path": "/cart/7"}).json()["rows"]
    )
    assert [row["observation_point"] for row in rows if row["request_resource"] == "/cart/7"] == ["s-p"]
    found = path(http, _id=rows[0]["_id"])
    points = found["points"]
    assert [point["observation_point"] for point in points] == POINTS
    assert [point["ends"] for point in points][1:3] == [
        "10.1.0.5:40007 → 10.96.0.1:80",
        "192.0.2.1:60993 → 10.2.0.7:8080",
    ]
    # Clocks are corrected: requests go forwards, responses back.
    requests, responses = ([point[f"{half}_us"] for point in points] for half in ("request", "response"))
    assert requests == sorted(requests) and responses == sorted(responses, reverse=True)
    assert found["slowest"] == 2 and points[2]["delay_us"] == SLOW_US + 200 and points[2]["share"] > 0.99
    for point in points[:-1]:
        assert path(http, _id=point["_id"])["points"] == points


def test_the_map_joins_what_translation_cut_in_two(http: httpx.Client) -> None:
    shown = http.get("/v1/web/map", params={"from": SLOW, "to": SLOW + 60}).json()
    names = {node["id"]: node["name"] for node in shown["nodes"]}
    counted = {(names[edge["source"]], names[edge["target"]]): edge["request"] for edge in shown["edges"]}
    assert counted == {("shop", "cart"): COUNT, ("cart", "mysqld"): COUNT}
    shown = http.get("/v1/web/network-map", params={"from": SLOW, "to": SLOW + 60}).json()
    names = {node["id"]: node["name"] for node in shown["nodes"]}
    packets = {(names[edge["source"]], names[edge["target"]]): edge["packet"] for edge in shown["edges"]}
    assert packets == {("shop", "cart"): 14 * COUNT, ("cart", "mysqld"): 14 * COUNT}


@pytest.mark.parametrize(
    ("wanted", "status", "sentence"),
    [
        ({"client": "shop"}, 400, "A path needs _id, or the names of client and server."),
        ({"_id": "7"}, 404, "7 is no row id"),
        ({"_id": str(NOW << 32 | 77)}, 404, "There is no request with the id"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    http: httpx.Client, wanted: dict[str, str], status: int, sentence: str
) -> None:
    answer = http.get("/v1/web/path", params=wanted)
    assert answer.status_code == status and sentence in answer.json()["error"]


def deepflow(url: str, *words: str) -> str:
    command = [sys.executable, "-m", "deepflow.cli", *words, "--server", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_prints_a_line_a_point(http: httpx.Client, shared_server: Running) -> None:
    lines = deepflow(shared_server.url, "path", "shop", "cart", "--last", "1h", "--limit", "20").splitlines()
    assert lines[0] == "20 calls from shop to cart, median 3 s, p95 3 s"
    assert [line.split()[0] for line in lines[2:-1]] == POINTS
    assert "←" in lines[2 + POINTS.index("c-nd")] and sum("←" in line for line in lines) == 1
    assert lines[-1].startswith("the client says 3.00 s, the server says 3.00 ms: 100 % of the time is between c-nd (")
    answer = json.loads(deepflow(shared_server.url, "path", "shop", "cart", "--last", "1h", "--json"))
    assert answer["calls"] == 2 * COUNT
    nothing = deepflow(shared_server.url, "path", "shop", "nobody")
    assert nothing.startswith("No answered calls from shop to nobody in the last 5m")

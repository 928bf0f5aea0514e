"""One call seen at many places is one request in the list and counts once on the map."""

from typing import Any

import httpx
import pytest

from deepflow.schema import load
from tests.api.test_server import IDENTITY, NOW, client, headers, log_batch
from tests.conftest import Running
from tests.e2e.conftest import eventually
from tests.ingest.batches import ipc, wire_rows

SHOP, CART, SERVICE, NODE = 0x0A010005, 0x0A020007, 0x0A600001, 0xC0000201
BEFORE = {"ip4_0": SHOP, "ip4_1": SERVICE, "client_port": 40000, "server_port": 80}
BEHIND = {"ip4_0": NODE, "ip4_1": CART, "client_port": 61001, "server_port": 8080}
#: Places of one call through a service address and masquerade, in the order they are reported in.
WAY = (
    ("c-p", BEFORE),
    ("c", BEFORE),
    ("c", BEFORE),
    ("c-nd", BEHIND),
    ("s-nd", BEHIND),
    ("s", BEHIND),
    ("s-p", BEHIND),
)


def sightings(number: int, second: int, *points: str, **more: Any) -> list[dict[str, Any]]:
    rows = []
    for order, (point, ends) in enumerate(WAY):
        if point in points:
            source = 3 if point.endswith("-p") else 0
            row = {
                "_id": (second << 32) + number * 16 + order,
                "time": second,
                "start_time": second * 1_000_000 + order,
            }
            row |= {"observation_point": point, "signal_source": source, "request_resource": f"/{number}"}
            rows.append(row | ends | {"req_tcp_seq": 1000 + number, "resp_tcp_seq": 500_000 + number} | more)
    return rows


def store(http: httpx.Client, agent: int, batch: int, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    body = log_batch(columns.pop("_id"), **columns)
    assert http.post("/v1/ingest/l7_flow_log", content=body, headers=headers(agent, batch)).status_code == 200


def listed(http: httpx.Client, second: int, limit: int, **wanted: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    bounds = {"from": second - 5, "to": second + 5, "limit": limit, **wanted}
    while True:
        page = http.get("/v1/web/requests", params=bounds).json()
        assert len(page["rows"]) <= limit
        rows += page["rows"]
        if page["next"] is None:
            return rows
        bounds["before"] = page["next"]


@pytest.fixture(scope="module")
def agent(shared_server: Running) -> int:
    with client(shared_server) as http:
        answer = http.post("/v1/agent/register", json=IDENTITY | {"machine_id": "all points"}).json()
    return int(answer["agent_id"])


@pytest.mark.parametrize("limit", [7, 100, 1000])
def test_each_call_is_listed_once(shared_server: Running, agent: int, limit: int) -> None:
    second = NOW - 6000 - limit
    ways = {
        "s-p": ("c-p", "c", "c-nd", "s-nd", "s", "s-p"),
        "c-p": ("c-p", "c", "c-nd"),
        "c": ("c", "c-nd", "s-nd", "s"),
        "s": ("s-nd", "s"),
        "c-nd": ("c-nd",),
    }
    rows, wanted = [], {}
    for number in range(200):
        best, points = list(ways.items())[number % len(ways)]
        wanted[f"/{number}"] = best
        rows += sightings(number, second, *points)
    with client(shared_server) as http:
        store(http, agent, 100 + limit, rows)
        shown = eventually(lambda: listed(http, second, limit))
        assert len(shown) == 200
        assert {row["request_resource"]: row["observation_point"] for row in shown} == wanted
        # Who asks for the client's address finds the rows that know it.
        by_client = listed(http, second, limit, client="10.1.0.5")
    assert {row["request_resource"]: row["observation_point"] for row in by_client} == {
        path: "c-p" if best in ("s-p", "c-p") else "c" for path, best in wanted.items() if best not in ("s", "c-nd")
    }


def test_strangers_and_answers_stay(shared_server: Running, agent: int) -> None:
    second = NOW - 9000
    datagram = {"protocol": 17, "l7_protocol": 120, "req_tcp_seq": 0, "resp_tcp_seq": 0, "request_id": 7}
    later = (second + 3) * 1_000_000
    rows = [
        # One sequence number by chance: another answer.
        *sightings(1, second, "s-p"),
        *sightings(2, second, "c", req_tcp_seq=1001),
        # The first segment was lost, the second was answered.
        *sightings(3, second, "c-nd", resp_tcp_seq=0),
        *sightings(4, second, "c-nd", req_tcp_seq=1003, resp_tcp_seq=500_004),
    ]
    lookups = [
        *sightings(11, second, "c-p", "s", **datagram, request_resource="cart.shop"),
        *sightings(12, second, "c-p", **datagram, request_resource="stock.shop"),
        *sightings(13, second, "c", **datagram, request_resource="cart.shop", client_port=40001, start_time=later),
    ]
    with client(shared_server) as http:
        store(http, agent, 90, rows)
        store(http, agent, 91, lookups)
        shown = eventually(lambda: listed(http, second, 100))
    assert sorted((row["request_resource"], row["observation_point"]) for row in shown if row["protocol"] != "DNS") == [
        ("/1", "s-p"),
        ("/2", "c"),
        ("/4", "c-nd"),
    ]
    assert sorted((row["request_resource"], row["observation_point"]) for row in shown if row["protocol"] == "DNS") == [
        ("cart.shop", "c"),
        ("cart.shop", "c-p"),
        ("stock.shop", "c-p"),
    ]


def test_the_map_counts_packets_only_where_sockets_saw_nothing(shared_server: Running, agent: int) -> None:
    second = NOW - 9500
    far = {"ip4_0": SHOP, "ip4_1": 0x08080808, "server_port": 80}
    seen = [
        *((point, BEFORE, 10) for point in ("c-p", "c")),
        *((point, BEHIND, 10) for point in ("c-nd", "s-nd", "s", "s-p")),
        *((point, far, count) for point, count in (("c", 7), ("c-nd", 6), ("rest", 5))),
    ]
    count = len(seen)
    columns = {"observation_point": [point for point, _, _ in seen], "request": [number for *_, number in seen]}
    columns |= {name: [ends[name] for _, ends, _ in seen] for name in ("ip4_0", "ip4_1", "server_port")}
    columns |= {"time": [second] * count, "protocol": [6] * count, "l7_protocol": [20] * count, "is_ipv4": [1] * count}
    columns["signal_source"] = [3 if point.endswith("-p") else 0 for point, _, _ in seen]
    body = ipc(wire_rows(load().tables["flow_metrics.application_map"], count, **columns))
    with client(shared_server) as http:
        assert http.post("/v1/ingest/application_map.1s", content=body, headers=headers(agent, 95)).status_code == 200

        def edges() -> list[tuple[str, str, int]]:
            shown = http.get("/v1/web/map", params={"from": second - 5, "to": second + 5}).json()["edges"]
            return sorted((edge["source"], edge["target"], edge["request"]) for edge in shown)

        assert eventually(edges) == [
            ("ip:10.1.0.5", "ip:10.96.0.1", 10),
            ("ip:10.1.0.5", "ip:8.8.8.8", 7),
            ("ip:192.0.2.1", "ip:10.2.0.7", 10),
        ]

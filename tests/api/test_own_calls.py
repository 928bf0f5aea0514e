"""Calls to the server itself are left out of the map and of the list of requests; others at that port are not."""

import httpx

from deepflow.schema import load
from tests.api.test_server import IDENTITY, LOOPBACK, NOW, client, headers, log_batch
from tests.conftest import Running
from tests.e2e.conftest import eventually
from tests.ingest.batches import ipc, wire_rows


def test_calls_to_this_server_are_not_shown(shared_server: Running) -> None:
    own = httpx.URL(shared_server.url).port or 0
    # To the server's own address and port; to its port elsewhere; to its address at another port.
    far = 0x0A000002
    ends = {"ip4_1": [LOOPBACK, far, LOOPBACK], "server_port": [own, own, 80], "observation_point": ["c-p"] * 3}
    with client(shared_server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY | {"machine_id": "own"}).json()["agent_id"]
        ids = [(NOW - 5000 << 32) + number for number in range(3)]
        body = log_batch(ids, **ends | {"time": [NOW - 5000] * 3})
        assert http.post("/v1/ingest/l7_flow_log", content=body, headers=headers(agent, 1)).status_code == 200
        meters = {"time": [NOW - 5000] * 3, "request": [7, 5, 3], "l7_protocol": [20] * 3, "protocol": [6] * 3,
                  "is_ipv4": [1] * 3, "ip4_0": [LOOPBACK] * 3}  # fmt: skip
        body = ipc(wire_rows(load().tables["flow_metrics.application_map"], 3, **ends | meters))
        assert http.post("/v1/ingest/application_map.1s", content=body, headers=headers(agent, 2)).status_code == 200
        bounds = {"from": NOW - 5010, "to": NOW - 4990}

        def edges() -> list[tuple[str, int]]:
            shown = http.get("/v1/web/map", params=bounds).json()["edges"]
            return sorted((edge["target"], edge["request"]) for edge in shown)

        assert eventually(lambda: edges() == [("ip:10.0.0.2", 5), ("ip:127.0.0.1", 3)]), edges()
        listed = eventually(lambda: http.get("/v1/web/requests", params=bounds).json()["rows"])
        assert sorted(row["server"] for row in listed) == ["10.0.0.2", "127.0.0.1"]

"""The network map: each flow once, delays as averages of sums, ratios of what was counted."""

from typing import Any

from deepflow.schema import load
from tests.api.test_server import IDENTITY, NOW, client, headers
from tests.conftest import Running
from tests.e2e.conftest import eventually
from tests.ingest.batches import ipc, wire_rows

SHOP, CART, BATCH_HOST = 0x0A010005, 0x0A020007, 0x0A030001
SECOND = NOW - 7000


def rows() -> list[dict[str, Any]]:
    flows = {"packet_tx": 60, "packet_rx": 40, "byte_tx": 6000, "byte_rx": 54_000, "new_flow": 2, "closed_flow": 2}
    flows |= {"rtt_sum": 900.0, "rtt_count": 3, "rtt_max": 500, "srt_sum": 80.0, "srt_count": 4, "srt_max": 30}
    flows |= {"retrans_tx": 2, "retrans_rx": 3, "zero_win_rx": 1, "flow_load": 4, "server_reset": 1}
    flows |= {"ip4_0": SHOP, "ip4_1": CART, "server_port": 80, "protocol": 6, "is_ipv4": 1, "time": SECOND}
    seen = [flows | {"observation_point": point, "capture_nic": nic, "time": SECOND + second}
            for point, nic in (("c", 1), ("c", 2), ("c-nd", 3), ("s-nd", 4), ("s", 5), ("rest", 6))
            for second in (0, 1)]  # fmt: skip
    seen += [
        flows | {"observation_point": "c", "capture_nic": 1, "server_port": 81, "flow_load": 1, "client_rst_flow": 1}
    ]
    seen += [flows | {"observation_point": "rest", "ip4_0": BATCH_HOST, "protocol": 17, "rtt_count": 0, "rtt_sum": 0.0}]
    names = sorted({name for row in seen for name in row})
    return [{name: row.get(name, 0) for name in names} for row in seen]


def test_each_flow_counts_once(shared_server: Running) -> None:
    given = rows()
    columns = {name: [row[name] for row in given] for name in given[0]}
    body = ipc(wire_rows(load().tables["flow_metrics.network_map"], len(given), **columns))
    with client(shared_server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY | {"machine_id": "network"}).json()["agent_id"]
        answer = http.post("/v1/ingest/network_map.1s", content=body, headers=headers(agent, 1))
        assert answer.status_code == 200, answer.text
        bounds = {"from": SECOND, "to": SECOND + 10}
        shown = eventually(lambda: [m for m in [http.get("/v1/web/network-map", params=bounds).json()] if m["edges"]])[
            0
        ]
    edges = {edge["source"]: edge for edge in shown["edges"]}
    assert set(edges) == {"ip:10.1.0.5", "ip:10.3.0.1"}
    tcp = edges["ip:10.1.0.5"]
    # Two seconds at one interface, and one second of a second port.
    assert (tcp["protocol"], tcp["target"], tcp["observation_point"]) == ("TCP", "ip:10.2.0.7", "c")
    assert (tcp["byte"], tcp["packet"], tcp["byte_tx"], tcp["packet_rx"]) == (180_000, 300, 18_000, 120)
    assert (tcp["byte_rate"], tcp["packet_rate"]) == (18_000, 30)
    assert (tcp["rtt_avg_us"], tcp["rtt_max_us"], tcp["srt_avg_us"], tcp["art_avg_us"]) == (300, 500, 20, None)
    assert (tcp["retrans"], tcp["retrans_ratio"], tcp["zero_win"]) == (15, 15 / 300, 3)
    assert (tcp["new_flow"], tcp["closed_flow"], tcp["active_flow"]) == (6, 6, 5)
    assert (tcp["tcp_establish_fail"], tcp["tcp_transfer_fail"], tcp["connection_error"]) == (3, 1, 4)
    assert tcp["connection_error_ratio"] == 4 / 6
    assert (edges["ip:10.3.0.1"]["protocol"], edges["ip:10.3.0.1"]["rtt_avg_us"]) == ("UDP", None)
    assert {node["name"]: node["byte"] for node in shown["nodes"]} == {
        "10.1.0.5": 180_000,
        "10.2.0.7": 240_000,
        "10.3.0.1": 60_000,
    }

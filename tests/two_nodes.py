"""What two agents would send about a shop on two nodes: calls through a service address and masquerade, seen at every
place.

shop (node1) calls cart (node2) by a service address; cart calls mysqld beside it over a bridge. The request is
rewritten twice on node1, the clocks of the nodes disagree, and one hop can be made slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from deepflow.schema import load
from tests.ingest.batches import ipc, wire_rows

SHOP, CART, MYSQL = 0x0A010005, 0x0A020007, 0x0A020009
SERVICE, NODE1 = 0x0A600001, 0xC0000201
#: µs that the clock of node2 is ahead.
CLOCK_US = 40_000
PIDS = {"shop": 100, "cart": 200, "mysqld": 300}
HTTP, MYSQL_PROTOCOL = 20, 60
#: The way of a call shop → cart: point, agent, interface, µs that the hop to the next one takes both ways.
WAY = (
    *(("c-p", 1, 0, 40), ("c", 1, 0x0A010501, 60), ("c-nd", 1, 0x0A010001, 200)),
    *(("s-nd", 2, 0x0A020001, 80), ("s", 2, 0x0A020701, 50), ("s-p", 2, 0, 0)),
)
BRIDGE = (("c-p", 2, 0, 20), ("c", 2, 0x0A020701, 30), ("s", 2, 0x0A020901, 20), ("s-p", 2, 0, 0))
#: Of each agent: number, name, kind, namespace, namespace behind, what lives there.
INTERFACES = {
    1: ((0x0A010501, "eth0", "veth", 4026532105, 0, "shop"), (0x0A010001, "eth0", "physical", 0, 0, "")),
    2: (
        (0x0A020001, "eth0", "physical", 0, 0, ""),
        (0x0A020701, "veth7", "veth", 0, 4026532207, "cart"),
        (0x0A020901, "veth9", "veth", 0, 4026532209, "mysqld"),
    ),
}
CART_US, MYSQL_US = 3000, 1200

Row = dict[str, Any]


def calls(second: int, count: int, slow: str = "", slow_us: int = 0) -> Iterator[Row]:
    """Rows of l7_flow_log; a call every 10 ms from `second` on. The hop behind the point `slow` takes longer."""
    base = second % 1000 * 10_000
    for number in range(count):
        begin = second * 1_000_000 + number * 10_000
        before = {"ip4_0": SHOP, "ip4_1": SERVICE, "client_port": 40_000 + number, "server_port": 80}
        behind = {"ip4_0": NODE1, "ip4_1": CART, "client_port": 61_000 - number, "server_port": 8080}
        common = {
            "l7_protocol": HTTP,
            "request_type": "GET",
            "request_resource": f"/cart/{number}",
            "response_code": 200,
        }
        common |= {"req_tcp_seq": base + number + 1, "resp_tcp_seq": 50_000_000 + base + number}
        causes = {"c-p": 0, "s-p": 700_000_000 + base + number}
        outer = list(_way(WAY, begin, CART_US, slow, slow_us))
        for point, agent, nic, start, end in outer:
            ends = before if point in ("c-p", "c") else behind
            # The tables of sockets name the process behind an interface of its own.
            known = {"c": {"process_id_0": PIDS["shop"]}, "s": {"process_id_1": PIDS["cart"]}}.get(point[:1], {})
            known = {} if point.endswith("-nd") else known
            yield _row(agent, point, nic, start, end, number) | ends | common | known | _context(causes.get(point, 0))
        *_, arrived, left = outer[-1]
        inside = {"ip4_0": CART, "ip4_1": MYSQL, "client_port": 50_000 + number, "server_port": 3306}
        common = {"l7_protocol": MYSQL_PROTOCOL, "request_type": "COM_QUERY", "request_resource": "SELECT * FROM cart"}
        common |= {"req_tcp_seq": 30_000_000 + base + number, "resp_tcp_seq": 70_000_000 + base + number}
        both = {"process_id_0": PIDS["cart"], "process_id_1": PIDS["mysqld"]}
        # cart and its database run on one node, so that each end of their calls knows the other.
        for point, agent, nic, start, end in _way(BRIDGE, arrived - CLOCK_US + 500, MYSQL_US):
            causes = {"c-p": 700_000_000 + base + number, "s-p": 800_000_000 + base + number}
            row = _row(agent, point, nic, start, end, number + 1000)
            yield row | inside | common | both | _context(causes.get(point, 0))
        assert end <= left


def _way(
    way: tuple[tuple[str, int, int, int], ...], begin: int, inner_us: int, slow: str = "", slow_us: int = 0
) -> Iterator[tuple[str, int, int, int, int]]:
    hops = [took + (slow_us if point == slow else 0) for point, _, _, took in way]
    start, whole = begin, sum(hops) + inner_us
    for (point, agent, nic, _), took in zip(way, hops, strict=True):
        clock = CLOCK_US * (agent - 1)
        yield point, agent, nic, start + clock, start + whole + clock
        start, whole = start + took // 2, whole - took


def _row(agent: int, point: str, nic: int, start: int, end: int, number: int) -> Row:
    row = {"agent": agent, "observation_point": point, "capture_nic": nic, "start_time": start, "end_time": end}
    row |= {"signal_source": 3 if point.endswith("-p") else 0, "type": 2, "protocol": 6, "is_ipv4": 1}
    return row | {"response_duration": end - start, "flow_id": flow_id(point, number), "time": end // 1_000_000}


def flow_id(point: str, number: int) -> int:
    return (sum(point.encode()) << 32) + number + 1


def _context(value: int) -> Row:
    return {"syscall_trace_id_request": value, "syscall_trace_id_response": value}


def flows(rows: list[Row], again: dict[str, int]) -> Iterator[Row]:
    """Rows of l4_flow_log for the packets of those of l7_flow_log; of `again` packets at each point were sent again."""
    tags = (
        *("agent", "observation_point", "capture_nic", "start_time", "end_time", "flow_id"),
        *("protocol", "is_ipv4", "ip4_0", "ip4_1", "server_port"),
    )
    for row in rows:
        if row["signal_source"] == 0:
            own = {name: row[name] for name in tags} | {
                f"process_id_{s}": row.get(f"process_id_{s}", 0) for s in (0, 1)
            }
            handshake = {"syn_seq": row["req_tcp_seq"] - 1 or 1, "syn_ack_seq": row["resp_tcp_seq"] - 1}
            sent = {"packet_tx": 6, "packet_rx": 8, "retrans_tx": again.get(row["observation_point"], 0)}
            yield own | handshake | sent | {"time": row["time"] + 2}


def meters(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of application_map and network_map that belong to those of l7_flow_log."""
    shared = (
        *("agent", "time", "ip4_0", "ip4_1", "server_port", "is_ipv4", "protocol"),
        *("observation_point", "signal_source"),
    )
    application, network = [], []
    for row in rows:
        tags = {name: row[name] for name in shared} | {f"process_id_{s}": row.get(f"process_id_{s}", 0) for s in (0, 1)}
        took = row["response_duration"]
        called: Row = {"request": 1, "response": 1, "rrt_sum": float(took), "rrt_count": 1, "rrt_max": took}
        application.append(tags | called | {"l7_protocol": row["l7_protocol"]})
        if row["signal_source"] == 0:
            traffic: Row = {
                "packet_tx": 6,
                "packet_rx": 8,
                "byte_tx": 900,
                "byte_rx": 9400,
                "new_flow": 1,
                "closed_flow": 1,
            }
            traffic |= {
                "rtt_sum": 400.0,
                "rtt_count": 1,
                "rtt_max": 400,
                "flow_load": 1,
                "capture_nic": row["capture_nic"],
            }
            network.append(tags | traffic | {"retrans_tx": int(row["server_port"] != 3306 and row["ip4_0"] == SHOP)})
    return application, network


class Cluster:
    """The two agents and their processes at a server."""

    def __init__(self, http: httpx.Client, second: int) -> None:
        self._http = http
        self._batch = second << 16
        self.agents: dict[int, int] = {}
        for number, names in ((1, ["shop"]), (2, ["cart", "mysqld"])):
            identity = {"name": f"node{number}", "machine_id": f"two nodes {number}", "boot_id": "b"}
            identity |= {"kernel": "6.1", "version": "0.1", "ip": f"192.0.2.{number}"}
            self.agents[number] = http.post("/v1/agent/register", json=identity).json()["agent_id"]
            begun = (second - 600) * 1_000_000
            processes = [
                {"pid": PIDS[name], "start_time_us": begun, "end_time_us": None, "name": name} for name in names
            ]
            headers = {"X-DeepFlow-Agent": str(self.agents[number])}
            answer = http.post("/v1/agent/processes", json={"processes": processes}, headers=headers)
            assert answer.status_code == 200, answer.text
            keys = ("capture_nic", "name", "kind", "netns", "behind", "owner")
            interfaces = [dict(zip(keys, one, strict=True)) for one in INTERFACES[number]]
            answer = http.post("/v1/agent/interfaces", json={"interfaces": interfaces}, headers=headers)
            assert answer.status_code == 200, answer.text

    def send(self, table: str, rows: list[Row]) -> None:
        """Each agent's rows as one batch; row ids as the core gives them."""
        name = "flow_log" if table.endswith("_log") else "flow_metrics"
        schema = load().tables[f"{name}.{table.removesuffix('.1s')}"]
        wanted = set(schema.wire_schema().names)
        for number, agent in self.agents.items():
            own = [row | {"agent_id": agent} for row in rows if row["agent"] == number]
            if not own:
                continue
            if "_id" in wanted:
                own = [row | {"_id": row["time"] << 32 | agent << 22 | at} for at, row in enumerate(own)]
            names = sorted({name for row in own for name in row} & wanted)
            columns = {name: [row.get(name, "" if name.startswith("request_") else 0) for row in own] for name in names}
            self._batch += 1
            headers = {
                "X-DeepFlow-Agent": str(agent),
                "X-DeepFlow-Batch": f"{self._batch:016x}",
                "X-DeepFlow-Attempt": "1",
            }
            body = ipc(wire_rows(schema, len(own), **columns))
            answer = self._http.post(f"/v1/ingest/{table}", content=body, headers=headers)
            assert answer.status_code == 200, answer.text

    def fill(
        self, second: int, count: int, slow: str = "", slow_us: int = 0, again: dict[str, int] | None = None
    ) -> None:
        """Calls with everything that belongs to them."""
        rows = list(calls(second, count, slow, slow_us))
        self.send("l7_flow_log", rows)
        self.send("l4_flow_log", list(flows(rows, again or {})))
        application, network = meters(rows)
        self.send("application_map.1s", application)
        self.send("network_map.1s", network)

"""An agent for each node of the topology: none sees the other's processes, and every call has both ends named.

Both run on this machine's one kernel. What makes two hosts of them: a machine id and a host name of its own each, the
processes and interfaces of its own node only. One looks at all that is not of node b, the other at node b's alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Running
from tests.e2e.conftest import eventually
from tests.network.programs import CALLS, WEB, Shop
from tests.network.topology import Topology, ip
from tests.network.watched import Watched

REQUESTS = 56
#: Calls on a connection of their own each: so many at once, so often.
SHORT, WAVES = 8, 5
#: This long after a connection's first call its far ends are known even if an agent's report came late, µs.
SETTLED_US = 4_000_000
#: Processes of a call's ends, and on which node they are.
NODE = {"shopper": "a", "api": "a", "nginx": "b", "mariadbd": "b"}


def as_host(folder: Path, name: str, number: int) -> tuple[str, ...]:
    """Command that runs the rest of its line with a host name and a machine id of its own."""
    machine_id = folder / f"machine-id-{name}"
    machine_id.write_text(f"{number:032x}\n")
    script = 'mount --bind "$1" /etc/machine-id && hostname "$2" && shift 2 && exec "$@"'
    return ("unshare", "--mount", "--uts", "sh", "-c", script, "sh", str(machine_id), name)


def processes_of(topology: Topology, node: str) -> list[int]:
    """Process ids in the pods of a node."""
    pods = [place for place in topology.pods.values() if place.name.startswith(node)]
    return [int(pid) for pod in pods for pid in ip("netns", "pids", pod.namespace).split()]


@pytest.fixture
def watched(
    plain: Topology,
    can_observe: None,
    deepflow_server: Callable[..., Running],
    deepflow_agent: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> tuple[Watched, Shop]:
    """The shop with its server and two agents; returns when both ends and both nodes are seen."""
    if not Path("/etc/machine-id").exists():
        pytest.skip("no /etc/machine-id to put another over")
    shop = Shop(plain)
    far = processes_of(plain, "b")
    where = "DEEPFLOW_AGENT_INPUTS__CBPF__AF_PACKET__"
    monkeypatch.setenv(f"{where}INTERFACE_REGEX", "^$")
    monkeypatch.setenv(f"{where}INNER_INTERFACE_CAPTURE_ENABLED", "true")
    monkeypatch.setenv("DEEPFLOW_AGENT_PROCESSORS__REQUEST_LOG__TAG_EXTRACTION__OBFUSCATE_PROTOCOLS", "[Redis]")
    server = deepflow_server()
    others = [word for pid in (*far, os.getpid()) for word in ("--ignore-pid", str(pid))]
    own = [word for pid in far for word in ("--only-pid", str(pid))]
    agents = []
    for number, (name, words) in enumerate({"a": others, "b": own}.items(), 1):
        monkeypatch.setenv(f"{where}INNER_INTERFACE_REGEX", f"^veth{name}[12]$")
        agents.append(deepflow_agent(server.url, *words, within=as_host(tmp_path, f"node-{name}", number)))
    watched = Watched(plain, server, agents[0])

    def seen() -> bool:
        shop.buy("first", 4, connections=2)
        points = {row["observation_point"] for row in watched.calls("first", "observation_point")}
        hosts = {row["host_0"] for row in watched.calls("first", "host_0, host_1")}
        return {"c-p", "s-p", "c", "s"} <= points and {"node-a", "node-b"} <= hosts

    assert eventually(seen, 90, 1), [agent.said() for agent in agents]
    return watched, shop


def named(seen: Watched, word: str) -> Counter[tuple[str, str]]:
    """Rows by observation point and client, after each was seen to have the services and hosts of both its ends.

    On a machine that stands still for a second an agent's report may come too late for the other's rows: in the first
    seconds of connections one row in ten may lack its far end, and then says nothing else of it.
    """
    ends = {client: (server, protocol) for client, server, protocol in CALLS}
    columns = "observation_point, flow_id, start_time, auto_service_0, auto_service_1, host_0, host_1, ip_0, ip_1"
    rows = seen.calls(word, columns, "observation_point IN ('c-p', 's-p', 'c', 's')")
    late = 0
    began_us: dict[tuple[str, str], int] = {}
    for row in sorted(rows, key=lambda row: row["start_time"]):
        since_us = row["start_time"] - began_us.setdefault(
            (row["observation_point"], row["flow_id"]), row["start_time"]
        )
        far = int(row["observation_point"].startswith("c"))
        if row[f"auto_service_{far}"] == row[f"ip_{far}"] and since_us <= SETTLED_US:
            late += 1
            assert row[f"host_{far}"] == "" and row[f"auto_service_{1 - far}"] in NODE, row
            continue
        client, server = row["auto_service_0"], row["auto_service_1"]
        assert client in ends and server == ends[client][0], row
        assert (row["host_0"], row["host_1"]) == (f"node-{NODE[client]}", f"node-{NODE[server]}"), row
    assert late <= len(rows) / 10, (late, len(rows))
    print(f"{late} of {len(rows)} rows lack their far end")
    return Counter((row["observation_point"], row["auto_service_0"]) for row in rows)


def test_calls_on_connections_of_their_own_have_both_ends_named(watched: tuple[Watched, Shop]) -> None:
    """Each is over before the first agent's report: whichever comes first waits for the other's."""
    seen, shop = watched
    for _ in range(WAVES):
        shop.buy("short", SHORT, connections=SHORT)
        time.sleep(0.7)
    count = SHORT * WAVES
    seen.await_rows("short", count * 4, f"server_port IN ({WEB[1]}, {WEB[3]})")
    found = named(seen, "short")
    for point in ("c-p", "s-p", "c", "s"):
        assert 0.9 * count <= found[point, "shopper"] <= count, found


def test_each_agent_tells_its_end_and_the_server_joins_them(watched: tuple[Watched, Shop]) -> None:
    """Agents report every second, and the server lets one wait for the other."""
    seen, shop = watched
    shop.buy("pair", REQUESTS, connections=4, pause_ms=800)
    web = f"server_port IN ({WEB[1]}, {WEB[3]})"
    seen.await_rows("pair", REQUESTS * 4, web)
    seen.await_rows("pair", REQUESTS * 4, "server_port = 8000")
    seen.await_rows("pair", REQUESTS * 4, "l7_protocol = 60")
    found = named(seen, "pair")
    for point in ("c-p", "s-p", "c", "s"):
        assert 0.9 * REQUESTS <= found[point, "shopper"] <= REQUESTS, found

    # A trace joins the spans of both agents from the first call on.
    roots = seen.calls("pair", "_id", f"{web} AND observation_point = 'c-p' AND process_kname_0 = 'shopper'")
    assert len(roots) == REQUESTS
    for root in roots:
        spans = seen.trace(root["_id"])
        assert [span["auto_service"] for span in spans if not span["deepflow_parent_span_id"]] == ["shopper"]
        processes = Counter(span["auto_service"] for span in spans if span["tap_side"] in ("c-p", "s-p"))
        # A new connection to the database has its login as well.
        assert processes["shopper"] == 1 and not Counter(nginx=2, api=2, mariadbd=1) - processes, processes
        agents = {span["tap_side"]: span["agent_id"] for span in spans if span["l7_protocol_str"] == "MySQL"}
        assert agents["c-p"] == agents["c"] != agents["s"] == agents["s-p"], agents

    edges = {(edge["client"], edge["server"], edge["protocol"]) for edge in seen.map() if edge["protocol"] != "DNS"}
    assert {edge for edge in edges if {*edge[:2]} & NODE.keys()} == set(CALLS), edges

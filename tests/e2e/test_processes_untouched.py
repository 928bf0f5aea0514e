"""The agent comes after the shop and changes nothing about it, yet sees connections that were open before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.e2e.conftest import Observed, eventually

REDIS, MARIADB = 6379, 3306


def open_ports(pid: int, server_port: int) -> set[int]:
    """Local ports of established connections to `server_port` in the network namespace of `pid` (proc(5), net/tcp)."""
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == server_port:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def client_ports(observed: Observed, server_port: int) -> set[int]:
    rows = observed.rows("client_port, server_port", "old-")
    return {one["client_port"] for one in rows if one["server_port"] == server_port}


def test_processes_keep_pid_and_start_time_and_old_connections_are_seen(observed: Observed) -> None:
    before = observed.shop.status()["processes"]
    api = next(one["pid"] for one in before if one["name"] == "api")
    # The API's pools are filled when it starts, which was before the agent; it never opens another connection to these.
    pools = {port: open_ports(api, port) for port in (REDIS, MARIADB)}

    observed.shop.traffic("--requests", "100", "--concurrency", "16", "--kind", "order", "--prefix", "old")

    for port, name in ((REDIS, "Redis"), (MARIADB, "MySQL")):
        used = eventually(partial(client_ports, observed, port))
        assert used, f"no {name} session over a connection from before the agent"
        assert used <= pools[port]
    assert observed.agent.stop() == 0
    after = observed.shop.status()["processes"]
    assert after == before
    assert all(Path(f"/proc/{one['pid']}").exists() for one in after)

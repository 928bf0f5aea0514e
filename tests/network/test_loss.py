"""Lost packets come back as retransmissions: as many as the sender's own kernel counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import eventually
from tests.network.programs import need
from tests.network.topology import Topology
from tests.network.watched import Watch, Watched

PORT = 5201
VOLUME = ("-n", "30M", "-b", "100M")
#: A machine that takes its processors away for half a second sends much at once afterwards.
RING_MIB = 32
#: iperf3 ends its data connection with a reset, after which a flow is kept for a while.
RESET_S = 5
ENDED_S = 60
#: iperf3's control connection, its data connection.
CONNECTIONS = 2


def flows(watched: Watched, table: str, nic: str, db: str, precision: str | None = None) -> dict[str, float]:
    """What the flows of the test say at one interface."""
    columns = ", ".join(f"Sum({name}) AS {name}s" for name in ("packet_tx", "packet_rx", "retrans_tx", "retrans_rx"))
    more = ", Sum(retrans_syn) AS retrans_syns, Sum(closed_flow) AS closed_flows"
    where = f"server_port = {PORT} AND capture_nic = '{nic}'"
    row = watched.query(f"SELECT {columns}{more} FROM {table} WHERE {where}", db, precision)[0]
    return {name: float(value or 0) for name, value in row.items()}


def iperf(made: Topology, *options: str) -> dict[str, Any]:
    """iperf3 from pod a1 to pod b1, to its end; its report."""
    need("iperf3")
    made.start("b1", "iperf3", "-s", "-1", "-p", PORT, port=PORT)
    target = ("-c", made.pods["b1"].address, "-p", str(PORT))
    report: dict[str, Any] = json.loads(made.place("a1").run("iperf3", "-J", *target, *options, seconds=120))
    return report


@pytest.mark.parametrize(("sender", "percent"), [("a1", 2.0), ("b1", 1.0), ("a1", 0.0)])
def test_retransmissions_are_those_of_the_kernel(
    sender: str, percent: float, plain: Topology, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's node loses what it forwards, behind the points where the sender is captured."""
    monkeypatch.setenv("DEEPFLOW_AGENT_PROCESSORS__FLOW_LOG__CONNTRACK__TIMEOUTS__CLOSING_RST", f"{RESET_S}s")
    for pod in ("a1", "b1"):
        plain.cut_in_the_pod(pod)
    watched = watch(plain, "^(eth0|vetha1|vethb1)$", RING_MIB)
    capturing(watched)
    if percent:
        side = "dport" if sender == "a1" else "sport"
        plain.lose(sender[0], percent, f"tcp {side} {PORT}")
    counted_by, dropped_before = plain.place(sender), watched.dropped()
    before = counted_by.kernel_counters()["Tcp.RetransSegs"]
    iperf(plain, *VOLUME, *(["-R"] if sender == "b1" else []))
    kernel = counted_by.kernel_counters()["Tcp.RetransSegs"] - before
    if percent:
        assert plain.lost(sender[0]) > 100 and kernel > 100, (plain.lost(sender[0]), kernel)

    nics = {name: nic for nic, name in watched.interfaces().items()}
    tables = (("l4_flow_log", "flow_log", None), ("network_map", "flow_metrics", "1s"))
    ours, theirs = ("tx", "rx") if sender == "a1" else ("rx", "tx")
    for interface in (f"{sender}/eth0", f"{sender[0]}/veth{sender}"):
        for table, db, precision in tables:
            seen = closed_flows(watched, table, nics[interface], db, precision)
            assert seen[f"packet_{ours}s"] > 15_000, (interface, table, seen)
            sent = seen[f"retrans_{ours}s"] + seen["retrans_syns"]
            dropped = watched.dropped() - dropped_before
            assert sent == pytest.approx(kernel, rel=0.1, abs=3), (interface, table, seen, kernel, dropped)
            # The other side only acknowledges.
            assert seen[f"retrans_{theirs}s"] <= 3, (interface, table, seen)
    assert watched.dropped() == dropped_before, "packets were not seen: what they were is not in the numbers above"


def closed_flows(watched: Watched, table: str, nic: str, db: str, precision: str | None) -> dict[str, float]:
    """What the flows say once they have ended."""

    def ended() -> bool:
        return flows(watched, table, nic, db, precision)["closed_flows"] >= CONNECTIONS

    assert eventually(ended, ENDED_S), (table, flows(watched, table, nic, db, precision))
    return flows(watched, table, nic, db, precision)


def capturing(watched: Watched) -> None:
    """Wait until the agent has found the interfaces of the topology."""

    def seen() -> bool:
        watched.topology.place("a1").run("ping", "-c", 1, "-W", 1, watched.topology.pods["b1"].address)
        told = {name: nic for nic, name in watched.interfaces().items()}
        if "a/vetha1" not in told:
            return False
        sql = f"SELECT Sum(packet) AS packets FROM network_map WHERE capture_nic = '{told['a/vetha1']}'"
        rows = watched.query(sql, "flow_metrics", "1s")
        return bool(rows) and int(rows[0]["packets"] or 0) > 0

    assert eventually(seen, 60, 1), watched.agent.said()

"""What the flows count is what went over the interface: bytes and packets of iperf3 against the kernel's counters."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import eventually
from tests.network.test_loss import capturing, iperf
from tests.network.topology import Topology
from tests.network.watched import Watch

SECONDS = 10


@pytest.mark.parametrize(
    "options", [("-b", "200M"), ("-P", "4"), ("-R",), ("-u", "-b", "100M", "-l", "200")], ids=" ".join
)
def test_bytes_and_packets_are_those_of_the_interface(options: tuple[str, ...], plain: Topology, watch: Watch) -> None:
    """Only one interface is captured: what it had and no flow has, the agent's own counter says was dropped."""
    watched = watch(plain, "^vetha1$")
    capturing(watched)
    nic = {name: nic for nic, name in watched.interfaces().items()}["a/vetha1"]

    def counted() -> tuple[int, int, int, int]:
        columns = ", ".join(
            f"Sum({kind}_{way}) AS {kind}s_{way}" for kind in ("byte", "packet") for way in ("tx", "rx")
        )
        row = watched.query(f"SELECT {columns} FROM network_map WHERE capture_nic = '{nic}'", "flow_metrics", "1s")[0]
        bytes_tx, bytes_rx, packets_tx, packets_rx = (int(value or 0) for value in row.values())
        return bytes_tx, bytes_rx, packets_tx, packets_rx

    def settled() -> tuple[int, int, int, int]:
        """The counts when two looks, some seconds apart, agree."""
        last = [(-1, -1, -1, -1)]

        def same() -> bool:
            last.append(counted())
            return last[-1] == last[-2]

        assert eventually(same, 120, 5), last
        return last[-1]

    base, before = settled(), plain.nodes["a"].interface_counters("vetha1")
    dropped_before = watched.dropped()
    iperf(plain, "-t", str(SECONDS), *options)
    after = plain.nodes["a"].interface_counters("vetha1")
    now = settled()
    gone = {name: after[name] - before[name] for name in after}
    dropped = watched.dropped() - dropped_before
    # The pod is the client: what it sends comes in at the node's end of the cable.
    pairs = [(gone["rx_bytes"], now[0] - base[0]), (gone["tx_bytes"], now[1] - base[1])]
    packets = (gone["rx_packets"] + gone["tx_packets"], now[2] - base[2] + now[3] - base[3])
    assert packets[0] > 5_000, gone
    assert packets[1] + dropped == pytest.approx(packets[0], rel=0.01), (packets, dropped)
    if not dropped:
        for interface, ours in pairs:
            # An interface counts ARP and neighbour discovery as well.
            assert ours == pytest.approx(interface, rel=0.01, abs=500), pairs
    # How many depends on who else wants the processor; none at all would compare nothing.
    assert dropped <= 0.5 * packets[0], (packets, dropped)

"""What the flows count is what went over the interface: bytes and packets of iperf3 against the kernel's counters."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import eventually
from tests.network.test_loss import capturing, iperf
from tests.network.topology import Topology
from tests.network.watched import Watch

SECONDS = 10
#: A machine that takes its processors away for half a second sends much at once afterwards.
RING_MIB = 32


def known_neighbours(made: Topology) -> None:
    """Neither end of the captured cable asks for the other's hardware address: ARP is no flow."""
    for place in (made.place("a1"), made.nodes["a"]):
        for line in place.run("ip", "-4", "neigh", "show").splitlines():
            address, _, interface, *words = line.split()
            if "lladdr" in words:
                hardware = words[words.index("lladdr") + 1]
                where = ("dev", interface, "nud", "permanent")
                place.run("ip", "neigh", "replace", address, "lladdr", hardware, *where)


@pytest.mark.parametrize(
    "options", [("-b", "200M"), ("-P", "4"), ("-R",), ("-u", "-b", "100M", "-l", "200")], ids=" ".join
)
def test_bytes_and_packets_are_those_of_the_interface(options: tuple[str, ...], plain: Topology, watch: Watch) -> None:
    """Only one interface is captured: what it had and no flow has, the agent's own counter says was dropped."""
    watched = watch(plain, "^vetha1$", RING_MIB)
    capturing(watched)
    known_neighbours(plain)
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

    def explained() -> bool:
        """The agent tells its counters every ten seconds."""
        nonlocal dropped
        dropped = watched.dropped() - dropped_before
        return packets[1] + dropped == pytest.approx(packets[0], rel=0.01)

    assert eventually(explained, 30, 1), (packets, dropped)
    if not dropped:
        for interface, ours in pairs:
            assert ours == pytest.approx(interface, rel=0.01), pairs
    assert dropped <= 0.05 * packets[0], "more is lost than a busy machine explains"

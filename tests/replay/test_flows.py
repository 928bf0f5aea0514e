"""Flows of published captures against what tshark counted in them (``*.truth.json``, ``flows``)."""

from __future__ import annotations

import ipaddress
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.replay.replayed import replayed

Tuple = tuple[int, str, int, str, int]
#: Numbers of one direction: packets, bytes of frames, payload bytes, TCP flags.
Counted = list[int]

LEDGER: dict[str, str] = yaml.safe_load((Path(__file__).parent / "ledger" / "flows.yaml").read_text())


def address(row: dict[str, Any], side: int) -> str:
    return str(ipaddress.ip_address(row[f"ip4_{side}" if row["is_ipv4"] else f"ip6_{side}"]))


def ours(path: Path) -> dict[Tuple, Counted]:
    """Sums of all rows by direction: tshark keeps one conversation for each tuple."""
    found: dict[Tuple, Counted] = defaultdict(lambda: [0, 0, 0, 0])
    for row in replayed(path, table="l4_flow_log"):
        ends = [(address(row, 0), row["client_port"]), (address(row, 1), row["server_port"])]
        for side, way in ((0, "tx"), (1, "rx")):
            sums = found[row["protocol"], *ends[side], *ends[1 - side]]
            sums[0] += row[f"packet_{way}"]
            sums[1] += row[f"byte_{way}"]
            sums[2] += row[f"l4_byte_{way}"] if row["protocol"] in (6, 17) else 0
            sums[3] |= row[f"tcp_flags_bit_{side}"] & 0xFF
    return found


def theirs(flows: list[dict[str, Any]]) -> dict[Tuple, Counted]:
    found: dict[Tuple, Counted] = defaultdict(lambda: [0, 0, 0, 0])
    for flow in flows:
        kind = flow["flow"].partition(":")[0]
        ends: list[tuple[str, int]] = []
        for end in (flow["first_packet_src"], flow["first_packet_dst"]):
            ip, _, port = end.rpartition(":") if kind in ("tcp", "udp") else (end, "", "0")
            ends.append((str(ipaddress.ip_address(ip.strip("[]"))), int(port)))
        six = ":" in ends[0][0]
        protocol = {"tcp": 6, "udp": 17, "icmp": 58 if six else 1}[kind]
        for said, (near, far) in ((flow["a2b"], ends), (flow["b2a"], ends[::-1])):
            sums = found[protocol, *near, *far]
            sums[0] += said.get("packets", 0)
            sums[1] += said.get("frame_bytes", 0)
            sums[2] += said.get(f"{kind}_payload_bytes", 0)
            sums[3] |= (said.get("flags_or") or 0) & 0xFF
    return found


def test_packets_bytes_and_flags(fixtures_dir: Path) -> None:
    """Every capture agrees, or stands in the ledger with the reason; one that agrees does not stand there."""
    differing: dict[str, str] = {}
    captures = 0
    for truth in sorted((fixtures_dir / "pcaps").rglob("*.truth.json")):
        stem = truth.name.removesuffix(".truth.json")
        path = next(truth.with_name(stem + end) for end in (".pcap", ".pcapng") if truth.with_name(stem + end).exists())
        captures += 1
        want, have = theirs(json.loads(truth.read_text())["flows"]), ours(path)
        for way, sums in want.items():
            if have.get(way, [0, 0, 0, 0]) != sums:
                differing[str(path.relative_to(fixtures_dir / "pcaps"))] = f"{way}: {sums} there, {have.get(way)} here"
    assert captures > 100
    unknown = {name: what for name, what in differing.items() if name not in LEDGER}
    assert not unknown, unknown
    healed = [name for name in LEDGER if name not in differing]
    assert not healed, f"these agree now and leave the ledger: {healed}"


@pytest.mark.parametrize("name", ["tcp/sanders-latency4.pcapng", "tcp/zeek-tcp-tcp-fast-open.pcap"])
def test_handshake(fixtures_dir: Path, name: str) -> None:
    path = fixtures_dir / "pcaps" / name
    truth = json.loads(path.with_suffix(".truth.json").read_text())
    want = sorted(flow["initial_rtt_us"] for flow in truth["flows"] if flow["initial_rtt_us"])
    assert sorted(int(row["rtt"]) for row in replayed(path, table="l4_flow_log") if row["rtt"]) == want

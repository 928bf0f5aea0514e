"""Echo requests of a real `ping` between two hosts: the rows of the captured frames against what ping printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deepflow import _core
from tests.live.observed import need
from tests.live.pair import Host, pair

_PING = 122
_OK, _UNKNOWN = 0, 5

#: Answers echo requests in the kernel's place: number n after n times 8 ms, number 3 never.
_RESPONDER = """
import socket, struct, time
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print("ready", flush=True)
while True:
    packet, peer = raw.recvfrom(65535)
    message = bytearray(packet[(packet[0] & 15) * 4 :])
    number = struct.unpack_from("!H", message, 6)[0]
    if message[0] != 8 or number == 3:
        continue
    time.sleep(number * 0.008)
    message[0], message[2:4] = 0, bytes(2)
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", message, 2, ~total & 0xFFFF)
    raw.sendto(message, peer)
"""


@dataclass(frozen=True)
class Printed:
    """What ping said of itself."""

    sent: int
    received: int
    #: Number of the request → (least, most) µs that the printed figure stands for.
    times: dict[int, tuple[float, float]]


def _ping(host: Host, address: str, count: int) -> Printed:
    command = host.inside("ping", "-n", "-c", str(count), "-i", "1", "-W", "10", address)
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    times = {}
    for number, figure in re.findall(r"icmp_seq=(\d+) ttl=\d+ time=([\d.]+) ms", text):
        half = 0.5 * 10 ** -len(figure.partition(".")[2])
        times[int(number)] = ((float(figure) - half) * 1000, (float(figure) + half) * 1000)
    totals = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert totals, text
    return Printed(int(totals[1]), int(totals[2]), times)


@contextmanager
def _slow_responder(host: Host) -> Iterator[None]:
    subprocess.run(host.inside("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1"), check=True)
    process = subprocess.Popen(host.inside(sys.executable, "-c", _RESPONDER), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _rows(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a capture file by table."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for table, _, stream in _core.replay(str(file), "{}"):
        tables.setdefault(table, []).extend(pa.ipc.open_stream(stream).read_all().to_pylist())
    return tables


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    need("ping", "sysctl")
    with pair() as both:
        yield both


def _check(calls: list[dict[str, Any]], printed: Printed) -> None:
    """One row a request; a row's delay begins after ping's own clock and ends with it."""
    assert sorted(row["request_id"] for row in calls) == list(range(1, printed.sent + 1))
    assert len({row["request_resource"] for row in calls}) == 1, "one ping has one identifier"
    answered = {row["request_id"]: row for row in calls if row["response_status"] == _OK}
    assert set(answered) == set(printed.times) and len(answered) == printed.received
    for number, row in answered.items():
        assert 0 < row["response_duration"] <= printed.times[number][1], row


def test_delays_and_a_lost_answer(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "ping.pcap"
    with _slow_responder(server), client.captured(file, "icmp"):
        printed = _ping(client, server.ip, 6)
    assert (printed.sent, printed.received) == (6, 5)
    tables = _rows(file)
    calls = [row for row in tables["l7_flow_log"] if row["l7_protocol"] == _PING]
    assert calls == tables["l7_flow_log"]
    _check(calls, printed)
    for row in calls:
        if row["request_id"] == 3:
            assert row["response_status"] == _UNKNOWN and row["response_duration"] == 0
        else:
            # What the responder slept at least; the wire adds little, the machine's load is in both figures.
            assert row["response_duration"] >= row["request_id"] * 8000
    totals = {name: sum(row[name] for row in tables["application_map.1s"]) for name in ("request", "response")}
    assert totals == {"request": 6, "response": 5}
    flows = tables["l4_flow_log"]
    assert len({flow["flow_id"] for flow in flows}) == 1  # two rows when a minute ended meanwhile
    sums = [sum(flow[name] for flow in flows) for name in ("packet_tx", "packet_rx", "l7_request", "l7_response")]
    assert sums == [6, 5, 6, 5]
    # 56 bytes of data as ping has it, and the headers of ICMP, IPv4 and Ethernet.
    each = 56 + 8 + 20 + 14
    assert [sum(flow[name] for flow in flows) for name in ("byte_tx", "byte_rx")] == [6 * each, 5 * each]


def test_ipv6(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "ping6.pcap"
    with client.captured(file, "icmp6"):
        printed = _ping(client, server.ip6, 4)
    assert (printed.sent, printed.received) == (4, 4)
    _check([row for row in _rows(file)["l7_flow_log"] if row["l7_protocol"] == _PING], printed)

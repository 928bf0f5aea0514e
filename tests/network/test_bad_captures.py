"""Damaged and lying captures through the replay: no panic, no row that is not true, and what could not be read counted.

Each capture holds healthy calls among the damage: their rows, and no others, must come out.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.network.frames import (
    ACK,
    GRE,
    ICMP,
    IPIP,
    IPV6,
    PSH,
    SYN,
    TCP,
    UDP,
    Capture,
    HttpCall,
    erspan,
    ethernet,
    geneve,
    gre,
    ipip,
    ipv4,
    ipv6,
    tcp,
    udp,
    vxlan,
)
from tests.network.replays import Replay, replay

A, B = "192.0.2.1", "192.0.2.2"
SEED = 4
#: Values of the column `type`.
RESPONSE, SESSION = 1, 2


def healthy(number: int) -> HttpCall:
    """A call that nothing is wrong with; each has a connection of its own."""
    return HttpCall(f"healthy/{number}", client_port=30_000 + number, client_seq=100_000 * (number + 1))


def among(damage: list[bytes], capture: Capture | None = None, calls: int = 3) -> tuple[Capture, list[str]]:
    """A capture with damage before, inside and after healthy calls, and the paths of those."""
    capture = capture or Capture()
    paths = []
    piece = max(1, len(damage) // (calls * 10))
    left = list(damage)
    for number in range(calls):
        call = healthy(number)
        paths.append(f"/{call.path}")
        for frame in call.frames():
            capture.extend(left[:piece], after_us=3)
            del left[:piece]
            capture.add(frame)
    capture.extend(left, after_us=3)
    return capture, paths


def check(capture: Capture, paths: list[str], tmp_path: Path) -> Replay:
    """The calls of these paths, whole, and no others; and every row is possible."""
    seen = replay(capture.write(tmp_path / "bad.pcap"))
    rows = sorted((row["request_resource"], row["response_code"], row["type"]) for row in seen.l7 if row["l7_protocol"])
    assert rows == [(path, 200, 2) for path in sorted(paths)]
    seen.assert_possible(len(capture.frames))
    return seen


def wrapped(frame: bytes, depth: int, kinds: list[Callable[[bytes], bytes]]) -> bytes:
    """A frame inside this many tunnels."""
    for level in range(depth):
        frame = kinds[level % len(kinds)](frame)
    return frame


TUNNELS: dict[str, Callable[[bytes], bytes]] = {
    "vxlan": lambda frame: ethernet(vxlan(frame, A, B)),
    "geneve": lambda frame: ethernet(geneve(frame, A, B, options=2)),
    "gre": lambda frame: ethernet(gre(frame, A, B)),
    "erspan": lambda frame: ethernet(erspan(frame, A, B)),
    "ipip": lambda frame: ethernet(ipip(frame[14:], A, B)),
}


def test_headers_cut_at_every_byte(tmp_path: Path) -> None:
    cut = []
    whole = HttpCall("cut", client="10.9.0.1").frames()[3]
    frames = [
        whole,
        *(wrap(whole) for wrap in TUNNELS.values()),
        ethernet(ipv6(whole[34:], "fd00::1", "fd00::2"), IPV6),
    ]
    for frame in frames:
        head = frame.index(b"GET")  # with the first letters of the payload there would be a request
        cut += [frame[:length] for length in range(head)]
    capture, paths = among(cut)
    # What was captured is shorter than what was on the wire, as with a snap length.
    capture.frames = [(at, data, max(wire, 60)) for at, data, wire in capture.frames]
    seen = check(capture, paths, tmp_path)
    assert seen.counters["packets_malformed"] >= len(frames) * 20


def test_lengths_that_lie(tmp_path: Path) -> None:
    request = HttpCall("lie", client="10.9.0.1").request()
    segment = tcp(request, 1234, 80, 77, 1, PSH | ACK)
    lies = [ethernet(ipv4(segment, A, B, total=total)) for total in (1, 19, 20, 21, 39)]
    lies += [ethernet(ipv4(segment, A, B, words=words)) for words in (0, 1, 4)]
    lies += [ethernet(ipv4(tcp(request, 1234, 80, 77, 1, PSH | ACK, words=words), A, B)) for words in (0, 1, 4)]
    lies += [ethernet(ipv6(segment, "fd00::1", "fd00::2", length=length), IPV6) for length in (1, 19)]
    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x03lie\x04test\x00\x00\x01\x00\x01"
    lies += [ethernet(ipv4(udp(question, 1234, 53, length=length), A, B, UDP)) for length in (1, 7)]
    # Extension headers that reach beyond the packet, and that never end.
    lies += [
        ethernet(ipv6(bytes([TCP, size]) + bytes(6) + segment, "fd00::1", "fd00::2", 0), IPV6) for size in (60, 255)
    ]
    lies += [ethernet(ipv6(bytes([0, 0] + [0] * 6) * 100, "fd00::1", "fd00::2", 0), IPV6)]
    # TCP options: a length of 0 and 1, and one beyond the header.
    lies += [
        ethernet(ipv4(tcp(b"", 1234, 81, 77, 1, SYN, options=options), A, B))
        for options in (bytes([2, 0, 0, 0]), bytes([2, 1, 0, 0]), bytes([253, 255, 0, 0]), bytes([8, 10, 1, 2]))
    ]
    inner = ethernet(ipv4(segment, A, B, total=21))
    lies += [wrap(inner) for wrap in TUNNELS.values()]
    lies += [ethernet(geneve(b"", A, B, options=63)[: 14 + 40])]
    capture, paths = among(lies * 3)
    seen = check(capture, paths, tmp_path)
    assert seen.counters["packets_malformed"] > 0


def test_fragments_that_overlap(tmp_path: Path) -> None:
    """Only the first fragment is read; what others claim to overwrite makes no row."""
    frames = []
    for number in range(50):
        call = HttpCall(f"shadow/{number}", client="10.9.0.1", client_port=2000 + number)
        segment = tcp(bytes(16) + call.request(), call.client_port, 80, 77, 1, PSH | ACK)
        head, rest = segment[:32], segment[32:]
        evil = tcp(call.request(), call.client_port, 80, 77, 1, PSH | ACK)

        def part(data: bytes, offset: int, more: bool, number: int = number) -> bytes:
            return ethernet(ipv4(data, "10.9.0.1", B, identification=number, fragment=offset, more=more))

        frames += [part(head, 0, True), part(evil[8:48], 1, True), part(rest, 4, False), part(evil[16:], 2, True)]
        frames += [part(b"", 0x1FFF, False), part(bytes(64), 0x1FFF, True), part(evil[:16], 0, True)]
        frames += [part(rest, 4, False)] * 2
    seen = check(*among(frames), tmp_path)
    assert seen.counters["fragments_later"] >= 50 * 6


def test_later_fragments_without_a_first_are_bounded(tmp_path: Path) -> None:
    frames = [
        ethernet(
            ipv4(bytes(64), f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", B, UDP, identification=n & 0xFFFF, fragment=9)
        )
        for n in range(100_000)
    ]
    seen = check(*among(frames), tmp_path)
    assert seen.counters["fragments_later"] >= 100_000


@pytest.mark.parametrize("kinds", [*([kind] for kind in TUNNELS), list(TUNNELS)], ids=" ".join)
def test_tunnels_in_tunnels(kinds: list[str], tmp_path: Path) -> None:
    """One and two deep the call is seen; 20 and 200 deep, nothing is made up and nothing is lost silently."""
    wraps = [TUNNELS[kind] for kind in kinds]
    capture, paths = among([])
    for depth in (1, 2):
        call = HttpCall(f"inside/{depth}", client=f"10.9.{depth}.1")
        capture.extend([wrapped(frame, depth, wraps) for frame in call.frames()])
        paths.append(f"/{call.path}")
    for depth in (20, 200):
        call = HttpCall(f"deep/{depth}", client=f"10.9.{depth}.1")
        capture.extend([wrapped(frame, depth, wraps) for frame in call.frames()])
    seen = replay(capture.write(tmp_path / "deep.pcap"))
    found = {row["request_resource"] for row in seen.l7 if row["l7_protocol"]}
    assert set(paths) <= found <= {*paths, "/deep/20", "/deep/200"}
    seen.assert_possible(len(capture.frames))


def test_segmentation_offload(tmp_path: Path) -> None:
    """The sender's own capture: frames larger than any MTU, the length of the IP header empty."""
    calls = [HttpCall(f"large/{n}", client_port=5000 + n, body=b"x" * size) for n, size in enumerate((60_000, 64_000))]
    capture, paths = among([])
    for call in calls:
        for packet in call.packets():
            large = len(packet) > 1500
            capture.add(ethernet(packet[:2] + b"\0\0" + packet[4:] if large else packet))
        paths.append(f"/{call.path}")
    # Beyond 64 KiB the header has no room for the length at all.
    huge = HttpCall("large/2", client_port=5002, body=b"x" * 100_000)
    capture.extend([ethernet(packet[:2] + b"\0\0" + packet[4:]) for packet in huge.packets()])
    paths.append("/large/2")
    seen = check(capture, paths, tmp_path)
    lengths = {row["request_resource"]: row["response_length"] for row in seen.l7}
    assert [lengths[f"/large/{n}"] for n in range(3)] == [60_000, 64_000, 100_000]
    for call in (*calls, huge):
        rows = [row for row in seen.l4 if row["client_port"] == call.client_port]
        assert sum(row["l4_byte_rx"] for row in rows) == len(call.response()), rows
        from_server = [packet for packet in call.packets() if packet[12:16] == bytes([10, 1, 0, 2])]
        assert sum(row["byte_rx"] for row in rows) == sum(len(packet) + 14 for packet in from_server), rows


def test_time_that_runs_backwards(tmp_path: Path) -> None:
    """Clocks that are set while a capture runs: every call once, and a delay is what the capture says or nothing."""
    randomly = random.Random(SEED)
    capture, paths, delays = Capture(), [], {}
    for number in range(200):
        call = healthy(number)
        paths.append(f"/{call.path}")
        times = []
        for frame in call.frames():
            jump = randomly.choice([0, 0, 0, 0, -50, -3_600_000_000, 3_600_000_000, -1_000_000])
            capture.add(frame, after_us=jump + 100)
            times.append(capture.now_us)
        delays[paths[-1]] = max(0, times[5] - times[3])
    seen = replay(capture.write(tmp_path / "backwards.pcap"))
    seen.assert_possible(len(capture.frames))
    assert sorted(row["request_resource"] for row in seen.l7 if row["type"] != RESPONSE) == sorted(paths)
    paired = [row for row in seen.l7 if row["type"] == SESSION]
    assert len(paired) >= 0.9 * len(paths)  # the rest timed out: an hour had passed
    assert all(row["response_duration"] == delays[row["request_resource"]] for row in paired)


def test_time_at_its_ends(tmp_path: Path) -> None:
    """The first and the last moment that a pcap can say."""
    for at in (0, 1, 2**32 - 1):
        capture, paths = among([], Capture(now_us=at * 1_000_000))
        check(capture, paths, tmp_path)


def test_the_same_frames_again_and_again(tmp_path: Path) -> None:
    """A mirror port that copies each frame: every call is one row."""
    capture, paths = Capture(), []
    for number in range(20):
        call = healthy(number)
        paths.append(f"/{call.path}")
        for frame in call.frames():
            capture.add(frame)
            capture.add(frame, after_us=1)
    check(capture, paths, tmp_path)


def test_other_protocols_and_links(tmp_path: Path) -> None:
    call = HttpCall("no", client="10.9.0.1")
    odd = [ethernet(call.packets()[3], kind) for kind in (0x0806, 0x88CC, 0x8863, 0x0000, 0xFFFF, 100)]
    odd += [ethernet(ipv4(bytes(40), A, B, protocol)) for protocol in range(256) if protocol not in (TCP, UDP, ICMP)]
    odd += [
        ethernet(ipv4(bytes([kind, code, 0, 0]) + bytes(28), A, B, ICMP))
        for kind in range(1, 42)
        for code in range(1, 3)
    ]
    odd += [bytes(14), bytes(60), b"\xff" * 60, b"", b"\x00"]
    seen = check(*among(odd), tmp_path)
    assert seen.counters["packets_foreign"] > 0


@pytest.mark.parametrize("seed", range(8))
def test_bytes_changed_at_random(seed: int, tmp_path: Path) -> None:
    """Any byte may be anything: rows stay possible, and healthy connections beside them untouched."""
    randomly = random.Random(seed)
    seeds = HttpCall("victim", client="10.9.0.1", client_port=7).frames()
    seeds += [wrap(frame) for wrap in TUNNELS.values() for frame in seeds[:10]]
    seeds += [ethernet(ipip(ipip(frame[14:], A, B), A, B)) for frame in seeds[:10]]
    damaged = []
    for _ in range(3000):
        frame = bytearray(randomly.choice(seeds))
        for _ in range(randomly.choice((1, 1, 2, 8))):
            frame[randomly.randrange(12, len(frame))] = randomly.randrange(256)
        damaged.append(bytes(frame[: randomly.choice((len(frame), len(frame), randomly.randrange(len(frame) + 1)))]))
    capture, paths = among(damaged)
    seen = replay(capture.write(tmp_path / "changed.pcap"))
    found = sorted(row["request_resource"] for row in seen.l7 if row["request_resource"].startswith("/healthy/"))
    assert found == sorted(paths)
    seen.assert_possible(len(capture.frames))


def test_unused_protocol_numbers_are_tunnels_only_when_they_hold_one(tmp_path: Path) -> None:
    """What goes to a tunnel's port or has its protocol number, but holds no packet, is left as it is."""
    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x04left\x04test\x00\x00\x01\x00\x01"
    answer = struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + question[12:]
    frames = []
    for port in (4789, 6081, 8472):
        frames += [
            ethernet(ipv4(udp(question, port, 53), A, B, UDP)),
            ethernet(ipv4(udp(answer, 53, port), B, A, UDP)),
        ]
    frames += [ethernet(ipv4(bytes(size), A, B, protocol)) for protocol in (IPIP, GRE) for size in (0, 1, 4, 20)]
    capture, paths = among([])
    capture.extend(frames)
    seen = replay(capture.write(tmp_path / "left.pcap"))
    assert sorted(row["request_resource"] for row in seen.l7 if row["l7_protocol"] == 120) == ["left.test"] * 3
    assert {row["request_resource"] for row in seen.l7 if row["l7_protocol"] == 20} == set(paths)
    seen.assert_possible(len(capture.frames))

"""TCP option tracing (bpf/sockopt.bpf.c) between two hosts, judged by the frames that tcpdump saw."""

from __future__ import annotations

import ipaddress
import json
import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest

from deepflow import _core
from tests.live.pair import Host, pair

_WINDOW = 16_384
_FRAME = 1514

#: One process listens, its child accepts and answers each request of a connection: length, then that many bytes.
_SERVER = """
import hashlib, os, socket, struct, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 8000), family=family, dualstack_ipv6=family == socket.AF_INET6)
child = os.fork()
if child:
    print(child, flush=True)
    os.waitpid(child, 0)
    sys.exit()
while True:
    connection, _ = listener.accept()
    stream = connection.makefile("rb")
    while header := stream.read(8):
        length, answer = struct.unpack("!II", header)
        connection.sendall(hashlib.sha256(stream.read(length)).digest() + bytes(answer))
    connection.close()
"""

#: For each line of its standard input (bytes to send, bytes of the answer) one request on one connection; prints
#: whether the server got what was sent.
_CLIENT = """
import hashlib, os, socket, struct, sys
connection = socket.create_connection((sys.argv[1], 8000), 20)
stream = connection.makefile("rb")
print("connected", flush=True)
for line in sys.stdin:
    length, answer = map(int, line.split())
    body = os.urandom(length)
    connection.sendall(struct.pack("!II", length, answer) + body)
    print(stream.read(32) == hashlib.sha256(body).digest() and len(stream.read(answer)) == answer, flush=True)
connection.close()
"""


@dataclass(frozen=True)
class Sender:
    """What the option says, and where."""

    pid: int
    ip: str
    seq: int


@dataclass(frozen=True)
class Segment:
    """One TCP segment of a capture."""

    source: str
    seq: int
    flags: int
    payload: int
    frame: int
    sender: Sender | None


def _sender(options: bytes) -> Sender | None:
    while options and options[0]:
        if options[0] == 1:
            options = options[1:]
            continue
        length = options[1]
        assert 2 <= length <= len(options), options
        if options[0] == 253:
            assert length == 16 and options[2:4] == b"\xde\xe9", options[:length]
            pid, ip, seq = struct.unpack("!III", options[4:16])
            return Sender(pid, str(ipaddress.IPv4Address(ip)), seq)
        options = options[length:]
    return None


def _segments(file: Path) -> list[Segment]:
    """Every TCP segment of a capture that tcpdump wrote on Ethernet."""
    data, found, at = file.read_bytes(), [], 24
    while at < len(data):
        captured, length = struct.unpack_from("<II", data, at + 8)
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] == b"\x08\x00":
            header = 14 + (frame[14] & 15) * 4
            source, total = str(ipaddress.IPv4Address(frame[26:30])), 14 + struct.unpack_from("!H", frame, 16)[0]
        else:
            header = 54
            source, total = str(ipaddress.IPv6Address(frame[22:38])), 54 + struct.unpack_from("!H", frame, 18)[0]
        seq, (offset, flags) = struct.unpack_from("!I", frame, header + 4)[0], frame[header + 12 : header + 14]
        end = header + (offset >> 4) * 4
        found.append(Segment(source, seq, flags, total - end, length, _sender(frame[header + 20 : end])))
    return found


@contextmanager
def tracing(**config: object) -> Iterator[_core.Agent]:
    """The core with option tracing on."""
    agent = _core.Agent(json.dumps({"ignored_pids": [os.getpid()], "tcp_option_trace": True, **config}))
    try:
        hooks = json.loads(agent.start())["hooks"]
    except OSError as refusal:
        pytest.skip(f"the kernel programs cannot be attached here: {refusal}")
    try:
        (report,) = [hook for hook in hooks if hook["what"] == "TCP option tracing"]
        if report["chosen"] == "none":
            pytest.skip(report["lost"])
        yield agent
    finally:
        agent.stop()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as both:
        yield both


@contextmanager
def _server(host: Host, address: str) -> Iterator[tuple[int, int]]:
    """The server on a host; who listens and who accepts."""
    process = subprocess.Popen(
        host.inside(sys.executable, "-c", _SERVER, address), stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert process.stdout
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


class Client:
    """One connection of one process."""

    def __init__(self, host: Host, address: str) -> None:
        command = host.inside(sys.executable, "-c", _CLIENT, address)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._said() == "connected"

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def exchange(self, length: int, answer: int) -> None:
        """Send a request; fails unless the server got these bytes and the whole answer came."""
        assert self._process.stdin
        print(length, answer, file=self._process.stdin, flush=True)
        assert self._said() == "True"

    def close(self) -> None:
        """End the connection and the process."""
        self._process.communicate(timeout=20)


def _call(host: Host, address: str, length: int = 300_000, answer: int = 200_000) -> int:
    client = Client(host, address)
    client.exchange(length, answer)
    client.close()
    return client.pid


def _check_data(segments: list[Segment], pid: int, ip: str, window: int) -> int:
    """The segments with the first byte of a window, and only they, name their sender. Returns how many they are."""
    first = segments[0].seq
    carriers = 0
    for one in segments:
        begin = (one.seq - first) % (1 << 32)
        boundary = window == 0 or -(-begin // window) * window < begin + one.payload
        assert one.sender == (Sender(pid, ip, one.seq) if boundary else None), one
        carriers += boundary
    return carriers


def _data(segments: list[Segment], source: str) -> list[Segment]:
    """Segments with data in the order of the stream; what was sent twice is left out.

    Two processors of a busy machine can hand a veth's frames over in another order than they were sent in.
    """
    begin = next(one.seq for one in segments if one.source == source)
    found: list[Segment] = []
    for one in sorted(segments, key=lambda one: (one.seq - begin + (1 << 31)) % (1 << 32)):
        new = not found or one.seq == (found[-1].seq + found[-1].payload) % (1 << 32)
        if one.source == source and one.payload and new:
            found.append(one)
    return found


def _starts(segments: list[Segment], flags: int) -> list[Segment]:
    """The SYN (0x02) or SYN-ACK (0x12) of each connection; one that was sent twice counts once."""
    return list({(one.source, one.seq): one for one in segments if one.flags & 0x12 == flags}.values())


def _handshake(segments: list[Segment]) -> tuple[Segment, Segment]:
    (syn,) = _starts(segments, 0x02)
    (answer,) = _starts(segments, 0x12)
    return syn, answer


def test_sender_in_handshake_and_samples(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "on.pcap"
    with tracing() as agent, _server(server, server.ip) as (listener, worker), client.captured(file, "tcp"):
        pid = _call(client, server.ip)
        counters = agent.counters()
    segments = _segments(file)
    syn, answer = _handshake(segments)
    assert syn.sender == Sender(pid, client.ip, syn.seq)
    assert answer.sender == Sender(listener, server.ip, answer.seq)
    sent, received = _data(segments, client.ip), _data(segments, server.ip)
    assert (sum(one.payload for one in sent), sum(one.payload for one in received)) == (300_008, 200_032)
    assert _check_data(sent, pid, client.ip, _WINDOW) == 19
    assert _check_data(received, worker, server.ip, _WINDOW) == 13
    assert all(one.sender is None for one in segments if not one.payload and not one.flags & 0x02)
    assert max(one.frame for one in segments) <= _FRAME, "the option has to fit the path"
    assert counters["tcp_option_written"] >= 2 + 19 + 13


def test_window_of_nothing_marks_every_segment(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "every.pcap"
    with (
        tracing(tcp_option_sampling_window=0),
        _server(server, server.ip) as (_, worker),
        client.captured(file, "tcp"),
    ):
        pid = _call(client, server.ip, 60_000, 30_000)
    segments = _segments(file)
    sent, received = _data(segments, client.ip), _data(segments, server.ip)
    assert _check_data(sent, pid, client.ip, 0) == len(sent) > 30
    assert _check_data(received, worker, server.ip, 0) == len(received) > 15


def test_ipv6_has_no_address_in_it(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "six.pcap"
    with tracing(), _server(server, "::") as (listener, worker), client.captured(file, "tcp"):
        old, new = _call(client, server.ip6), _call(client, server.ip)
    segments = _segments(file)
    six = [one for one in segments if ":" in one.source]
    syn, answer = _handshake(six)
    assert syn.sender == Sender(old, "0.0.0.0", syn.seq)
    assert answer.sender == Sender(listener, "0.0.0.0", answer.seq)
    _check_data(_data(six, client.ip6), old, "0.0.0.0", _WINDOW)
    _check_data(_data(six, server.ip6), worker, "0.0.0.0", _WINDOW)
    assert max(one.frame for one in six) <= _FRAME
    # An IPv4 connection of an IPv6 socket.
    syn, answer = _handshake([one for one in segments if ":" not in one.source])
    assert syn.sender == Sender(new, client.ip, syn.seq)
    assert answer.sender == Sender(listener, server.ip, answer.seq)


def test_off_by_default(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "off.pcap"
    agent = _core.Agent(json.dumps({"ignored_pids": [os.getpid()]}))
    try:
        hooks = json.loads(agent.start())["hooks"]
        with _server(server, server.ip), client.captured(file, "tcp"):
            _call(client, server.ip)
    except OSError as refusal:
        pytest.skip(f"the kernel programs cannot be attached here: {refusal}")
    finally:
        agent.stop()
    assert not [hook for hook in hooks if hook["what"] == "TCP option tracing"]
    segments = _segments(file)
    assert len(segments) > 300 and all(one.sender is None for one in segments)


def test_connections_outlive_start_and_stop(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "life.pcap"
    with _server(server, server.ip) as (_, worker), client.captured(file, "tcp"):
        before = Client(client, server.ip)
        before.exchange(40_000, 40_000)
        with tracing():
            before.exchange(100_000, 100_000)
            before.close()
            within = Client(client, server.ip)
            within.exchange(100_000, 100_000)
        within.exchange(100_000, 100_000)
        within.close()
    segments = _segments(file)
    starts, answers = _starts(segments, 0x02), _starts(segments, 0x12)
    assert [one.sender for one in starts] == [None, Sender(within.pid, client.ip, starts[1].seq)]
    # Of the second connection while the program was there, 100 008 bytes of it and of its answer: 7 windows each,
    # however often a segment was sent.
    first = {client.ip: starts[1].seq + 1, server.ip: answers[1].seq + 1}
    marked = set()
    for one in segments:
        if one.payload and one.sender:
            begin = (one.seq - first[one.source]) % (1 << 32)
            window = -(-begin // _WINDOW)
            assert window * _WINDOW < begin + one.payload, "only who has the first byte of a window says who sent it"
            marked.add((one.source, one.sender.pid, window))
    assert Counter((source, pid) for source, pid, _ in marked) == {(client.ip, within.pid): 7, (server.ip, worker): 7}
    # A socket that listened before names its process only once the connection is accepted.
    assert all(one.sender is None for one in segments if one.flags & 0x12 == 0x12)


def test_a_segment_that_is_sent_again_names_nobody_inside_a_window(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "again.pcap"
    # What arrives while the server has no address is lost.
    address = f"{server.ip}/24 dev eth0"
    away = f"for i in $(seq 20); do ip address del {address}; ip address add {address}; sleep 0.1; done"
    with tracing(), _server(server, server.ip), client.captured(file, "tcp"):
        caller = Client(client, server.ip)
        with subprocess.Popen(server.inside("sh", "-c", away)) as gone:
            while gone.poll() is None:
                caller.exchange(3_000_000, 1)
        caller.close()
    pid = caller.pid
    segments = [one for one in _segments(file) if one.source == client.ip]
    first = segments[0].seq + 1
    begins = [(one.seq - first) % (1 << 32) for one in segments[1:] if one.payload]
    again = sum(begin < furthest for begin, furthest in zip(begins[1:], accumulate(begins, max), strict=False))
    assert again > 20, "too few segments were sent again to say anything"
    for one in segments[1:]:
        if one.sender:
            begin = (one.seq - first) % (1 << 32)
            assert one.sender.pid == pid
            assert -(-begin // _WINDOW) * _WINDOW < begin + one.payload, one


def test_two_programs_beside_each_other(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    file = tmp_path / "two.pcap"
    with (
        tracing() as one,
        tracing() as other,
        _server(server, server.ip) as (_, worker),
        client.captured(file, "tcp"),
    ):
        pid = _call(client, server.ip)
        written = [agent.counters()["tcp_option_written"] for agent in (one, other)]
        refused = [agent.counters()["tcp_option_refused"] for agent in (one, other)]
    segments = _segments(file)
    _check_data(_data(segments, client.ip), pid, client.ip, _WINDOW)
    _check_data(_data(segments, server.ip), worker, server.ip, _WINDOW)
    assert max(one.frame for one in segments) <= _FRAME
    # One option a segment: who comes second finds no room, or the first one's option.
    options = 2 + sum(1 for one in segments if one.payload and one.sender)
    assert sum(written) >= options and max(refused) >= options, (written, refused)


_SHARED = """
import socket, sys
listener = socket.create_server((sys.argv[1], 8000), reuse_port=True)
print("listening", flush=True)
while True:
    listener.accept()[0].close()
"""


def _syn_ack(client: Host, server: Host, file: Path) -> Segment:
    with client.captured(file, "tcp"):
        command = "import socket, sys; socket.create_connection((sys.argv[1], 8000), 20).recv(1)"
        subprocess.run(client.inside(sys.executable, "-c", command, server.ip), check=True)
    return _handshake(_segments(file))[1]


def test_a_shared_port_names_nobody(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    client, server = hosts
    started: list[subprocess.Popen[str]] = []

    def listens() -> int:
        command = server.inside(sys.executable, "-c", _SHARED, server.ip)
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        output = started[-1].stdout
        assert output and output.readline() == "listening\n"
        return started[-1].pid

    try:
        with tracing():
            listens()
            listens()
            answer = _syn_ack(client, server, tmp_path / "shared.pcap")
            assert answer.sender == Sender(0, server.ip, answer.seq)
            for process in started:
                process.kill()
                process.wait()
            # The port is free again: the next one to listen is known.
            alone = listens()
            answer = _syn_ack(client, server, tmp_path / "alone.pcap")
            assert answer.sender == Sender(alone, server.ip, answer.seq)
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

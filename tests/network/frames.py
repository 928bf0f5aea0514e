"""Frames and capture files made by hand: right ones, and ones that lie.

Every function returns the bytes of one layer around another; `Capture` collects them with times and writes a pcap.
Header layouts: RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 7348 (VXLAN), 8926 (Geneve), 2784/2890 (GRE),
2003 (IPIP), draft-foschiano-erspan (ERSPAN).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

IPV4, IPV6, TEB = 0x0800, 0x86DD, 0x6558
TCP, UDP, IPIP, GRE, ICMP = 6, 17, 4, 47, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT_MAC, SERVER_MAC = bytes.fromhex("0200000000c1"), bytes.fromhex("0200000000d1")


def ethernet(payload: bytes, kind: int = IPV4, source: bytes = CLIENT_MAC, target: bytes = SERVER_MAC) -> bytes:
    return target + source + struct.pack("!H", kind) + payload


def ipv4(
    payload: bytes,
    source: str,
    target: str,
    protocol: int = TCP,
    *,
    identification: int = 1,
    total: int | None = None,
    words: int = 5,
    fragment: int = 0,
    more: bool = False,
    ttl: int = 64,
) -> bytes:
    """`total` and `words` (header length) may lie; `fragment` is the offset in units of 8 bytes."""
    length = 20 + len(payload) if total is None else total
    flags = (0x2000 if more else 0) | fragment
    fixed = struct.pack("!BBHHHBBH", 0x40 | words, 0, length & 0xFFFF, identification, flags, ttl, protocol, 0)
    return fixed + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed + payload


def ipv6(payload: bytes, source: str, target: str, protocol: int = TCP, *, length: int | None = None) -> bytes:
    fixed = struct.pack("!IHBB", 0x60000000, len(payload) if length is None else length, protocol, 64)
    return fixed + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed + payload


def tcp(
    payload: bytes,
    source: int,
    target: int,
    seq: int,
    ack: int = 0,
    flags: int = ACK,
    *,
    window: int = 64240,
    words: int = 5,
    options: bytes = b"",
) -> bytes:
    """`words` is the data offset without the options, which have to be whole words."""
    offset = (words + len(options) // 4) & 0xF
    fixed = struct.pack("!HHIIBBHHH", source, target, seq, ack, offset << 4, flags, window, 0, 0)
    return fixed + options + payload


def udp(payload: bytes, source: int, target: int, *, length: int | None = None) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(payload) if length is None else length, 0) + payload


def vxlan(frame: bytes, source: str, target: str, vni: int = 7, *, flags: int = 0x08) -> bytes:
    """The IPv4 packet that carries a frame."""
    return ipv4(udp(struct.pack("!BxxxI", flags, vni << 8) + frame, 50_000, 4789), source, target, UDP)


def geneve(frame: bytes, source: str, target: str, vni: int = 8, *, options: int = 0) -> bytes:
    """`options`: number of words of options, filled with zeros; the header says 6 bits of it."""
    header = struct.pack("!BBHI", options & 0x3F, 0, TEB, vni << 8) + bytes(4 * options)
    return ipv4(udp(header + frame, 50_001, 6081), source, target, UDP)


def ipip(packet: bytes, source: str, target: str) -> bytes:
    return ipv4(packet, source, target, IPIP)


def gre(frame: bytes, source: str, target: str, key: int | None = 9, *, kind: int = TEB) -> bytes:
    header = struct.pack("!HH", 0x2000 if key is not None else 0, kind)
    return ipv4(header + (b"" if key is None else struct.pack("!I", key)) + frame, source, target, GRE)


def erspan(frame: bytes, source: str, target: str, session: int = 10) -> bytes:
    """ERSPAN II: GRE with a sequence number, then 8 bytes."""
    header = struct.pack("!HHI", 0x1000, 0x88BE, 1) + struct.pack("!HHI", 0x1000, session, 0)
    return ipv4(header + frame, source, target, GRE)


@dataclass
class Capture:
    """Frames with their times, written as a pcap file with µs (LINKTYPE_ETHERNET unless told otherwise)."""

    link_type: int = 1
    frames: list[tuple[int, bytes, int]] = field(default_factory=list)
    now_us: int = 1_700_000_000_000_000

    def add(self, frame: bytes, *, after_us: int = 100, wire: int | None = None) -> None:
        """A frame, some time after the one before; `wire`: its length before it was cut."""
        self.now_us += after_us
        self.frames.append((self.now_us, frame, len(frame) if wire is None else wire))

    def extend(self, other: Iterator[bytes] | list[bytes], *, after_us: int = 100) -> None:
        """Frames one after the other."""
        for frame in other:
            self.add(frame, after_us=after_us)

    def write(self, path: Path) -> Path:
        """Write all of it."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, self.link_type))
            for time_us, frame, wire in self.frames:
                file.write(struct.pack("<IIII", time_us // 1_000_000, time_us % 1_000_000, len(frame), wire))
                file.write(frame)
        return path


@dataclass
class HttpCall:
    """A connection with calls of GET /PATH, as the IP packets of it; `packets` gives them in order."""

    path: str
    client: str = "10.1.0.1"
    server: str = "10.1.0.2"
    client_port: int = 40_000
    server_port: int = 80
    client_seq: int = 1000
    server_seq: int = 9000
    body: bytes = b"a short answer\n"

    def up(self, payload: bytes, flags: int, seq: int, ack: int) -> bytes:
        """A packet of the client."""
        return ipv4(tcp(payload, self.client_port, self.server_port, seq, ack, flags), self.client, self.server)

    def down(self, payload: bytes, flags: int, seq: int, ack: int) -> bytes:
        """A packet of the server."""
        return ipv4(tcp(payload, self.server_port, self.client_port, seq, ack, flags), self.server, self.client)

    def request(self) -> bytes:
        return f"GET /{self.path} HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode()

    def response(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body) + self.body

    def packets(self) -> list[bytes]:
        """Handshake, request, response, end: 10 packets."""
        c, s = self.client_seq, self.server_seq
        request, response = self.request(), self.response()
        c2, s2 = c + 1 + len(request), s + 1 + len(response)
        return [
            self.up(b"", SYN, c, 0),
            self.down(b"", SYN | ACK, s, c + 1),
            self.up(b"", ACK, c + 1, s + 1),
            self.up(request, PSH | ACK, c + 1, s + 1),
            self.down(b"", ACK, s + 1, c2),
            self.down(response, PSH | ACK, s + 1, c2),
            self.up(b"", ACK, c2, s2),
            self.up(b"", FIN | ACK, c2, s2),
            self.down(b"", FIN | ACK, s2, c2 + 1),
            self.up(b"", ACK, c2 + 1, s2 + 1),
        ]

    def frames(self) -> list[bytes]:
        """The packets in Ethernet frames."""
        return [ethernet(packet) for packet in self.packets()]

"""Writes a capture file with one HTTP/1.1 exchange (GET /sample → 200) on loopback addresses.

Usage: sample_capture.py FILE
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

CLIENT, SERVER = (b"\x7f\x00\x00\x01", 40000), (b"\x7f\x00\x00\x01", 80)
SYN, ACK, PSH = 0x02, 0x10, 0x08


def packet(source: tuple[bytes, int], target: tuple[bytes, int], seq: int, ack: int, flags: int, data: bytes) -> bytes:
    """Ethernet (IEEE 802.3), IPv4 (RFC 791) and TCP (RFC 9293) headers, checksums left 0 as with offloading."""
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], seq, ack, 5 << 4, flags, 65535, 0, 0) + data
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, source[0], target[0]) + tcp
    return bytes(12) + b"\x08\x00" + ip


def main(path: Path) -> None:
    request = b"GET /sample HTTP/1.1\r\nHost: sample.test\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    packets = [
        packet(CLIENT, SERVER, 999, 0, SYN, b""),
        packet(SERVER, CLIENT, 1999, 1000, SYN | ACK, b""),
        packet(CLIENT, SERVER, 1000, 2000, ACK, b""),
        packet(CLIENT, SERVER, 1000, 2000, ACK | PSH, request),
        packet(SERVER, CLIENT, 2000, 1000 + len(request), ACK | PSH, response),
    ]
    # classic pcap: magic, version 2.4, zone, accuracy, snaplen, link type 1 (Ethernet)
    content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number, one in enumerate(packets):
        content += struct.pack("<IIII", 1_700_000_000, number * 1000, len(one), len(one)) + one
    path.write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

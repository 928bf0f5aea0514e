"""A small server of Cassandra's native protocol (versions 4 and 5), run in the live interpreter by test_cassandra.

No Cassandra can be had from the registries that the tests use. This one is written from native_protocol_v4.spec and
v5.spec: it keeps no data, knows what a driver asks of a cluster when it connects, and answers the rest by its verb.
"""

from __future__ import annotations

import hashlib
import io
import socket
import socketserver
import struct
import sys
import uuid
from typing import Any

import lz4.block  # type: ignore[import-untyped, import-not-found, unused-ignore]
from cassandra.connection import segment_codec_lz4, segment_codec_no_compression  # type: ignore[import-untyped, import-not-found, unused-ignore]

VARCHAR, UUID, INET = 0x0D, 0x0C, 0x10
STARTUP, OPTIONS, QUERY, EXECUTE, REGISTER, BATCH = 1, 5, 7, 10, 11, 13
LOCAL = {
    "key": (VARCHAR, b"local"),
    "cluster_name": (VARCHAR, b"lab"),
    "data_center": (VARCHAR, b"dc1"),
    "rack": (VARCHAR, b"r1"),
    "partitioner": (VARCHAR, b"org.apache.cassandra.dht.Murmur3Partitioner"),
    "release_version": (VARCHAR, b"4.1.0"),
    "host_id": (UUID, uuid.UUID(int=7).bytes),
    "schema_version": (UUID, uuid.UUID(int=8).bytes),
    "rpc_address": (INET, socket.inet_aton("127.0.0.1")),
}


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def rows(columns: dict[str, tuple[int, bytes]], count: int) -> bytes:
    head = struct.pack(">iii", 2, 1, len(columns)) + text("ks") + text("t")
    head += b"".join(text(name) + struct.pack(">H", kind) for name, (kind, _) in columns.items())
    row = b"".join(struct.pack(">i", len(value)) + value for _, value in columns.values())
    return head + struct.pack(">i", count) + row * count


def error(code: int, message: str) -> tuple[int, bytes]:
    return 0, struct.pack(">i", code) + text(message)


def answer(query: str) -> tuple[int, bytes]:
    """Opcode and body of the answer to a statement."""
    words = query.split()
    verb = words[0].upper()
    void = 8, struct.pack(">i", 1)
    if "peers_v2" in query or "missing" in query:
        return error(0x2200, "unconfigured table missing")
    if "slow" in query:
        opcode, body = error(0x1100, "Operation timed out")
        return opcode, body + struct.pack(">Hii", 1, 0, 1) + text("SIMPLE")
    if verb == "SELECT":
        local = "system.local" in query
        return 8, rows(LOCAL if local else {"v": (VARCHAR, b"value")}, 1 if local else 0 if "system." in query else 2)
    if verb == "USE":
        return 8, struct.pack(">i", 3) + text(words[1])
    syntax = error(0x2000, f"line 1:0 no viable alternative at input '{words[0]}'")
    return void if verb in ("INSERT", "UPDATE", "DELETE", "CREATE") else syntax


def prepared(query: str, version: int) -> bytes:
    identity = hashlib.md5(query.encode()).digest()
    count = query.count("?")
    body = struct.pack(">i", 4) + struct.pack(">H", 16) + identity
    if version >= 5:
        body += struct.pack(">H", 16) + identity
    body += struct.pack(">iii", 1, count, 0) + text("ks") + text("t")
    body += b"".join(text(f"p{place}") + struct.pack(">H", VARCHAR) for place in range(count))
    return body + struct.pack(">ii", 4, 0)


class Client(socketserver.BaseRequestHandler):
    def setup(self) -> None:
        self.version, self.compressed, self.segments = 4, False, False
        self.known: dict[bytes, str] = {}
        self.queued = b""

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.request.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    @property
    def codec(self) -> Any:
        return segment_codec_lz4 if self.compressed else segment_codec_no_compression

    def read(self, count: int) -> bytes:
        """Bytes of frames, out of segments when the connection has them."""
        if not self.segments:
            return self.receive(count)
        while len(self.queued) < count:
            head = self.receive(self.codec.header_length_with_crc)
            segment = self.codec.decode_header(io.BytesIO(head))
            body = self.receive(segment.payload_length + 4)
            self.queued += self.codec.decode(io.BytesIO(body), segment).payload
        taken, self.queued = self.queued[:count], self.queued[count:]
        return taken

    def send(self, stream: int, opcode: int, body: bytes) -> None:
        flags = 0
        if self.compressed and self.version < 5 and len(body) > 64:
            flags, body = 1, struct.pack(">i", len(body)) + lz4.block.compress(body, store_size=False)
        frame = struct.pack(">BBhBi", 0x80 | self.version, flags, stream, opcode, len(body)) + body
        if self.segments:
            buffer = io.BytesIO()
            self.codec.encode(buffer, frame)
            frame = buffer.getvalue()
        self.request.sendall(frame)

    def handle(self) -> None:
        try:
            while True:
                self.one()
        except (EOFError, OSError):
            pass

    def one(self) -> None:
        version, flags, stream, opcode, length = struct.unpack(">BBhBi", self.read(9))
        body = self.read(length)
        if flags & 1 and version < 5:
            body = lz4.block.decompress(body[4:], uncompressed_size=struct.unpack(">i", body[:4])[0])
        self.version = min(version, int(sys.argv[2]))
        if version > self.version:
            self.send(stream, *error(0x0A, "Invalid or unsupported protocol version"))
        else:
            self.send(stream, *self.reply(opcode, body))
        if opcode == STARTUP and version == self.version:
            self.compressed = b"lz4" in body
            self.segments = version >= 5

    def reply(self, opcode: int, body: bytes) -> tuple[int, bytes]:
        if opcode == OPTIONS:
            options = struct.pack(">H", 2) + text("CQL_VERSION") + struct.pack(">H", 1) + text("3.4.6")
            return 6, options + text("COMPRESSION") + struct.pack(">H", 1) + text("lz4")
        if opcode in (STARTUP, REGISTER):
            return 2, b""
        if opcode == EXECUTE:
            return answer(self.known.get(body[2:18], "UNKNOWN"))
        if opcode == BATCH:
            return 8, struct.pack(">i", 1)
        query = body[4 : 4 + struct.unpack(">i", body[:4])[0]].decode()
        if opcode == QUERY:
            return answer(query)
        self.known[hashlib.md5(query.encode()).digest()] = query
        return 8, prepared(query, self.version)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Client).serve_forever()

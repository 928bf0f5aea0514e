"""A scripted Oracle listener: answers a thin driver with bytes in the form that it reads. Not a database.

``python -m tests.live.oracle_server PORT``. The service ``gone`` is refused with ORA-12514. Any other is granted; user
and password are always scott and tiger. A statement that holds "nowhere" gives ORA-00942, any other changes two rows.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import struct
from importlib import import_module
from typing import Any

from tests.live.scripted import answer_connections

#: Of the live interpreter, not of the product's.
CIPHERS: Any = import_module("cryptography.hazmat.primitives.ciphers")
CONNECT, ACCEPT, REFUSE, DATA, MARKER = 1, 2, 4, 6, 12
VERSION = 318
#: Verifier of 11g: SHA-1 of password and salt.
VERIFIER = 0xB152


def cbc(key: bytes, data: bytes, encrypt: bool) -> bytes:
    cipher = CIPHERS.Cipher(CIPHERS.algorithms.AES(key), CIPHERS.modes.CBC(bytes(16)))
    worker = cipher.encryptor() if encrypt else cipher.decryptor()
    return bytes(worker.update(data) + worker.finalize())


def number(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def text(value: bytes) -> bytes:
    return number(len(value)) + (bytes([len(value)]) + value if value else b"")


def pairs(*items: tuple[str, bytes, int]) -> bytes:
    body = b"\x08" + number(len(items))
    return body + b"".join(text(key.encode()) + text(value) + number(flags) for key, value, flags in items)


def end(rows: int = 0, cursor: int = 0, code: int = 0, said: bytes = b"") -> bytes:
    """The message that ends an answer."""
    body = b"\4" + number(1) + number(1) + number(rows) + number(code) + b"\0\0" + number(cursor) + b"\0"
    body += bytes([2, 0, 0, 0, 0, 0]) + b"\0\0\0\0\0" + b"\0" + b"\0\0\0\0" + b"\0\0\0\0" + number(code) + number(rows)
    return body + (bytes([len(said)]) + said if code else b"")


class Session:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.stream = connection.makefile("rb")
        self.salt, self.part = os.urandom(10), os.urandom(48)
        self.hash = hashlib.sha1(b"tiger" + self.salt).digest() + bytes(4)

    def packet(self, large: bool) -> tuple[int, bytes]:
        head = self.stream.read(8)
        if len(head) < 8:
            raise EOFError
        length = struct.unpack(">I", head[:4])[0] if large else struct.unpack(">H", head[:2])[0]
        return head[4], self.stream.read(length - 8)

    def data(self, body: bytes) -> None:
        self.connection.sendall(struct.pack(">IBBHH", len(body) + 10, DATA, 0, 0, 0) + body)

    def small(self, kind: int, body: bytes) -> None:
        self.connection.sendall(struct.pack(">HHBBH", len(body) + 8, 0, kind, 0, 0) + body)

    def serve(self) -> None:
        _, wish = self.packet(False)
        if b"SERVICE_NAME=gone" in wish:
            reason = b"(DESCRIPTION=(TMP=)(VSNNUM=0)(ERR=12514)(ERROR_STACK=(ERROR=(CODE=12514)(EMFI=4))))"
            self.small(REFUSE, b"\x22\0" + struct.pack(">H", len(reason)) + reason)
            return
        accepted = struct.pack(">HHHHHHHBB", VERSION, 0, 8192, 8192, 1, 0, 45, 0, 0) + bytes(8)
        self.small(ACCEPT, accepted + struct.pack(">I", 8192) + bytes(5) + bytes(4))
        while True:
            kind, body = self.packet(True)
            if kind == DATA and len(body) > 2:
                self.data(self.answer(body[2:]))

    def answer(self, body: bytes) -> bytes:
        if body[0] == 1:
            capabilities = bytes(
                [6, 1, 1, 1, 0x6F, 1, 1, 8, 1, 1, 1, 1, 1, 1, 0, 41, 144, 3, 7, 3, 0, 1, 0, 207, 1, 0, 4]
            )
            capabilities += bytes(20)
            known = b"\1\6\0Scripted\0" + struct.pack("<H", 873) + b"\1" + struct.pack("<H", 0)
            fields = struct.pack(">IBHHH", 0, 0, 0, 873, 2000)
            known += struct.pack(">H", len(fields)) + fields
            return known + bytes([len(capabilities)]) + capabilities + b"\7" + bytes([2, 1, 0, 0, 0, 0, 0])
        if body[0] == 2:
            return b"\2" + struct.pack(">H", 0)
        while body[0] == 0x11:
            body = body[body.index(bytes([3, 0x5E]), 1) :]
        if body[1] in (0x73, 0x76):
            return self.login(body)
        if body[1] in (4, 0x4E, 0x5E):
            if b"nowhere" in body:
                return end(0, 0, 942, b"ORA-00942: table or view does not exist\n")
            return end(2, 5)
        return b"\x09" + number(1) + number(1)

    def login(self, body: bytes) -> bytes:
        """Both phases: session keys, then the proof that the server knows the password too."""
        if body[1] == 0x76:
            given = cbc(self.hash, self.part, True).hex().upper().encode()
            salt = self.salt.hex().upper().encode()
            return pairs(("AUTH_SESSKEY", given, 0), ("AUTH_VFR_DATA", salt, VERIFIER)) + end()
        found = re.search(rb"AUTH_SESSKEY.*?([0-9A-F]{96})", body, re.DOTALL)
        assert found
        mine, theirs = self.part[16:40], cbc(self.hash, bytes.fromhex(found[1].decode()), False)[16:40]
        mixed = bytes(a ^ b for a, b in zip(mine, theirs, strict=True))
        key = hashlib.md5(mixed[:16]).digest() + hashlib.md5(mixed[16:]).digest()[:8]
        proof = cbc(key, os.urandom(16) + b"SERVER_TO_CLIENT", True).hex().upper().encode()
        about = [("AUTH_VERSION_NO", b"318767104"), ("AUTH_SESSION_ID", b"1"), ("AUTH_SERIAL_NUM", b"1")]
        about += [("AUTH_DBNAME", b"shop"), ("AUTH_SC_SERVICE_NAME", b"shop")]
        return pairs(("AUTH_SVR_RESPONSE", proof, 0), *((key, value, 0) for key, value in about)) + end()


def serve(connection: socket.socket) -> None:
    try:
        Session(connection).serve()
    except (EOFError, ConnectionError):
        pass
    finally:
        connection.close()


if __name__ == "__main__":
    answer_connections(serve)

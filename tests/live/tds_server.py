"""A scripted SQL Server: answers a few statements with bytes built from [MS-TDS]. Not a database.

``python -m tests.live.tds_server PORT``. A statement's first word decides: SELECT gives three rows, INSERT counts one,
"boom" is an error 208; `sp_prepare` gives the handle 7.
"""

from __future__ import annotations

import socket
import struct

from tests.live.scripted import answer_connections

BATCH, RPC, RESULT, ATTENTION, TRANSACTION, LOGIN, PRELOGIN = 1, 3, 4, 6, 14, 16, 18
ERROR, COUNT = 2, 0x10


def text(value: str, length: str = "<H") -> bytes:
    return struct.pack(length, len(value)) + value.encode("utf-16-le")


def done(status: int = 0, rows: int = 0, token: int = 0xFD) -> bytes:
    more = token == 0xFF
    return struct.pack("<BHHQ", token, status | more, 0xC1, rows)


def token(kind: int, body: bytes) -> bytes:
    return struct.pack("<BH", kind, len(body)) + body


def error(number: int, said: str) -> bytes:
    body = struct.pack("<iBB", number, 1, 16) + text(said) + text("scripted", "<B") + text("", "<B")
    return token(0xAA, body + struct.pack("<i", 1))


def rows(count: int) -> bytes:
    """One column `n` of type int."""
    columns = struct.pack("<BHIHB", 0x81, 1, 0, 0, 0x38) + text("n", "<B")
    return columns + b"".join(struct.pack("<Bi", 0xD1, number) for number in range(count))


def outcome(statement: str, ended: int) -> bytes:
    word = statement.split(maxsplit=1)[0].upper() if statement.split() else ""
    if word == "SELECT":
        return rows(3) + done(COUNT, 3, ended)
    if word == "INSERT":
        return done(COUNT, 1, ended)
    if "boom" in statement:
        return error(208, "Invalid object name 'boom'.") + done(ERROR, 0, ended)
    return done(0, 0, ended)


def after_headers(body: bytes) -> bytes:
    total = struct.unpack_from("<I", body)[0]
    return body[total:] if 4 <= total <= len(body) and total < 512 else body


def called(body: bytes) -> bytes:
    length = struct.unpack_from("<H", body)[0]
    number = struct.unpack_from("<H", body, 2)[0] if length == 0xFFFF else 0
    name = "" if length == 0xFFFF else body[2 : 2 + 2 * length].decode("utf-16-le")
    end = struct.pack("<Bi", 0x79, 0) + done(0, 0, 0xFE)
    if number in (11, 13) or name == "sp_prepare":
        value = struct.pack("<BHBBIHBBBi", 0xAC, 0, 0, 1, 0, 0, 0x26, 4, 4, 7)
        return struct.pack("<Bi", 0x79, 0) + value + done(0, 0, 0xFE)
    said = body.decode("utf-16-le", "replace") + body[1:].decode("utf-16-le", "replace")
    for word in ("SELECT", "INSERT", "boom"):
        if word in said:
            return outcome(word, 0xFF) + end
    return end


def answer(kind: int, body: bytes) -> bytes:
    if kind == PRELOGIN:
        options = struct.pack(">BHHBHHB", 0, 11, 6, 1, 17, 1, 0xFF)
        return options + bytes([16, 0, 0, 0, 0, 0]) + b"\2"
    if kind == LOGIN:
        version = struct.pack(">I", struct.unpack_from("<I", body, 4)[0])
        acknowledged = b"\1" + version + text("Scripted", "<B") + b"\x10\0\0\0"
        database = b"\1" + text("shop", "<B") + text("master", "<B")
        return token(0xE3, database) + token(0xAD, acknowledged) + done()
    if kind == BATCH:
        return outcome(after_headers(body).decode("utf-16-le"), 0xFD)
    if kind == RPC:
        return called(after_headers(body))
    if kind == TRANSACTION:
        began = struct.unpack_from("<H", after_headers(body))[0] == 5
        change = b"\x08" + b"\x08" + b"\1\0\0\0\0\0\0\0" + b"\0" if began else b"\x09\0" + b"\x08" + b"\1\0\0\0\0\0\0\0"
        return token(0xE3, change) + done()
    return done(0x20)


def serve(connection: socket.socket) -> None:
    stream = connection.makefile("rb")
    message = b""
    while head := stream.read(8):
        kind, status, length = struct.unpack_from(">BBH", head)
        message += stream.read(length - 8)
        if not status & 1:
            continue
        said = answer(kind, message)
        message = b""
        pieces = [said[at : at + 504] for at in range(0, len(said), 504)]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            connection.sendall(struct.pack(">BBHHBB", RESULT, last, len(piece) + 8, 0, number & 255, 0) + piece)


if __name__ == "__main__":
    answer_connections(serve)

"""Sockets that existed before the agent: /proc/PID/net and /proc/PID/fd, one pass over each network namespace."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ESTABLISHED, _LISTEN = "01", "0A"
_MAX_SOCKETS = 131_072


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket."""

    netns: int
    ip: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Established:
    """An established TCP connection, seen from the process that owns this end."""

    netns: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    pid: int
    comm: str


def scan(proc: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(listeners, established) of every network namespace that has a process, as `_core.Agent` takes them.

    Reads only what /proc shows now; a process that ends meanwhile is left out. Bounded to 131,072 sockets.
    """
    owners: dict[int, tuple[int, str]] = {}  # socket inode → (pid, comm)
    namespaces: dict[int, Path] = {}
    for where in proc.iterdir():
        if not where.name.isdigit():
            continue
        try:
            netns = (where / "ns" / "net").stat().st_ino
            inodes = list(_socket_inodes(where))
            comm = (where / "comm").read_text().rstrip("\n")
        except OSError:
            continue
        namespaces.setdefault(netns, where)
        for inode in inodes:
            owners.setdefault(inode, (int(where.name), comm))
    listeners: list[dict[str, Any]] = []
    established: list[dict[str, Any]] = []
    for netns, where in namespaces.items():
        for local, remote, state, inode in _tcp(where):
            if len(listeners) + len(established) >= _MAX_SOCKETS:
                return listeners, established
            pid, comm = owners.get(inode, (0, ""))
            if pid == 0:
                continue
            if state == _LISTEN:
                listeners.append(asdict(Listener(netns, local[0], local[1], pid)))
            elif state == _ESTABLISHED:
                established.append(asdict(Established(netns, *local, *remote, pid, comm)))
    return listeners, established


def listening_pids(proc: Path, port: int) -> list[int]:
    """Processes that listen on a TCP port in the namespace of this process."""
    own = (proc / "self" / "ns" / "net").stat().st_ino
    return sorted({entry["pid"] for entry in scan(proc)[0] if entry["port"] == port and entry["netns"] == own})


def _socket_inodes(where: Path) -> Iterator[int]:
    for fd in (where / "fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _tcp(where: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int], str, int]]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (where / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] in (_ESTABLISHED, _LISTEN):
                yield _address(fields[1]), _address(fields[2]), fields[3], int(fields[9])


def _address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` → ("127.0.0.1", 8080). The kernel prints the address as 32-bit words in native order."""
    digits, port = text.split(":")
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed = packed[12:]
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)

"""Interfaces whose packets are read, and what lives in the network namespaces that they are in or lead to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepflow.agent.processes import Process

_MAX_NAMES = 3
_MAX_NAME = 256
# A process counts for its namespace after this time, unless it listens: not a command that somebody runs in it.
_SETTLED_US = 10_000_000
# The process that only keeps a pod's namespaces open.
_KEEPERS = {"pause"}
_NAMED = Path("/run/netns")


class InterfaceTable:
    """What the server was told last of the interfaces. `changed()` gives all of them when something is new."""

    def __init__(self, proc: Path, read: Callable[[int], Process | None], named: Path = _NAMED) -> None:
        """
        Args:
            read: gives a process by its pid (`ProcessTable.read`).
            named: the folder in which `ip netns` keeps names of namespaces.
        """
        self._proc = proc
        self._read = read
        self._named = named
        self._told: list[dict[str, Any]] | None = None
        self._owners: dict[int, str] = {}

    def changed(
        self, captured: Iterable[Mapping[str, Any]], listeners: Iterable[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        """The interfaces as the server's `/v1/agent/interfaces` wants them, None when they are what they were.

        Args:
            captured: what `_core.Agent.interfaces` says.
            listeners: listening sockets: ``[{"netns", "pid", …}]``.
        """
        listed = list(captured)
        namespaces = {one["behind"] or one["netns"] for one in listed} - {0}
        names = self._names_of_namespaces(namespaces)
        # A process that starts again leaves its namespace empty for a moment.
        kept = {netns: owner for netns, owner in self._owners.items() if netns in namespaces}
        self._owners = kept | self._living(namespaces, listeners)
        owners = names | self._owners
        now = [{**one, "owner": owners.get(one["behind"] or one["netns"], "")} for one in listed]
        if now == self._told:
            return None
        self._told = now
        return now

    def repeat(self) -> None:
        """Let `changed()` give them again, for a server that does not know this agent yet."""
        self._told = None

    def _living(self, namespaces: Collection[int], listeners: Iterable[Mapping[str, Any]]) -> dict[int, str]:
        """Namespace → names of the processes that listen in it, else of its first process."""
        if not namespaces:
            return {}
        listening: dict[int, set[int]] = defaultdict(set)
        for one in listeners:
            listening[one["netns"]].add(one["pid"])
        owners: dict[int, str] = {}
        for netns, pids in self._processes(namespaces).items():
            waiting = [pid for pid in pids if pid in listening[netns]]
            names = self._names(waiting, _MAX_NAMES) or self._names(pids, 1, time.time_ns() // 1000 - _SETTLED_US)
            if names:
                owners[netns] = ", ".join(names)[:_MAX_NAME]
        return owners

    def _processes(self, namespaces: Collection[int]) -> dict[int, list[int]]:
        """Namespace → processes in it, in the order of their pids."""
        found: dict[int, list[int]] = defaultdict(list)
        for pid in sorted(int(where.name) for where in self._proc.iterdir() if where.name.isdigit()):
            with suppress(OSError):
                netns = (self._proc / str(pid) / "ns" / "net").stat().st_ino
                if netns in namespaces:
                    found[netns].append(pid)
        return found

    def _names(self, pids: Iterable[int], most: int, before_us: int = 1 << 63) -> list[str]:
        names: list[str] = []
        for pid in pids:
            process = self._read(pid)
            if process is None or process.start_time_us > before_us or process.name in {"", *_KEEPERS, *names}:
                continue
            names.append(process.name)
            if len(names) == most:
                break
        return names

    def _names_of_namespaces(self, namespaces: Collection[int]) -> dict[int, str]:
        """Namespace → the name that `ip netns` or a container engine gave it."""
        found: dict[int, str] = {}
        paths: list[Path] = []
        with suppress(OSError):
            paths = sorted(self._named.iterdir())
        for path in paths:
            with suppress(OSError):
                netns = path.stat().st_ino
                if netns in namespaces:
                    found.setdefault(netns, path.name.encode(errors="replace").decode()[:_MAX_NAME])
        return found

"""The process table: who used a socket, read from /proc, completed by the kernel's exec and exit events."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from deepflow.agent.containers import Containers, container_id
from deepflow.agent.process_name import process_name

_MAX_COMMAND = 4096
_TICKS = os.sysconf("SC_CLK_TCK")


class Active(TypedDict):
    """A process that used a socket; `cgroup` is its id in the v2 tree, 0 unknown, `time_us` µs since the epoch."""

    pid: int
    comm: str
    cgroup: int
    time_us: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `start_time_us` and `end_time_us` are µs since the epoch, `end_time_us` None while it runs."""

    pid: int
    start_time_us: int
    end_time_us: int | None
    name: str
    process_name: str
    cmdline: str
    user: str
    container_id: str
    ppid: int


@dataclass(slots=True)
class ProcessTable:
    """Processes that were seen on a socket, by pid. `changed()` gives each new or altered one once."""

    proc: Path
    boot_time_us: int
    blacklist: frozenset[str] = frozenset()
    limit: int = 65536
    containers: Containers = field(default_factory=Containers)
    _by_pid: dict[int, Process] = field(default_factory=dict)
    _changed: dict[tuple[int, int], Process] = field(default_factory=dict)
    dropped: int = 0

    def seen(self, active: Iterable[Active]) -> None:
        """Take in processes the core saw.

        One that is gone already is kept under its kernel name, from the time it was seen, in the container of its
        cgroup where that is still there or was seen before.
        """
        for entry in active:
            pid = entry["pid"]
            process = self.read(pid, entry["cgroup"])
            if process is None:
                known = self._by_pid.get(pid)
                if known is not None and known.end_time_us is None:
                    continue
                comm, container = entry["comm"], self.containers.of(entry["cgroup"])
                process = Process(pid, entry["time_us"], None, comm, comm, "", "", container, 0)
            self._put(process)

    def applied(self, changes: Iterable[dict[str, Any]]) -> None:
        """Take in the kernel's process events (`Agent.process_changes`): a new name after exec, an end after exit."""
        for change in changes:
            known = self._by_pid.get(int(change["pid"]))
            if known is None:
                continue
            if change["kind"] == "exit":
                self._put(replace(known, end_time_us=int(change["time_us"])))
                del self._by_pid[known.pid]
            elif change["kind"] == "exec":
                process = self.read(known.pid)
                if process is not None:
                    self._put(process)

    def refresh(self) -> None:
        """Read every known process again; one that vanished unnoticed ends now."""
        for known in list(self._by_pid.values()):
            process = self.read(known.pid)
            if process is not None and process.start_time_us == known.start_time_us:
                self._put(process)
                continue
            self._put(replace(known, end_time_us=time.time_ns() // 1000))
            del self._by_pid[known.pid]
            if process is not None:
                self._put(process)

    def changed(self) -> list[dict[str, Any]]:
        """Processes that are new or altered since the last call, as the server's `/v1/agent/processes` wants them."""
        out = [asdict(process) for process in self._changed.values()]
        self._changed.clear()
        return out

    def repeat(self) -> None:
        """Let `changed()` give every living process again, for a server that does not know this agent yet."""
        self._changed.update({(p.pid, p.start_time_us): p for p in self._by_pid.values()})

    def __len__(self) -> int:
        return len(self._by_pid)

    def read(self, pid: int, cgroup: int = 0) -> Process | None:
        """The process as /proc shows it now, None when it is gone or a kernel thread.

        `cgroup` tells the container when the process goes before /proc has.
        """
        where = self.proc / str(pid)
        try:
            stat = (where / "stat").read_text(errors="replace")
            raw = (where / "cmdline").read_bytes()[:_MAX_COMMAND]
            uid = where.stat().st_uid
        except OSError:
            return None
        try:
            container = container_id((where / "cgroup").read_text(errors="replace"))
        except OSError:
            if not cgroup and not where.exists():
                return None
            container = self.containers.of(cgroup)
        comm = stat[stat.index("(") + 1 : stat.rindex(")")]
        fields = stat[stat.rindex(")") + 2 :].split()
        ppid, start_ticks = int(fields[1]), int(fields[19])
        arguments = raw.rstrip(b"\0").decode(errors="replace").split("\0")
        return Process(
            pid=pid,
            start_time_us=self.boot_time_us + start_ticks * 1_000_000 // _TICKS,
            end_time_us=None,
            name=process_name(comm, arguments),
            process_name=comm,
            cmdline=" ".join(arguments),
            user=_user(uid),
            container_id=container,
            ppid=ppid,
        )

    def _put(self, process: Process) -> None:
        known = self._by_pid.get(process.pid)
        if known == process or process.name in self.blacklist:
            return
        if known is None and len(self._by_pid) >= self.limit:
            self.dropped += 1
            return
        if known is not None and known.start_time_us != process.start_time_us and known.end_time_us is None:
            # The pid was taken over by another process before its end was reported.
            ended = replace(known, end_time_us=process.start_time_us)
            self._changed[known.pid, known.start_time_us] = ended
        self._by_pid[process.pid] = process
        self._changed[process.pid, process.start_time_us] = process


def boot_time_us(clock: Callable[[], int] = time.time_ns) -> int:
    """Wall clock of the boot, µs. Differs by some µs from call to call: keep the first answer."""
    return (clock() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000


@lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""What lives in a network namespace, against namespaces made for it (as root)."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepflow.agent.interfaces import InterfaceTable
from deepflow.agent.processes import Process, ProcessTable, boot_time_us
from deepflow.agent.sockets import scan

PROC = Path("/proc")
LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print('up', flush=True); sys.stdin.read()"
WAIT = "import sys; print('up', flush=True); sys.stdin.read()"


def captured(name: str, netns: int = 0, behind: int = 0) -> dict[str, Any]:
    return {"capture_nic": 7, "name": name, "kind": "veth", "netns": netns, "behind": behind}


@contextmanager
def inside(namespace: str, program: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        yield child
        child.stdin.close()


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip")
    name = f"dfi-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_who_listens_owns_the_namespace(namespace: str) -> None:
    netns = (Path("/run/netns") / namespace).stat().st_ino
    listed = [captured("veth1", behind=netns), captured("eth0", netns), captured("eth1")]
    processes = ProcessTable(PROC, boot_time_us())
    born: dict[int, int] = {}

    def read(pid: int) -> Process | None:
        process = processes.read(pid)
        return process and replace(process, start_time_us=process.start_time_us - born.get(pid, 0))

    table = InterfaceTable(PROC, read)
    told = table.changed(listed, [])
    assert told is not None
    assert [one["owner"] for one in told] == [namespace, namespace, ""]
    assert table.changed(listed, []) is None
    with inside(namespace, WAIT) as first:
        process = processes.read(first.pid)
        assert process is not None
        # What has just begun may be a command that somebody runs there.
        assert table.changed(listed, scan(PROC)[0]) is None
        born[first.pid] = 20_000_000
        told = table.changed(listed, scan(PROC)[0])
        assert told is not None and told[0]["owner"] == process.name
    with inside(namespace, LISTEN) as second:
        process = processes.read(second.pid)
        assert process is not None
        fresh = InterfaceTable(PROC, read)
        told = fresh.changed(listed, scan(PROC)[0])
        assert told is not None
        assert [one["owner"] for one in told] == [process.name, process.name, ""]
    # It may start again.
    assert fresh.changed(listed, scan(PROC)[0]) is None
    fresh.repeat()
    assert fresh.changed(listed, []) == told
    assert fresh.changed([], []) == []


class _Proc:
    """A folder like /proc whose processes are all in one namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pid: int) -> int:
        where = self.folder / str(pid) / "ns"
        where.mkdir(parents=True)
        namespace = self.folder / "namespace"
        namespace.touch()
        (where / "net").hardlink_to(namespace)
        return namespace.stat().st_ino


def test_programs_of_one_pod_share_it(tmp_path: Path) -> None:
    names = {1: "pause", 20: "envoy", 30: "api", 31: "api", 40: "x" * 300}
    proc = _Proc(tmp_path)
    (netns,) = {proc.add(pid) for pid in names}
    begun = time.time_ns() // 1000 - 60_000_000

    def read(pid: int) -> Process | None:
        return Process(pid, begun, None, names[pid], names[pid], "", "", "", 0)

    def owner(*listening: int) -> str:
        told = InterfaceTable(tmp_path, read, tmp_path / "none").changed(
            [captured("eth0", netns)], [{"netns": netns, "pid": pid} for pid in listening]
        )
        assert told is not None
        return str(told[0]["owner"])

    assert owner() == "envoy"
    assert owner(31, 20, 30) == "envoy, api"
    assert owner(1) == "envoy"
    assert len(owner(*names)) == 256

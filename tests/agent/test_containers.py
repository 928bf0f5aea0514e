"""Containers by cgroup, in folders that stand for cgroups and in this machine's own tree."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepflow import _core
from deepflow.agent.containers import Containers, container_id
from deepflow.agent.processes import ProcessTable, boot_time_us

ID = "5a" * 32
GONE = 2**22 + 5


class Clock:
    """A time that each look moves on by `step`."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def made(folder: Path) -> int:
    """The number of a folder, made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder.stat().st_ino


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", ID),
        (f"4:memory:/docker/{ID}\n0::/\n", ID),
        (f"0::/machine.slice/libpod-conmon-{ID}.scope", ""),
        (f"0::/a/{ID}0", ""),
        ("0::/user.slice", ""),
    ],
)
def test_ids_in_paths(path: str, found: str) -> None:
    assert container_id(path) == found


def test_a_cgroup_below_a_containers_is_in_the_container(tmp_path: Path) -> None:
    inner = tmp_path / "system.slice" / f"docker-{ID}.scope" / "init.scope"
    numbers = [made(inner), made(inner.parent), made(tmp_path / "user.slice"), made(tmp_path), 0, 2**40]
    containers = Containers(tmp_path)
    assert [containers.of(number) for number in numbers] == [ID, ID, "", "", "", ""]


def test_the_tree_is_walked_for_what_is_new_and_not_at_once_again(tmp_path: Path) -> None:
    clock = Clock()
    containers = Containers(tmp_path, clock)
    clock.step = 0.5  # so long takes a walk
    assert containers.of(made(tmp_path)) == ""
    clock.step = 0.0
    new = made(tmp_path / ID)
    assert containers.of(new) == "", "the last walk was a moment ago"
    clock.now += 9.0
    assert containers.of(new) == "", "nine seconds are less than twenty times half a second"
    clock.now += 2.0
    assert containers.of(new) == ID
    (tmp_path / ID).rmdir()
    clock.now += 60.0
    assert containers.of(2**40) == ""
    assert containers.of(new) == ID, "what was seen is remembered"


def test_without_a_tree_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Containers(tmp_path / "unmounted").of(1) == ""
    monkeypatch.setattr("deepflow._core.cgroup_tree", lambda: None)
    assert Containers().of(1) == ""


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    tree = _core.cgroup_tree()
    if tree is None:
        pytest.skip("no cgroup v2 tree is mounted")
    folder = tree / name
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + 5
        while True:  # its last task may leave it a moment after its end was told
            try:
                folder.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def test_gone_before_it_was_read_is_in_the_container_of_its_cgroup() -> None:
    name = f"deepflow-test-{os.getpid():064x}"
    with cgroup(name) as folder:
        number = folder.stat().st_ino
        table = ProcessTable(Path("/proc"), boot_time_us())
        table.seen([{"pid": GONE, "comm": "curl", "cgroup": number, "time_us": 77}])
        table.seen([{"pid": GONE + 1, "comm": "curl", "cgroup": 0, "time_us": 77}])
        assert [process["container_id"] for process in table.changed()] == [f"{os.getpid():064x}", ""]


@pytest.mark.usefixtures("can_observe")
def test_the_core_tells_the_cgroup_of_a_process_that_used_a_socket() -> None:
    script = "echo $$ > $0/cgroup.procs; exec 3<>/dev/tcp/127.0.0.1/$1; printf hello >&3"
    with cgroup(f"deepflow-test-{os.getpid()}") as folder, socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        core = _core.Agent(json.dumps({"packets": {"interface_regex": ""}}))
        core.start()
        try:
            port = str(server.getsockname()[1])
            with subprocess.Popen(["bash", "-c", script, str(folder), port]) as child:
                accepted, _ = server.accept()
                with accepted:
                    assert accepted.recv(5) == b"hello"
            core.drain()
            told = {entry["pid"]: entry["cgroup"] for entry in json.loads(core.active_processes())}
        finally:
            core.stop()
        assert told[child.pid] == folder.stat().st_ino
        assert told[os.getpid()] not in (0, told[child.pid])


def test_what_is_mounted_inside_the_tree_has_numbers_of_its_own() -> None:
    with cgroup(f"deepflow-test-{os.getpid()}") as folder:
        command = ["mount", "-t", "tmpfs", "none", str(folder)]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"nothing can be mounted: {mounted.stderr.strip()}")
        try:
            inside = [made(folder / ID / str(number)) for number in range(50)]
            containers = Containers()
            assert {containers.of(number) for number in inside} == {""}
        finally:
            subprocess.run(["umount", str(folder)], check=True)

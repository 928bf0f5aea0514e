"""The process table against this machine's own /proc."""

import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

from deepflow.agent.processes import Active, ProcessTable, boot_time_us
from deepflow.agent.sockets import listening_pids, scan

PROC = Path("/proc")


def sleeper() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()", "a word"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()  # between fork and exec it is still a copy of this process
    return child


def test_reads_a_real_process() -> None:
    table = ProcessTable(PROC, boot_time_us())
    with sleeper() as child:
        process = table.read(child.pid)
        assert process is not None
        assert process.ppid == os.getpid()
        assert process.user == pwd.getpwuid(os.getuid()).pw_name
        assert process.cmdline.endswith("a word")
        assert abs(process.start_time_us - time.time() * 1e6) < 5e6
        assert child.stdin is not None
        child.stdin.close()
    assert table.read(child.pid) is None


def test_life_of_a_process() -> None:
    table = ProcessTable(PROC, boot_time_us())
    with sleeper() as child:
        seen = [Active(pid=child.pid, comm="python3", cgroup=1, time_us=1)]
        table.seen(seen)
        (process,) = table.changed()
        assert process["pid"] == child.pid and process["end_time_us"] is None
        table.seen(seen)
        assert table.changed() == []
        table.repeat()
        assert len(table.changed()) == 1
        assert child.stdin is not None
        child.stdin.close()
    table.applied([{"kind": "exit", "pid": child.pid, "time_us": 12345}])
    (ended,) = table.changed()
    assert ended["end_time_us"] == 12345
    assert ended["start_time_us"] == process["start_time_us"]
    assert len(table) == 0


def test_vanished_process_ends_at_refresh() -> None:
    table = ProcessTable(PROC, boot_time_us())
    with sleeper() as child:
        table.seen([{"pid": child.pid, "comm": "python3", "cgroup": 1, "time_us": 1}])
        table.changed()
        assert child.stdin is not None
        child.stdin.close()
    table.refresh()
    (ended,) = table.changed()
    assert ended["end_time_us"] is not None


def test_gone_before_it_was_read_keeps_its_kernel_name() -> None:
    table = ProcessTable(PROC, boot_time_us())
    table.seen([{"pid": 2**22 + 5, "comm": "curl", "cgroup": 1, "time_us": 77}])
    (process,) = table.changed()
    assert (process["name"], process["start_time_us"]) == ("curl", 77)


def test_blacklist_and_limit() -> None:
    table = ProcessTable(PROC, boot_time_us(), frozenset({"curl"}), limit=1)
    names = enumerate(("curl", "a", "b"))
    table.seen([{"pid": 2**22 + i, "comm": comm, "cgroup": 1, "time_us": 1} for i, comm in names])
    assert [p["name"] for p in table.changed()] == ["a"]
    assert table.dropped == 1


def test_sockets_before_the_agent_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            with accepted:
                listeners, established = scan(PROC)
                assert {"ip": "127.0.0.1", "port": port, "pid": os.getpid()}.items() <= next(
                    entry for entry in listeners if entry["port"] == port
                ).items()
                ends = [e for e in established if port in (e["local_port"], e["remote_port"])]
                assert {e["local_port"] for e in ends} == {port, client.getsockname()[1]}
                assert {e["pid"] for e in ends} == {os.getpid()}
        assert listening_pids(PROC, port) == [os.getpid()]

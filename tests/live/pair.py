"""Two hosts in network namespaces, joined by a cable, and what a packet capture sees on it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_names = itertools.count()


@dataclass(frozen=True)
class Host:
    """One end: its interface is `eth0`."""

    namespace: str
    ip: str
    ip6: str

    def inside(self, *command: str | Path) -> list[str]:
        """The command line that runs a command here; the process keeps its id."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    @contextmanager
    def captured(self, file: Path, expression: str = "", bytes_each: int = 256) -> Iterator[None]:
        """tcpdump writes what crosses the interface to `file` meanwhile."""
        said = file.with_suffix(".log")
        with said.open("wb") as log:
            # The buffer holds a test's whole traffic: a frame that is lost here fails the test.
            command = f"tcpdump -i eth0 -n -U --immediate-mode -B 65536 -Z root -s {bytes_each} -w".split()
            process = subprocess.Popen(self.inside(*command, file, expression), stderr=log)
        try:
            deadline = time.monotonic() + 30
            while b"listening on" not in said.read_bytes():
                assert process.poll() is None and time.monotonic() < deadline, said.read_text()
                time.sleep(0.02)
            yield
            time.sleep(1)
        finally:
            process.terminate()
            process.wait(20)
        assert b"0 packets dropped by kernel" in said.read_bytes(), said.read_text()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


@contextmanager
def pair() -> Iterator[tuple[Host, Host]]:
    """Client and server, on one network of their own. Their kernels send no segment that is larger than a frame."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tcpdump"):
        pytest.skip("two namespaces and a capture need root, iproute2 and tcpdump")
    number = next(_names)
    hosts = [
        Host(f"df-{os.getpid()}-{side}{number}", f"10.91.7.{n}", f"fd91:7::{n}") for n, side in ((1, "c"), (2, "s"))
    ]
    client, server = hosts
    made: list[Host] = []
    try:
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            made.append(host)
        joined = f"name eth0 netns {client.namespace} type veth peer name eth0 netns {server.namespace}"
        _run("ip", "link", "add", *joined.split())
        for host in hosts:
            for words in (
                f"address add {host.ip}/24 dev eth0",
                f"-6 address add {host.ip6}/64 dev eth0 nodad",
                "link set eth0 gso_max_segs 1",
                "link set eth0 up",
                "link set lo up",
            ):
                _run("ip", "-n", host.namespace, *words.split())
        yield client, server
    finally:
        for host in made:
            _run("ip", "netns", "del", host.namespace)

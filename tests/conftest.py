"""Fixtures of every test: where sample data lies, ports, network namespaces, and DeepFlow's own processes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
_names = itertools.count()


def fixtures() -> Path:
    """Where sample data lies, if there is any."""
    return Path(os.environ.get("DEEPFLOW_FIXTURES", ROOT.parent / "shared" / "fixtures"))


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    folder = fixtures()
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder}; set DEEPFLOW_FIXTURES to the folder that has it")
    return folder


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace with loopback up; removed at the end."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and iproute2")
    name = f"df-{os.getpid()}-{next(_names)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@dataclass
class Running:
    """A DeepFlow process, and the file with what it printed."""

    arguments: list[str]
    log: Path
    url: str
    #: A command that runs the rest of its command line, such as one that gives it a host name of its own.
    within: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [*self.within, sys.executable, "-m", "deepflow.cli", *self.arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def await_health(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/v1/health", trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        pytest.fail(f"the server did not answer; it said:\n{self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self, seconds: float = 5) -> int:
        """SIGTERM, at most 5 s as the contract says; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail(f"{self.arguments[0]} did not stop within {seconds} s of SIGTERM; it said:\n{self.said()}")
        return self.process.returncode

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def deepflow_server(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `deepflow server` on a free port and an empty store; may be called more than once."""
    started: list[Running] = []

    def start(*arguments: str, within: tuple[str, ...] = ()) -> Running:
        port, number = unused_port(), len(started)
        listen = f"127.0.0.1:{port}"
        words = ["server", "--data", str(tmp_path / f"data{number}"), "--listen", listen, *arguments]
        started.append(Running(words, tmp_path / f"server{number}.log", f"http://{listen}", within))
        started[-1].await_health()
        return started[-1]

    yield start
    for one in started:
        one.stop(30)  # the contract has tests of its own


@pytest.fixture
def deepflow_agent(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `deepflow agent` for a server's address; needs root and eBPF."""
    started: list[Running] = []

    def start(url: str, *arguments: str, within: tuple[str, ...] = ()) -> Running:
        words = ["agent", "--server", url, "--state-dir", str(tmp_path / f"agent{len(started)}"), *arguments]
        started.append(Running(words, tmp_path / f"agent{len(started)}.log", url, within))
        return started[-1]

    yield start
    for one in started:
        one.stop(30)  # the contract has tests of its own

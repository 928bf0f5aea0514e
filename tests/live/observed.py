"""Real servers and clients in a network namespace of their own, and the rows that the core makes of what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deepflow import _core
from tests.live.holds import Holds

#: Where scripts/setup.sh keeps what is no part of the checkout.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "deepflow"
CHECKOUT = Path(__file__).parents[2]
#: Interpreter with the official clients and the servers that PyPI has (requirements/live.txt).
LIVE_PYTHON = Path(os.environ.get("DEEPFLOW_LIVE", CACHE / "live")) / "bin" / "python"


def need(*programs: str) -> None:
    """Skip, naming what is missing, unless every program is on the path (or exists, when it is a path)."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/live/packages.txt, requirements/live.txt)")


class Observed:
    """One namespace under observation.

    Every row is a dict of the columns of ``l7_flow_log`` (schema/l7_flow_log.yaml). A call inside the namespace is
    seen twice: at the client (``observation_point`` c-p) and at the server (s-p).
    """

    def __init__(self, namespace: str, folder: Path, agent: _core.Agent) -> None:
        self.namespace = namespace
        #: Scratch folder of this test.
        self.folder = folder
        self._agent = agent
        self._started: list[subprocess.Popen[bytes]] = []
        self._rows: list[dict[str, Any]] = []
        self._meters: list[dict[str, Any]] = []
        #: When the servers stood still while a client ran.
        self.holds = Holds(self.inside())

    def inside(self, *command: str | Path) -> list[str]:
        """The command line that runs a command in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def start(self, *command: str | Path, port: int = 0, seconds: float = 60, **environment: str) -> Path:
        """Start a server; wait until `port` accepts. Returns the file with its output. Stopped at the end."""
        log = self.folder / f"server{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.inside(*command),
                env=os.environ | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(process)
        if port:
            self.await_port(port, seconds, log)
        return log

    def start_scripted(self, name: str, port: int) -> None:
        """Start a scripted server, `NAME.py` of this folder (`scripted.py`), in the live interpreter."""
        need(str(LIVE_PYTHON))
        self.start(LIVE_PYTHON, "-m", f"{__package__}.{name}", str(port), port=port, PYTHONPATH=str(CHECKOUT))

    def await_port(self, port: int, seconds: float = 60, log: Path | None = None) -> None:
        """Wait until something listens on 127.0.0.1:`port` of the namespace. Connects to nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._started and self._started[-1].poll() is not None:
                break
            listening = subprocess.run(self.inside("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
            if any(line.split()[3].endswith(f":{port}") for line in listening.splitlines()):
                return
            time.sleep(0.1)
        said = log.read_text(errors="replace")[-3000:] if log else ""
        pytest.fail(f"nothing listens on port {port}; the server said:\n{said}")

    def await_output(self, log: Path, text: str, seconds: float = 60) -> None:
        """Wait until a server that was started says this: it listens before it serves."""
        deadline = time.monotonic() + seconds
        while text not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, (
                f"the server does not say {text!r}:\n{log.read_text(errors='replace')[-3000:]}"
            )
            time.sleep(0.2)

    def run(self, *command: str | Path, seconds: float = 120, stops: bool = True, **environment: str) -> str:
        """Run a client to its end; its standard output. A failure fails the test with what it said.

        Meanwhile, with `stops`, the servers stand still a few times: `compare_delays`.
        """
        servers = [process.pid for process in self._started if stops and process.poll() is None]
        with self.holds.during(servers):
            done = subprocess.run(
                self.inside(*command),
                env=os.environ | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def python(self, script: str, *arguments: str, seconds: float = 120) -> Any:
        """Run a client script in the live interpreter; what it printed last, as JSON (None when it printed nothing)."""
        need(str(LIVE_PYTHON))
        printed = self.run(LIVE_PYTHON, "-c", script, *arguments, seconds=seconds).strip()
        return json.loads(printed.splitlines()[-1]) if printed else None

    def _drain(self, flush: bool) -> None:
        for table, _, stream in self._agent.drain(flush):
            rows = pa.ipc.open_stream(stream).read_all().to_pylist()
            if table == "l7_flow_log":
                self._rows.extend(rows)
            elif table == "application.1s":
                self._meters.extend(rows)

    def rows(self, l7_protocol: int, point: str = "", flush: bool = True) -> list[dict[str, Any]]:
        """Rows of a protocol so far, in the order of their start; `point` "c-p" or "s-p" for one side.

        `flush`: requests that still wait for a response come out too, without one.
        """
        self.holds.await_reading(5)
        time.sleep(0.1)  # the core reads the kernel's ring every few milliseconds
        self._drain(flush)
        found = [row for row in self._rows if row["l7_protocol"] == l7_protocol]
        if point:
            found = [row for row in found if row["observation_point"] == point]
        return sorted(found, key=lambda row: (row["start_time"], row["syscall_cap_seq_0"]))

    def others(self, l7_protocol: int) -> list[dict[str, Any]]:
        """Rows of any other protocol: on a namespace that speaks one, there should be none."""
        self._drain(True)
        return [row for row in self._rows if row["l7_protocol"] != l7_protocol]

    def compare_delays(self) -> tuple[int, int]:
        """Compare the delays of all rows with the times in which the servers stood: `Holds.compare`."""
        self._drain(True)
        return self.holds.compare(self._rows)

    def counters(self) -> dict[str, int]:
        """The core's counters."""
        return self._agent.counters()

    def stop(self) -> None:
        """Stop the servers, last first."""
        for process in reversed(self._started):
            if process.poll() is None:
                os.killpg(process.pid, 15)
        for process in reversed(self._started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


@contextmanager
def observed(namespace: str, folder: Path, **config: Any) -> Iterator[Observed]:
    """Observe a namespace; `config`: further keys of the core's configuration (docs/architecture.md, section 2)."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    agent = _core.Agent(json.dumps({"netns": inode, "ignored_pids": [os.getpid()], **config}))
    try:
        agent.start()
    except OSError as refusal:
        pytest.skip(f"the kernel programs cannot be attached here: {refusal}")
    seen = Observed(namespace, folder, agent)
    try:
        yield seen
    finally:
        seen.stop()
        agent.stop()

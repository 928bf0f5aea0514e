"""nginx under wrk: requests a second with the agent off, with its kernel part alone, and with the whole agent.

A figure each: the shortest answer, the same with another path in each request, and a file with an access log (web.py).
Rounds are interleaved (off, kernel, agent, off, …) on one pair of programs, and each figure stands against the mean of
the two runs without agent before and after it; client and server share the machine's cores with the agent. `kernel` and
`agent` observe both ends of each request, as on a machine that has both; `kernel_server` and `agent_server` leave wrk
out, as where the clients are on other machines. The agent sends to a sink that discards, so that no store is measured
here. Beside the requests stand the processors' idle time and the CPU time of the whole machine for a request: two
programs that wait for each other on two cores lose more requests than an agent takes CPU, because one idles while the
agent runs where the other was.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from web import nginx

ROOT = Path(__file__).parents[1]

#: What is asked of which site (web.py), by name, with what wrk is told besides.
LOADS: dict[str, tuple[str, list[str]]] = {
    "short_answer": ("short_answer", []),
    "another_path_each": ("short_answer", ["-s", str(ROOT / "bench" / "paths.lua")]),
    "static_file": ("static_file", []),
}
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUS = os.sysconf("SC_NPROCESSORS_ONLN")


class Sink(BaseHTTPRequestHandler):
    """Takes every request of an agent and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer what the agent expects."""
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"agent_id": 1, "rows": 0}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def idle_seconds() -> float:
    """CPU time that the machine's processors did not use since it started, s."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / _TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match.group(1)) / 1024 if match else 0.0


class Wrk:
    """A wrk that waits, so that its pid is known before it runs."""

    def __init__(self, port: int, seconds: int, arguments: Sequence[str] = ()) -> None:
        wrk = ["wrk", "-t1", "-c16", f"-d{seconds}s", *arguments, f"http://127.0.0.1:{port}/item/1?x=2"]
        command = f"read go; exec {shlex.join(wrk)}"
        self._process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def run(self) -> tuple[float, float]:
        """(requests a second, share of the processors' time that was idle); an error when an answer was no success."""
        idle, began = idle_seconds(), time.monotonic()
        printed, _ = self._process.communicate("go\n")
        match = re.search(r"Requests/sec:\s+([\d.]+)", printed)
        if match is None or "Non-2xx" in printed:
            raise RuntimeError(printed)
        available = (time.monotonic() - began) * _CPUS
        return float(match.group(1)), min(1.0, (idle_seconds() - idle) / available)


@contextmanager
def kernel_part(example: Path, ignored: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """The kernel programs with a reader that discards."""
    command = [str(example), *map(str, ignored)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline().strip() != b"attached":
            raise RuntimeError("the kernel programs could not be attached; run as root")
        try:
            yield process
        finally:
            process.stdin.close()


@contextmanager
def agent(directory: Path, sink: int, ignored: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """The whole agent."""
    command = [sys.executable, "-m", "deepflow.cli", "agent", "--server", f"http://127.0.0.1:{sink}"]
    command += ["--state-dir", str(directory / "agent")]
    command += [word for pid in ignored for word in ("--ignore-pid", str(pid))]
    with subprocess.Popen(command, cwd=ROOT, stderr=(directory / "agent.log").open("wb")) as process:
        time.sleep(3.0)
        if process.poll() is not None:
            raise RuntimeError((directory / "agent.log").read_text())
        try:
            yield process
        finally:
            process.terminate()


def example(name: str) -> Path:
    """A built example of the core."""
    command = ["cargo", "build", "--release", "--example", name, "--no-default-features", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT / "core", check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == name and message.get("executable"):
            return Path(message["executable"])
    raise RuntimeError(f"cargo built no example {name}")


def measure(load_name: str, rounds: int, seconds: int) -> dict[str, object]:
    """Interleaved rounds of one load; medians, and medians and quartiles of the losses of the rounds."""
    site, arguments = LOADS[load_name]
    program = example("capture_only")
    directory = Path(tempfile.mkdtemp(prefix="deepflow-bench-"))
    port = free_port()
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    modes = ("off", "kernel", "agent", "kernel_server", "agent_server")
    rates: dict[str, list[float]] = {mode: [] for mode in modes}
    cpu: dict[str, list[float]] = {"agent": [], "agent_server": []}
    idle: dict[str, list[float]] = {mode: [] for mode in modes}
    busy: dict[str, list[float]] = {mode: [] for mode in modes}
    rest: list[float] = []
    load: list[float] = []

    def run(mode: str, client: Wrk) -> None:
        rate, unused = client.run()
        rates[mode].append(rate)
        idle[mode].append(unused * 100)
        busy[mode].append((1 - unused) * _CPUS / rate * 1e6)

    try:
        with nginx(directory, f"127.0.0.1:{port}", site):
            Wrk(port, 1, arguments).run()
            for _ in range(rounds):
                for mode in modes:
                    client = Wrk(port, seconds, arguments)
                    ignored = [client.pid] if mode.endswith("_server") else []
                    if mode == "off":
                        run(mode, client)
                    elif mode.startswith("kernel"):
                        with kernel_part(program, ignored):
                            run(mode, client)
                    else:
                        with agent(directory, sink.server_port, ignored) as process:
                            rest.append(resident_mib(process.pid))
                            before = cpu_seconds(process.pid)
                            run(mode, client)
                            time.sleep(1.5)  # what is still in the ring and the outbox belongs to this load
                            spent = cpu_seconds(process.pid) - before
                            cpu[mode].append(spent / (rates[mode][-1] * seconds) * 10_000)
                            load.append(resident_mib(process.pid))
            run("off", Wrk(port, seconds, arguments))
    finally:
        sink.shutdown()
        shutil.rmtree(directory)
    beside = [(before + after) / 2 for before, after in itertools.pairwise(rates["off"])]
    loss = {
        mode: statistics.quantiles(
            [(1 - on / off) * 100 for on, off in zip(rates[mode], beside, strict=True)], n=4, method="inclusive"
        )
        for mode in modes[1:]
    }
    memory = {"at_rest": rest, "under_load": load}
    return {
        "requests_per_second": {mode: round(statistics.median(values)) for mode, values in rates.items()},
        "rounds": {mode: [round(value) for value in values] for mode, values in rates.items()},
        "loss_percent": {mode: round(middle, 1) for mode, (_, middle, _) in loss.items()},
        "loss_percent_quartiles": {mode: [round(low, 1), round(high, 1)] for mode, (low, _, high) in loss.items()},
        "idle_percent": {mode: round(statistics.median(values), 1) for mode, values in idle.items()},
        "machine_cpu_us_per_request": {mode: round(statistics.median(values), 2) for mode, values in busy.items()},
        "agent_cpu_seconds_per_10k_requests": {mode: round(statistics.median(spent), 4) for mode, spent in cpu.items()},
        "agent_memory_mib": {when: round(statistics.median(values), 1) for when, values in memory.items()},
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=8)
    arguments.add_argument("--seconds", type=int, default=4)
    given = arguments.parse_args()
    print(json.dumps({name: measure(name, given.rounds, given.seconds) for name in LOADS}))

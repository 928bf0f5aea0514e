"""What capturing packets costs: iperf3 over a veth pair with and without it; small packets, and HTTP over the veth
pair and over a loopback, with it.

Two namespaces of their own, joined by a veth pair; the agent's core captures the server's end, with flows and
protocols on and the kernel's socket hooks off, so that only packets are measured (`hooks` adds them). Rounds are
interleaved (off, packets, hooks, off, …); load and agent share the machine's cores. Prints one JSON object. Needs root,
iperf3, nginx and wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from web import nginx

ROOT = Path(__file__).parents[1]
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
#: The two ends of the cable; the server's is captured.
CLIENT_END, INTERFACE, LOOPBACK = "eth0", "eth1", "lo"
MODES = ("off", "packets", "hooks")


def observe(config: str) -> None:
    """Run the core until the standard input ends; print its counters and its CPU time."""
    sys.path.insert(0, str(ROOT))
    from deepflow import _core  # noqa: PLC0415
    from deepflow.agent.settings import AgentSettings  # noqa: PLC0415

    # Rows a second as the agent has it by default.
    throttle = AgentSettings().outputs.flow_log.throttles.l7_throttle
    agent = _core.Agent(json.dumps(json.loads(config) | {"l7_throttle": throttle}))
    agent.start()
    rows = 0
    print("ready", flush=True)
    began = time.process_time()
    while not _ended():
        time.sleep(1)
        rows += sum(count for _, count, _ in agent.drain())
    time.sleep(1)
    rows += sum(count for _, count, _ in agent.drain())
    spent = time.process_time() - began
    print(json.dumps({"cpu_s": spent, "rows": rows, "counters": agent.counters()}), flush=True)
    agent.stop()


def _ended() -> bool:
    """Whether the standard input was closed: nothing is ever written to it."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


class Pair:
    """Two namespaces and the cable between them."""

    def __init__(self) -> None:
        self.names = [f"dfbench-{os.getpid()}-{end}" for end in ("client", "server")]

    def __enter__(self) -> Pair:
        for name in self.names:
            self._ip("netns", "add", name)
        first, second = self.names
        self._ends = dict(zip(self.names, (CLIENT_END, INTERFACE), strict=True))
        peer = ("netns", first, "type", "veth", "peer", "name", INTERFACE, "netns", second)
        self._ip("link", "add", CLIENT_END, *peer)
        for (name, end), address in zip(self._ends.items(), (CLIENT, SERVER), strict=True):
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for interface in (LOOPBACK, end):
                self._ip("-n", name, "link", "set", interface, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def offload(self, on: bool) -> None:
        """Whether frames may be larger than the MTU, as they are between namespaces."""
        for name, end in self._ends.items():
            self._ip("-n", name, "link", "set", end, "gso_max_segs", "65535" if on else "1")

    def inside(self, end: int, *command: str) -> list[str]:
        """A command line for the client's (0) or the server's (1) namespace."""
        return ["ip", "netns", "exec", self.names[end], *command]

    @property
    def server_inode(self) -> int:
        """The number of the server's namespace."""
        return Path(f"/run/netns/{self.names[1]}").stat().st_ino

    def packets(self, interface: str) -> int:
        """Packets that passed an interface of the server so far; those of a loopback go out and come in as one."""
        folder = f"/sys/class/net/{interface}/statistics"
        ways = ("rx",) if interface == LOOPBACK else ("rx", "tx")
        command = self.inside(1, "cat", *(f"{folder}/{way}_packets" for way in ways))
        return sum(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))


@contextmanager
def observer(pair: Pair, mode: str, result: dict[str, Any], interface: str = INTERFACE) -> Iterator[None]:
    """The core in a process of its own, for the time of a `with`; afterwards `result` has what it counted."""
    if mode == "off":
        yield
        return
    expression = f"^{interface}$"
    packets = {"inner_interface_capture_enabled": True, "inner_interface_regex": expression, "loopback": True}
    config = {"packets": packets, "ebpf_disabled": mode == "packets", "netns": pair.server_inode}
    command = [sys.executable, __file__, "--observe", json.dumps(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the core did not start; its message is above")
        time.sleep(2)  # interfaces are found
        yield
        process.stdin.close()
        result.update(json.loads(process.stdout.readline()))


def iperf(pair: Pair, *options: str) -> dict[str, Any]:
    """One run of iperf3 from client to server; its report."""
    with subprocess.Popen(pair.inside(1, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL) as server:
        time.sleep(0.5)
        command = pair.inside(0, "iperf3", "-J", "-c", SERVER, *options)
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        server.wait(10)
    report: dict[str, Any] = json.loads(printed)["end"]
    return report


def throughput(pair: Pair, rounds: int, seconds: int) -> dict[str, Any]:
    """Gbit/s of one TCP connection, by mode."""
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            with observer(pair, mode, {}):
                report = iperf(pair, "-t", str(seconds))
            rates[mode].append(report["sum_received"]["bits_per_second"] / 1e9)
    ratios = {
        mode: statistics.median(on / off for on, off in zip(rates[mode], rates["off"], strict=True))
        for mode in MODES[1:]
    }
    return {
        "gbit_per_second": {mode: round(statistics.median(values), 2) for mode, values in rates.items()},
        "rounds": {mode: [round(value, 2) for value in values] for mode, values in rates.items()},
        "ratio_to_off": {mode: round(ratio, 3) for mode, ratio in ratios.items()},
    }


def cost(pair: Pair, seconds: int, load: Callable[[], object], interface: str = INTERFACE) -> dict[str, Any]:
    """What a load of many packets costs the core, and what it loses."""
    seen: dict[str, Any] = {}
    with observer(pair, "packets", seen, interface):
        before, began = pair.packets(interface), time.monotonic()
        load()
        took, passed = time.monotonic() - began, pair.packets(interface) - before
    counters = seen["counters"]
    dropped = counters["packet_packets_dropped"] + counters["packet_packets_throttled"]
    millions = (passed - dropped) / 1e6
    return {
        "packets_per_second": round(passed / took),
        "packets": passed,
        "dropped_percent": round(100 * dropped / passed, 3),
        "cpu_seconds_per_million_packets": round(seen["cpu_s"] / millions, 3),
        "packets_per_second_and_core": round((passed - dropped) / seen["cpu_s"]),
        "rows": seen["rows"],
        "seconds": seconds,
    }


def http(pair: Pair, seconds: int, interface: str) -> dict[str, Any]:
    """wrk against nginx, from the other end of the cable or over the loopback: every packet belongs to a request."""
    end, address = (1, "127.0.0.1") if interface == LOOPBACK else (0, SERVER)
    said: list[float] = []

    def load() -> None:
        command = pair.inside(end, "wrk", "-t1", "-c32", f"-d{seconds}s", f"http://{address}/item/1")
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
        if found is None:
            raise RuntimeError(printed)
        said.append(float(found.group(1)))

    return cost(pair, seconds, load, interface) | {"requests_per_second": round(said[0])}


def measure(rounds: int, seconds: int) -> dict[str, Any]:
    """All parts."""
    missing = [program for program in ("iperf3", "nginx", "wrk", "ip") if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        raise SystemExit(f"this needs root, and these programs: {', '.join(missing) or 'all there'}")
    directory = Path(tempfile.mkdtemp(prefix="deepflow-bench-"))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, directory)
        pair = undo.enter_context(Pair())
        result: dict[str, Any] = {"iperf3_with_offload": throughput(pair, rounds, seconds)}
        pair.offload(False)
        result["iperf3_frames_of_1500"] = throughput(pair, rounds, seconds)
        small = ("-u", "-b", "0", "-l", "64", "-t", str(seconds))
        result["udp_of_64_bytes"] = cost(pair, seconds, lambda: iperf(pair, *small))
        with nginx(directory, "80", inside=pair.inside(1)):
            result["http_on_veth"] = http(pair, seconds, INTERFACE)
            result["http_on_loopback"] = http(pair, seconds, LOOPBACK)
    return result


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--observe", help="configuration of the core: only observe, until the standard input ends")
    given = arguments.parse_args()
    if given.observe:
        observe(given.observe)
    else:
        print(json.dumps(measure(given.rounds, given.seconds)))

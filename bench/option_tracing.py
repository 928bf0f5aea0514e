"""TCP throughput over a veth pair: with TCP option tracing off, at its default window, and on every data segment.

Rounds are interleaved (off, window, every, off, …) over one pair of namespaces; client and server share the machine's
cores. `large` lets the kernel send frames of up to 64 KiB, as between virtual interfaces; `frames` holds it to the
MTU, as on a wire. The agent runs in all three, with its socket programs filtering everything out. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from deepflow import _core  # noqa: E402

_WAYS: dict[str, dict[str, Any]] = {
    "off": {},
    "window": {"tcp_option_trace": True},
    "every": {"tcp_option_trace": True, "tcp_option_sampling_window": 0},
}
_SERVER, _PORT = "10.91.8.2", 5201


@contextmanager
def pair() -> Iterator[tuple[str, str]]:
    """Two namespaces, client and server, joined by a veth."""
    names = (f"df-bench-{os.getpid()}-c", f"df-bench-{os.getpid()}-s")
    client, server = names
    made = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
        words = f"link add eth0 netns {client} type veth peer name eth0 netns {server}"
        subprocess.run(["ip", *words.split()], check=True)
        for number, name in enumerate(names, 1):
            for words in (f"address add 10.91.8.{number}/24 dev eth0", "link set eth0 up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield client, server
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)


def segments_at_most(names: tuple[str, str], count: int) -> None:
    """How many segments a frame may hold."""
    for name in names:
        subprocess.run(["ip", "-n", name, "link", "set", "eth0", "gso_max_segs", str(count)], check=True)


def gigabits(client: str, way: dict[str, Any], seconds: int) -> tuple[float, int]:
    """Received Gbit/s of one run, and the options written meanwhile."""
    agent = _core.Agent(json.dumps({"netns": 1, **way}))
    hooks = json.loads(agent.start())["hooks"]
    try:
        if way and not any(hook["chosen"].startswith("sockops") for hook in hooks):
            sys.exit(f"TCP option tracing does not work here: {hooks}")
        command = ["ip", "netns", "exec", client, "iperf3", "-J", "-c", _SERVER, "-p", str(_PORT), "-t", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        counters = agent.counters()
        agent.drain(True)
    finally:
        agent.stop()
    rate = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9
    return rate, counters.get("tcp_option_written", 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    with pair() as (client, server):
        command = ["ip", "netns", "exec", server, "iperf3", "--forceflush", "-i", "0", "-s", "-p", str(_PORT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
            try:
                while listening.stdout and "listening" not in listening.stdout.readline():
                    pass
                for kind, count in (("large", 65_535), ("frames", 1)):
                    segments_at_most((client, server), count)
                    rates: dict[str, list[float]] = {name: [] for name in _WAYS}
                    written: dict[str, int] = {}
                    for _ in range(arguments.rounds):
                        for name, way in _WAYS.items():
                            rate, written[name] = gigabits(client, way, arguments.seconds)
                            rates[name].append(rate)
                    result[kind] = {
                        name: {
                            "gbit_per_s": round(statistics.median(rates[name]), 2),
                            "of_off": round(statistics.median(map(float.__truediv__, rates[name], rates["off"])), 3),
                            "options_last_round": written[name],
                        }
                        for name in _WAYS
                    }
            finally:
                listening.terminate()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

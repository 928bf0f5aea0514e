"""Run the measurements, print a table, and write bench/results/NAME.json.

    python bench/run.py [NAME …]

Each part ends with one JSON object; absolute figures belong to the machine and the hour, ratios come from
interleaved rounds of one run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


def rust(name: str) -> list[str]:
    """Command of an example of the core."""
    flags = ["--quiet", "--release", "--no-default-features", "--manifest-path", "core/Cargo.toml"]
    return ["cargo", "run", *flags, "--example", name]


def python(name: str) -> list[str]:
    """Command of a script of this folder."""
    return [sys.executable, f"bench/{name}.py"]


PARTS: dict[str, tuple[str, list[str]]] = {
    "hook_cost": ("time added to a system call by the kernel programs", rust("hook_cost")),
    "nginx": ("nginx + wrk with the agent off, its kernel part, and on", python("nginx")),
    "parse_rate": ("messages parsed a second and core, and bytes allocated a message, by protocol", rust("parse_rate")),
    "engine_rate": ("messages a second and core from segment to Arrow batch", rust("engine_rate")),
    "live_rate": ("live packets of a veth: rate, loss, CPU a million, with and without flows", rust("live_rate")),
    "packet_rate": ("packets a second and core from the frame to Arrow batch", rust("packet_rate")),
    "many_flows": ("memory of a million flows, and of a flood of ten million tuples", rust("many_flows")),
    "network": ("iperf3 over a veth pair with and without capture; packets a second and core", python("network")),
    "option_tracing": (
        "TCP throughput without options, sampled, on every segment",
        python("option_tracing"),
    ),
    "server_ingest": ("rows a second into the embedded store, against the bare insert", python("server_ingest")),
    "far_ends": ("cost of naming the ends that other agents know, of ingest", python("far_ends")),
    "trace": ("search and assembly of one trace", python("trace")),
}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, leaf) of a JSON value."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from flat(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def main(names: list[str]) -> int:
    """Run the parts named, all when none is."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"There is no measurement {', '.join(unknown)}; there are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name in names or PARTS:
        title, command = PARTS[name]
        print(f"\n{name}: {title}", flush=True)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"  failed with code {done.returncode}; its message is above")
            failed += 1
            continue
        result = json.loads(done.stdout[done.stdout.rindex("\n{") + 1 if "\n{" in done.stdout else 0 :])
        for path, leaf in flat(result):
            print(f"  {path:<48} {leaf}")
        machine = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()}
        taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        document = {"what": title, "taken": taken, "machine": machine, "result": result}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

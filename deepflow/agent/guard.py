"""Keeps the agent within its budget: CPU by giving up detail, memory by stopping before the kernel does it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_LEAST_ROWS = 100


class MemoryExceeded(Exception):
    """The agent uses more memory than it may: stop it cleanly."""


@dataclass(slots=True)
class Guard:
    """Compares CPU time and resident memory with the limits at every `check`.

    Above the CPU limit the row throttle is halved, at most to 100 rows/s; below 80 % of it the throttle
    doubles again up to the configured value. Meters are not touched: numbers stay complete while single rows
    are thinned out, counted.
    """

    max_millicpus: int
    max_memory_mib: int
    rows_per_second: int
    set_throttle: Callable[[int], None]
    throttle: int = field(init=False)
    _last: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        self.throttle = self.rows_per_second
        self._last = (time.monotonic(), cpu_seconds())

    def check(self) -> dict[str, float]:
        """Gauges `cpu_millicores`, `memory_bytes`, `l7_throttle`.

        Raises:
            MemoryExceeded: one sentence.
        """
        now, used = time.monotonic(), cpu_seconds()
        elapsed = max(now - self._last[0], 1e-3)
        millicores = (used - self._last[1]) / elapsed * 1000
        self._last = (now, used)
        wanted = self.throttle
        if millicores > self.max_millicpus:
            wanted = max(_LEAST_ROWS, self.throttle // 2)
        elif millicores < 0.8 * self.max_millicpus:
            wanted = min(self.rows_per_second, self.throttle * 2)
        if wanted != self.throttle:
            self.throttle = wanted
            self.set_throttle(wanted)
        memory = resident_bytes()
        if memory > self.max_memory_mib << 20:
            raise MemoryExceeded(
                f"The agent uses {memory >> 20} MiB of memory, its limit is {self.max_memory_mib} MiB "
                "(global.limits.max_memory); it stops after saving what is queued."
            )
        return {"cpu_millicores": millicores, "memory_bytes": float(memory), "l7_throttle": float(self.throttle)}


def cpu_seconds() -> float:
    """CPU time of this process, user and system, s."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_bytes() -> int:
    """Resident memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

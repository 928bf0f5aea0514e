"""From (agent, pid, time) to the ids of process, host and service, for whole columns at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

PROCESS_TYPE = 120
"""`auto_instance_type` and `auto_service_type` of a process."""
IP_TYPE = 255
"""`auto_instance_type` and `auto_service_type` of an end that is known only by its address."""
# A start time read from /proc is cut to 10 ms and moved by clock steps, and a meter knows only its second. A pid cannot
# come back within a second: the kernel hands them out in turn.
_START_SLACK_US = 1_000_000
# Sessions that time out are written long after the process is gone; later than this the pid belongs to someone unknown.
_END_SLACK_US = 600_000_000
_Number = TypeVar("_Number", bound=np.integer[Any])
_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Side:
    """Tags of one side of the rows, each an array of one value a row."""

    host_id: NDArray[np.uint16]
    gprocess_id: NDArray[np.uint32]
    auto_instance_id: NDArray[np.uint32]
    auto_instance_type: NDArray[np.uint8]
    auto_service_id: NDArray[np.uint32]
    auto_service_type: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class KnownProcess:
    """What the tagger needs of a process; times in µs, `end_us` None while it lives."""

    agent_id: int
    pid: int
    start_us: int
    end_us: int | None
    gprocess_id: int
    service_id: int


class Tagger:
    """An immutable view of the known processes; O(log processes) a row, no loop over rows."""

    def __init__(self, processes: Iterable[KnownProcess], hosts: dict[int, int]) -> None:
        """
        Args:
            processes: all known processes in any order.
            hosts: agent id → host id.
        """
        listed = list(processes)
        agent = np.array([process.agent_id for process in listed], np.int64)
        pid = np.array([process.pid for process in listed], np.int64)
        start = np.array([process.start_us for process in listed], np.int64)
        order = np.lexsort((start, pid, agent))
        owner = (agent << 32 | pid)[order]
        self._start = start[order]
        self._end = np.array([_FOREVER if p.end_us is None else p.end_us for p in listed], np.int64)[order]
        self._gprocess = np.array([process.gprocess_id for process in listed], np.uint32)[order]
        self._service = np.array([process.service_id for process in listed], np.uint32)[order]
        self._owners, self._first = np.unique(owner, return_index=True)
        self._last = np.append(self._first[1:], len(owner))
        self._steps = int(np.max(self._last - self._first, initial=0)).bit_length()
        self._hosts = hosts

    def side(self, agent_id: int, pid: NDArray[np.int64], time_us: NDArray[np.int64]) -> Side:
        """Tags of one side.

        Args:
            agent_id: agent that sent the rows.
            pid: process id on the agent's host, 0 unknown.
            time_us: when the process did what the row tells, µs since 1970.
        """
        position, known = self._find(agent_id, pid, time_us)
        gprocess = np.where(known, _take(self._gprocess, position), 0).astype(np.uint32)
        service = np.where(known, _take(self._service, position), 0).astype(np.uint32)
        kind = np.where(known, PROCESS_TYPE, IP_TYPE).astype(np.uint8)
        host = np.where(pid > 0, self._hosts.get(agent_id, 0), 0).astype(np.uint16)
        return Side(host, gprocess, gprocess, kind, service, kind)

    def _find(
        self, agent_id: int, pid: NDArray[np.int64], time_us: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Index of the last process of that pid that had started by then, and whether there is one."""
        wanted = (np.int64(agent_id) << 32) | pid
        slot = np.searchsorted(self._owners, wanted)
        known = (pid > 0) & (slot < len(self._owners))
        slot = np.where(known, slot, 0)
        known &= _take(self._owners, slot) == wanted
        low, high = _take(self._first, slot).astype(np.int64), _take(self._last, slot).astype(np.int64)
        first = low
        for _ in range(self._steps):
            middle = (low + high) // 2
            started = _take(self._start, middle) <= time_us + _START_SLACK_US
            open_range = low < high
            low = np.where(open_range & started, middle + 1, low)
            high = np.where(open_range & ~started, middle, high)
        position = low - 1
        known &= position >= first
        position = np.where(known, position, 0)
        known &= time_us - _END_SLACK_US <= _take(self._end, position)
        return position, known


def _take(values: NDArray[_Number], index: NDArray[np.int64]) -> NDArray[_Number]:
    """values[index], also of an empty array, where nothing is known and any value will do."""
    if len(values) == 0:
        return np.zeros(len(index), values.dtype)
    taken: NDArray[_Number] = values[np.minimum(index, len(values) - 1)]
    return taken

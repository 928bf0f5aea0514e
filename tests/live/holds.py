"""Servers that are made to stand still while a client waits: delays whose length the test knows.

A process that is stopped (SIGSTOP) makes no call. Between the moment when all of a server stands and the moment when it
may go on, no row may say that it read or answered anything, and what a client asks meanwhile is answered later, so that
its row is at least as long as the client had still to wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

#: A stop ends this long after a request waits in a socket of the server, s.
_WAIT = 0.04
#: It ends without one after this, s: the client may be the one that waits (for a greeting), or has yet to connect.
_PATIENCE, _FIRST_PATIENCE = 0.05, 0.3
#: Between two stops the server runs this long, s, and each time longer until it has read what waits.
_RUN = 0.0002
_LONGEST_RUN, _LONGEST_IDLE_RUN = 0.2, 0.01
#: After so many stops at least this long: a server that has yet to warm up must not starve.
_LATE, _LATE_RUN = 12, 0.1
#: Stops of one client, at most; those before it asked anything have a bound of their own.
_STOPS, _EARLY_STOPS = 30, 60
#: Clocks of the test and of the rows agree within, µs.
_SLACK_US = 2_000
_SESSION = 2


@dataclass(frozen=True)
class Hold:
    """A time in which the servers stood still, µs since 1970."""

    from_us: int
    to_us: int
    #: Process ids that stood still.
    pids: frozenset[int]

    def holds(self, time_us: int) -> bool:
        """Is this moment within, beyond the doubt of the clocks?"""
        return self.from_us + _SLACK_US < time_us < self.to_us - _SLACK_US


def _now_us() -> int:
    return time.time_ns() // 1000


def _us(time: datetime) -> int:
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """What a failed comparison needs of a row."""
    names = "observation_point type request_type request_resource request_id client_port server_port response_duration"
    return {name: row[name] for name in names.split()} | {"from": _us(row["start_time"]), "to": _us(row["end_time"])}


def _family(pid: int) -> set[int]:
    """A process and all its descendants."""
    found, open_ = set(), [pid]
    while open_:
        one = open_.pop()
        found.add(one)
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                open_ += map(int, (task / "children").read_text().split())
    return found


def _stands(pid: int) -> bool:
    """Does every thread of a process stand still (or is the process gone)?"""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                if (task / "stat").read_text().rpartition(") ")[2][0] not in "TtZX":
                    return False
    return True


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _stop(roots: list[int], known: set[int]) -> set[int]:
    """Stop processes with all their descendants: at once those that are known, then any that were born meanwhile."""
    stopped, more = set[int](), known
    while more:
        _send(more, signal.SIGSTOP)
        stopped |= more
        deadline = time.monotonic() + 2
        while not all(map(_stands, more)) and time.monotonic() < deadline:
            time.sleep(0.001)
        more = set[int]().union(*map(_family, roots)) - stopped
    return stopped


def _request_waits(inside: list[str]) -> bool:
    """Do bytes wait in a socket of the namespace that no server has read yet?"""
    filled, listening = set(), set()
    for kind in ("-Htan", "-Huan"):
        sockets = subprocess.run([*inside, "ss", kind], capture_output=True, text=True, check=False).stdout
        for state, queue, _, local, peer in (line.split()[:5] for line in sockets.splitlines()):
            if state == "LISTEN":
                listening.add(local.rpartition(":")[2])
            elif queue != "0":
                filled.add(peer.rpartition(":")[2])
    return bool(filled - listening)


class Holds:
    """The stops of one test."""

    def __init__(self, inside: list[str]) -> None:
        #: Command line that runs a command in the namespace.
        self._inside = inside
        self.list: list[Hold] = []
        #: From when to when each client ran, µs since 1970.
        self.runs: list[tuple[int, int]] = []

    def await_reading(self, seconds: float) -> None:
        """Wait until nothing lies unread in a socket: a client may be gone before the server reads its last words."""
        deadline = time.monotonic() + seconds
        while _request_waits(self._inside) and time.monotonic() < deadline:
            time.sleep(0.02)

    @contextmanager
    def during(self, roots: list[int]) -> Iterator[None]:
        """Stop these processes again and again while the body runs a client."""
        over, from_us = threading.Event(), _now_us()
        thread = threading.Thread(target=self._run, args=(roots, over))
        if roots:
            thread.start()
        try:
            yield
        finally:
            self.runs.append((from_us, _now_us()))
            over.set()
            if roots:
                thread.join()

    def _run(self, roots: list[int], over: threading.Event) -> None:
        pids, run, waits = set(roots), _RUN, False
        early = late = 0
        while early < _EARLY_STOPS and late < _STOPS:
            pids = _stop(roots, pids)
            from_us, waited = _now_us(), waits
            deadline = time.monotonic() + (_PATIENCE if waited else _FIRST_PATIENCE)
            still = waits = _request_waits(self._inside)
            while not waits and not over.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)
                waits = _request_waits(self._inside)
            if waits:
                time.sleep(_WAIT)
            self.list.append(Hold(from_us, _now_us(), frozenset(pids)))
            _send(pids, signal.SIGCONT)
            if waits or late:
                late += 1
            else:
                early += 1
            # The server has read what waited before, if something else had to come first.
            run = _RUN if waits and not still else min(2 * run, _LONGEST_RUN if waits else _LONGEST_IDLE_RUN)
            if over.wait(run if early + late <= _LATE else max(run, _LATE_RUN)):
                return

    def compare(self, rows: list[dict[str, Any]]) -> tuple[int, int]:
        """Compare the delays of all rows of a test with the stops.

        Returns how many calls of clients have a delay, and how many of them waited for a server that stood.
        """
        ports, measured, waited = set(), 0, 0
        for row in rows:
            times = [_us(row["start_time"]), _us(row["end_time"])]
            if row["type"] == _SESSION:
                assert row["response_duration"] == times[1] - times[0], _shown(row)
            if row["observation_point"] != "s-p":
                continue
            for hold in self.list:
                if row["process_id_1"] in hold.pids:
                    ports.add(row["server_port"])
                    still = [hold.holds(at) for at in (times if row["type"] == _SESSION else times[:1])]
                    assert not any(still), f"a server that stood still is said to have spoken: {hold} {_shown(row)}"
        for row in rows:
            answered = row["type"] == _SESSION and row["captured_response_byte"] > 0 and not row["is_reversed"]
            if row["observation_point"] != "c-p" or not answered or row["server_port"] not in ports:
                continue
            start_us, end_us = _us(row["start_time"]), _us(row["end_time"])
            if any(row["process_id_0"] in hold.pids for hold in self.list):
                continue
            ran = any(from_us - _SLACK_US <= start_us <= end_us <= to_us + _SLACK_US for from_us, to_us in self.runs)
            measured += end_us > start_us
            assert ran, f"a call before or after its client: {self.runs} {_shown(row)}"
            for hold in self.list:
                answered_later = end_us >= hold.to_us - _SLACK_US
                if hold.holds(start_us):
                    assert answered_later, f"answered while the server stood: {hold} {_shown(row)}"
                waited += answered_later and start_us < hold.to_us - _SLACK_US
        return measured, waited

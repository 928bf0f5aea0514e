"""What is to be sent: first in memory, then on disk, then counted as lost."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)
_SUFFIX = ".batch"
# A server answers when it has stored an entry, which may take it two seconds, and four where it waits for what another
# agent knows; ten entries a second are usual.
_IN_FLIGHT = 40
_LONGEST_PAUSE_S = 5.0


@dataclass(slots=True)
class Entry:
    """One request to the server: path, rows it carries, body; `attempt` counts the tries, from 1."""

    path: str
    batch: str
    rows: int
    content_type: str
    body: bytes
    attempt: int = 1
    sequence: int = 0
    file: Path | None = None
    file_bytes: int = 0
    failures: int = 0
    """How many failures there had been when it was sent last."""

    @property
    def alone(self) -> bool:
        """Whether what follows may refer to it and is not sent before the server has it, as rows to processes."""
        return not self.path.startswith("/v1/ingest/")


class Refused(Exception):
    """The server said that this entry is wrong (4xx): it must not be repeated."""


class Unavailable(Exception):
    """The server cannot take the entry now: repeat later."""


class Sender(Protocol):
    """Brings one entry to the server; raises Refused or Unavailable."""

    def __call__(self, entry: Entry) -> None: ...


def new_batch_id() -> str:
    """16 hexadecimal digits, unique for ever as far as 63 random bits go; never zero."""
    return f"{(uuid.uuid4().int >> 65) | 1:016x}"


class Outbox:
    """A queue with its senders. `put` never blocks nor raises for lack of space: what does not fit is counted.

    Entries leave in their order, up to `in_flight` before the first is answered; after a failure one, and one more with
    each success. Beyond `memory_bytes` new entries go to `directory`, up to `disk_bytes`; beyond that the oldest on
    disk is dropped and counted in `rows_lost`. Entries left at `close` go to disk; the next run sends them.
    """

    def __init__(
        self,
        send: Sender,
        directory: Path,
        *,
        memory_bytes: int = 64 << 20,
        disk_bytes: int = 1 << 30,
        retry_s: float = 0.2,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        """
        Args:
            send: called by several threads at once.
        """
        self._send, self._directory = send, directory
        self._memory_limit, self._disk_limit, self._retry_s = memory_bytes, disk_bytes, retry_s
        self._memory: OrderedDict[int, Entry] = OrderedDict()
        self._disk: deque[tuple[Path, int]] = deque()
        # The bytes of entries that were taken from disk, and whose files are still there, count for both.
        self._memory_used = self._disk_used = self._both_used = 0
        self._sequence = 0
        self._most, self._window = in_flight, in_flight
        self._sending: set[int] = set()
        self._pause_s, self._paused_until, self._failures = retry_s, 0.0, 0
        lock = threading.Lock()
        self._wake, self._emptied = threading.Condition(lock), threading.Condition(lock)
        self._stopping = False
        self._counters = dict.fromkeys(
            ("batches_in", "rows_in", "batches_sent", "rows_sent", "batches_refused", "rows_refused",
             "batches_lost", "rows_lost", "retries", "spilled"), 0)  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._find_left_over()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        with self._wake:
            self._start_one()

    def put(self, entry: Entry) -> None:
        """Queue an entry."""
        with self._wake:
            self._counters["batches_in"] += 1
            self._counters["rows_in"] += entry.rows
            self._sequence += 1
            entry.sequence = self._sequence
            if self._disk or self._memory_used + len(entry.body) > self._memory_limit:
                self._spill(entry)
            else:
                self._keep(entry)
            self._call_one()

    def counters(self) -> dict[str, int]:
        """Totals since start, and the gauges `queued` (entries) and `queued_bytes`."""
        with self._wake:
            return {
                **self._counters,
                "queued": len(self._memory) + len(self._disk),
                "queued_bytes": self._memory_used + self._disk_used - self._both_used,
            }

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is sent; False when the time was not enough."""
        with self._wake:
            return self._emptied.wait_for(lambda: not self._memory and not self._disk, timeout_s)

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what can be sent in the time given, keep the rest on disk."""
        until = time.monotonic() + timeout_s + 1.0
        self.drain(timeout_s)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._wake:
            for entry in self._memory.values():
                # One in flight may have arrived: the next run must ask before it stores.
                entry.attempt += 1
                if entry.file is None:
                    self._spill(entry)
                else:
                    self._disk.append((entry.file, entry.file_bytes))
            self._memory.clear()
            self._memory_used = self._both_used = 0

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._run, name=f"outbox {len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No more threads for this process: those that there are go on.
            if not self._threads:
                raise
            return
        self._threads.append(thread)

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                self._send(entry)
            except Unavailable as error:
                self._put_back(entry, error)
            except Refused as error:
                log.error("The server refused a batch of %d rows for %s: %s", entry.rows, entry.path, error)
                self._done(entry, "refused")
            except Exception as error:
                log.exception("A batch of %d rows for %s could not be sent.", entry.rows, entry.path)
                self._put_back(entry, error)
            else:
                self._done(entry, "sent")

    def _next(self) -> Entry | None:
        """Waits for an entry that may be sent now, and marks it so; None when it is time to stop."""
        with self._wake:
            self._idle += 1
            while not self._stopping:
                pause_s = self._paused_until - time.monotonic()
                entry = self._candidate() if pause_s <= 0 else None
                if entry is not None:
                    self._sending.add(entry.sequence)
                    entry.failures = self._failures
                    self._idle -= 1
                    if len(self._memory) > len(self._sending) or self._disk:
                        self._call_one()
                    return entry
                self._wake.wait(pause_s if pause_s > 0 else None)
            return None

    def _call_one(self) -> None:
        """Another thread has something to send, unless as much is under way as may be."""
        if len(self._sending) >= self._window:
            return
        if self._idle > 0:
            self._wake.notify()
        elif len(self._threads) < self._most:
            self._start_one()

    def _keep(self, entry: Entry) -> None:
        self._memory[entry.sequence] = entry
        self._memory_used += len(entry.body)

    def _candidate(self) -> Entry | None:
        """The oldest entry that is not in flight; None where others must be answered before it is sent."""
        if len(self._sending) >= self._window:
            return None
        for entry in self._memory.values():
            if entry.sequence not in self._sending:
                return entry
            if entry.alone:
                return None
        return self._from_disk()

    def _from_disk(self) -> Entry | None:
        """The oldest entry on disk, which is now in memory so that its attempts are counted.

        A file that cannot be read is dropped and counted.
        """
        while self._disk:
            file, size = self._disk[0]
            if self._memory and self._memory_used + size > self._memory_limit:
                return None
            try:
                entry = _decode(file)
            except (OSError, ValueError, KeyError) as error:
                log.error("%s is damaged and was dropped: %s", file, error)
                self._counters["batches_lost"] += 1
                self._forget(file, size)
                continue
            self._disk.popleft()
            entry.file_bytes = size
            self._keep(entry)
            self._both_used += len(entry.body)
            return entry
        return None

    def _put_back(self, entry: Entry, error: Exception) -> None:
        """The server cannot take it now: after a pause that grows, the oldest entry alone tries again."""
        with self._wake:
            self._sending.discard(entry.sequence)
            entry.attempt += 1
            self._counters["retries"] += 1
            # Those that were on their way together fail together, which is one failure.
            if entry.failures == self._failures:
                waiting = len(self._memory) + len(self._disk)
                log.warning("The server cannot be reached, %d entries wait: %s", waiting, error)
                self._failures += 1
                self._window = 1
                self._paused_until = time.monotonic() + self._pause_s
                self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _done(self, entry: Entry, how: str) -> None:
        with self._wake:
            self._sending.discard(entry.sequence)
            # A success of what was sent before the last failure says nothing of the server now.
            if entry.failures == self._failures:
                self._window = min(self._window + 1, self._most)
                self._pause_s = max(self._pause_s / 2, self._retry_s)
            self._counters[f"batches_{how}"] += 1
            self._counters[f"rows_{how}"] += entry.rows
            if self._memory.pop(entry.sequence, None) is not None:
                self._memory_used -= len(entry.body)
                if entry.file is not None:
                    self._both_used -= len(entry.body)
                    self._disk_used -= entry.file_bytes
            if entry.file is not None:
                _delete(entry.file)
            self._emptied.notify_all()

    def _spill(self, entry: Entry) -> None:
        file = self._directory / f"{entry.sequence:012d}-{entry.batch}{_SUFFIX}"
        head = {"path": entry.path, "batch": entry.batch, "rows": entry.rows, "content_type": entry.content_type}
        data = json.dumps(head).encode() + b"\n" + entry.body
        while self._disk and self._disk_used + len(data) > self._disk_limit:
            oldest, size = self._disk[0]
            self._lose(oldest, size)
        try:
            if self._disk_used + len(data) > self._disk_limit:
                raise OSError(f"the limit of {self._disk_limit} bytes is reached")
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.rename(file)
        except OSError as error:
            log.error("A batch of %d rows is lost, it cannot be kept in %s: %s", entry.rows, self._directory, error)
            self._counters["batches_lost"] += 1
            self._counters["rows_lost"] += entry.rows
            return
        self._counters["spilled"] += 1
        self._disk.append((file, len(data)))
        self._disk_used += len(data)

    def _lose(self, file: Path, size: int) -> None:
        self._counters["batches_lost"] += 1
        try:
            with file.open("rb") as data:
                self._counters["rows_lost"] += int(json.loads(data.readline())["rows"])
        except (OSError, ValueError, KeyError):
            log.error("%s could not be read while it was dropped", file)
        self._forget(file, size)

    def _forget(self, file: Path, size: int) -> None:
        _delete(file)
        self._disk.popleft()
        self._disk_used -= size

    def _find_left_over(self) -> None:
        for part in self._directory.glob("*.part"):
            part.unlink()
        for file in sorted(self._directory.glob(f"*{_SUFFIX}")):
            size = file.stat().st_size
            self._disk.append((file, size))
            self._disk_used += size
            self._sequence = max(self._sequence, _sequence(file))


def _decode(file: Path) -> Entry:
    head, _, body = file.read_bytes().partition(b"\n")
    fields = json.loads(head)
    # From an earlier run or spilled after a try: it may have arrived before.
    return Entry(
        fields["path"],
        fields["batch"],
        int(fields["rows"]),
        fields["content_type"],
        body,
        attempt=2,
        sequence=_sequence(file),
        file=file,
    )


def _delete(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.error("%s cannot be deleted, its batch will be offered once more: %s", file, error)


def _sequence(file: Path) -> int:
    return int(file.name.split("-")[0])

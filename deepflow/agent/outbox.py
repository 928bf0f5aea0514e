"""What is to be sent, in order: first in memory, then on disk, then counted as lost."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)
_SUFFIX = ".batch"


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
    """A queue with one sender thread. `put` never blocks nor raises for lack of space: what does not fit is counted.

    Entries keep their order. Beyond `memory_bytes` new entries go to `directory`, up to `disk_bytes`; beyond that the
    oldest on disk is dropped and counted in `rows_lost`. Entries left at `close` go to disk; the next run sends them.
    """

    def __init__(
        self,
        send: Sender,
        directory: Path,
        *,
        memory_bytes: int = 64 << 20,
        disk_bytes: int = 1 << 30,
        retry_s: float = 0.2,
    ) -> None:
        self._send, self._directory = send, directory
        self._memory_limit, self._disk_limit, self._retry_s = memory_bytes, disk_bytes, retry_s
        self._memory: deque[Entry] = deque()
        self._disk: deque[tuple[Path, int]] = deque()
        self._memory_used = self._disk_used = 0
        self._sequence = 0
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._counters = dict.fromkeys(
            ("batches_in", "rows_in", "batches_sent", "rows_sent", "batches_refused", "rows_refused",
             "batches_lost", "rows_lost", "retries", "spilled"), 0)  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._find_left_over()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

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
                self._memory.append(entry)
                self._memory_used += len(entry.body)
            self._wake.notify()

    def counters(self) -> dict[str, int]:
        """Totals since start, and the gauges `queued` (entries) and `queued_bytes`."""
        with self._wake:
            return {
                **self._counters,
                "queued": len(self._memory) + len(self._disk),
                "queued_bytes": self._memory_used + self._disk_used,
            }

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is sent; False when the time was not enough."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._memory and not self._disk, timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what can be sent in the time given, keep the rest on disk."""
        self.drain(timeout_s)
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        self._thread.join(timeout_s + 1.0)
        with self._wake:
            for entry in self._memory:
                # The one in flight may have arrived: the next run must ask before it stores.
                entry.attempt += 1
                self._spill(entry)
            self._memory.clear()

    def _run(self) -> None:
        delay = self._retry_s
        while not self._stopping.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._memory or self._disk or self._stopping.is_set())
                entry = self._head()
            if self._stopping.is_set() or entry is None:
                continue
            try:
                self._send(entry)
            except Unavailable as error:
                log.warning(
                    "The server cannot be reached, %d entries wait: %s", len(self._memory) + len(self._disk), error
                )
                with self._wake:
                    entry.attempt += 1
                    self._counters["retries"] += 1
                self._stopping.wait(delay)
                delay = min(delay * 2, 5.0)
                continue
            except Refused as error:
                log.error("The server refused a batch of %d rows for %s: %s", entry.rows, entry.path, error)
                self._done(entry, "refused")
            else:
                self._done(entry, "sent")
            delay = self._retry_s

    def _head(self) -> Entry | None:
        """The oldest entry; a file that cannot be read is dropped and counted."""
        if self._memory:
            return self._memory[0]
        while self._disk:
            file, size = self._disk[0]
            try:
                entry = _decode(file)
            except (OSError, ValueError, KeyError) as error:
                log.error("%s is damaged and was dropped: %s", file, error)
                self._counters["batches_lost"] += 1
                self._forget(file, size)
                continue
            # Put back into memory so that its attempts are counted; it is one entry, whatever the limit.
            self._disk.popleft()
            self._disk_used -= size
            self._memory.append(entry)
            self._memory_used += len(entry.body)
            return entry
        return None

    def _done(self, entry: Entry, how: str) -> None:
        with self._wake:
            self._counters[f"batches_{how}"] += 1
            self._counters[f"rows_{how}"] += entry.rows
            self._memory.popleft()
            self._memory_used -= len(entry.body)
            if entry.file is not None:
                entry.file.unlink(missing_ok=True)
            self._wake.notify_all()

    def _spill(self, entry: Entry) -> None:
        file = entry.file or self._directory / f"{entry.sequence:012d}-{entry.batch}{_SUFFIX}"
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
        file.unlink(missing_ok=True)
        self._disk.popleft()
        self._disk_used -= size

    def _find_left_over(self) -> None:
        for part in self._directory.glob("*.part"):
            part.unlink()
        for file in sorted(self._directory.glob(f"*{_SUFFIX}")):
            size = file.stat().st_size
            self._disk.append((file, size))
            self._disk_used += size
            self._sequence = max(self._sequence, int(file.name.split("-")[0]))


def _decode(file: Path) -> Entry:
    head, _, body = file.read_bytes().partition(b"\n")
    fields = json.loads(head)
    # From an earlier run or spilled after a try: it may have arrived before.
    return Entry(
        fields["path"], fields["batch"], int(fields["rows"]), fields["content_type"], body, attempt=2, file=file
    )

"""One thread a table that puts what is queued into as few inserts as possible and acknowledges each batch."""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from deepflow.ingest.batch import MAX_BATCH_ROWS
from deepflow.ingest.counters import Counters
from deepflow.ingest.derived import DerivedKeys, slices_sql
from deepflow.ingest.journal import SLICE_S, SLICE_SQL, Journal, Slice
from deepflow.ingest.tagging import times
from deepflow.resources import MetadataError
from deepflow.schema import quoted
from deepflow.store import Store, StoreError

log = logging.getLogger(__name__)
_FULL_ROWS = 50_000
_MAX_INSERT_ROWS = MAX_BATCH_ROWS
_MAX_QUEUED_ROWS = 400_000
_MAX_QUEUED_BYTES = 256 << 20
_REMEMBERED_BATCHES = 100_000


class Busy(Exception):
    """The batch was not taken now and must be repeated later; the message is one sentence."""


@dataclass(slots=True)
class Job:
    """A batch on its way into the store; `done` gives the number of its rows."""

    batch: int
    rows: pa.Table
    slices: dict[int, int]
    """Slice number → rows."""
    check: bool
    """Whether some of it may be stored already."""
    hold_s: float = 0.0
    """How long it waits before it may be stored."""
    again: Callable[[], pa.Table] | None = None
    """Gives the rows as they are stored after that time, with the same times; None if they are so already."""
    due: float = 0.0
    done: Future[int] = field(default_factory=Future)


class Pace:
    """Two inserts a second in the long run, since each makes a part that must be merged; sixty at once to catch up."""

    def __init__(self, per_s: float = 2.0, burst: int = 60) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens, self._at = float(burst), time.monotonic()

    def wait_s(self) -> float:
        """How long to collect before the next insert."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        return max(0.0, (1.0 - self._tokens) / self._per_s)

    def spend(self) -> None:
        """Counts an insert; what was spent in haste is owed for a second at most."""
        self._tokens = max(self._tokens - 1.0, -1.0)


class TableWriter:
    """The queue and the thread of one stored table."""

    def __init__(
        self,
        name: str,
        table: str,
        store: Store,
        counters: Counters,
        journal: Journal | None = None,
        derived: DerivedKeys | None = None,
    ) -> None:
        """
        Args:
            name: what senders call the table; `table` is `DATABASE.STORED_NAME`.
            journal: where stored slices are noted for the roll-up, None for a table without one.
            derived: the rows that the store derives from this table, None without.
        """
        self.name = name
        self._table = table
        self._quoted = quoted(*table.split(".", 1))
        self._store, self._counters, self._journal, self._derived = store, counters, journal, derived
        self._queue: deque[Job] = deque()
        self._held: deque[Job] = deque()
        self._rows = self._bytes = self._ready_rows = 0
        self._changed = threading.Condition()
        self._known: OrderedDict[int, Job | None] = OrderedDict()
        self._pace = Pace()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"writer {name}", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> Future[int]:
        """Queues a batch. One that is already on its way shares that one's answer.

        Raises:
            Busy: too much is waiting, or the writer has stopped.
        """
        with self._changed:
            running = self._known.get(job.batch)
            if running is not None:
                self._counters.add(self.name, batches_duplicate=1, rows_duplicate=job.rows.num_rows)
                return running.done
            if self._stopped:
                raise Busy("The server is stopping; repeat the batch later.")
            size = job.rows.nbytes
            if (self._queue or self._held) and (
                self._rows + job.rows.num_rows > _MAX_QUEUED_ROWS or self._bytes + size > _MAX_QUEUED_BYTES
            ):
                self._counters.add(self.name, batches_busy=1)
                raise Busy(f"{self._rows} rows are waiting for {self.name}; repeat the batch later.")
            job.check = job.check or job.batch in self._known
            self._known[job.batch] = job
            self._known.move_to_end(job.batch)
            job.due = time.monotonic() + job.hold_s
            if job.hold_s > 0:
                self._held.append(job)
            else:
                self._ready(job)
            self._rows += job.rows.num_rows
            self._bytes += size
            self._changed.notify_all()
            return job.done

    def full(self) -> bool:
        """Whether no further batch would be taken."""
        return self._rows >= _MAX_QUEUED_ROWS or self._bytes >= _MAX_QUEUED_BYTES

    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._rows

    def close(self) -> None:
        """Stores what is queued and ends the thread; later batches are Busy."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._take():
            try:
                self._write(jobs)
            except (StoreError, MetadataError) as error:
                self._failed(jobs, error)
            except Exception as error:
                log.exception("Rows of %s could not be written.", self.name)
                self._failed(jobs, error)
            with self._changed:
                for job in jobs:
                    self._known[job.batch] = None
                while len(self._known) > _REMEMBERED_BATCHES and next(iter(self._known.values())) is None:
                    self._known.popitem(last=False)

    def _take(self) -> list[Job]:
        """The next batches for one insert; empty when the writer has stopped and nothing waits."""
        with self._changed:
            next_s = self._release()
            while not self._queue and not self._stopped:
                self._changed.wait(next_s)
                next_s = self._release()
            wait_s = self._pace.wait_s()
            if wait_s > 0:
                self._changed.wait_for(lambda: self._stopped or self._ready_rows >= _FULL_ROWS, wait_s)
                self._release()
            jobs: list[Job] = []
            rows = 0
            while self._queue and (not jobs or rows + self._queue[0].rows.num_rows <= _MAX_INSERT_ROWS):
                job = self._queue.popleft()
                jobs.append(job)
                rows += job.rows.num_rows
                self._rows -= job.rows.num_rows
                self._ready_rows -= job.rows.num_rows
                self._bytes -= job.rows.nbytes
                if rows >= _FULL_ROWS:
                    break
            if jobs:
                self._pace.spend()
            return jobs

    def _ready(self, job: Job) -> None:
        self._queue.append(job)
        self._ready_rows += job.rows.num_rows

    def _release(self) -> float | None:
        """Queues the held batches whose time has come, all at the end; in how many s it comes for the next one."""
        now = time.monotonic()
        while self._held and (self._stopped or self._held[0].due <= now):
            self._ready(self._held.popleft())
        return self._held[0].due - now if self._held else None

    def _write(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.again is not None:
                job.rows = job.again()
        present = self._present([job for job in jobs if job.check])
        missing = [_without(job, present) for job in jobs]
        batches = [job.batch for job in jobs]
        slices = [Slice(job.batch, number, rows) for job in missing for number, rows in job.slices.items()]
        if self._derived is not None:
            checked = {job.batch for job in jobs if job.check}
            self._derived.remove([(item.batch, item.number) for item in slices if item.batch in checked])
            self._derived.complete(present)
        if self._journal is not None:
            self._journal.begin(self._table, slices)
        if slices:
            self._store.insert(self._table, pa.concat_tables([job.rows for job in missing]))
        if self._journal is not None:
            self._journal.stored(self._table, batches)
        for job, new in zip(jobs, missing, strict=True):
            stored = new.rows.num_rows
            self._counters.add(
                self.name,
                batches_stored=int(stored > 0 or job.rows.num_rows == 0),
                rows_stored=stored,
                batches_duplicate=int(stored == 0 and job.rows.num_rows > 0),
                rows_duplicate=job.rows.num_rows - stored,
            )
        self._counters.add(self.name, inserts=int(bool(slices)))
        for job in jobs:
            job.done.set_result(job.rows.num_rows)

    def _present(self, jobs: Sequence[Job]) -> set[tuple[int, int]]:
        wanted = [(job.batch, number) for job in jobs for number in job.slices]
        if not wanted:
            return set()
        found = self._store.query(
            f"SELECT _batch, {SLICE_SQL} AS slice FROM {self._quoted} WHERE {slices_sql(wanted)} GROUP BY _batch, slice"
        )
        return set(zip(found.column("_batch").to_pylist(), found.column("slice").to_pylist(), strict=True))

    def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        """Whether the rows are stored is not known; the sender repeats, and the repeated batch is looked up."""
        self._counters.add(self.name, store_errors=1)
        log.warning("%d batches of %s could not be written, their senders repeat them: %s", len(jobs), self.name, error)
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(Busy(f"The store could not take the batch, repeat it later: {error}"))


def slice_counts(rows: pa.Table) -> dict[int, int]:
    """Slice number → rows."""
    numbers, counts = np.unique(times(rows) // SLICE_S, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _without(job: Job, present: set[tuple[int, int]]) -> Job:
    """The part of the batch whose slices are not present."""
    gone = [number for number in job.slices if (job.batch, number) in present]
    if not gone:
        return job
    keep = ~np.isin(times(job.rows) // SLICE_S, gone)
    left = {number: rows for number, rows in job.slices.items() if number not in gone}
    return replace(job, rows=job.rows.filter(pa.array(keep)), slices=left)

"""The way of a batch: check, tag, queue, store, acknowledge."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa

from deepflow.ingest.batch import BatchError, decode
from deepflow.ingest.counters import Counters
from deepflow.ingest.derived import DerivedKeys
from deepflow.ingest.far_ends import FarEnds
from deepflow.ingest.journal import Journal
from deepflow.ingest.rollup import RollUp
from deepflow.ingest.tagging import Tags, times
from deepflow.ingest.writer import Busy, Job, TableWriter, slice_counts
from deepflow.resources import Geography, Resources
from deepflow.resources.claims import Tally
from deepflow.schema import Schema
from deepflow.store import Store

log = logging.getLogger(__name__)
_OLDEST_S = 7 * 24 * 3600
_NEWEST_S = 3600
_SYSTEM = "deepflow_system"
# Agents report every second: what the agent at a far end says of a call comes a little over a second later, and a
# second more where its machine is busy.
_HOLD_S = 2.5
_LATE_S = 4
_SILENT_S = 30.0
_DERIVED_FROM = "flow_log.l7_flow_log"


class Ingest:
    """Writers of all tables, the roll-up, and their counters."""

    def __init__(
        self,
        store: Store,
        resources: Resources,
        schema: Schema,
        rollup_interval_s: float = 10.0,
        counter_interval_s: float = 10.0,
        name_far_ends: bool = True,
        geography: Geography | None = None,
    ) -> None:
        self._resources = resources
        self._tables = schema.wire_tables()
        self._counters = Counters()
        self._far_ends = FarEnds() if name_far_ends else None
        # The agent heard last, and the last one before that was another, with the time of each.
        self._heard = ((0, -_SILENT_S), (0, -_SILENT_S))
        self._geography = geography
        self._started_s = int(time.time())
        journal = Journal(resources.metadata)
        derived = DerivedKeys(store, schema)
        self._writers = {
            name: TableWriter(
                name,
                f"{table.database}.{table.stored_name(precision)}",
                store,
                self._counters,
                journal if "1m" in table.precisions else None,
                derived if table.full_name == _DERIVED_FROM else None,
            )
            for name, (table, precision) in self._tables.items()
        }
        self._rollup = RollUp(store, schema, journal, self._counters, rollup_interval_s)
        self._reported: dict[str, dict[str, int]] = {}
        self._counter_interval_s = counter_interval_s
        self._stopped = threading.Event()
        self._reporter = threading.Thread(target=self._report_regularly, name="counters", daemon=True)
        self._reporter.start()

    def submit(self, table: str, agent_id: int, batch: int, attempt: int, data: bytes) -> int:
        """Stores a batch; returns its number of rows once the store has them. See `enqueue`."""
        return self.enqueue(table, agent_id, batch, attempt, data).result()

    def enqueue(self, table: str, agent_id: int, batch: int, attempt: int, data: bytes) -> Future[int]:
        """Checks, tags and queues a batch. The future gives its number of rows, or raises Busy.

        Args:
            table: `l7_flow_log`, `application.1s`, `application_map.1s` or `deepflow_system`.
            batch: 64-bit id, unique for ever, the same at each attempt.
            attempt: 1 for the first time.
            data: Arrow IPC stream.

        Raises:
            BatchError: the batch is wrong, never repeat it.
            Busy: repeat it later.
        """
        try:
            return self._enqueue(table, agent_id, batch, attempt, data)
        except BatchError:
            self._counters.add(table if table in self._tables else "unknown", batches_refused=1)
            raise

    def roll_up(self) -> int:
        """Rolls up now, instead of at the next interval; returns the number of 1s rows taken."""
        return self._rollup.run_once()

    def counters(self) -> dict[str, dict[str, int]]:
        """Totals since the start by table, and `rows_queued`."""
        totals = self._counters.totals()
        return {
            name: {**totals.get(name, {}), "rows_queued": writer.queued_rows()}
            for name, writer in self._writers.items()
        } | {name: counted for name, counted in totals.items() if name not in self._writers}

    def report(self) -> None:
        """Queues the increase of the counters as rows of `deepflow_system`, agent 0."""
        totals = self._counters.totals()
        now = int(time.time())
        rows = []
        for table, counted in totals.items():
            before = self._reported.get(table, {})
            increase = {name: float(value - before.get(name, 0)) for name, value in counted.items()}
            writer = self._writers.get(table)
            rows.append(
                {
                    "time": now,
                    "virtual_table_name": "deepflow_server_ingest",
                    "agent_id": 0,
                    "tag_names": ["table"],
                    "tag_values": [table],
                    "metrics_float_names": [*increase, "rows_queued"],
                    "metrics_float_values": [*increase.values(), float(writer.queued_rows() if writer else 0)],
                    "_batch": 0,
                }
            )
        if rows:
            self._put(_SYSTEM, secrets.randbits(64), 1, pa.Table.from_pylist(rows, self._stored_schema(_SYSTEM)))
            self._reported = totals

    def close(self) -> None:
        """Stores what is queued and ends all background work; later batches are Busy."""
        self._stopped.set()
        self._reporter.join()
        for writer in self._writers.values():
            writer.close()
        self._rollup.close()

    def _stored_schema(self, name: str) -> pa.Schema:
        return self._tables[name][0].stored_schema()

    def _enqueue(self, name: str, agent_id: int, batch: int, attempt: int, data: bytes) -> Future[int]:
        if name not in self._tables:
            raise BatchError(f"There is no table {name!r}; batches go to {', '.join(self._tables)}.")
        if self._writers[name].full():
            self._counters.add(name, batches_busy=1)
            raise Busy(f"Too many rows are waiting for {name}; repeat the batch later.")
        if not self._resources.is_agent(agent_id):
            raise Busy(f"Agent {agent_id} is unknown to this server; it must register, then repeat the batch.")
        rows = decode(self._tables[name][0], name, data)
        self._counters.add(name, batches_in=1, rows_in=rows.num_rows)
        rows = self._in_time(name, rows)
        return self._put(name, batch, attempt, *self._tagged(name, rows, agent_id, batch))

    def _tagged(
        self, name: str, rows: pa.Table, agent_id: int, batch: int
    ) -> tuple[pa.Table, Callable[[], pa.Table] | None]:
        """The rows with their tags, and None; or the rows as they came, and how they get their tags after a while."""
        tags = Tags(self._tables[name][0], rows, self._resources.tagger(), agent_id)
        if self._far_ends is None:
            return tags.stored(batch, self._geography), None
        far_ends, tally = self._far_ends, Tally()
        tags.ask(far_ends, tally)
        # Meters come two seconds after the logs that name their ends.
        others = self._others(agent_id) and "client_port" in rows.column_names
        if not (others and tags.newest_open(far_ends) > time.time() - _LATE_S):
            self._count(name, tally)
            return tags.stored(batch, self._geography), None
        # What is found is counted when it is asked for the last time.
        self._count(name, replace(tally, found=0, ambiguous=0))

        def again() -> pa.Table:
            tally = Tally()
            try:
                tags.ask(far_ends, tally)
            except Exception:
                log.exception("The far ends of a batch of %s were not asked for again.", name)
            self._count(name, tally)
            return tags.stored(batch, self._geography)

        return rows, again

    def _others(self, agent_id: int) -> bool:
        """Whether there are agents besides this one."""
        now = time.monotonic()
        last, before = self._heard
        self._heard = ((agent_id, now), before if last[0] == agent_id else last)
        return now - self._heard[1][1] < _SILENT_S

    def _count(self, name: str, tally: Tally) -> None:
        self._counters.add(name, **{f"ends_{what}": count for what, count in asdict(tally).items() if count})

    def _put(
        self, name: str, batch: int, attempt: int, rows: pa.Table, again: Callable[[], pa.Table] | None = None
    ) -> Future[int]:
        slices = slice_counts(rows)
        earliest = int(times(rows).min(initial=2**62))
        check = attempt > 1 or earliest < self._started_s
        job = Job(batch, rows, slices, check, 0.0 if again is None else _HOLD_S, again)
        return self._writers[name].put(job)

    def _in_time(self, name: str, rows: pa.Table) -> pa.Table:
        """Without rows that are too old to be kept or lie in the future; an error when none is left."""
        now = int(time.time())
        seconds = times(rows)
        fits = (seconds >= now - _OLDEST_S) & (seconds <= now + _NEWEST_S)
        left_out = int(np.count_nonzero(~fits))
        if left_out == 0:
            return rows
        self._counters.add(name, rows_out_of_time=left_out)
        if left_out == rows.num_rows:
            raise BatchError(
                f"All rows of the batch for {name} are older than seven days or more than an hour in the future; "
                "set the clock of the agent's host."
            )
        return rows.filter(pa.array(fits))

    def _report_regularly(self) -> None:
        while not self._stopped.wait(self._counter_interval_s):
            try:
                self.report()
            except Busy as error:
                log.warning("The server's counters were not written: %s", error)

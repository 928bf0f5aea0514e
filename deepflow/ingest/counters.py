"""What ingest took in, stored and refused, by table."""

import threading
from collections import Counter

NAMES = (
    "batches_in",
    "rows_in",
    "batches_stored",
    "rows_stored",
    "batches_refused",
    "rows_out_of_time",
    "batches_duplicate",
    "rows_duplicate",
    "batches_busy",
    "store_errors",
    "inserts",
    "rollups",
    "ends_learned",
    "ends_found",
    "ends_ambiguous",
    "ends_evicted",
)


class Counters:
    """Totals since the start; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, Counter[str]] = {}

    def add(self, table: str, **increase: int) -> None:
        """Adds to counters of a table; the names are those of NAMES."""
        with self._lock:
            self._totals.setdefault(table, Counter()).update(increase)

    def totals(self) -> dict[str, dict[str, int]]:
        """Counters by table; every name of NAMES is there."""
        with self._lock:
            return {table: {name: counted[name] for name in NAMES} for table, counted in self._totals.items()}

"""Writes names of resources to the dictionaries, in the background and at most once a second."""

import logging
import threading
import time
from collections import defaultdict
from typing import Any

import pyarrow as pa

from deepflow.store import Store, StoreError
from deepflow.store.dictionaries import Dictionary, reload

log = logging.getLogger(__name__)
_INTERVAL_S = 1.0


class Names:
    """Collects changed dictionary rows. A row that could not be written is tried again with the next ones."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed: dict[Dictionary, dict[tuple[Any, ...], dict[str, Any]]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)
        self._thread.start()

    def put(self, dictionary: Dictionary, **row: Any) -> None:
        """Sets a row of a dictionary; attributes that are not given are empty."""
        columns = {**dictionary.keys, **dictionary.attributes}
        entry: dict[str, Any] = {name: "" if kind == "String" else 0 for name, kind in columns.items()}
        entry.update(row, version=time.time_ns())
        with self._lock:
            self._changed[dictionary][tuple(entry[name] for name in dictionary.keys)] = entry
        self._wake.set()

    def flush(self) -> None:
        """Writes what is waiting and reloads the dictionaries it belongs to.

        Raises:
            StoreError: the store failed; the rows stay waiting.
        """
        with self._writing:
            with self._lock:
                changed, self._changed = self._changed, defaultdict(dict)
            for dictionary, rows in list(changed.items()):
                try:
                    table = pa.Table.from_pylist(list(rows.values()), schema=dictionary.arrow_schema())
                    self._store.insert(dictionary.rows_table, table)
                    reload(self._store, dictionary)
                except StoreError:
                    with self._lock:
                        for waiting, entries in changed.items():
                            self._changed[waiting] = {**entries, **self._changed[waiting]}
                    raise
                del changed[dictionary]

    def close(self) -> None:
        """Writes what is waiting, once, and ends the background work."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()
        try:
            self.flush()
        except StoreError as error:
            log.warning("Names could not be written before the end, the next start writes them: %s", error)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stopped.is_set():
                return
            try:
                self.flush()
            except StoreError as error:
                log.warning("Names could not be written, they are tried again: %s", error)
                self._wake.set()
            self._stopped.wait(_INTERVAL_S)

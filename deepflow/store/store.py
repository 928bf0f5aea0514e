"""What the rest of the server asks of a store."""

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa


class StoreError(Exception):
    """The store refused or failed; the message is one sentence. `code` is ClickHouse's, 0 when it gave none."""

    def __init__(self, sentence: str, code: int = 0) -> None:
        super().__init__(sentence)
        self.code = code


class Store(Protocol):
    """ClickHouse SQL over Arrow. Every method may be called from any thread and raises StoreError."""

    @property
    def url(self) -> str:
        """Address of the store, without a password."""

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        """Result of a SELECT. `{name:Type}` in `sql` takes its value from `parameters`.

        DateTime arrives as uint32 seconds, DateTime64(6) as timestamp[us, UTC], IPv4 as uint32, IPv6 as 16 bytes.
        """

    def insert(self, table: str, rows: pa.Table) -> None:
        """Stores `rows` in `DATABASE.TABLE` (cut at the first dot: `flow_metrics.application.1s`); durable on return.

        Rows of one partition become visible together or not at all, as long as there are at most 1,000,000 of them.
        """

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Runs a statement that has no result: DDL, INSERT … SELECT, SYSTEM."""

    def close(self) -> None:
        """Closes all connections. Later calls raise StoreError."""

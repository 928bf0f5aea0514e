"""Where rows are kept: chDB in this process (`chdb:///path`) or a ClickHouse server (`http://…`), one `Store`."""

from deepflow.store.clickhouse import ChStore, open_store
from deepflow.store.prepare import prepare
from deepflow.store.store import Store, StoreError

__all__ = ["ChStore", "Store", "StoreError", "open_store", "prepare"]

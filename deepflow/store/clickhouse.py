"""The store over clickhouse-connect, the same code for chDB in this process and for a ClickHouse server."""

import fcntl
import os
import queue
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from deepflow.schema import quoted
from deepflow.store.store import StoreError

MAX_INSERT_ROWS = 1_000_000
"""An insert of at most this many rows is one block, so that each partition gets all of its rows or none."""
_CLIENTS = 8
_WAIT_FOR_CLIENT_S = 60.0
_INSERT_SETTINGS = {
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
    "input_format_arrow_allow_missing_columns": 0,
}
_CODE = re.compile(r"Code:\s*(\d+)")


def open_store(url: str) -> "ChStore":
    """Opens `chdb:///absolute/path` (created when absent) or `http[s]://[user:password@]host[:port]`.

    Raises:
        StoreError: the address is not understood, the path is in use or not writable, or the server does not answer.
    """
    return ChStore(url)


class ChStore:
    """Store over a bounded set of clickhouse-connect clients; each serves one thread at a time (two queries on one
    chDB connection wait for each other, on two they run side by side)."""

    def __init__(self, url: str, clients: int = _CLIENTS) -> None:
        self._address = _Address(url)
        self._free: queue.LifoQueue[Client] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        self._limit = clients
        self._closed = False
        self._path_lock = _lock_path(self._address.path) if self._address.path is not None else None
        try:
            with self._client() as client:
                client.command("SELECT 1")
        except StoreError:
            self.close()
            raise

    @property
    def url(self) -> str:
        return self._address.shown

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password for a ClickHouse server, empty without."""
        return self._address.user, self._address.password

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        with self._client() as client:
            return client.query_arrow(sql, parameters=_mutable(parameters), settings=_mutable(settings))

    def insert(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows > MAX_INSERT_ROWS:
            raise StoreError(
                f"An insert of {rows.num_rows} rows is too large, at most {MAX_INSERT_ROWS} are stored at once."
            )
        if rows.num_rows == 0:
            return
        name = quoted(*table.split(".", 1))
        with self._client() as client:
            client.insert_arrow(name, rows.combine_chunks(), settings=dict(_INSERT_SETTINGS))

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        with self._client() as client:
            client.command(sql, parameters=_mutable(parameters))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        if self._path_lock is not None:
            os.close(self._path_lock)
            self._path_lock = None

    @contextmanager
    def _client(self) -> Iterator[Client]:
        client = self._take()
        try:
            yield client
        except ClickHouseError as error:
            self._absorb(client)
            raise _store_error(error) from error
        except (OSError, RuntimeError) as error:
            self._absorb(client)
            raise StoreError(f"The store at {self.url} failed: {_one_line(str(error))}.") from error
        finally:
            self._free.put(client)

    def _absorb(self, client: Client) -> None:
        """A query that fails inside chDB leaves the bytes it had written in front of the connection's next answer."""
        if self._address.path is not None:
            with suppress(ClickHouseError, OSError, RuntimeError, ValueError):
                client.command("SELECT 1")

    def _take(self) -> Client:
        try:
            return self._checked(self._free.get_nowait())
        except queue.Empty:
            pass
        with self._lock:
            if self._closed:
                raise StoreError(f"The store at {self.url} is closed.")
            if len(self._clients) < self._limit:
                client = self._connect()
                self._clients.append(client)
                return client
        try:
            return self._checked(self._free.get(timeout=_WAIT_FOR_CLIENT_S))
        except queue.Empty:
            raise StoreError(f"The store at {self.url} is busy with {self._limit} queries; repeat later.") from None

    def _checked(self, client: Client) -> Client:
        if self._closed:
            raise StoreError(f"The store at {self.url} is closed.")
        return client

    def _connect(self) -> Client:
        try:
            return self._address.connect()
        except ClickHouseError as error:
            raise _connect_error(error, self._address) from error
        except (OSError, RuntimeError) as error:
            raise StoreError(f"The store at {self.url} cannot be opened: {_one_line(str(error))}.") from error


class _Address:
    """A store's URL taken apart."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.path: Path | None = None
        self.user = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        if parts.scheme == "chdb" and parts.path.startswith("/") and not parts.netloc:
            self.path = Path(unquote(parts.path)).resolve()
            self.shown = f"chdb://{self.path}"
        elif parts.scheme in {"http", "https"} and parts.hostname:
            try:
                self.port = parts.port or (8443 if parts.scheme == "https" else 8123)
            except ValueError:
                raise StoreError(f"The store address of {parts.hostname} has a port that is no number.") from None
            self.host, self.scheme = parts.hostname, parts.scheme
            self.shown = f"{parts.scheme}://{parts.hostname}:{self.port}"
        else:
            raise StoreError("The store address must be chdb:///absolute/path or http://host:port.")

    def connect(self) -> Client:
        # Times are compared and cut in UTC whatever zone this host or the server is in.
        settings = {"session_timezone": "UTC"}
        if self.path is not None:
            return clickhouse_connect.get_client(interface="chdb", path=str(self.path), settings=settings)
        return clickhouse_connect.get_client(
            interface=self.scheme,
            host=self.host,
            port=self.port,
            username=self.user or "default",
            password=self.password,
            settings=settings,
            compress=False,
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=300,
        )


def _lock_path(path: Path) -> int:
    """Takes the path for this process. chDB itself only says `BAD_ARGUMENTS` when a second process opens it."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"The store {path} cannot be written: {error.strerror}.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        os.close(handle)
        raise StoreError(
            f"The store {path} is already in use by process {holder or 'unknown'}; stop it or choose another folder."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _mutable(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else dict(values)


def _store_error(error: Exception) -> StoreError:
    text = str(error)
    code = getattr(error, "code", None) or (int(found[1]) if (found := _CODE.search(text)) else 0)
    return StoreError(_one_line(text), int(code))


def _connect_error(error: Exception, address: _Address) -> StoreError:
    if address.path is None:
        return StoreError(f"The ClickHouse server at {address.shown} does not answer: {_one_line(str(error))}")
    if "different path" in str(error) or "already" in str(error):
        return StoreError(f"One process can open only one chDB path, and another one than {address.path} is open.")
    return StoreError(f"The store {address.path} cannot be opened: {_one_line(str(error))}")


def _one_line(text: str) -> str:
    """The message without the stack trace, version and line breaks that ClickHouse appends."""
    text = text.split("Stack trace:", 1)[0]
    text = re.sub(r"\(version [^)]*\)|\(official build\)", "", " ".join(text.split()))
    text = re.sub(r"^.*?DB::Exception:\s*", "", text)
    return text.strip().rstrip(".")[:600]

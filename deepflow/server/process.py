"""Opens the parts, serves until SIGTERM or SIGINT, closes the parts."""

import errno
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from deepflow.api import State, create_app
from deepflow.ingest import Ingest
from deepflow.resources import Geography, GeographyError, MetadataError, Resources
from deepflow.schema import load
from deepflow.server.settings import ServerSettings, split_listen
from deepflow.store import StoreError, open_store, prepare

log = logging.getLogger(__name__)
# Requests that wait for the store get this long when the server stops; the whole stop stays under five seconds.
_GRACE_S = 2
# An agent has up to forty, and keeps open those that it had.
_CONNECTIONS = 8192


class ServerError(Exception):
    """The server cannot start; the message is one sentence that says what to do."""


def run(settings: ServerSettings) -> None:
    """Serves until a signal.

    Raises:
        ServerError: port in use, folder not writable or in use, store, metadata or a file of the settings not usable.
    """
    _allow_connections()
    token = _token(settings.token_file)
    geography = _geography(settings)
    with _listening(settings.listen) as listener, ExitStack() as opened:
        try:
            state = _open(settings, token, geography, opened)
        except (StoreError, MetadataError) as error:
            raise ServerError(_sentence(str(error))) from error
        host, port = listener.getsockname()[:2]
        log.info("Listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        config = uvicorn.Config(
            create_app(state),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
            limit_concurrency=_CONNECTIONS,
            server_header=False,
        )
        with _signals_outlived():
            uvicorn.Server(config).run(sockets=[listener])
        log.info("Stopping: queued batches are being stored.")


def _allow_connections() -> None:
    """As many files as the process may open: a login shell begins with 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _signals_outlived() -> Iterator[None]:
    """uvicorn stops at SIGTERM and SIGINT, then raises them again; the parts must still be closed after that."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(settings: ServerSettings, token: str, geography: Geography | None, opened: ExitStack) -> State:
    schema = load()
    _make_folder(settings.data)
    store = open_store(settings.store or f"chdb://{(settings.data / 'store').absolute()}")
    opened.callback(store.close)
    prepare(store, schema)
    resources = Resources(settings.metadata or f"sqlite:///{(settings.data / 'metadata.sqlite').absolute()}", store)
    opened.callback(resources.close)
    ingest = Ingest(
        store,
        resources,
        schema,
        settings.rollup_interval,
        settings.counter_interval,
        settings.name_far_ends,
        geography,
    )
    opened.callback(ingest.close)
    return State(schema, store, resources, ingest, token)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"The folder {folder} cannot be made: {error.strerror}; choose another with --data."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ServerError(f"The folder {folder} is not writable; choose another with --data.")


@contextmanager
def _listening(listen: str) -> Iterator[socket.socket]:
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                sentence = f"Port {port} on {host} is in use; stop what uses it or choose another with --listen."
            else:
                sentence = (
                    f"The server cannot listen on {listen}: {error.strerror or error}; choose another with --listen."
                )
            raise ServerError(sentence) from None
        yield listener


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise ServerError(f"The token file {file} cannot be read: {reason}.") from None
    if len(token) < 16:
        raise ServerError(f"The token in {file} is too short, it needs at least 16 characters.")
    return token


def _geography(settings: ServerSettings) -> Geography | None:
    if settings.geography is None:
        return None
    try:
        return Geography(settings.geography, settings.geography_language)
    except GeographyError as error:
        raise ServerError(str(error)) from None


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."

"""One server for tests that change nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Running, unused_port


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("api")
    listen = f"127.0.0.1:{unused_port()}"
    words = ["server", "--data", str(folder / "data"), "--listen", listen]
    server = Running(words, folder / "server.log", f"http://{listen}")
    server.await_health()
    yield server
    server.stop()

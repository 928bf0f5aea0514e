"""One prepared store for all tests of the folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deepflow.schema import load
from deepflow.store import Store, open_store, prepare
from tests.store.stores import store_url


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("store")
    with store_url(folder) as url:
        opened = open_store(url)
        prepare(opened, load())
        yield opened
        opened.close()

"""A real chDB with network flows and meters, and the same rows in numpy.

Apart from tests/query: a process can have one chDB open.
"""

from collections.abc import Iterator

import pytest

from deepflow.schema import Schema, load
from deepflow.store import Store, open_store, prepare
from tests.query.conftest import Ask
from tests.query_network.rows import Network, store_network


@pytest.fixture(scope="package")
def schema() -> Schema:
    return load()


@pytest.fixture(scope="package")
def filled(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Network]]:
    folder = tmp_path_factory.mktemp("network")
    store = open_store(f"chdb://{folder}/store")
    prepare(store, schema)
    yield store, store_network(store, schema, folder)
    store.close()


@pytest.fixture
def ask(filled: tuple[Store, Network], schema: Schema) -> Ask:
    return Ask(filled[0], schema)


@pytest.fixture
def sent(filled: tuple[Store, Network]) -> Network:
    return filled[1]

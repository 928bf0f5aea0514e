"""One server's inside over an empty store, without HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepflow.ingest import Ingest
from deepflow.resources import AgentIdentity, Process, Resources
from deepflow.schema import Schema, load
from deepflow.store import Store, open_store, prepare
from tests.store.stores import store_url

IDENTITY = AgentIdentity("host1", "machine1", "boot", "6.1", "0.1", "10.0.0.1")


@dataclass
class Inside:
    """The open parts; nothing is rolled up or reported but on demand."""

    schema: Schema
    store: Store
    resources: Resources
    ingest: Ingest
    metadata_url: str
    agent_id: int

    def reopen_ingest(self) -> None:
        """As after a restart: nothing is remembered of earlier batches."""
        self.ingest.close()
        self.ingest = Ingest(self.store, self.resources, self.schema, 3600, 3600)


def process(pid: int, start_us: int, name: str, end_us: int | None = None, container: str = "") -> Process:
    return Process(pid, start_us, end_us, name, name, name, "root", container, 1)


@pytest.fixture(scope="package")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder: Path = tmp_path_factory.mktemp("ingest")
    with store_url(folder) as url:
        schema = load()
        store = open_store(url)
        prepare(store, schema)
        metadata_url = f"sqlite:///{folder}/metadata.sqlite"
        resources = Resources(metadata_url, store)
        agent_id = resources.register_agent(IDENTITY)
        parts = Inside(schema, store, resources, Ingest(store, resources, schema, 3600, 3600), metadata_url, agent_id)
        yield parts
        parts.ingest.close()
        resources.close()
        store.close()

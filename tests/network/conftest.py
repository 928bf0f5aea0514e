"""The topology under observation: agent and server on this machine, all namespaces in view."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Running
from tests.e2e.conftest import browser, can_observe
from tests.network.topology import Topology, topology
from tests.network.watched import INTERFACES, Watch, Watched

__all__ = ["browser", "can_observe"]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Topology]:
    """The topology with a bridge of the kernel between the nodes."""
    with topology(_folder(tmp_path)) as made:
        yield made


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "topology"  # its path must stay short: a Unix socket lies in it
    folder.mkdir()
    return folder


@pytest.fixture
def watch(
    can_observe: None,
    deepflow_server: Callable[..., Running],
    deepflow_agent: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
) -> Watch:
    """Starts server and agent for a topology that runs; the agent captures the interfaces that the topology has."""

    def start(made: Topology, interfaces: str = INTERFACES, ring_mib: int = 0) -> Watched:
        where = "DEEPFLOW_AGENT_INPUTS__CBPF__AF_PACKET__"
        monkeypatch.setenv(f"{where}INTERFACE_REGEX", "^$")
        monkeypatch.setenv(f"{where}INNER_INTERFACE_CAPTURE_ENABLED", "true")
        monkeypatch.setenv(f"{where}INNER_INTERFACE_REGEX", interfaces)
        if ring_mib:
            monkeypatch.setenv(f"{where}TUNNING__RING_BLOCKS_ENABLED", "true")
            monkeypatch.setenv(f"{where}TUNNING__RING_BLOCKS", str(ring_mib * 4))
        monkeypatch.setenv("DEEPFLOW_AGENT_PROCESSORS__REQUEST_LOG__TAG_EXTRACTION__OBFUSCATE_PROTOCOLS", "[Redis]")
        server = deepflow_server()
        agent = deepflow_agent(server.url, "--ignore-pid", str(os.getpid()))
        return Watched(made, server, agent)

    return start

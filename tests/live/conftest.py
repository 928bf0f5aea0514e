"""A namespace under observation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.observed import Observed, observed


@pytest.fixture
def seen(netns: str, tmp_path: Path) -> Iterator[Observed]:
    """An empty namespace, observed by the core; no server, no store."""
    with observed(netns, tmp_path) as one:
        yield one
        print(one.compare_delays(), "calls waited for a server that was stopped,", len(one.holds.list), "stops")

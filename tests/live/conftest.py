"""A namespace under observation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.observed import Observed, observed


@pytest.fixture(scope="session")
def waits() -> Iterator[list[int]]:
    """How many calls waited for a server that stood still, test by test.

    When a server is stopped is chance, so a client may be through between two stops; hardly any is.
    """
    counts: list[int] = []
    yield counts
    print(f"{sum(counts)} calls waited for a server that stood still, in {len(counts)} tests")
    assert counts.count(0) <= max(1, len(counts) // 8), counts


@pytest.fixture
def seen(netns: str, tmp_path: Path, waits: list[int]) -> Iterator[Observed]:
    """An empty namespace, observed by the core; no server, no store.

    At the end of each test, the delays of its rows are compared with the times in which its servers stood still.
    """
    with observed(netns, tmp_path) as one:
        yield one
        measured, waited = one.compare_delays()
        if one.holds.list:
            print(f"{measured} calls with a delay; {waited} waited for one of {len(one.holds.list)} stops of a server")
            assert measured, "no row has a delay"
            waits.append(waited)

"""The container of a cgroup: for processes that were gone before /proc could tell whose they were."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
#: Cgroups that are looked at in one walk, and ids that are remembered.
_MOST = 65_536
#: Between two walks at least, s.
_PAUSE_S = 1.0


def container_id(path: str) -> str:
    """The container's id in the path of a cgroup, or in the lines of /proc/PID/cgroup; "" for none."""
    match = _CONTAINER_ID.search(path)
    return match.group() if match else ""


def v2_tree(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """Where the cgroup v2 tree is mounted (proc_mounts(5)), None when it is not."""
    for line in mounts.read_text().splitlines():
        _, path, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(path)
    return None


class Containers:
    """Containers by the id of their cgroup: the number of its folder in the v2 tree, which no other ever gets."""

    def __init__(self, tree: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree or v2_tree()
        self._clock = clock
        self._known: dict[int, str] = {}
        self._next = float("-inf")

    def of(self, cgroup: int) -> str:
        """The id of the container, "" when the cgroup is none of a container or is gone, too.

        The tree is walked when a cgroup is asked for that was not there at the last walk.
        """
        if cgroup not in self._known and self._tree is not None and self._clock() >= self._next:
            self._next = self._clock() + _PAUSE_S
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known.update(_walk(self._tree))
            self._known.setdefault(cgroup, "")
        return self._known.get(cgroup, "")


def _walk(tree: Path) -> Iterator[tuple[int, str]]:
    waiting = [(str(tree), "")]
    for _ in range(_MOST):
        if not waiting:
            return
        path, within = waiting.pop()
        try:
            folders = [entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        except OSError:  # gone meanwhile
            continue
        for folder in folders:
            name = within or container_id(folder.name)
            yield folder.inode(), name
            waiting.append((folder.path, name))

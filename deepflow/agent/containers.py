"""The container of a cgroup: for processes that were gone before /proc could tell whose they were."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from deepflow import _core

# A container's monitor (conmon) runs on the host, in a cgroup with the container's id in its name.
_CONTAINER_ID = re.compile(r"(?<!-conmon-)(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
#: Cgroups of one walk; twice as many are remembered.
_MOST = 65_536
#: Between two walks: so long at least, s, and so many times what the last one took.
_PAUSE_S = 1.0
_PAUSE_RATIO = 20


def container_id(path: str) -> str:
    """The container's id in the path of a cgroup, or in the lines of /proc/PID/cgroup; "" for none."""
    match = _CONTAINER_ID.search(path)
    return match.group() if match else ""


class Containers:
    """Containers by the id of their cgroup: the number of its folder in the v2 tree, which no other ever gets."""

    def __init__(self, tree: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree or _core.cgroup_tree()
        self._clock = clock
        self._known: dict[int, str] = {}
        self._next = float("-inf")

    def of(self, cgroup: int) -> str:
        """The id of the container; "" when the cgroup is none of a container, or was gone before it was seen here.

        Walks the tree for a cgroup that it does not know, now and then (`_PAUSE_S`, `_PAUSE_RATIO`). 0 is no cgroup.
        """
        began = self._clock()
        if cgroup and cgroup not in self._known and self._tree is not None and began >= self._next:
            found = dict(islice(_walk(self._tree), _MOST))
            if len(self._known) + len(found) >= 2 * _MOST:
                self._known.clear()
            self._known.update(found)
            if len(found) < _MOST:
                self._known.setdefault(cgroup, "")
            ended = self._clock()
            self._next = ended + max(_PAUSE_S, _PAUSE_RATIO * (ended - began))
        return self._known.get(cgroup, "")


def _walk(tree: Path) -> Iterator[tuple[int, str]]:
    """Cgroup and container of every folder of this tree; what is mounted inside it has numbers of its own."""
    waiting, device = [(str(tree), "")], -1
    while waiting:
        path, within = waiting.pop()
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile
            continue
        try:
            status = os.fstat(folder)
            if device == -1:
                device = status.st_dev
            if status.st_dev != device:
                continue
            yield status.st_ino, within
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        finally:
            os.close(folder)
        waiting += [(f"{path}/{name}", within or container_id(name)) for name in names]

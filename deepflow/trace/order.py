"""One order out of many: places as most of the ways that came by them had them."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeVar

Stop = TypeVar("Stop", bound=Hashable)


def in_order(ways: Iterable[Sequence[Stop]], tie: Callable[[Stop], Any]) -> list[Stop]:
    """Every stop of the ways, once. One comes before another when more ways had them so than the other way round.

    Stops that no way has in common come by `tie`, a key to sort by. Where the majorities go round in a circle, the
    stop goes first against which the fewest ways speak.
    """
    before: Counter[tuple[Stop, Stop]] = Counter()
    stops: dict[Stop, int] = {}
    for way in ways:
        once = list(dict.fromkeys(way))
        stops.update(dict.fromkeys(once, 0))
        before.update(combinations(once, 2))
    later: dict[Stop, list[tuple[Stop, int]]] = defaultdict(list)
    for (one, other), count in before.items():
        if (majority := count - before.get((other, one), 0)) > 0:
            later[one].append((other, majority))
            stops[other] += majority
    ties = {stop: (tie(stop), number) for number, stop in enumerate(stops)}
    heap = [(against, ties[stop], stop) for stop, against in stops.items()]
    heapq.heapify(heap)
    ordered: list[Stop] = []
    while heap:
        against, _, stop = heapq.heappop(heap)
        if stops.get(stop) != against:
            continue
        ordered.append(stop)
        del stops[stop]
        for other, majority in later[stop]:
            if other in stops:
                stops[other] -= majority
                heapq.heappush(heap, (stops[other], ties[other], other))
    return ordered

"""Who was seen at an end of a connection: a table of fixed size, asked and told for whole columns at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEEP_S = 300
"""How long a claim holds, and how long two that contradict each other make an end ambiguous."""
DUE_S = 30
"""A claim that repeats a younger one than this changes nothing, so that what goes on and on costs one look."""
_WAYS = 8
# Rows of one batch that meet in one set get a way each, one a round.
_ROUNDS = 2 * _WAYS
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Who:
    """Process, service and host, one of each a key, 0 unknown; `link` is what the claim hangs together with."""

    gprocess: NDArray[np.uint32]
    service: NDArray[np.uint32]
    host: NDArray[np.uint16]
    link: Keys

    def take(self, index: Ints | Bools) -> "Who":
        """Those at `index`."""
        return Who(self.gprocess[index], self.service[index], self.host[index], self.link[index])


@dataclass(slots=True)
class Tally:
    """What became of claims and questions."""

    learned: int = 0
    evicted: int = 0
    found: int = 0
    ambiguous: int = 0


class Claims:
    """Key → who claimed it lately. Not safe to use from two threads at once.

    Sets of eight entries, chosen by the key; a new key takes the place of the one in its set that was silent longest.
    A key is 64 bits of a hash and stands for the end itself.
    """

    def __init__(self, entries: int) -> None:
        """`entries`: a power of two, at least 8; 62 bytes each."""
        self._sets = np.uint64(entries // _WAYS - 1)
        self._keys = np.zeros(entries, np.uint64)
        self._gprocess = np.zeros(entries, np.uint32)
        self._service = np.zeros(entries, np.uint32)
        self._host = np.zeros(entries, np.uint16)
        self._link = np.zeros(entries, np.uint64)
        self._seen = np.zeros(entries, np.int64)
        # When another process, service, host than the one before claimed the key.
        self._other_process = np.zeros(entries, np.int64)
        self._other_service = np.zeros(entries, np.int64)
        self._other_host = np.zeros(entries, np.int64)
        self._taker = np.zeros(entries, np.int32)

    def claim(self, keys: Keys, who: Who, time_s: Ints, tally: Tally) -> Bools:
        """Notes who is at each key at a time (s since 1970); tells which claims were new or due."""
        news = np.zeros(len(keys), np.bool_)
        left = np.arange(len(keys))
        for _ in range(_ROUNDS):
            slot, hit = self._slots(keys[left])
            known, unknown = left[hit], left[~hit]
            self._renew(slot[hit], who.take(known), time_s[known], known, news)
            if len(unknown) == 0:
                break
            left = self._insert(keys, who, time_s, unknown, news, tally)
            if len(left) == 0:
                break
        return news

    def find(self, keys: Keys, time_s: Ints, since_s: Ints | None = None) -> tuple[Who, Bools]:
        """Who is at each key, and where that is ambiguous.

        Several processes of one service leave the service and its host; several services nothing. With `since_s`, what
        was claimed last before that time counts for nothing.
        """
        slot, hit = self._slots(keys)
        seen = self._seen.take(slot)
        alive = hit & (np.abs(time_s - seen) <= KEEP_S)
        if since_s is not None:
            alive &= seen >= since_s
        if not alive.any():
            nobody = np.zeros(len(keys), np.uint32)
            return Who(nobody, nobody, nobody.astype(np.uint16), nobody.astype(np.uint64)), alive
        one_service = alive & (time_s - self._other_service.take(slot) > KEEP_S)
        one_process = one_service & (time_s - self._other_process.take(slot) > KEEP_S)
        who = Who(
            np.where(one_process, self._gprocess.take(slot), np.uint32(0)),
            np.where(one_service, self._service.take(slot), np.uint32(0)),
            np.where(one_service, self._host.take(slot), np.uint16(0)),
            np.where(one_process, self._link.take(slot), np.uint64(0)),
        )
        return who, alive & ~one_service

    def shared(self, keys: Keys, time_s: Ints) -> Bools:
        """Whether several hosts claim the key."""
        slot, hit = self._slots(keys)
        alive = hit & (np.abs(time_s - self._seen.take(slot)) <= KEEP_S)
        several: Bools = alive & (time_s - self._other_host.take(slot) <= KEEP_S)
        return several

    def _slots(self, keys: Keys) -> tuple[Ints, Bools]:
        """Where each key is, and whether it is there."""
        first = ((keys & self._sets) * np.uint64(_WAYS)).astype(np.int64)
        same = self._keys.reshape(-1, _WAYS).take(first // _WAYS, axis=0) == keys[:, None]
        slot = first + same.argmax(axis=1)
        hit: Bools = self._keys.take(slot) == keys
        return slot, hit

    def _renew(self, slot: Ints, who: Who, time_s: Ints, rows: Ints, news: Bools) -> None:
        """Claims of keys that are there."""
        seen = self._seen.take(slot)
        same = self._gprocess.take(slot) == who.gprocess
        # What comes from long before the last claim says nothing about now.
        changing = np.where(same, time_s - seen >= DUE_S, time_s >= seen - KEEP_S)
        if not changing.any():
            return
        slot, who, time_s, seen = slot[changing], who.take(changing), time_s[changing], seen[changing]
        latest = np.maximum(seen, time_s)
        self._contradict(slot, who, latest, time_s <= seen + KEEP_S)
        self._write(slot, who, latest)
        # Of several rows with one key the last one stands there now; it contradicts the others.
        self._contradict(slot, who, latest, np.ones(len(slot), np.bool_))
        news[rows[changing]] = True

    def _contradict(self, slot: Ints, who: Who, time_s: Ints, alive: Bools) -> None:
        for stored, claimed, noted in (
            (self._gprocess, who.gprocess, self._other_process),
            (self._service, who.service, self._other_service),
            (self._host, who.host, self._other_host),
        ):
            differs = alive & (stored[slot] != claimed)
            noted[slot[differs]] = time_s[differs]

    def _insert(self, keys: Keys, who: Who, time_s: Ints, rows: Ints, news: Bools, tally: Tally) -> Ints:
        """Claims of keys that are not there; returns the rows that have to try again."""
        first = ((keys[rows] & self._sets) * np.uint64(_WAYS)).astype(np.int64)
        slot = first + self._seen.reshape(-1, _WAYS).take(first // _WAYS, axis=0).argmin(axis=1)
        # An old claim that comes late takes no younger one's place.
        fits = time_s[rows] >= self._seen[slot]
        rows, slot = rows[fits], slot[fits]
        self._taker[slot] = np.arange(len(rows), dtype=np.int32)
        takes = self._taker[slot] == np.arange(len(rows))
        taken, chosen = slot[takes], rows[takes]
        tally.learned += len(chosen)
        tally.evicted += int(np.count_nonzero(time_s[chosen] - self._seen[taken] <= KEEP_S))
        self._keys[taken] = keys[chosen]
        for noted in (self._other_process, self._other_service, self._other_host):
            noted[taken] = 0
        self._write(taken, who.take(chosen), time_s[chosen])
        news[chosen] = True
        again: Ints = rows[~takes]
        return again

    def _write(self, slot: Ints, who: Who, seen: Ints) -> None:
        self._gprocess[slot] = who.gprocess
        self._service[slot] = who.service
        self._host[slot] = who.host
        self._link[slot] = who.link
        self._seen[slot] = seen

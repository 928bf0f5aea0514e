"""The vectorised lookup agrees with a plain one, also where pids come back."""

import numpy as np

from deepflow.resources import Tagger
from deepflow.resources.tagger import IP_TYPE, PROCESS_TYPE, KnownProcess

S = 1_000_000


def test_the_same_pid_at_three_times_is_three_processes() -> None:
    tagger = Tagger(
        [
            KnownProcess(1, 7, 5000 * S, None, 13, 23),
            KnownProcess(1, 7, 100 * S, 900 * S, 11, 21),
            KnownProcess(1, 7, 1000 * S, 2000 * S, 12, 22),
            KnownProcess(2, 7, 1 * S, None, 14, 24),
        ],
        {1: 5, 2: 6},
    )
    times = np.array([50, 100, 950, 1000, 1999, 4000, 5000, 9999]) * S
    side = tagger.side(1, np.full(8, 7), times)
    # At 50 s nobody had the pid; at 4000 s its last owner had been gone for too long.
    assert side.gprocess_id.tolist() == [0, 11, 11, 12, 12, 0, 13, 13]
    assert side.auto_service_id.tolist() == [0, 21, 21, 22, 22, 0, 23, 23]
    assert side.auto_instance_type.tolist() == [IP_TYPE if i == 0 else PROCESS_TYPE for i in side.gprocess_id]
    assert set(side.host_id.tolist()) == {5}
    assert tagger.side(2, np.array([7, 8, 0]), np.full(3, 10 * S)).gprocess_id.tolist() == [14, 0, 0]
    assert tagger.side(2, np.array([7, 8, 0]), np.full(3, 10 * S)).host_id.tolist() == [6, 6, 0]


def test_nothing_known_tags_nothing() -> None:
    side = Tagger([], {}).side(1, np.array([1, 0]), np.array([S, S]))
    assert side.gprocess_id.tolist() == side.host_id.tolist() == [0, 0]


def test_thousands_of_processes_agree_with_a_search_one_by_one() -> None:
    random = np.random.default_rng(1)
    known: list[KnownProcess] = []
    for agent in (1, 2):
        for pid in range(1, 60):
            starts = np.sort(random.choice(10_000, random.integers(1, 9), replace=False)) * 5
            known += [
                KnownProcess(agent, pid, int(start) * S, None, len(known) + index + 1, 1)
                for index, start in enumerate(starts)
            ]
    random.shuffle(known)
    pids, times = random.integers(0, 70, 5000), random.integers(0, 60_000, 5000) * S
    found = Tagger(known, {}).side(2, pids, times).gprocess_id.tolist()
    for pid, time_us, gprocess_id in zip(pids.tolist(), times.tolist(), found, strict=True):
        owners = [p for p in known if p.agent_id == 2 and p.pid == pid and p.start_us <= time_us + S]
        assert gprocess_id == (max(owners, key=lambda p: p.start_us).gprocess_id if owners else 0)

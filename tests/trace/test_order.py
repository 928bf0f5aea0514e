"""Many ways, one order."""

import random

from deepflow.trace.order import in_order


def by_name(stop: str) -> str:
    return stop


def test_the_order_of_the_ways_goes_before_that_of_names() -> None:
    assert in_order(["zyx", "zx", "zyxa"], by_name) == list("zyxa")
    assert in_order([], by_name) == []


def test_ways_with_nothing_in_common_come_by_name() -> None:
    assert in_order(["bz", "az"], by_name) == list("abz")
    assert in_order(["ba", "dc"], by_name) == list("badc")


def test_the_majority_decides() -> None:
    assert in_order(["ab", "ba", "ba"], by_name) == list("ba")
    # Two frames in one microsecond, in some calls the wrong way round.
    ways = ["abcdef"] * 6 + ["abdcef"] * 4
    assert in_order(ways, by_name) == list("abcdef")


def test_a_circle_has_each_stop_once() -> None:
    assert sorted(in_order(["abc", "bca", "cab"], by_name)) == list("abc")
    # What most speak against comes later.
    assert in_order(["ab"] * 3 + ["bc"] * 2 + ["ca"], by_name)[0] == "a"


def test_parts_of_one_way_in_any_selection_give_the_way() -> None:
    random.seed(4)
    way = [f"{number:02}" for number in random.sample(range(40), 40)]
    ways = [[stop for stop in way if random.random() < 0.6] for _ in range(200)]
    assert in_order(ways, by_name) == way


def test_a_stop_twice_in_a_way_counts_where_it_came_first() -> None:
    assert in_order(["abac"], by_name) == list("abc")

"""Nothing is lost uncounted; what others refer to comes first."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deepflow.agent.outbox import Entry, Outbox, Refused, Unavailable, new_batch_id


class Server:
    """Stands for the network: takes entries unless told to be away or to refuse."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.answers = threading.Event()
        self.answers.set()
        self.asked: list[bytes] = []
        self.got: list[tuple[bytes, int]] = []
        self.refuse: set[bytes] = set()

    def __call__(self, entry: Entry) -> None:
        self.asked.append(entry.body)
        self.answers.wait(10)
        if self.away.is_set():
            raise Unavailable("away")
        if entry.body in self.refuse:
            raise Refused("wrong")
        self.got.append((entry.body, entry.attempt))


def entry(body: bytes, rows: int = 1, path: str = "/v1/ingest/l7_flow_log") -> Entry:
    return Entry(path, new_batch_id(), rows, "application/octet-stream", body)


@pytest.fixture
def server() -> Server:
    return Server()


def outbox(server: Server, directory: Path, in_flight: int = 1, **limits: int) -> Outbox:
    return Outbox(server, directory, retry_s=0.01, in_flight=in_flight, **limits)


def bodies(server: Server) -> list[bytes]:
    return [body for body, _ in server.got]


def test_order_is_kept_over_memory_and_disk(server: Server, tmp_path: Path) -> None:
    server.away.set()
    box = outbox(server, tmp_path, memory_bytes=30)
    sent = [f"{i:010d}".encode() for i in range(20)]
    for body in sent:
        box.put(entry(body))
    assert box.counters()["spilled"] == 17
    server.away.clear()
    assert box.drain(10)
    box.close()
    assert bodies(server) == sent
    counters = box.counters()
    assert counters["rows_in"] == counters["rows_sent"] == 20
    assert counters["rows_lost"] == counters["queued"] == counters["queued_bytes"] == 0
    assert list(tmp_path.iterdir()) == []


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_several_are_under_way_but_none_before_what_it_refers_to(server: Server, tmp_path: Path) -> None:
    server.answers.clear()
    box = outbox(server, tmp_path, in_flight=3)
    for body in (b"1", b"2"):
        box.put(entry(body))
    box.put(entry(b"who", path="/v1/agent/processes"))
    for body in (b"4", b"5", b"6", b"7"):
        box.put(entry(body))
    until(lambda: len(server.asked) == 3)
    time.sleep(0.05)
    assert sorted(server.asked) == [b"1", b"2", b"who"] and server.got == []
    server.answers.set()
    assert box.drain(10)
    box.close()
    got = bodies(server)
    assert sorted(got) == [b"1", b"2", b"4", b"5", b"6", b"7", b"who"]
    assert got.index(b"who") < min(got.index(body) for body in (b"4", b"5", b"6", b"7"))
    assert [attempt for _, attempt in server.got] == [1] * 7


def test_a_window_of_many_loses_and_doubles_nothing(server: Server, tmp_path: Path) -> None:
    """The server goes away with several on their way, again and again, and some wait on disk."""
    box = outbox(server, tmp_path, in_flight=8, memory_bytes=200)
    sent = [f"{i:010d}".encode() for i in range(300)]
    for number, body in enumerate(sent):
        if number % 50 == 25:
            server.answers.clear()
            box.put(entry(body))
            server.away.set()
            server.answers.set()
        else:
            box.put(entry(body))
        if number % 50 == 40:
            server.away.clear()
    assert box.drain(20)
    box.close()
    assert sorted(bodies(server)) == sent
    counters = box.counters()
    assert counters["rows_sent"] == 300 and counters["retries"] > 0 and counters["spilled"] > 0
    assert counters["queued"] == counters["queued_bytes"] == 0


def test_what_is_under_way_at_the_end_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.answers.clear()
    box = outbox(server, tmp_path, in_flight=4)
    sent = [b"1", b"2", b"3", b"4", b"5", b"6"]
    for body in sent:
        box.put(entry(body))
    until(lambda: len(server.asked) == 4)
    server.away.set()
    box.close(timeout_s=0.1)
    assert server.got == [] and box.counters()["queued"] == 6
    server.answers.set()
    until(lambda: box.counters()["retries"] == 4)
    server.away.clear()
    again = outbox(server, tmp_path)
    assert again.drain(10)
    again.close()
    assert bodies(server) == sent and all(attempt > 1 for _, attempt in server.got)


def test_one_thread_does_when_there_can_be_no_more(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    box = outbox(server, tmp_path, in_flight=8)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    sent = [f"{i}".encode() for i in range(9)]
    for body in sent:
        box.put(entry(body))
    assert box.drain(10)
    box.close()
    assert bodies(server) == sent


def test_what_was_on_its_way_together_fails_once(server: Server, tmp_path: Path) -> None:
    """The window opens again by one a success, and the pause does not grow by each of those that failed."""
    server.answers.clear()
    server.away.set()
    box = outbox(server, tmp_path, in_flight=4)
    for body in (b"1", b"2", b"3", b"4", b"5", b"6"):
        box.put(entry(body))
    until(lambda: len(server.asked) == 4)
    server.answers.set()
    until(lambda: box.counters()["retries"] >= 5)
    assert len(server.asked) < 4 + 9, "one at a time asks whether the server is there"
    server.away.clear()
    assert box.drain(10)
    box.close()
    assert sorted(bodies(server)) == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_what_does_not_fit_is_counted(server: Server, tmp_path: Path) -> None:
    server.away.set()
    box = outbox(server, tmp_path, memory_bytes=10, disk_bytes=600)
    for i in range(50):
        box.put(entry(f"{i:010d}".encode(), rows=3))
    counters = box.counters()
    assert counters["rows_lost"] > 0
    assert counters["rows_lost"] + counters["queued"] * 3 == counters["rows_in"] == 150
    server.away.clear()
    assert box.drain(10)
    box.close()
    # the newest survive
    assert bodies(server)[-1] == b"0000000049"
    assert box.counters()["rows_sent"] + box.counters()["rows_lost"] == 150


def test_left_over_is_sent_by_the_next_run_as_a_repeat(server: Server, tmp_path: Path) -> None:
    server.away.set()
    box = outbox(server, tmp_path, memory_bytes=25)
    sent = [f"{i:010d}".encode() for i in range(5)]
    for body in sent:
        box.put(entry(body))
    box.close(timeout_s=0.05)
    server.away.clear()
    again = outbox(server, tmp_path)
    assert again.drain(10)
    again.close()
    assert bodies(server) == sent
    assert all(attempt > 1 for _, attempt in server.got)


def test_refused_is_counted_and_not_repeated(server: Server, tmp_path: Path) -> None:
    server.refuse.add(b"bad")
    box = outbox(server, tmp_path)
    for body in (b"a", b"bad", b"b"):
        box.put(entry(body, rows=7))
    assert box.drain(10)
    box.close()
    assert bodies(server) == [b"a", b"b"]
    assert box.counters()["rows_refused"] == 7


def test_damaged_file_is_dropped_and_counted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "000000000001-x.batch").write_bytes(b"not json\nbody")
    (tmp_path / "000000000002-y.part").write_bytes(b"half")
    box = outbox(server, tmp_path)
    box.put(entry(b"good"))
    assert box.drain(10)
    box.close()
    assert bodies(server) == [b"good"]
    assert box.counters()["batches_lost"] == 1


def test_batch_ids_are_distinct_16_hex_digits() -> None:
    ids = {new_batch_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) == 16 and int(i, 16) > 0 for i in ids)

"""Apache Dubbo 3 over Triple: calls, an exception of the service, a service that is not there, a failing answer."""

from __future__ import annotations

from tests.live.javac import program
from tests.live.observed import Observed

TRIPLE = 49
PORT = 50051
SERVICE = "live.Triple$Orders"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_calls_have_the_outcome_that_the_consumer_saw(seen: Observed) -> None:
    dubbo = program("Triple", "triple", seen.folder, "DubboEnds")
    seen.start(*dubbo, "server", str(PORT), port=PORT, seconds=120)
    printed = seen.run(*dubbo, "client", str(PORT))
    said = [tuple(line.split("\t")) for line in printed.splitlines() if line.count("\t") == 2]
    # What the service itself throws comes as the message of a call that succeeds.
    assert said == [
        *[("hello", "0", "")] * 10,
        ("amounts", "0", ""),
        ("drop", "0", "out of kettles"),
        ("hello", "12", "Service not found:live.Nowhere"),
        ("receipt", "13", "Serialize response failed"),
    ]
    paths = [f"{SERVICE}/{method}" for method, _, _ in said]
    paths[12] = "live.Nowhere/hello"
    for point in ("c-p", "s-p"):
        rows = seen.rows(TRIPLE, point)
        found = [(row["endpoint"], row["response_code"], row["response_exception"]) for row in rows]
        assert found == [
            (f"/{path}", int(code), text if int(code) else "")
            for path, (_, code, text) in zip(paths, said, strict=True)
        ]
        assert [row["request_resource"] for row in rows] == [path.rpartition("/")[0] for path in paths]
        assert [row["response_status"] for row in rows] == [0] * 12 + [3, 3]
        assert {(row["type"], row["request_type"], row["request_domain"], row["version"]) for row in rows} == {
            (2, "POST", f"127.0.0.1:{PORT}", "2")
        }
        traced = [(row["trace_id"], row["span_id"]) for row in rows[:10]]
        assert traced == [(TRACE, f"b7ad6b716920333{number}") for number in range(10)]
        assert len({row["request_id"] for row in rows}) == len(rows)
    assert not seen.others(TRIPLE)

"""brpc-java over baidu_std: calls with a log id, a method that does not exist, an exception."""

from __future__ import annotations

from tests.live.javac import program
from tests.live.observed import Observed

BRPC = 45
PORT = 8002
REQUEST, RESPONSE, SESSION = range(3)


def test_calls(seen: Observed) -> None:
    brpc = program("Brpc", "brpc", seen.folder)
    seen.start(*brpc, "server", str(PORT), port=PORT, seconds=120)
    seen.run(*brpc, "client", str(PORT))
    for point in ("c-p", "s-p"):
        rows = seen.rows(BRPC, point)
        calls = [row for row in rows if row["type"] == SESSION]
        assert [row["response_status"] for row in calls] == [0] * 10 + [3]
        assert {row["endpoint"] for row in calls} == {"example.EchoService/Echo"}
        assert [row["x_request_id_0"] for row in calls[:10]] == [str(number) for number in range(1000, 1010)]
        assert calls[-1]["response_exception"] == "nobody"
        # brpc-java forgets the correlation id when it refuses a method: request and response stay alone.
        alone = {row["type"]: row for row in rows if row["type"] != SESSION}
        assert alone[REQUEST]["endpoint"] == "example.EchoService/Nothing"
        assert alone[RESPONSE]["response_exception"].startswith("Fail to find service")
        assert len(rows) == 13
    assert not seen.others(BRPC)

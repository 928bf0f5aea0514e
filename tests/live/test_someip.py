"""SOME/IP (pysomeip at both ends): discovery by multicast, calls and errors over UDP, events, calls over TCP."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.live.observed import CHECKOUT, LIVE_PYTHON, Observed, need

SOMEIP = 47
PORT, DISCOVERY = 30501, 30490
CALLS, EVENTS = 20, 5
ERRORS = ["E_MALFORMED_MESSAGE", "E_UNKNOWN_METHOD", "E_WRONG_INTERFACE_VERSION", "E_UNKNOWN_SERVICE"]
CODES = [9, 3, 8, 2]


def test_service_and_client(seen: Observed) -> None:
    need(str(LIVE_PYTHON))
    for words in ("link set lo multicast on", "route add 224.0.0.0/4 dev lo"):
        subprocess.run(["ip", "-n", seen.namespace, *words.split()], check=True)
    ends = [LIVE_PYTHON, "-m", f"{__package__}.someip_ends"]
    seen.start(*ends, "service", "127.0.0.1", port=PORT, PYTHONPATH=str(CHECKOUT))
    said = json.loads(seen.run(*ends, "client", "127.0.0.2", "127.0.0.1", PYTHONPATH=str(CHECKOUT)))
    assert said["codes"] == [0] * CALLS + CODES
    # A service that was held up tells the same value twice.
    assert len(said["events"]) == EVENTS and said["events"] == sorted(said["events"])
    assert said["sessions"] == [300, *range(199 + CALLS, 199, -1)]
    for point in ("c-p", "s-p"):
        rows = seen.rows(SOMEIP, point)

        def of(port: int, protocol: int, name: str, rows: list[dict[str, Any]] = rows) -> list[dict[str, Any]]:
            key = (port, protocol, name)
            return [row for row in rows if (row["server_port"], row["protocol"], row["request_type"]) == key]

        *calls, lost = of(PORT, 17, "REQUEST")
        assert [row["request_id"] for row in calls] == [*range(1, CALLS + len(CODES) + 1)]
        assert [row["response_code"] for row in calls] == said["codes"]
        assert [row["response_exception"] for row in calls] == [""] * CALLS + ERRORS
        assert [row["response_status"] for row in calls] == [0] * CALLS + [4] * len(CODES)
        assert {(row["endpoint"], row["request_length"], row["response_length"]) for row in calls[:CALLS]} == {
            ("0x1234/0x0001", 4, 8)
        }
        assert {row["type"] for row in calls} == {2}
        assert (lost["endpoint"], lost["type"], lost["response_status"]) == ("0x1234/0x0003", 0, 5)
        (quiet,) = of(PORT, 17, "REQUEST_NO_RETURN")
        assert (quiet["endpoint"], quiet["type"], quiet["response_status"]) == ("0x1234/0x0002", 2, 0)
        events = of(PORT, 17, "NOTIFICATION")
        assert [(row["endpoint"], row["is_reversed"]) for row in events] == [("0x1234/0x8021", 1)] * EVENTS

        # Answered from the last to the first.
        batch = of(PORT, 6, "REQUEST")
        assert sorted(row["request_id"] for row in batch) == sorted(said["sessions"])
        assert {(row["type"], row["response_code"]) for row in batch} == {(2, 0)}

        # A service that was held up sends what has gathered meanwhile in one message.
        lists = [row["attribute_values"][0].split(", ") for row in of(DISCOVERY, 17, "NOTIFICATION")]
        entries = {entry for entries in lists for entry in entries}
        names = ("OfferService", "SubscribeEventgroup", "SubscribeEventgroupAck")
        # The client asks only when it has not heard of the service yet.
        assert entries - {"FindService 0x1234.0x0001 v2"} == {f"{name} 0x1234.0x0001 v2" for name in names}
    assert not seen.others(SOMEIP)

"""SIPp calls SIPp: over UDP and over TCP, and calls that are refused."""

from __future__ import annotations

import pytest

from tests.live.observed import Observed, need

SIP = 206

#: A server scenario that refuses every call.
BUSY = """<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="busy">
  <recv request="INVITE" crlf="true"/>
  <send><![CDATA[

    SIP/2.0 486 Busy Here
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]SIPpTag01[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
  <recv request="ACK"/>
</scenario>
"""


@pytest.mark.parametrize(("transport", "protocol"), [("u1", 17), ("t1", 6)])
def test_calls(seen: Observed, transport: str, protocol: int) -> None:
    need("sipp")
    common = ["-t", transport, "-i", "127.0.0.1", "-nostdin"]
    # Nothing listens on UDP: a call that comes too early is repeated.
    seen.start("sipp", "-sn", "uas", "-p", "15060", *common, port=15060 if protocol == 6 else 0)
    seen.run(
        "sipp", "-sn", "uac", "127.0.0.1:15060", "-p", "15071", "-m", "5", "-r", "5", "-l", "1", *common, seconds=60
    )
    for point in ("c-p", "s-p"):
        rows = seen.rows(SIP, point)
        count = {name: sum(row["request_type"] == name for row in rows) for name in ("INVITE", "ACK", "BYE")}
        assert count == {"INVITE": 5, "ACK": 5, "BYE": 5}, point
        assert len(rows) == 15
        assert {row["type"] for row in rows} == {2}
        assert {row["protocol"] for row in rows} == {protocol}
        assert {row["request_domain"] for row in rows} == {"127.0.0.1"}
        answered = [row for row in rows if row["request_type"] != "ACK"]
        assert {(row["response_code"], row["response_status"]) for row in answered} == {(200, 0)}
        assert len({row["x_request_id_0"] for row in rows}) == 5
    assert not seen.others(SIP)


def test_refused_calls(seen: Observed) -> None:
    need("sipp")
    scenario = seen.folder / "busy.xml"
    scenario.write_text(BUSY)
    common = ["-t", "t1", "-i", "127.0.0.1", "-nostdin"]
    seen.start("sipp", "-sf", scenario, "-p", "15060", *common, port=15060)
    # The client's scenario expects a call that is taken: it ends with 1, as every call failed.
    client = ["sipp", "-sn", "uac", "127.0.0.1:15060", "-p", "15071", "-m", "3", "-r", "3", *common]
    assert seen.run("sh", "-c", '"$@" > /dev/null; echo $?', "sh", *client, seconds=60).strip() == "1"
    for point in ("c-p", "s-p"):
        rows = [row for row in seen.rows(SIP, point) if row["request_type"] == "INVITE"]
        assert [(row["response_code"], row["response_status"], row["response_exception"]) for row in rows] == [
            (486, 4, "Busy Here")
        ] * 3

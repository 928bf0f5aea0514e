"""RocketMQ: name server and broker, driven by its Java client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.maven import class_path
from tests.live.observed import Observed

ROCKETMQ = 107
NAME_SERVER, BROKER = 9876, 10911
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = Path(__file__).parent / "java/RocketMqClient.java"

CONFIG = f"""
brokerName=b
brokerId=0
listenPort={BROKER}
brokerIP1=127.0.0.1
namesrvAddr=127.0.0.1:{NAME_SERVER}
mappedFileSizeCommitLog=1048576
mappedFileSizeConsumeQueue=60000
diskMaxUsedSpaceRatio=99
timerWheelEnable=false
waitTimeMillsInSendQueue=60000
waitTimeMillsInPullQueue=60000
osPageCacheBusyTimeOutMills=60000
"""


@pytest.mark.parametrize("header", ["JSON", "ROCKETMQ"])
def test_rocketmq(seen: Observed, header: str) -> None:
    jars = class_path("rocketmq")
    home = seen.folder / "home"
    (home / "conf").mkdir(parents=True)
    java = ("java", "-Xmx256m", f"-Duser.home={seen.folder}", f"-Drocketmq.log.root={seen.folder}", "-cp", jars)
    package = "org.apache.rocketmq"
    servers = {"namesrv.NamesrvStartup": f"listenPort={NAME_SERVER}", "broker.BrokerStartup": CONFIG}
    for program, config in servers.items():
        file = seen.folder / f"{program}.conf"
        file.write_text(f"{config}\nstorePathRootDir={seen.folder}/store\n")
        port = BROKER if "broker" in program else NAME_SERVER
        log = seen.start(*java, f"{package}.{program}", "-c", file, port=port, seconds=120, ROCKETMQ_HOME=str(home))
    seen.await_output(log, "boot success")
    # A broker that started before it saw the name server registers ten seconds later: until then no topic has a route.
    said = seen.folder / "logs/rocketmqlogs/broker.log"
    seen.await_output(said, "Registering current broker to name server completed")
    options = (f"-Drocketmq.serialize.type={header}", f"-Duser.home={seen.folder}", "-cp", jars)
    output = seen.run("java", *options, CLIENT, f"127.0.0.1:{NAME_SERVER}", f"00-{TRACE}-{SPAN}-01", seconds=200)
    did = json.loads(output.strip().splitlines()[-1])
    for point in ("c-p", "s-p"):
        rows = seen.rows(ROCKETMQ, point)
        sent = [row for row in rows if row["request_type"] == "SEND_MESSAGE_V2"]
        answered = [row for row in sent if row["response_code"] is not None]
        assert [f"{row['x_request_id_0']} {row['endpoint']}" for row in answered] == did["sent"]
        assert {(row["trace_id"], row["span_id"]) for row in answered} == {(TRACE, SPAN)}
        assert {(row["request_domain"], row["request_resource"]) for row in sent} == {("shop", "orders")}
        assert len(sent) - len(answered) == 2
        missing = [row for row in rows if row["request_resource"] == did["refused"]]
        assert missing and {(row["response_code"], row["response_status"]) for row in missing} == {(17, 3)}
        pulled = [row for row in rows if row["request_type"] == "PULL_MESSAGE"]
        assert pulled and {row["request_domain"] for row in pulled} == {"billing"}
        if point == "c-p":
            assert any(row["trace_id"] == TRACE for row in pulled)
        notified = [row for row in rows if row["request_type"] == "NOTIFY_CONSUMER_IDS_CHANGED"]
        assert notified and all(row["is_reversed"] and row["type"] == 2 for row in notified)
        assert "secret" not in str(rows)
    assert not seen.others(ROCKETMQ)

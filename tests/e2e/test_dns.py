"""A real name server (dnsmasq) asked by a real client (dig): every question becomes a row on both sides."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Running
from tests.e2e.conftest import eventually, query

ADDRESS, PORT = "127.0.0.1", 5353  # in a namespace of its own nobody else has this port


@pytest.fixture
def name_server(netns: str) -> Iterator[str]:
    """dnsmasq with one name, in a namespace; the namespace's name."""
    for program in ("dnsmasq", "dig"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian: dnsmasq-base, bind9-dnsutils)")
    inside = ["ip", "netns", "exec", netns]
    command = [*inside, "dnsmasq", "-k", "-p", str(PORT), f"--listen-address={ADDRESS}", "--bind-interfaces"]
    command += ["--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--address=/shop.test/127.0.0.9"]
    with subprocess.Popen(command) as server:
        for _ in range(100):
            ask = [*inside, "dig", f"@{ADDRESS}", "-p", str(PORT), "+time=1", "+tries=1", "up.shop.test"]
            if subprocess.run(ask, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.05)
        yield netns
        server.terminate()


def test_questions_and_answers(
    can_observe: None,
    name_server: str,
    deepflow_server: Callable[..., Running],
    deepflow_agent: Callable[..., Running],
) -> None:
    server = deepflow_server()
    agent = deepflow_agent(server.url)

    def dig(name: str, *options: str) -> None:
        command = ["ip", "netns", "exec", name_server, "dig", f"@{ADDRESS}", "-p", str(PORT), *options, name]
        subprocess.run(command, capture_output=True, check=True)

    def rows(word: str) -> list[dict[str, object]]:
        columns = (
            "observation_point, protocol, request_type, response_code, response_status, response_result, "
            "process_kname_1"
        )
        sql = f"SELECT {columns} FROM l7_flow_log WHERE l7_protocol = 120 AND request_domain LIKE '*{word}*'"
        return query(server.url, sql)

    def attached() -> bool:
        dig("first.shop.test")
        return bool(rows("first"))

    assert eventually(attached), agent.said()
    for i in range(10):
        dig(f"udp{i}.shop.test")
    for i in range(5):
        dig(f"tcp{i}.shop.test", "+tcp")
    dig("v6.shop.test", "-t", "AAAA")
    dig("nobody.elsewhere.test")
    eventually(lambda: len(rows(".test")) - len(rows("first")) >= 2 * 17)

    for word, count, number in (("udp", 10, socket.IPPROTO_UDP), ("tcp", 5, socket.IPPROTO_TCP)):
        seen = rows(word)
        assert Counter(row["observation_point"] for row in seen) == {"c-p": count, "s-p": count}, agent.said()
        assert {row["protocol"] for row in seen} == {number}
        assert {row["response_code"] for row in seen} == {0}
        assert all("127.0.0.9" in str(row["response_result"]) for row in seen)
        assert {row["process_kname_1"] for row in seen} == {"dnsmasq"}
    assert {row["request_type"] for row in rows("v6")} == {"AAAA"}
    refused = rows("elsewhere")
    assert Counter(row["observation_point"] for row in refused) == {"c-p": 1, "s-p": 1}
    assert {row["response_status"] for row in refused} <= {3, 4}

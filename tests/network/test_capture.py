"""Packets of live interfaces: nothing is missed, own traffic is absent, and the product without kernel programs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from deepflow import _core
from deepflow.agent.packet_filter import compile_filter
from tests.conftest import Running
from tests.e2e.conftest import eventually, query
from tests.live.observed import need
from tests.live.pair import Host, pair

_PORT = 8000

_CLIENT = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
for number in range(int(sys.argv[3])):
    connection.request("GET", f"/found/{number % 2}")
    connection.getresponse().read()
    time.sleep(0.1)
"""


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with pair() as two:
        yield two


@contextmanager
def capturing(*hosts: Host, aggregate_health_check: bool = False, **packets: Any) -> Iterator[_core.Agent]:
    """A core that reads the packets of `eth0` in all namespaces and uses no kernel programs."""
    config = {"inner_interface_capture_enabled": True, "inner_interface_regex": "^eth0$", **packets}
    flows = {"aggregate_health_check": aggregate_health_check}
    agent = _core.Agent(json.dumps({"ebpf_disabled": True, "packets": config, **flows}))
    hooks = {hook["what"]: hook for hook in json.loads(agent.start())["hooks"]}
    try:
        assert hooks["sockets"]["chosen"] == "none"
        assert hooks["packets"]["chosen"].count("eth0") >= len(hosts), hooks
        yield agent
    finally:
        agent.stop()


def interface(host: Host) -> tuple[int, int]:
    """(packets, bytes) that went through the interface, both ways."""
    shown = subprocess.run(
        ["ip", "-n", host.namespace, "-s", "-j", "link", "show", "eth0"], check=True, capture_output=True
    )
    counters = json.loads(shown.stdout)[0]["stats64"]
    ways = [counters[way] for way in ("rx", "tx")]
    return sum(way["packets"] for way in ways), sum(way["bytes"] for way in ways)


def batches(agent: _core.Agent, table: str, flush: bool = True) -> list[dict[str, Any]]:
    drained = [data for name, _, data in agent.drain(flush) if name == table]
    return [row for data in drained for row in pa.ipc.open_stream(data).read_all().to_pylist()]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_packet_of_an_interface_is_counted_or_called_dropped(hosts: tuple[Host, Host], threads: int) -> None:
    need("iperf3")
    client, server = hosts
    # 64 MiB of rings: a debug build is slow.
    with capturing(client, server, fanout_count=threads, ring_blocks=128 // threads) as agent:
        listener = subprocess.Popen(server.inside("iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
        try:
            before = [interface(host) for host in hosts]
            done = _iperf(client, server)
            time.sleep(0.5)
            after = [interface(host) for host in hosts]
        finally:
            listener.kill()
            listener.wait()
        counters = agent.counters()
        nics = {_nic(host) for host in hosts}
        # Other tests may have an eth0 at the same time.
        flows = [row for row in batches(agent, "l4_flow_log") if row["capture_nic"] in nics]
    packets, size = (sum(now[at] - then[at] for then, now in zip(before, after, strict=True)) for at in (0, 1))
    assert packets > 5_000, done
    dropped = counters["packet_packets_dropped"]
    seen = sum(row["packet_tx"] + row["packet_rx"] for row in flows)
    # ARP is no IP.
    assert seen <= packets * 1.01
    assert seen + dropped >= packets * 0.99, (seen, dropped, packets)
    assert dropped < packets / 20, "more is lost than a busy machine explains"
    if not dropped:
        assert sum(row["byte_tx"] + row["byte_rx"] for row in flows) == pytest.approx(size, rel=0.01)
    assert {row["observation_point"] for row in flows if row["server_port"] == 5201} == {"c", "s"}


@pytest.mark.parametrize("merged", [False, True])
def test_health_checks_of_a_minute_can_be_one_row(hosts: tuple[Host, Host], merged: bool) -> None:
    client, server = hosts
    checks, port = 12, 7303
    listen = (
        "import socket, sys\n"
        "listener = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "print('listens', flush=True)\n"
        "while True:\n"
        "    one, _ = listener.accept()\n"
        "    one.recv(1)\n"
        "    one.close()\n"
        "    print('closed', flush=True)\n"
    )
    check = (
        "import socket, sys\n"
        "for _ in range(int(sys.argv[3])):\n"
        "    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20).close()\n"
    )
    words = (server.ip, str(port))
    with subprocess.Popen(server.inside(sys.executable, "-c", listen, *words), stdout=subprocess.PIPE) as listener:
        try:
            assert listener.stdout and listener.stdout.readline()
            with capturing(client, server, aggregate_health_check=merged) as agent:
                while time.time() % 60 > 50:  # what goes on when a minute ends is told of twice
                    time.sleep(0.5)
                subprocess.run(client.inside(sys.executable, "-c", check, *words, str(checks)), check=True)
                assert [listener.stdout.readline() for _ in range(checks)] == [b"closed\n"] * checks
                time.sleep(0.5)
                rows = [row for row in batches(agent, "l4_flow_log") if row["server_port"] == port]
        finally:
            listener.kill()
    for point in ("c", "s"):
        found = [row for row in rows if row["observation_point"] == point]
        assert len(found) <= 2 if merged else len(found) == checks
        ids = [number for row in found for number in row["aggregated_flow_ids"].split(",") if number]
        assert checks - 1 <= len(set(ids)) if merged else not ids
        assert sum(row["syn_count"] - row["retrans_syn"] for row in found) == checks
        assert all(row["l4_byte_tx"] + row["l4_byte_rx"] == 0 and row["close_type"] == 1 for row in found), found


def test_an_expression_chooses_packets(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    wanted, other = 7301, 7302
    send = (
        "import socket, sys\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "[out.sendto(b'what', (sys.argv[1], int(port))) for port in sys.argv[2:] * 10]\n"
    )
    with capturing(client, server, extra_filter=compile_filter(f"tcp or udp port {wanted}")) as agent:
        command = client.inside("python3", "-c", send, server.ip, str(wanted), str(other))
        subprocess.run(command, check=True)
        nics, rows = {_nic(host) for host in hosts}, list[dict[str, Any]]()

        def ports() -> list[int]:
            rows.extend(batches(agent, "l4_flow_log"))
            return [row["server_port"] for row in rows if row["capture_nic"] in nics and row["protocol"] == 17]

        assert eventually(lambda: ports().count(wanted) >= 2, 20, 0.2), rows
        assert set(ports()) == {wanted}


def _nic(host: Host) -> int:
    """`capture_nic` of the interface: the low 32 bits of its address."""
    shown = subprocess.run(["ip", "-n", host.namespace, "-j", "link", "show", "eth0"], check=True, capture_output=True)
    return int(json.loads(shown.stdout)[0]["address"].replace(":", "")[4:], 16)


def _iperf(client: Host, server: Host) -> str:
    """10 s at a rate that a debug build follows."""
    command = client.inside("iperf3", "-c", server.ip, "-t", "10", "-b", "100M")
    for _ in range(100):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.05)
    pytest.fail(done.stdout + done.stderr)


@pytest.fixture
def web(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[int]:
    """nginx on the server; its process id."""
    need("nginx")
    _, server = hosts
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; error_log stderr; pid {tmp_path}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/a; proxy_temp_path {tmp_path}/b;"
        f" fastcgi_temp_path {tmp_path}/c; uwsgi_temp_path {tmp_path}/d; scgi_temp_path {tmp_path}/e;\n"
        f'server {{ listen {server.ip}:{_PORT}; location /found/0 {{ return 200 "yes"; }} }} }}\n'
    )
    process = subprocess.Popen(server.inside("nginx", "-c", config), stderr=subprocess.DEVNULL)
    try:
        listening = server.inside("ss", "-Hltn")
        assert eventually(lambda: str(_PORT) in subprocess.check_output(listening, text=True), 20, 0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def test_the_product_without_kernel_programs(
    hosts: tuple[Host, Host],
    web: int,
    tmp_path: Path,
    deepflow_server: Callable[..., Running],
    deepflow_agent: Callable[..., Running],
) -> None:
    client, server = hosts
    config = tmp_path / "agent.yaml"
    config.write_text(
        "inputs:\n"
        "  ebpf: {disabled: true}\n"
        "  cbpf: {af_packet: {inner_interface_capture_enabled: true, inner_interface_regex: '^(eth0|lo)$'}}\n"
        "  proc: {socket_info_sync_interval: 1s}\n"
    )
    deepflow = deepflow_server()
    agent = deepflow_agent(deepflow.url, "--config", str(config))
    assert eventually(lambda: "packets: AF_PACKET" in agent.said(), 60, 0.1), agent.said()
    assert "sockets: none (inputs.ebpf.disabled is set)" in agent.said()
    calls = 30
    subprocess.run(client.inside("python3", "-c", _CLIENT, server.ip, str(_PORT), str(calls)), check=True)

    columns = (
        "observation_point, signal_source, request_resource, response_code, l7_protocol_str, "
        "auto_instance_0, auto_instance_1, process_id_1"
    )

    def rows() -> list[dict[str, Any]]:
        where = f"server_port = {_PORT} AND request_resource LIKE '/found/*'"
        return query(deepflow.url, f"SELECT {columns} FROM l7_flow_log WHERE {where} LIMIT 1000")

    assert eventually(lambda: len(rows()) == 2 * calls, 30, 0.5), (len(rows()), agent.said())
    for point in ("c", "s"):
        here = [row for row in rows() if row["observation_point"] == point]
        assert len(here) == calls
        assert {row["signal_source"] for row in here} == {0}
        assert {(row["request_resource"], row["response_code"]) for row in here} == {
            ("/found/0", 200),
            ("/found/1", 404),
        }
    # The server by its listening socket, the client by its connection, which lives for some seconds.
    served = [row for row in rows() if row["observation_point"] == "s"]
    assert {row["auto_instance_1"] for row in served} == {f"nginx:{web}"}
    assert any(row["auto_instance_0"].startswith("python") for row in rows()), rows()

    # Each point has the name of its interface; whose it is says the path.
    def named() -> set[tuple[str, str]]:
        where = f"server_port = {_PORT} AND capture_nic_name = 'eth0'"
        found = query(deepflow.url, f"SELECT observation_point, capture_nic_name FROM l7_flow_log WHERE {where}")
        return {(row["observation_point"], row["capture_nic_name"]) for row in found}

    assert eventually(lambda: named() == {("c", "eth0"), ("s", "eth0")}, 30, 0.5), named()
    ids = query(deepflow.url, f"SELECT _id FROM l7_flow_log WHERE server_port = {_PORT} LIMIT 1")
    host = socket.gethostname()

    def where() -> list[str]:
        answer = httpx.get(f"{deepflow.url}/v1/web/path", params={"_id": ids[0]["_id"]}, trust_env=False, timeout=60)
        return [point["where"] for point in answer.json()["points"]]

    expected = [f"eth0 of {client.namespace} on {host}", f"eth0 of nginx on {host}"]
    assert eventually(lambda: where() == expected, 30, 0.5), where()

    # Meters say the same as the rows; network metrics are there.
    def metered() -> dict[str, tuple[int, int]]:
        sums = "Sum(request) AS requests, Sum(client_error) AS errors"
        statement = (
            f"SELECT observation_point, {sums} FROM application_map WHERE server_port = {_PORT} "
            "GROUP BY observation_point"
        )
        found = query(deepflow.url, statement, "flow_metrics", "1s")
        return {row["observation_point"]: (row["requests"], row["errors"]) for row in found}

    assert eventually(lambda: metered() == dict.fromkeys("cs", (calls, calls // 2)), 30, 0.5), metered()
    network = query(
        deepflow.url,
        f"SELECT observation_point, Sum(new_flow) AS flows, Max(rtt_max) AS rtt FROM network_map "
        f"WHERE server_port = {_PORT} GROUP BY observation_point",
        "flow_metrics",
        "1s",
    )
    assert {row["observation_point"]: row["flows"] for row in network} == {"c": 1, "s": 1}
    assert all(row["rtt"] > 0 for row in network), network

    # Agent and server speak on a loopback that is captured now; of their own conversation there is nothing.
    own = int(deepflow.url.rsplit(":", 1)[1])
    everything = query(deepflow.url, "SELECT server_port, byte_tx FROM l4_flow_log LIMIT 10000")
    everything += query(deepflow.url, "SELECT server_port, request_resource FROM l7_flow_log LIMIT 10000")
    assert everything
    assert not [row for row in everything if row["server_port"] == own]


def test_an_agent_for_some_processes_reads_no_packets(
    deepflow_server: Callable[..., Running], deepflow_agent: Callable[..., Running]
) -> None:
    """Packets have no process: what was not asked for must not come in this way."""
    if os.geteuid() != 0:
        pytest.skip("the agent needs root")
    agent = deepflow_agent(deepflow_server().url, "--only-pid", str(os.getpid()))
    assert eventually(lambda: "packets: " in agent.said(), 60, 0.1), agent.said()
    assert "packets: none (no interface is asked for)" in agent.said()


def test_without_either_the_agent_says_why() -> None:
    agent = _core.Agent(json.dumps({"ebpf_disabled": True}))
    with pytest.raises(OSError, match=r"inputs\.ebpf\.disabled is set, and packets cannot be read"):
        agent.start()

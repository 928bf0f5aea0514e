"""The server as a process: what it answers, how it stops, and that SIGKILL costs and doubles nothing."""

import itertools
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepflow.schema import load
from tests.conftest import ROOT, Running
from tests.ingest.batches import ipc, wire_rows

Start = Callable[..., Running]
NOW = int(time.time())
IDENTITY = {"name": "h", "machine_id": "m", "boot_id": "b", "kernel": "6.1", "version": "0.1", "ip": "10.0.0.1"}
LOOPBACK = 0x7F000001


def client(server: Running) -> httpx.Client:
    return httpx.Client(base_url=server.url, trust_env=False, timeout=30)


def headers(agent: int, batch: int, attempt: int = 1) -> dict[str, str]:
    return {"X-DeepFlow-Agent": str(agent), "X-DeepFlow-Batch": f"{batch:016x}", "X-DeepFlow-Attempt": str(attempt)}


def log_batch(ids: list[int], **columns: Any) -> bytes:
    count = len(ids)
    given: dict[str, Any] = {
        "time": [NOW] * count,
        "start_time": [NOW * 1_000_000] * count,
        "protocol": [6] * count,
        "is_ipv4": [1] * count,
        "ip4_0": [LOOPBACK] * count,
        "ip4_1": [LOOPBACK] * count,
        "server_port": [80] * count,
        "type": [2] * count,
        "l7_protocol": [20] * count,
        "req_tcp_seq": [identity % 2**32 + 1 for identity in ids],
        "syscall_trace_id_request": [identity + 1 for identity in ids],
    }
    return ipc(wire_rows(load().tables["flow_log.l7_flow_log"], count, _id=ids, **(given | columns)))


def read_back(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.api.read_back", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Sender:
    """An agent's outbox in small: repeats a batch with a higher attempt until it is acknowledged."""

    def __init__(self, url: str, agent: int, table: str, bodies: list[bytes], base: int) -> None:
        self.acknowledged = 0
        self._url, self._agent, self._table, self._bodies, self._base = url, agent, table, bodies, base
        self.refused: list[str] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as http:
            for number, body in enumerate(self._bodies):
                for attempt in itertools.count(1):
                    try:
                        marked = headers(self._agent, self._base + number, attempt)
                        answer = http.post(f"/v1/ingest/{self._table}", content=body, headers=marked)
                    except httpx.HTTPError:
                        time.sleep(0.05)
                        continue
                    if answer.is_success:
                        break
                    if answer.status_code != 503:
                        self.refused.append(answer.text)
                        break
                    time.sleep(0.05)
                self.acknowledged += 1


def test_five_sigkills_in_mid_insert_lose_and_double_nothing(
    deepflow_server: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFLOW_SERVER_ROLLUP_INTERVAL", "0.2")
    server = deepflow_server()
    with client(server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY).json()["agent_id"]
    rows, batches, senders = 2000, 30, 3
    meters = load().tables["flow_metrics.application"]
    # A third of the rows is late, so that batches span partitions.
    times = [NOW - (i % 3) // 2 * 14_400 for i in range(rows)]
    running: list[Sender] = []
    wanted: list[int] = []
    for sender in range(senders):
        logs = []
        for number in range(batches):
            first = (NOW << 32) + (sender * batches + number) * rows
            ids = list(range(first, first + rows))
            wanted += ids
            logs.append(log_batch(ids, time=times))
        seconds = [
            ipc(wire_rows(meters, rows, time=times, request=[1] * rows, rrt_sum=[float(number)] * rows))
            for number in range(batches)
        ]
        running.append(Sender(server.url, agent, "l7_flow_log", logs, sender << 32))
        running.append(Sender(server.url, agent, "application.1s", seconds, (sender << 32) + (1 << 24)))
    chance = random.Random(5)
    for kill in range(5):
        share = senders * 2 * batches * (kill + 1) // 7
        while sum(sender.acknowledged for sender in running) < share:
            assert server.process.poll() is None, server.said()
            time.sleep(0.01)
        time.sleep(chance.random() * 0.1)
        server.kill()
        busy = any(sender.thread.is_alive() for sender in running)
        server.start()
        server.await_health()
    assert busy, "the last kill came while batches were sent"
    for sender in running:
        sender.thread.join()
    assert [sender.refused for sender in running] == [[]] * len(running)
    assert server.stop() == 0
    found = read_back(tmp_path / "data0")
    assert found["ids"] == sorted(wanted)
    assert found["keys"] == {"n": 2 * len(wanted), "u": 2 * len(wanted)}
    assert found["1s"] == found["1m"]
    assert found["1s"]["request"] == senders * batches * rows


def test_a_second_start_finds_the_data_and_sigterm_stores_what_is_queued(
    deepflow_server: Start, tmp_path: Path
) -> None:
    server = deepflow_server()
    with client(server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY).json()["agent_id"]
        answer = http.post("/v1/ingest/l7_flow_log", content=log_batch([1, 2, 3]), headers=headers(agent, 1))
        assert answer.json() == {"rows": 3}
    assert server.stop() == 0
    server.start()
    server.await_health()
    with client(server) as http:
        assert http.post("/v1/agent/register", json=IDENTITY).json() == {"agent_id": agent}
        asked = {"db": "flow_log", "sql": "SELECT Count(row) AS n FROM l7_flow_log"}
        assert http.post("/v1/query/", data=asked).json()["result"]["values"] == [[3]]
    assert server.stop() == 0
    assert read_back(tmp_path / "data0")["ids"] == [1, 2, 3]


def start_and_fail(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deepflow.cli", "server", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_port_or_folder_in_use_is_one_sentence(deepflow_server: Start, tmp_path: Path, free_port: int) -> None:
    deepflow_server()
    said = start_and_fail("--data", str(tmp_path / "data0"), "--listen", f"127.0.0.1:{free_port}")
    assert "is already in use by process" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start_and_fail("--data", str(tmp_path / "other"), "--listen", f"127.0.0.1:{port}")
    assert f"Port {port} on 127.0.0.1 is in use" in said
    said = start_and_fail("--data", "/proc/nix", "--listen", f"127.0.0.1:{free_port}")
    assert "The folder /proc/nix cannot be made" in said
    assert "listen: write an address and a port" in start_and_fail("--listen", "nonsense")


def test_the_token_guards_everything_but_health_and_the_page(deepflow_server: Start, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    server = deepflow_server("--token-file", str(tmp_path / "token"))
    with client(server) as http:
        assert http.get("/v1/health").status_code == 200
        assert http.get("/v1/web/map").status_code == 401
        assert http.get("/v1/web/map", headers={"Authorization": "Bearer 0123456789abcdeg"}).status_code == 401
        assert http.get("/v1/web/map", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200
    assert "0123456789abcdef" not in server.said()


def test_more_connections_than_a_login_shell_may_have(deepflow_server: Callable[..., Running]) -> None:
    """Each agent keeps some: the server raises its own limit of open files."""
    server = deepflow_server(within=("prlimit", "--nofile=256:4096"))
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with ExitStack() as opened:
        for _ in range(600):
            opened.enter_context(socket.create_connection(address))
        assert httpx.get(f"{server.url}/v1/health", trust_env=False, timeout=60).is_success
    assert server.stop() == 0


def test_what_the_page_asks(deepflow_server: Start) -> None:
    server = deepflow_server()
    with client(server) as http:
        agent = http.post("/v1/agent/register", json=IDENTITY).json()["agent_id"]
        processes = [
            {"pid": pid, "start_time_us": NOW * 1_000_000, "end_time_us": None, "name": name}
            for pid, name in ((1, "nginx"), (2, "api"))
        ]
        sent = http.post("/v1/agent/processes", json={"processes": processes}, headers={"X-DeepFlow-Agent": str(agent)})
        assert sent.status_code == 200, sent.text
        # Ten calls, each seen at both ends; two of them failed.
        ids = [(NOW << 32) + number for number in range(20)]
        both = {"process_id_0": [1] * 20, "process_id_1": [2] * 20, "observation_point": ["c-p"] * 10 + ["s-p"] * 10}
        status = ([3] * 2 + [0] * 8) * 2
        delays = [1000 + number % 10 for number in range(20)]
        body = log_batch(ids, response_status=status, response_duration=delays, **both)
        assert http.post("/v1/ingest/l7_flow_log", content=body, headers=headers(agent, 1)).status_code == 200
        calls = {
            "time": [NOW] * 20, "request": [1] * 20, "response": [1] * 20, "error": [int(s == 3) for s in status],
            "rrt_sum": [float(delay) for delay in delays], "rrt_count": [1] * 20, "rrt_max": delays,
            "l7_protocol": [20] * 20, "protocol": [6] * 20, "is_ipv4": [1] * 20, "server_port": [80] * 20,
            "ip4_0": [LOOPBACK] * 20, "ip4_1": [LOOPBACK] * 20,
        }  # fmt: skip
        body = ipc(wire_rows(load().tables["flow_metrics.application_map"], 20, **calls, **both))
        assert http.post("/v1/ingest/application_map.1s", content=body, headers=headers(agent, 2)).status_code == 200

        bounds = {"from": NOW - 10, "to": NOW + 10}
        deadline = time.monotonic() + 30
        while True:
            shown = http.get("/v1/web/map", params=bounds).json()
            if {node["name"] for node in shown["nodes"]} == {"nginx", "api"} or time.monotonic() > deadline:
                break
        (edge,) = shown["edges"]
        names = {node["id"]: node["name"] for node in shown["nodes"]}
        assert (names[edge["source"]], names[edge["target"]]) == ("nginx", "api")
        assert (edge["request"], edge["error"], edge["error_ratio"]) == (10, 2, 0.2)
        assert (edge["protocol"], edge["l7_protocol"]) == ("HTTP", 20)
        assert edge["rrt_avg_us"] == pytest.approx(1004.5)
        assert edge["rrt_max_us"] == 1009
        assert edge["rrt_p95_us"] == pytest.approx(1009, rel=0.03)

        listed = http.get("/v1/web/requests", params={**bounds, "client": "nginx", "limit": 6}).json()
        rest = http.get("/v1/web/requests", params={**bounds, "limit": 6, "before": listed["next"]}).json()
        assert [int(row["_id"]) for row in listed["rows"] + rest["rows"]] == ids[:9:-1]
        assert rest["next"] is None
        failed = http.get("/v1/web/requests", params={**bounds, "status": "server error", "service": "api"}).json()
        assert [row["status"] for row in failed["rows"]] == ["Server Error"] * 2
        assert http.get("/v1/web/requests", params={**bounds, "server": "nginx"}).json()["rows"] == []
        assert http.get("/v1/web/requests", params={**bounds, "max_us": 1000}).json()["rows"][0]["duration_us"] == 1000
        agents = http.get("/v1/web/agents").json()
        assert agents["agents"][0]["name"] == "h"
        assert agents["server"]["l7_flow_log/rows_stored"] == 20
        found = http.post(
            "/v1/stats/querier/L7FlowTracing", json={"_id": str(ids[0]), "TIME_START": NOW, "TIME_END": NOW}
        ).json()
        assert found["OPT_STATUS"] == "SUCCESS"
        assert len(found["DATA"]["tracing"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "sentence"),
    [
        ("POST", "/v1/agent/register", {"content": b"{"}, 400, "JSON"),
        ("POST", "/v1/agent/register", {"json": {"name": "x"}}, 400, "machine_id"),
        (
            "POST",
            "/v1/agent/processes",
            {"json": {"processes": []}, "headers": {"X-DeepFlow-Agent": "9"}},
            503,
            "must register",
        ),
        (
            "POST",
            "/v1/agent/interfaces",
            {"json": {"interfaces": []}, "headers": {"X-DeepFlow-Agent": "9"}},
            503,
            "must register",
        ),
        (
            "POST",
            "/v1/agent/interfaces",
            {"json": {"interfaces": [{"capture_nic": 0, "name": "lo"}]}, "headers": {"X-DeepFlow-Agent": "1"}},
            400,
            "interfaces.0.capture_nic",
        ),
        ("POST", "/v1/ingest/l7_flow_log", {"content": b""}, 400, "X-DeepFlow-Agent"),
        (
            "POST",
            "/v1/ingest/l7_flow_log",
            {"content": b"", "headers": {"X-DeepFlow-Agent": "1"}},
            400,
            "X-DeepFlow-Batch",
        ),
        ("GET", "/v1/web/map?from=5&to=4", {}, 400, "from must be before to"),
        ("GET", "/v1/web/requests?status=fine", {}, 400, "no response status 'fine'"),
        ("GET", "/v1/web/requests?min_us=x", {}, 400, "min_us must be a number"),
        ("GET", "/v1/nix", {}, 404, "nothing at /v1/nix"),
    ],
)
def test_wrong_requests_get_a_sentence(
    shared_server: Running, method: str, path: str, request_: dict[str, Any], status: int, sentence: str
) -> None:
    with client(shared_server) as http:
        answer = http.request(method, path, **request_)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/v1/query/", {"db": "flow_log"}, "lacks the key sql"),
        ("/v1/query/", {"db": "flow_log", "sql": "SELEC 1"}, ""),
        ("/v1/query/", {"db": "flow_log", "sql": "SELECT nix FROM l7_flow_log"}, "nix"),
        ("/v1/stats/querier/L7FlowTracing", {"TIME_START": 1, "TIME_END": 2}, "needs _id"),
        ("/v1/stats/querier/L7FlowTracing", {"_id": "x"}, "_id must be a whole number"),
    ],
)
def test_wrong_questions_are_answered_in_deepflows_shape(
    shared_server: Running, path: str, body: dict[str, Any], sentence: str
) -> None:
    with client(shared_server) as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["OPT_STATUS"] == "INVALID_PARAMETERS"
    assert sentence in answer.json()["DESCRIPTION"]

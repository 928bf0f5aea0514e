"""Whatever is wrong gets one clear sentence and a non-zero exit or a 4xx; nothing stored is harmed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from scripts.sample_capture import main as write_capture
from tests.conftest import ROOT, Running, unused_port


def deepflow(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "deepflow.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def assert_sentence(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode not in (0, None)
    assert result.returncode > 0, "killed by a signal"
    assert "Traceback" not in result.stderr
    assert "panicked" not in result.stderr
    assert 0 < len(result.stderr.strip()) < 1000


@pytest.mark.parametrize("damage", ["empty", "header cut", "no magic", "length over the end", "absurd length"])
def test_a_damaged_capture_is_refused_or_read_up_to_the_damage(damage: str, tmp_path: Path) -> None:
    good = tmp_path / "good.pcap"
    write_capture(good)
    content = bytearray(good.read_bytes())
    match damage:
        case "empty":
            content.clear()
        case "header cut":
            del content[10:]
        case "no magic":
            content[:4] = b"abcd"
        case "length over the end":
            del content[-20:]
        case "absurd length":
            content[32:36] = b"\xff\xff\xff\xff"
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(content)

    assert_sentence(deepflow("replay", str(bad), "--table", "l7_flow_log", "--format", "jsonl"))


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        result = deepflow("server", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}")

    assert_sentence(result)
    assert str(port) in result.stderr


def test_a_second_server_on_the_same_store(deepflow_server: Callable[..., Running]) -> None:
    first = deepflow_server()
    data = first.arguments[first.arguments.index("--data") + 1]

    result = deepflow("server", "--data", data, "--listen", f"127.0.0.1:{unused_port()}")

    assert_sentence(result)
    first.await_health()


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "SELECT no_such_tag FROM l7_flow_log", "SELECT row FROM no_such_table", "", "DROP TABLE l7_flow_log",
     "SELECT Sum(request) FROM l7_flow_log; SELECT 1"],
)  # fmt: skip
def test_sql_that_is_wrong(sql: str, deepflow_server: Callable[..., Running]) -> None:
    url = deepflow_server().url

    answer = httpx.post(f"{url}/v1/query/", data={"db": "flow_log", "sql": sql}, trust_env=False, timeout=60)

    assert 400 <= answer.status_code < 500
    assert answer.json()["DESCRIPTION"]
    good = {"db": "flow_log", "sql": "SELECT Count(row) AS n FROM l7_flow_log"}
    assert httpx.post(f"{url}/v1/query/", data=good, trust_env=False, timeout=60).is_success


def test_a_batch_that_is_no_arrow_stream(deepflow_server: Callable[..., Running]) -> None:
    url = deepflow_server().url
    names = ("name", "machine_id", "boot_id", "kernel", "version")
    agent = dict.fromkeys(names, "test") | {"ip": "127.0.0.1"}
    registered = httpx.post(f"{url}/v1/agent/register", json=agent, trust_env=False, timeout=60)
    number = str(registered.json()["agent_id"])
    headers = {"X-DeepFlow-Agent": number, "X-DeepFlow-Batch": "00000000000000aa", "X-DeepFlow-Attempt": "1"}

    answer = httpx.post(
        f"{url}/v1/ingest/l7_flow_log", content=b"nonsense", headers=headers, trust_env=False, timeout=60
    )

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_no_privileges(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("dropping privileges needs root and setpriv")
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--ambient-caps=-all")

    result = deepflow(
        "agent", "--server", f"http://127.0.0.1:{unused_port()}", "--state-dir", str(tmp_path / "agent"), prefix=bare
    )

    assert_sentence(result)

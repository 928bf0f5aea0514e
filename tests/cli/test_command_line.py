"""The command line as a user calls it, with right and with wrong input."""

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def deepflow(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deepflow.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environ},
        timeout=60,
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a failed command: no traceback, one line."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A DNS question and its answer, written here after RFC 1035 and the pcap file format."""
    question = b"\x05shop1\x04test\x00\x00\x01\x00\x01"
    ask = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question
    answer = (
        struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0)
        + question
        + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x07"
    )

    def packet(time_us: int, source: tuple[bytes, int], target: tuple[bytes, int], payload: bytes) -> bytes:
        udp = struct.pack(">HHHH", source[1], target[1], 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, source[0], target[0]) + udp
        frame = b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + ip
        return struct.pack("<IIII", 1_700_000_000, time_us, len(frame), len(frame)) + frame

    client, server = (b"\x0a\x00\x00\x01", 40_000), (b"\x0a\x00\x00\x35", 53)
    file = tmp_path / "dns.pcap"
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    file.write_bytes(header + packet(100, client, server, ask) + packet(1600, server, client, answer))
    return file


def test_replay_prints_one_object_a_row(capture: Path) -> None:
    done = deepflow("replay", str(capture), "--table", "l7_flow_log", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["l7_protocol"] == 120
    assert (row["ip4_0"], row["ip4_1"], row["client_port"], row["server_port"]) == ("10.0.0.1", "10.0.0.53", 40_000, 53)
    assert row["start_time"] == 1_700_000_000_000_100
    assert row["response_duration"] == 1500
    assert row["request_resource"] == "shop1.test"
    assert row["type"] == 2


def test_replay_of_other_tables_and_formats(capture: Path) -> None:
    done = deepflow("replay", str(capture), "--table", "application_map.1s")
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["request"], row["response"], row["rrt_max"]) == (1, 1, 1500)
    assert "shop1.test" in deepflow("replay", str(capture), "--format", "table").stdout


@pytest.mark.parametrize("keep", [0, 10, 24, 30, 60, 120])
def test_truncated_capture(capture: Path, tmp_path: Path, keep: int) -> None:
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(capture.read_bytes()[:keep])
    done = deepflow("replay", str(broken))
    if keep == 24:  # a header alone is a capture of nothing
        assert (done.returncode, done.stdout) == (0, "")
    else:
        assert "broken.pcap" in one_sentence(done)


def test_corrupt_capture(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(b"GIF89a" * 50)
    assert "broken.pcap" in one_sentence(deepflow("replay", str(broken)))


def test_replay_mistakes(capture: Path, tmp_path: Path) -> None:
    assert "nowhere.pcap" in one_sentence(deepflow("replay", "nowhere.pcap"))
    assert "There is no table l9" in one_sentence(deepflow("replay", str(capture), "--table", "l9"))
    config = tmp_path / "agent.yaml"
    config.write_text("inputs: {proc: {enabld: true}}")
    assert "there is no such key" in one_sentence(deepflow("replay", str(capture), "--config", str(config)))
    assert deepflow("replay", str(capture), "--format", "xml").returncode == 2


def test_no_server() -> None:
    for command in (("query", "SHOW TABLES"), ("map",), ("trace", "123456789012345")):
        assert "is `deepflow up` or `deepflow server` running?" in one_sentence(
            deepflow(*command, "--server", "http://127.0.0.1:9")
        )


def test_wrong_durations() -> None:
    assert "write a duration" in one_sentence(deepflow("map", "--last", "soon"))
    assert "write a duration" in one_sentence(deepflow("map", "--last", "0s"))


def test_doctor_speaks_without_privileges() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         sys.executable, "-m", "deepflow.cli", "doctor", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if os.geteuid() != 0 or "ermission denied" in done.stderr:
        pytest.skip("needs root and a checkout that nobody may read")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["can_run"] is False
    assert any(not check["works"] and check["lost"] for check in report["checks"])


def test_doctor_as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = deepflow("doctor", "--json")
    report = json.loads(done.stdout)
    attach = "from deepflow import _core; _core.Agent('{}').start()"
    attached = subprocess.run([sys.executable, "-c", attach], cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert report["can_run"] == (attached.returncode == 0), attached.stderr
    assert (done.returncode == 0) == report["can_run"]
    assert (report["chosen"] is not None) == report["can_run"]
    assert {"what", "works", "detail", "lost"} <= set(report["checks"][0])
    assert "The agent can" in deepflow("doctor").stdout


def test_unknown_command_and_help() -> None:
    assert deepflow("fly").returncode == 2
    shown = deepflow("--help").stdout
    for command in ("up", "agent", "server", "replay", "query", "trace", "map", "doctor", "bench"):
        assert f" {command} " in shown
    assert deepflow("--version").stdout.startswith("deepflow ")


def test_kernel_without_type_information(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("hiding /sys/kernel/btf needs root")
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*hidden, sys.executable, "-m", "deepflow.cli", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    if subprocess.run([*hidden, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no private mounts")
    report = json.loads(run("doctor", "--json").stdout)
    assert report["chosen"] in (None, "packets of interfaces"), "packets need no kernel program"
    monkeypatch.setenv("DEEPFLOW_AGENT_INPUTS__CBPF__AF_PACKET__INTERFACE_REGEX", '""')
    with tempfile.TemporaryDirectory() as state:
        agent = run("agent", "--server", "http://127.0.0.1:9", "--state-dir", state)
    assert agent.returncode == 1
    assert "no BTF" in agent.stderr.splitlines()[-1]
    assert "Traceback" not in agent.stderr

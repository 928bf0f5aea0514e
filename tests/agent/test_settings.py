"""Settings: file, environment, flags, and a sentence for each mistake."""

import json
from pathlib import Path

import pytest

from deepflow.agent.settings import AgentSettings, parse_ports
from deepflow.settings import SettingsError, keys, load


def settings(file: Path | None = None, flags: dict[str, object] | None = None, **environ: str) -> AgentSettings:
    return load(AgentSettings, file, "DEEPFLOW_AGENT_", flags or {}, environ)


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("server: http://a:1\nglobal: {limits: {max_memory: 300, max_millicpus: 500}}\n")
    found = settings(
        file,
        {"server": "http://c:3", "state_dir": None},
        DEEPFLOW_AGENT_GLOBAL__LIMITS__MAX_MEMORY="400",
        DEEPFLOW_AGENT_SERVER="http://b:2",
    )
    assert found.server == "http://c:3"
    assert found.global_.limits.max_memory == 400
    assert found.global_.limits.max_millicpus == 500


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("servr: http://a:1", "servr: there is no such key; did you mean server?"),
        ("global: {limits: {max_memry: 1}}", "did you mean global.limits.max_memory?"),
        ("global: {limits: {max_memory: 1}}", "greater than or equal to 128"),
        ("processors: {request_log: {timeouts: {tcp_request_timeout: soon}}}", "write a duration such as 300s"),
        ("inputs: {cbpf: {af_packet: {extra_bpf_filter: tcp prot 80}}}", "is no expression of pcap-filter"),
        ("processors: {flow_log: {conntrack: {timeouts: {others: 0s}}}}", "greater than or equal to 1"),
        ("- a", "must hold keys and values"),
        ("a: [", "is not YAML"),
    ],
)
def test_each_mistake_has_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=sentence.replace("?", r"\?")):
        settings(file)


def test_file_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        settings(Path("/nowhere/agent.yaml"))


def test_core_config_carries_every_setting_of_the_core() -> None:
    config = json.loads(settings(flags={"ignored_pids": [7]}).core_config([8], 3))
    assert config["ignored_pids"] == [7, 8]
    assert config["agent_id"] == 3
    assert config["x_request_id"] == ["x-request-id"]
    assert config["tcp_request_timeout_s"] == 300


@pytest.mark.parametrize(("text", "ports"), [("", []), ("22", [22]), ("22, 8000-8002", [22, 8000, 8001, 8002])])
def test_ports(text: str, ports: list[int]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["x", "0", "70000", "9-8", "1-x"])
def test_wrong_ports(text: str) -> None:
    with pytest.raises(ValueError, match="is no port"):
        parse_ports(text)


def test_every_key_is_described() -> None:
    missing = [key for key, _, description in keys(AgentSettings) if not description]
    assert missing == []


def test_values_are_masked_in_the_agent_and_shown_as_by_deepflow_in_a_replay(tmp_path: Path) -> None:
    def masked(config: str) -> set[str]:
        return set(json.loads(config)["obfuscate_protocols"])

    assert masked(settings().core_config([], 0)) > {"Redis", "MySQL", "PostgreSQL", "TDS", "Oracle"}
    assert masked(settings().capture_config()) == {"Redis"}
    file = tmp_path / "agent.yaml"
    file.write_text("processors: {request_log: {tag_extraction: {obfuscate_protocols: [MySQL]}}}\n")
    assert masked(settings(file).capture_config()) == masked(settings(file).core_config([], 0)) == {"MySQL"}


def test_expressions_and_time_outs_reach_the_core(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "inputs: {cbpf: {af_packet: {extra_bpf_filter: ' ether host 02:00:00:00:00:01 '}}}\n"
        "processors: {flow_log: {conntrack: {timeouts: {closing_rst: 3s}, flow_generation: {server_ports: [9]}}}}\n"
    )
    config = json.loads(settings(file).core_config([], 0))
    filters = config["packets"]["extra_filter"]
    assert len(filters["ethernet"]) > 2 and filters["raw"] == [[6, 0, 0, 0]]
    assert config["flow_timeouts"]["closing_rst_us"] == 3_000_000
    assert config["flow_timeouts"]["established_us"] == 300_000_000
    assert config["server_ports"] == [9]
    assert json.loads(settings().core_config([], 0))["packets"]["extra_filter"] is None

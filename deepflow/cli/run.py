"""Commands that run until they are stopped: `up`, `agent`, `server`."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import httpx
import typer

from deepflow.cli.fault import fail
from deepflow.settings import SettingsError, load

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STOP_S = 5.0

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")]


def agent(
    server: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    config: ConfigOption = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where identity and unsent batches are kept.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the server's bearer token.")] = None,
    only_pid: Annotated[list[int] | None, typer.Option(help="Observe only this process; may be repeated.")] = None,
    ignore_pid: Annotated[list[int] | None, typer.Option(help="Do not observe this process; may be repeated.")] = None,
) -> None:
    """Observe this machine and send what is seen to a server.

    Needs root, or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
    """
    from deepflow.agent.collector import Collector, MemoryExceeded
    from deepflow.agent.settings import AgentSettings

    flags = {"server": server, "state_dir": state_dir, "token_file": token_file,
             "only_pids": only_pid or None, "ignored_pids": ignore_pid or None}  # fmt: skip
    try:
        settings = load(AgentSettings, config, "DEEPFLOW_AGENT_", flags)
        _log_to_stderr(settings.global_.self_monitoring.log_level)
        collector = Collector(settings)
    except (SettingsError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        what = error.filename or "The agent"
        fail(f"{what}: {error.strerror or error}; choose another place with --state-dir or --token-file.")
    _on_stop(collector.stop)
    try:
        collector.run()
    except MemoryExceeded as error:
        fail(str(error), code=3)
    except OSError as error:
        fail(f"The agent cannot observe this machine: {error} `deepflow doctor` says what is missing.")


def server(
    data: Annotated[Path | None, typer.Option(help="Directory of the embedded store.")] = None,
    listen: Annotated[str | None, typer.Option(help="Address and port to listen on.")] = None,
    config: ConfigOption = None,
    store: Annotated[
        str | None, typer.Option(help="http://HOST:PORT of a ClickHouse server instead of the embedded store.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token that clients must bring.")] = None,
) -> None:
    """Receive, store and answer. Needs no privileges."""
    from deepflow.server import ServerError, ServerSettings, run

    flags = {"data": data, "listen": listen, "store": store, "token_file": token_file}
    try:
        settings = load(ServerSettings, config, "DEEPFLOW_SERVER_", flags)
        _log_to_stderr(settings.log_level)
        run(settings)
    except (SettingsError, ServerError) as error:
        fail(str(error))


def up(
    data: Annotated[Path, typer.Option(help="Directory for the store and the agent's state.")] = Path(
        "/var/lib/deepflow"
    ),
    listen: Annotated[str, typer.Option(help="Address and port of the server.")] = "127.0.0.1:20416",
    server_config: Annotated[Path | None, typer.Option(help="YAML file with the server's settings.")] = None,
    agent_config: Annotated[Path | None, typer.Option(help="YAML file with the agent's settings.")] = None,
    only_pid: Annotated[list[int] | None, typer.Option(help="Observe only this process; may be repeated.")] = None,
) -> None:
    """Observe this machine: server and agent together, the page on the server's address."""
    url = f"http://{listen.replace('0.0.0.0', '127.0.0.1')}"
    command = [sys.executable, "-m", "deepflow.cli"]
    serve = [*command, "server", "--data", str(data / "server"), "--listen", listen]
    observe = [*command, "agent", "--server", url, "--state-dir", str(data / "agent")]
    if server_config:
        serve += ["--config", str(server_config)]
    if agent_config:
        observe += ["--config", str(agent_config)]
    for pid in only_pid or []:
        observe += ["--only-pid", str(pid)]
    stopping: list[int] = []
    _on_stop(lambda: stopping.append(1))
    children = {"server": subprocess.Popen(serve)}
    try:
        _await_health(url, children["server"], stopping)
        if not stopping:
            children["agent"] = subprocess.Popen(observe)
            typer.echo(f"DeepFlow observes this machine: {url}/")
        _supervise(children, stopping)
    finally:
        # The agent first: what it still holds goes to a server that listens.
        for child in reversed(children.values()):
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _await_health(url: str, child: subprocess.Popen[bytes], stopping: list[int]) -> None:
    while not stopping:
        if child.poll() is not None:
            raise typer.Exit(child.returncode or 1)
        try:
            if httpx.get(f"{url}/v1/health", timeout=1.0, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)


def _supervise(children: dict[str, subprocess.Popen[bytes]], stopping: list[int]) -> None:
    while not stopping:
        for name, child in children.items():
            if child.poll() is not None:
                fail(
                    f"The {name} ended with code {child.returncode}; its message is above.", code=child.returncode or 1
                )
        time.sleep(0.2)


def _on_stop(stop: Any) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level, format=_LOG_FORMAT, stream=sys.stderr)
    # Every request of the client at INFO would drown what matters.
    logging.getLogger("httpx").setLevel(logging.WARNING)

"""Commands that need no server: `replay`, `doctor`, `bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deepflow.cli.fault import fail


class RowFormat(StrEnum):
    """How rows are printed."""

    jsonl = "jsonl"
    table = "table"


def replay(
    file: Annotated[Path, typer.Argument(help="Capture file, pcap or pcapng.")],
    table: Annotated[str, typer.Option(help="Table whose rows are printed.")] = "l7_flow_log",
    format: Annotated[RowFormat, typer.Option(help="One JSON object a row, or a table to read.")] = RowFormat.jsonl,
    counters: Annotated[bool, typer.Option("--counters", help="Print what was counted, as JSON, and no rows.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with the agent's settings.")] = None,
) -> None:
    """Run a capture file through the core and print its rows. Needs no root and no server."""
    from deepflow import _core
    from deepflow.agent.settings import AgentSettings
    from deepflow.cli.rows import print_rows
    from deepflow.settings import SettingsError, load

    try:
        settings = load(AgentSettings, config, "DEEPFLOW_AGENT_", {})
        batches, counted = _core.replay_counted(str(file), settings.capture_config())
    except (SettingsError, ValueError) as error:
        fail(str(error))
    if counters:
        typer.echo(json.dumps(counted, indent=2))
        return
    known = _core.tables()
    if table not in known:
        fail(f"There is no table {table} in a replay; there are {', '.join(known)}.")
    print_rows([data for name, _, data in batches if name == table], format.value)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this kernel and these privileges allow and what is lost; exit code 0 when the agent can run at all."""
    from deepflow import _core

    lines = json.loads(_core.probe())
    # In the order in which the agent tries them.
    sources = [line for line in lines if line["what"].startswith("sockets by")]
    sources += [line for line in lines if line["what"].startswith("packets of")]
    chosen = next((line for line in sources if line["works"]), None)
    can_run = chosen is not None
    if as_json:
        typer.echo(json.dumps({"can_run": can_run, "chosen": chosen and chosen["what"], "checks": lines}, indent=2))
    else:
        from rich.console import Console
        from rich.table import Table

        sheet = Table("", "what", "detail", "lost without it", box=None, pad_edge=False)
        for line in lines:
            mark = "[green]✔[/]" if line["works"] else "[red]✘[/]"
            sheet.add_row(mark, line["what"], line["detail"], "" if line["works"] else line["lost"])
        console = Console()
        console.print(sheet)
        if chosen:
            console.print(f"The agent can run here; it reads {chosen['what']}: {chosen['detail']}.")
        else:
            console.print("The agent cannot run here: no socket hook loads and no packets can be read; run it as root.")
    if not can_run:
        raise typer.Exit(1)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Parts to measure; all when none is given.")] = None,
) -> None:
    """Measure the cost and the rates of this build on this machine (needs a source checkout)."""
    script = Path(__file__).parents[2] / "bench" / "run.py"
    if not script.exists():
        fail("`deepflow bench` needs a source checkout (the wheel has no load generators); run `make bench` there.")
    raise typer.Exit(subprocess.call([sys.executable, str(script), *(names or [])]))

"""Commands that ask the server: `query`, `trace`, `map`, `path`."""

from __future__ import annotations

import csv
import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from deepflow.cli.fault import fail
from deepflow.cli.server_client import DEFAULT_URL, ServerOption, TokenOption, ask
from deepflow.settings import seconds


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def query(
    sql: Annotated[
        str,
        typer.Argument(
            help="A statement of the DeepFlow dialect, or SHOW TABLES, SHOW TAGS FROM …, SHOW METRICS FROM …."
        ),
    ],
    db: Annotated[str, typer.Option(help="Database: flow_log, flow_metrics or deepflow_system.")] = "flow_log",
    format: Annotated[Format, typer.Option(help="How the answer is printed.")] = Format.table,
    precision: Annotated[str | None, typer.Option(help="Data precision of metrics: 1s or 1m.")] = None,
    server: ServerOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Run a query."""
    form = {"db": db, "sql": sql} | ({"data_precision": precision} if precision else {})
    result = ask(server, token, "POST", "/v1/query/", data=form)["result"]
    columns, values = result["columns"], result["values"]
    if format is Format.json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in values], ensure_ascii=False, indent=2))
    elif format is Format.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(values)
    else:
        _print_table(columns, values)


def trace(
    id: Annotated[str, typer.Argument(help="A row's _id, or a trace id.", metavar="ID-or-row")],
    last: Annotated[str, typer.Option(help="How far back a trace id is searched.")] = "1h",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: ServerOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Print the trace of a row of the request log (its _id) or of a trace id, as a tree."""
    now = int(time.time())
    wanted: dict[str, Any] = {"TIME_START": now - _span(last), "TIME_END": now + 1}
    # A row id is a decimal number of more than 32 bits; a trace id is anything else.
    wanted |= {"_id": id} if id.isdigit() and int(id) >> 32 else {"trace_id": id}
    answer = ask(server, token, "POST", "/v1/stats/querier/L7FlowTracing", json=wanted)
    if as_json:
        typer.echo(json.dumps(answer["DATA"], ensure_ascii=False, indent=2))
        return
    from deepflow.trace.text import tree_text

    typer.echo(tree_text(answer["DATA"]))


def service_map(
    last: Annotated[str, typer.Option(help="The time before now that is shown.")] = "5m",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: ServerOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Print the service map: who calls whom, how often, with which errors and delays."""
    now = int(time.time())
    answer = ask(server, token, "GET", "/v1/web/map", params={"from": now - _span(last), "to": now})
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    if not answer["edges"]:
        typer.echo(f"No calls in the last {last}: is an agent running? `deepflow doctor` tells what it can see here.")
        return
    names = {node["id"]: node["name"] for node in answer["nodes"]}
    rows = [
        [
            names[edge["source"]],
            "→",
            names[edge["target"]],
            edge["protocol"],
            edge["request"],
            f"{edge['rate']:.2f}/s",
            f"{edge['error_ratio'] * 100:.1f} %" if edge["error"] else "",
            _duration(edge["rrt_avg_us"]),
            _duration(edge["rrt_max_us"]),
        ]
        for edge in sorted(answer["edges"], key=lambda edge: (names[edge["source"]], -edge["request"]))
    ]
    _print_table(["client", "", "server", "protocol", "requests", "rate", "errors", "average", "slowest"], rows)


def path(
    client: Annotated[str, typer.Argument(help="Name of the calling service, or its address, as the map shows it.")],
    server: Annotated[str, typer.Argument(help="Name of the called service, or its address.")],
    last: Annotated[str, typer.Option(help="The time before now whose calls are looked at.")] = "5m",
    limit: Annotated[int, typer.Option(help="Calls looked at, the newest ones.", min=1, max=1000)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: ServerOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Print where the time of the calls between two services goes: each point they were seen at, each hop's delay."""
    now = int(time.time())
    wanted = {"client": client, "server": server, "from": now - _span(last), "to": now + 1, "limit": limit}
    answer = ask(url, token, "GET", "/v1/web/path", params=wanted)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    if not answer["calls"]:
        typer.echo(
            f"No answered calls from {client} to {server} in the last {last}; `deepflow map` lists who calls whom."
        )
        return
    typer.echo(
        f"{answer['calls']} calls from {client} to {server}, median {_duration(answer['median_us'])}, "
        f"p95 {_duration(answer['p95_us'])}"
    )
    again = any(point["retransmissions"] is not None for point in answer["points"])
    rows = [
        [
            point["observation_point"],
            point["where"],
            point["ends"],
            point["calls"],
            _duration(point["duration_median_us"]),
            _duration(point["delay_median_us"]),
            _duration(point["delay_p95_us"]),
            "" if point["share"] is None else f"{point['share'] * 100:.1f} %",
            *([point["retransmissions"]] if again else []),
            "←" if number == answer["slowest"] else "",
        ]
        for number, point in enumerate(answer["points"])
    ]
    columns = [
        "point",
        "where",
        "ends",
        "calls",
        "takes",
        "hop",
        "hop p95",
        "share",
        *(["sent again"] if again else []),
        "",
    ]
    _print_table(columns, rows)
    typer.echo(answer["sentence"])


def _print_table(columns: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sheet = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        # Text objects: values come from the network and must not be read as markup.
        sheet.add_row(*(Text("" if value is None else str(value)) for value in row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: nothing is cut off there
        console = Console(width=10_000)
    console.print(sheet)


def _duration(us: float | None) -> str:
    if us is None:
        return ""
    for limit, unit, scale in ((1e3, "µs", 1.0), (1e6, "ms", 1e3)):
        if us < limit:
            return f"{us / scale:.3g} {unit}"
    return f"{us / 1e6:.3g} s"


def _span(text: str) -> int:
    try:
        value = seconds(text)
    except ValueError as error:
        fail(f"--last {text}: {error}.")
    if not isinstance(value, float) or value <= 0:
        fail(f"--last {text}: write a duration such as 5m or 1h.")
    return int(value)

"""Write the generated pages of docs/, or with --check say which of them are out of date.

python docs/generate.py [--check]
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
_NOTE = "<!-- written by docs/generate.py: change the source it names, not this page -->\n"


def configuration() -> str:
    """Every key of both processes, out of the settings models."""
    from deepflow.agent.settings import AgentSettings
    from deepflow.server.settings import ServerSettings
    from deepflow.settings import keys

    parts = [
        "# Configuration\n",
        _NOTE,
        "\nOne YAML file a process (`--config`), environment variables over it, flags over both. A level of the tree is a dot here and "
        "`__` in a variable: `global.limits.max_memory` is `DEEPFLOW_AGENT_GLOBAL__LIMITS__MAX_MEMORY`. Durations are written `300s`, `5m`, `1h`. "
        "A wrong key stops the process with a sentence. Keys of the agent that DeepFlow has, too, carry its names, defaults and units.\n",
    ]
    for title, model, prefix in (
        ("Agent", AgentSettings, "DEEPFLOW_AGENT_"),
        ("Server", ServerSettings, "DEEPFLOW_SERVER_"),
    ):
        parts.append(f"\n## {title} (`{prefix}…`)\n\n| key | default | meaning |\n|---|---|---|\n")
        for key, default, description in keys(model):
            parts.append(f"| `{key}` | `{_default(default)}` | {_cell(description)} |\n")
    return "".join(parts)


def command_line() -> str:
    """Every command and option, out of the Typer application."""
    import typer

    from deepflow.cli.app import app

    group = typer.main.get_command(app)
    parts = ["# Command line\n", _NOTE]
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        parts.append(
            f"\n## deepflow {name}\n\n{inspect.cleandoc(command.help or '')}\n\n| argument or option | default | meaning |\n|---|---|---|\n"
        )
        for parameter in command.params:
            is_argument = parameter.param_type_name == "argument"
            label = (parameter.metavar or parameter.name.upper()) if is_argument else ", ".join(parameter.opts)
            default = "" if parameter.default is None or parameter.required else _default(parameter.default)
            text = parameter.help or ""
            if isinstance(parameter.default, Enum):
                text += f" One of {', '.join(choice.value for choice in type(parameter.default))}."
            parts.append(f"| `{label}` | {f'`{default}`' if default else ''} | {_cell(text)} |\n")
    return "".join(parts)


def protocols() -> str:
    """The registry of the core."""
    from deepflow import _core

    parts = [
        "# Protocols\n",
        _NOTE,
        "\nWhat the core parses, out of its registry. How to add one: [extending/protocol.md](extending/protocol.md).\n",
        "\n| number | name | over | pairs | waits for a response |\n|---|---|---|---|---|\n",
    ]
    registry = sorted(json.loads(_core.protocols()), key=lambda protocol: protocol["id"])
    names = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMPv6"}
    for protocol in registry:
        over = ", ".join(names[number] for number in protocol["transports"])
        pairs = "in order" if protocol["pairing"] == "Fifo" else "by id"
        parts.append(f"| {protocol['id']} | {protocol['name']} | {over} | {pairs} | {protocol['timeout_s']} s |\n")
    parts += [f"\n## {protocol['name']}\n\n{protocol['doc'].strip()}\n" for protocol in registry]
    return "".join(parts)


def http_api() -> str:
    """Every route of the server, out of the application and the docstrings of its handlers."""
    from deepflow.api.app import routes

    parts = [
        "# HTTP API\n",
        _NOTE,
        "\nOne port, 127.0.0.1:20416 unless told otherwise. Errors are 4xx or 5xx with one sentence in `error` (or `DESCRIPTION` where DeepFlow has it). "
        "With `--token-file`, every request but `/v1/health` needs `Authorization: Bearer TOKEN`.\n",
    ]
    found = routes()
    for route in found:
        if not route.path or any(other.path == f"{route.path}/" for other in found):
            continue
        methods = ", ".join(sorted(set(getattr(route, "methods", None) or ()) - {"HEAD"}))
        text = inspect.getdoc(getattr(route, "endpoint", None)) or ""
        parts += [f"\n## {f'{methods} ' if methods else ''}`{route.path}`\n", f"\n{text}\n"]
    return "".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "cli.md": command_line,
    "protocols.md": protocols,
    "http-api.md": http_api,
}


def _default(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{int(value)}s"
    return str(getattr(value, "value", value)) if not isinstance(value, list) else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    for name, write in PAGES.items():
        text, file = write(), DOCS / name
        if not file.exists() or file.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.write_text(text)
    if "--check" in sys.argv and stale:
        print(f"Out of date: {', '.join(stale)}; run `python docs/generate.py`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

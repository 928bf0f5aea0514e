"""The application that the commands join."""

from __future__ import annotations

import sys

import typer

from deepflow import __version__
from deepflow.cli import look, offline, run

app = typer.Typer(
    name="deepflow",
    help="Zero-code observability: one command observes this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.up)
app.command()(run.agent)
app.command()(run.server)
app.command()(look.query)
app.command()(look.trace)
app.command(name="map")(look.service_map)
app.command()(look.path)
app.command()(offline.replay)
app.command()(offline.doctor)
app.command()(offline.bench)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deepflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends with one sentence, never with a traceback."""
    try:
        app()
    except BrokenPipeError:
        # The reader of a pipe (head) has enough; that is no failure.
        sys.stderr.close()
        sys.exit(0)

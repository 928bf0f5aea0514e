"""Asking the server over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from deepflow.cli.fault import fail

DEFAULT_URL = "http://127.0.0.1:20416"
ServerOption = Annotated[str, typer.Option("--server", envvar="DEEPFLOW_SERVER", help="Address of the server.")]
TokenOption = Annotated[
    str, typer.Option("--token", envvar="DEEPFLOW_TOKEN", help="Bearer token, if the server asks for one.")
]


def ask(server: str, token: str, method: str, path: str, **request: Any) -> Any:
    """The JSON answer of the server; ends the command with a sentence when there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.request(method, f"{server}{path}", headers=headers, timeout=60.0, trust_env=False, **request)
    except httpx.HTTPError as error:
        fail(f"The server at {server} does not answer ({error}); is `deepflow up` or `deepflow server` running?")
    except httpx.InvalidURL as error:
        fail(f"{server} is no address of a server: {error}.")
    try:
        body = answer.json()
    except ValueError:
        fail(f"{server} answered HTTP {answer.status_code} and no JSON; is it a DeepFlow server?")
    if answer.is_error:
        detail = body.get("DESCRIPTION") or body.get("error") if isinstance(body, dict) else None
        fail(detail or f"The server answered HTTP {answer.status_code}.")
    return body

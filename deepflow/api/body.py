"""Reads request bodies with a bound."""

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request


class RequestError(Exception):
    """The request cannot be served; the message is one sentence. `status` is the HTTP status."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


async def read_body(request: Request, limit: int) -> bytes:
    """The body.

    Raises:
        RequestError: it is longer than `limit` bytes (413).
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RequestError(f"The request is too large, at most {limit} bytes are taken.", 413)
        parts.append(part)
    return b"".join(parts)


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object, or as a form when it says so.

    Raises:
        RequestError: too large, or neither.
    """
    body = await read_body(request, limit)
    try:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return dict(parse_qsl(body.decode(), keep_blank_values=True))
        document = json.loads(body)
    except ValueError:
        raise RequestError("The body of the request is no valid JSON.") from None
    if not isinstance(document, dict):
        raise RequestError("The body of the request must be a JSON object.")
    return document

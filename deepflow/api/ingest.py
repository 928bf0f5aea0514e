"""`POST /v1/ingest/{table}`: one batch, acknowledged once it is stored."""

import asyncio
import re

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deepflow.api.agents import agent_of
from deepflow.api.body import RequestError, read_body
from deepflow.api.state import state_of
from deepflow.ingest.batch import MAX_BODY_BYTES

_BATCH = re.compile(r"[0-9a-fA-F]{16}")
_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")


async def ingest(request: Request) -> JSONResponse:
    """Store one batch: an Arrow IPC stream with the columns of the table that `from: core` or `from: wire` names.

    Headers: `X-DeepFlow-Agent` (the id from registration), `X-DeepFlow-Batch` (16 hexadecimal digits, unique for ever),
    `X-DeepFlow-Attempt` (1, 2, …). Answers 200 {"rows": n} after the store has the batch, 400 when it is wrong and must
    not be repeated, 503 when it must be repeated later. A repeated batch is stored once.
    """
    state = state_of(request)
    agent_id = agent_of(request)
    batch = request.headers.get("x-deepflow-batch", "")
    if not _BATCH.fullmatch(batch):
        raise RequestError("The header X-DeepFlow-Batch must be 16 hexadecimal digits.")
    attempt = request.headers.get("x-deepflow-attempt", "1")
    if not _ATTEMPT.fullmatch(attempt):
        raise RequestError("The header X-DeepFlow-Attempt must be a number from 1.")
    body = await read_body(request, MAX_BODY_BYTES)
    table = request.path_params["table"]
    stored = await state.write(state.ingest.enqueue, table, agent_id, int(batch, 16), int(attempt), body)
    # Shielded: a sender that hangs up must not take the answer from another one that waits for the same batch.
    rows = await asyncio.shield(asyncio.wrap_future(stored))
    return JSONResponse({"rows": rows})


routes = [Route("/v1/ingest/{table}", ingest, methods=["POST"])]

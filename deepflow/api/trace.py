"""`POST /v1/stats/querier/L7FlowTracing`: one trace."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deepflow.api.body import RequestError, read_object
from deepflow.api.query import refusal
from deepflow.api.state import State, state_of
from deepflow.store import StoreError
from deepflow.trace import TraceNotFound, trace_by_id, trace_by_trace_id

_MAX_BODY_BYTES = 1 << 16


async def l7_flow_tracing(request: Request) -> JSONResponse:
    """Assemble one trace: JSON with `_id` (a row of the request log) or `trace_id`, and TIME_START and TIME_END in s.

    Answers {"OPT_STATUS", "DESCRIPTION", "DATA": {"tracing": [span], "services": [...]}}; the fields of a span are
    listed in docs/architecture.md, section 5.
    """
    state = state_of(request)
    try:
        asked = await read_object(request, _MAX_BODY_BYTES)
        data = await state.read(_search, state, asked)
    except RequestError as error:
        return refusal(str(error), error.status)
    except TraceNotFound as error:
        return refusal(str(error), 404, "RESOURCE_NOT_FOUND")
    except StoreError as error:
        return refusal(str(error), 500, "SERVER_ERROR")
    return JSONResponse({"OPT_STATUS": "SUCCESS", "DESCRIPTION": "", "DATA": data})


def _search(state: State, asked: dict[str, Any]) -> Any:
    if asked.get("_id") not in (None, ""):
        return trace_by_id(state.store, _number(asked, "_id", 2**64)).to_dict()
    trace_id = asked.get("trace_id")
    if not isinstance(trace_id, str) or not trace_id or len(trace_id) > 1024:
        raise RequestError("The request needs _id, the number of a row, or trace_id, a text.")
    start, end = _number(asked, "TIME_START", 2**32), _number(asked, "TIME_END", 2**32)
    if start > end:
        raise RequestError("TIME_START must not be after TIME_END.")
    return trace_by_trace_id(state.store, trace_id, start, end).to_dict()


def _number(asked: dict[str, Any], name: str, limit: int) -> int:
    value = asked.get(name)
    text = str(value) if isinstance(value, int | str) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < limit):
        raise RequestError(f"{name} must be a whole number below {limit}.")
    return int(text)


routes = [
    Route("/v1/stats/querier/L7FlowTracing", l7_flow_tracing, methods=["POST"]),
    Route("/v1/stats/querier/L7FlowTracing/", l7_flow_tracing, methods=["POST"]),
]

"""`/v1/web/*`: what the page shows."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deepflow.api.body import RequestError
from deepflow.api.network_map import network_map
from deepflow.api.own_calls import OwnAddress
from deepflow.api.request_list import MAX_ROWS, RequestFilter, request_list
from deepflow.api.service_map import service_map
from deepflow.api.state import State, state_of
from deepflow.trace import MAX_CALLS, TraceNotFound, path_between, path_by_id

_DEFAULT_RANGE_S = 300
_PATH_CALLS = 200
_COUNTED_S = 24 * 3600
_MAX_TEXT = 4096
# Counters are increases and add up; of gauges the last reading is shown.
_COUNTERS_SQL = (
    "SELECT agent_id, replaceOne(virtual_table_name, 'deepflow_agent_', '') AS measurement, counter.1 AS name, "
    "if(measurement IN ('monitor', 'hook') OR startsWith(name, 'queued') OR endsWith(name, '_now'), "
    "argMax(counter.2, time), sum(counter.2)) "
    "AS value FROM (SELECT agent_id, virtual_table_name, time, "
    "arrayJoin(arrayZip(metrics_float_names, metrics_float_values)) AS counter FROM deepflow_system.deepflow_system "
    "WHERE time >= {from:UInt32} AND agent_id != 0) GROUP BY agent_id, measurement, name ORDER BY measurement, name"
)


async def service_map_(request: Request) -> JSONResponse:
    """GET /v1/web/map?from=&to=."""
    state = state_of(request)
    start, end = _range(request)
    return JSONResponse(await state.read(service_map, state.store, state.schema, start, end, _own(request)))


async def network_map_(request: Request) -> JSONResponse:
    """GET /v1/web/network-map?from=&to=."""
    state = state_of(request)
    start, end = _range(request)
    return JSONResponse(await state.read(network_map, state.store, state.schema, start, end, _own(request)))


async def requests(request: Request) -> JSONResponse:
    """GET /v1/web/requests."""
    state = state_of(request)
    start, end = _range(request)
    wanted = RequestFilter(
        start,
        end,
        _own(request),
        **{name: _text(request, name) for name in ("client", "server", "service", "path", "status", "protocol")},
        min_us=_number(request, "min_us"),
        max_us=_number(request, "max_us"),
        limit=max(1, min(_number(request, "limit") or 100, MAX_ROWS)),
        before=_number(request, "before"),
    )
    try:
        return JSONResponse(await state.read(request_list, state.store, state.schema, wanted))
    except ValueError as error:
        raise RequestError(str(error)) from None


async def path(request: Request) -> JSONResponse:
    """The path of one call: GET /v1/web/path?_id=, the id of any of its rows.

    Or of the calls between two services, the newest `limit` ones: GET /v1/web/path?client=&server=&from=&to=&limit=.
    """
    state = state_of(request)
    row_id = _number(request, "_id")
    if row_id is not None:
        try:
            return JSONResponse(await state.read(path_by_id, state.store, row_id))
        except TraceNotFound as error:
            raise RequestError(str(error), 404) from None
    client, server = _text(request, "client"), _text(request, "server")
    if not client or not server:
        raise RequestError("A path needs _id, or the names of client and server.")
    start, end = _range(request)
    limit = max(1, min(_number(request, "limit") or _PATH_CALLS, MAX_CALLS))
    return JSONResponse(await state.read(path_between, state.store, client, server, start, end, limit))


async def agents(request: Request) -> JSONResponse:
    """GET /v1/web/agents."""
    state = state_of(request)
    return JSONResponse(await state.read(_agents, state))


def _agents(state: State) -> dict[str, Any]:
    counted: dict[int, dict[str, float]] = {}
    last_report: dict[int, int] = {}
    for row in state.store.query(_COUNTERS_SQL, {"from": int(time.time()) - _COUNTED_S}).to_pylist():
        counted.setdefault(row["agent_id"], {})[f"{row['measurement']}/{row['name']}"] = row["value"]
    for row in state.store.query(
        "SELECT agent_id, max(time) AS last FROM deepflow_system.deepflow_system "
        "WHERE time >= {from:UInt32} AND agent_id != 0 GROUP BY agent_id",
        {"from": int(time.time()) - _COUNTED_S},
    ).to_pylist():
        last_report[row["agent_id"]] = row["last"]
    listed = [
        {
            "agent_id": agent["agent_id"],
            "name": agent["name"],
            "version": agent["version"],
            "kernel": agent["kernel"],
            "last_seen_s": max(int(agent["last_seen_s"]), last_report.get(int(agent["agent_id"]), 0)),
            "counters": counted.get(int(agent["agent_id"]), {}),
        }
        for agent in state.resources.list_agents()
    ]
    own = {f"{table}/{name}": value for table, kept in state.ingest.counters().items() for name, value in kept.items()}
    return {"agents": listed, "server": own}


def _own(request: Request) -> OwnAddress:
    """Of the socket that took the request; a socket in the file system has no port."""
    address, port = request.scope.get("server") or ("", 0)
    return OwnAddress(address, port or 0)


def _range(request: Request) -> tuple[int, int]:
    """from and to in s; by default the last five minutes."""
    end = _number(request, "to")
    end = int(time.time()) + 1 if end is None else end
    start = _number(request, "from")
    start = end - _DEFAULT_RANGE_S if start is None else start
    if not 0 <= start < end < 2**32:
        raise RequestError("from must be before to, both in seconds since 1970.")
    return start, end


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        number = int(float(text)) if "." in text else int(text)
    except (ValueError, OverflowError):
        raise RequestError(f"{name} must be a number.") from None
    if not 0 <= number < 2**64:
        raise RequestError(f"{name} must be a number from 0 to 2^64 - 1.")
    return number


def _text(request: Request, name: str) -> str:
    text = request.query_params.get(name, "")
    if len(text) > _MAX_TEXT:
        raise RequestError(f"{name} is too long, at most {_MAX_TEXT} characters are taken.")
    return text


routes = [
    Route("/v1/web/map", service_map_),
    Route("/v1/web/network-map", network_map_),
    Route("/v1/web/requests", requests),
    Route("/v1/web/path", path),
    Route("/v1/web/agents", agents),
]

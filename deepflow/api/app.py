"""Puts the interfaces together."""

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from deepflow import __version__
from deepflow.api import agents, ingest, query, trace, web
from deepflow.api.body import RequestError
from deepflow.api.pages import page_routes
from deepflow.api.state import State
from deepflow.api.token import BearerToken
from deepflow.ingest import BatchError, Busy
from deepflow.resources import MetadataError, ResourceError
from deepflow.store import StoreError

log = logging.getLogger(__name__)


def routes() -> list[BaseRoute]:
    """Every route of the server, in the order in which they are matched."""
    return [
        Route("/v1/health", health),
        *agents.routes,
        *ingest.routes,
        *query.routes,
        *trace.routes,
        *web.routes,
        *page_routes(),
    ]


def create_app(state: State) -> Starlette:
    """The application over an open server."""
    app = Starlette(
        routes=routes(),
        middleware=[Middleware(BearerToken, token=state.token)] if state.token else [],
        exception_handlers={
            RequestError: _request_error,
            BatchError: _wrong,
            ResourceError: _busy,
            Busy: _busy,
            StoreError: _busy,
            MetadataError: _busy,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    app.state.deepflow = state
    return app


async def health(_request: Request) -> JSONResponse:
    """The server is up: {"status": "ok", "version"}."""
    return JSONResponse({"status": "ok", "version": __version__})


async def _request_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, RequestError) else 400
    return JSONResponse({"error": str(error)}, status)


async def _wrong(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 400)


async def _busy(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    reason = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
    }
    return JSONResponse({"error": reason.get(status, f"HTTP {status}.")}, status)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "The server failed at this request; its log says why."}, 500)

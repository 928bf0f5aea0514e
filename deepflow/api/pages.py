"""The page: the web build's static files."""

from pathlib import Path

from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

import deepflow

DIST = Path(deepflow.__file__).parent / "web" / "dist"
_ABSENT = (
    "<!doctype html><title>DeepFlow</title><p>The server runs, but the web build is missing; run <code>make web</code> "
    "in the source tree or install the wheel. The data is there: try <code>deepflow map</code>.</p>"
)


async def _absent(_request: object) -> HTMLResponse:
    return HTMLResponse(_ABSENT, 503)


def page_routes(folder: Path = DIST) -> list[BaseRoute]:
    """Routes of `/` and `/assets/*`; one page that says what to do when there is no web build."""
    if not (folder / "index.html").is_file():
        return [Route("/", _absent)]
    return [Mount("/", StaticFiles(directory=folder, html=True))]

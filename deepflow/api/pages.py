"""The page: the web build's static files."""

from pathlib import Path

from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import deepflow

DIST = Path(deepflow.__file__).parent / "web" / "dist"
_ABSENT = (
    "<!doctype html><title>DeepFlow</title><p>The server runs, but the page is not built: run <code>make web</code> in "
    "the source tree or install the wheel, then reload. The data is there: try <code>deepflow map</code>.</p>"
)
_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"


class Build(StaticFiles):
    """Files of the web build, which may appear, change or go while the server runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True, check_dir=False)
        self._index = folder / "index.html"

    async def check_config(self) -> None:
        """Nothing to check at the first request: a missing folder is answered at each."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or for the page itself one sentence that says what to do when there is no build."""
        is_page = path in (".", "", "index.html")
        if is_page and not self._index.is_file():
            return HTMLResponse(_ABSENT, 503)
        response = await super().get_response(path, scope)
        if is_page:
            # The names of the other files change with their content; this one must be asked for again.
            response.headers["Cache-Control"] = "no-cache"
            response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def page_routes(folder: Path = DIST) -> list[BaseRoute]:
    """Routes of `/` and `/assets/*`."""
    return [Mount("/", Build(folder))]

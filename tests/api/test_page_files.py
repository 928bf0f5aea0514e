"""The page's files: a build may appear after the server's start."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from deepflow.api.pages import page_routes


class Page:
    """Asks the page's routes without a socket."""

    def __init__(self, folder: Path) -> None:
        self._app = Starlette(routes=page_routes(folder))

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as http:
                return await http.get(path)

        return asyncio.run(ask())


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return tmp_path / "dist"


def test_a_build_that_appears_later_is_found(build: Path) -> None:
    page = Page(build)
    absent = page.get("/")
    assert absent.status_code == 503
    assert "make web" in absent.text
    assert page.get("/assets/a.js").status_code == 404
    (build / "assets").mkdir(parents=True)
    (build / "index.html").write_text("<title>one</title>")
    (build / "assets" / "a.js").write_text("1")
    assert page.get("/").text == "<title>one</title>"
    assert page.get("/assets/a.js").text == "1"
    assert page.get("/").headers["Cache-Control"] == "no-cache"
    (build / "index.html").write_text("<title>another</title>")
    assert page.get("/").text == "<title>another</title>"


def test_nothing_outside_the_build_is_served(build: Path) -> None:
    build.mkdir()
    (build / "index.html").write_text("page")
    (build.parent / "secret").write_text("secret")
    page = Page(build)
    for path in ("/../secret", "/%2e%2e/secret", "/..%2fsecret"):
        assert page.get(path).status_code == 404

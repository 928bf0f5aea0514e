"""The bearer token."""

import hmac

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class BearerToken:
    """Lets requests under /v1 pass only with the token, except /v1/health; the page itself holds no data."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._protects(scope["path"]) and not self._brings(scope):
            answer = JSONResponse(
                {"error": "The server asks for a bearer token."}, 401, headers={"WWW-Authenticate": "Bearer"}
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    @staticmethod
    def _protects(path: str) -> bool:
        return path.startswith("/v1/") and path != "/v1/health"

    def _brings(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)

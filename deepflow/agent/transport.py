"""HTTP to the server: registration and the outbox's sender."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

from deepflow.agent.outbox import Entry, Refused, Unavailable

_REPEATABLE = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class Transport:
    """Connections to one server, for any thread. `agent_id` is 0 until `register` succeeded."""

    def __init__(self, url: str, token: str = "", timeout_s: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # The agent talks to the server it was given, never through a proxy of the environment.
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)
        self.agent_id = 0

    def register(self, identity: dict[str, Any]) -> int:
        """Tell the server who this is and get the agent id.

        Raises:
            Unavailable: the server does not answer, or answers an error.
        """
        # Short: capture goes on meanwhile, and nothing is drained while this waits.
        answer = self._post("/v1/agent/register", json=identity, timeout=2.0)
        self.agent_id = int(answer.json()["agent_id"])
        return self.agent_id

    def __call__(self, entry: Entry) -> None:
        """Send an entry of the outbox.

        Raises:
            Unavailable: repeat it later.
            Refused: never repeat it.
        """
        headers = {
            "Content-Type": entry.content_type,
            "X-DeepFlow-Agent": str(self.agent_id),
            "X-DeepFlow-Batch": entry.batch,
            "X-DeepFlow-Attempt": str(entry.attempt),
        }
        self._post(entry.path, content=entry.body, headers=headers)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post(self, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._client.post(path, **request)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._client.base_url}: {error}") from error
        if answer.is_success:
            return answer
        sentence = _sentence(answer)
        if answer.is_client_error and answer.status_code not in _REPEATABLE:
            raise Refused(sentence)
        raise Unavailable(sentence)


def _sentence(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"

"""What the interfaces work on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from deepflow.ingest import Ingest
from deepflow.resources import Resources
from deepflow.schema import Schema
from deepflow.store import Store

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass
class State:
    """The open parts of a server. Blocking work runs in threads: a few for agents, a few for readers."""

    schema: Schema
    store: Store
    resources: Resources
    ingest: Ingest
    token: str = ""
    """Bearer token that every request under /v1 except health must bring; empty for none."""
    writers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(4))
    readers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(6))

    async def write(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs blocking work for an agent."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self.writers)

    async def read(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs blocking work for a reader."""
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self.readers)


def state_of(request: Request) -> State:
    """The state of the application that got the request."""
    state = request.app.state.deepflow
    assert isinstance(state, State)
    return state

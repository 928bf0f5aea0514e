"""`/v1/agent/*`: who agents are, which processes they see and on which interfaces they read packets."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deepflow.api.body import RequestError, read_body
from deepflow.api.state import state_of
from deepflow.resources import MAX_INTERFACES, AgentIdentity, Interface, Process

_MAX_IDENTITY_BYTES = 1 << 16
_MAX_PROCESSES_BYTES = 32 << 20
_MAX_INTERFACES_BYTES = 16 << 20
_Text = Annotated[str, StringConstraints(max_length=4096)]
_Name = Annotated[str, StringConstraints(max_length=256)]
_Number = Annotated[int, Field(ge=0, lt=2**31)]
_Inode = Annotated[int, Field(ge=0, lt=2**32)]
_Micros = Annotated[int, Field(ge=0, lt=2**62)]


class _Identity(BaseModel):
    name: _Name
    machine_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    boot_id: _Name = ""
    kernel: _Name = ""
    version: _Name = ""
    ip: _Name = ""


class _Process(BaseModel):
    pid: _Number
    start_time_us: _Micros
    end_time_us: _Micros | None = None
    name: _Name
    process_name: _Name = ""
    cmdline: str = ""
    user: _Name = ""
    container_id: Annotated[str, StringConstraints(max_length=128)] = ""
    ppid: _Number = 0


class _Processes(BaseModel):
    processes: Annotated[list[_Process], Field(max_length=100_000)]


class _Interface(BaseModel):
    capture_nic: Annotated[int, Field(gt=0, lt=2**32)]
    name: _Name
    kind: _Name = ""
    netns: _Inode = 0
    behind: _Inode = 0
    owner: _Name = ""


class _Interfaces(BaseModel):
    interfaces: Annotated[list[_Interface], Field(max_length=MAX_INTERFACES)]


async def register(request: Request) -> JSONResponse:
    """Give an agent its id: JSON {"name", "machine_id", "boot_id", "kernel", "version", "ip"} → {"agent_id": n};
    the same machine_id gets the same id."""
    state = state_of(request)
    body = await read_body(request, _MAX_IDENTITY_BYTES)
    try:
        identity = _Identity.model_validate_json(body)
    except ValidationError as error:
        raise _wrong(error) from None
    agent_id = await state.write(state.resources.register_agent, AgentIdentity(**identity.model_dump()))
    return JSONResponse({"agent_id": agent_id})


async def processes(request: Request) -> JSONResponse:
    """Take in processes that an agent saw: JSON {"processes": [{"pid", "start_time_us", "end_time_us" or null, "name",
    "process_name", "cmdline", "user", "container_id", "ppid"}]}; whose they are says the header X-DeepFlow-Agent."""
    state = state_of(request)
    body = await read_body(request, _MAX_PROCESSES_BYTES)
    try:
        sent = await state.write(_Processes.model_validate_json, body)
    except ValidationError as error:
        raise _wrong(error) from None
    agent_id = _registered(request)
    listed = [Process(**{**process.model_dump(), "cmdline": process.cmdline[:4096]}) for process in sent.processes]
    await state.write(state.resources.upsert_processes, agent_id, listed)
    return JSONResponse({})


async def interfaces(request: Request) -> JSONResponse:
    """Take in all interfaces on which an agent reads packets now: JSON {"interfaces": [{"capture_nic", "name", "kind",
    "netns" (0: that of the node), "behind" (of a veth), "owner"}]}; whose they are says the header X-DeepFlow-Agent."""
    state = state_of(request)
    body = await read_body(request, _MAX_INTERFACES_BYTES)
    try:
        sent = await state.write(_Interfaces.model_validate_json, body)
    except ValidationError as error:
        raise _wrong(error) from None
    listed = [Interface(**interface.model_dump()) for interface in sent.interfaces]
    await state.write(state.resources.replace_interfaces, _registered(request), listed)
    return JSONResponse({})


def _registered(request: Request) -> int:
    agent_id = agent_of(request)
    if not state_of(request).resources.is_agent(agent_id):
        raise RequestError(f"Agent {agent_id} is unknown to this server; it must register first.", 503)
    return agent_id


def agent_of(request: Request) -> int:
    """The agent id in X-DeepFlow-Agent.

    Raises:
        RequestError: it is no number.
    """
    text = request.headers.get("x-deepflow-agent", "")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise RequestError("The header X-DeepFlow-Agent must be the number that registration gave.")
    return int(text)


def _wrong(error: ValidationError) -> RequestError:
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    return RequestError(f"{where or 'The body of the request'}: {problem['msg'].rstrip('.')}.")


routes = [
    Route("/v1/agent/register", register, methods=["POST"]),
    Route("/v1/agent/processes", processes, methods=["POST"]),
    Route("/v1/agent/interfaces", interfaces, methods=["POST"]),
]

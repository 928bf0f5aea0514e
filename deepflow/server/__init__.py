"""The server as a process."""

from deepflow.server.process import ServerError, run
from deepflow.server.settings import ServerSettings

__all__ = ["ServerError", "ServerSettings", "run"]

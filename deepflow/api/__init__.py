"""The server's HTTP interfaces as a Starlette application, one file each (docs/architecture.md, sections 3 and 5)."""

from deepflow.api.app import create_app
from deepflow.api.state import State

__all__ = ["State", "create_app"]

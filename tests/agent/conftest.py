"""The agent's parts; those that need the kernel say so."""

from tests.e2e.conftest import can_observe

__all__ = ["can_observe"]

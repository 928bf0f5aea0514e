"""The command line: `deepflow up | agent | server | replay | query | trace | map | doctor | bench`."""

from __future__ import annotations

from deepflow.cli.app import main

__all__ = ["main"]

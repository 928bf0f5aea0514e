"""DeepFlow: zero-code observability that one command starts on one machine."""

__version__ = "0.1.0"

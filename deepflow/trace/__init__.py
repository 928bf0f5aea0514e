"""Traces: search the rows that belong together, relate them, assemble one tree."""

from deepflow.trace.assemble import assemble, forest
from deepflow.trace.network import Tolerance
from deepflow.trace.path_search import MAX_CALLS, path_between, path_by_id
from deepflow.trace.relate import Edge, relate
from deepflow.trace.row import Row
from deepflow.trace.search import TraceNotFound, trace_by_id, trace_by_trace_id
from deepflow.trace.span import Span, Trace

__all__ = [
    "MAX_CALLS",
    "Edge",
    "Row",
    "Span",
    "Tolerance",
    "Trace",
    "TraceNotFound",
    "assemble",
    "forest",
    "path_between",
    "path_by_id",
    "relate",
    "trace_by_id",
    "trace_by_trace_id",
]

"""From an agent's batch to stored rows, exactly once."""

from deepflow.ingest.batch import BatchError
from deepflow.ingest.ingest import Ingest
from deepflow.ingest.writer import Busy

__all__ = ["BatchError", "Busy", "Ingest"]

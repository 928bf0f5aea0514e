"""What exists: agents, hosts, interfaces, processes, services; their ids for SmartEncoding, and their names."""

from deepflow.resources.geography import Geography, GeographyError
from deepflow.resources.interfaces import MAX_INTERFACES, Interface
from deepflow.resources.metadata import Metadata, MetadataError
from deepflow.resources.resources import AgentIdentity, Process, ResourceError, Resources
from deepflow.resources.tagger import Tagger

__all__ = [
    "MAX_INTERFACES",
    "AgentIdentity",
    "Geography",
    "GeographyError",
    "Interface",
    "Metadata",
    "MetadataError",
    "Process",
    "ResourceError",
    "Resources",
    "Tagger",
]

"""What exists: agents, hosts, processes, services; their ids for SmartEncoding, and their names."""

from deepflow.resources.metadata import Metadata, MetadataError
from deepflow.resources.resources import AgentIdentity, Process, ResourceError, Resources
from deepflow.resources.tagger import Tagger

__all__ = ["AgentIdentity", "Metadata", "MetadataError", "Process", "ResourceError", "Resources", "Tagger"]

"""The agent: runs the core, names processes, and brings batches to the server without losing one uncounted."""

"""The `sys/` backend, one file a topic."""

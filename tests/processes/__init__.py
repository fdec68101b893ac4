"""Real nodes, each a process of its own: what only the operating system can show."""

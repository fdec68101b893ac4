"""Consensus: the sans-IO Raft core, the node that drives it, transport, membership and join.

Knows nothing of what an entry means, of encryption of values, or of HTTP. Leaves this room: `replica` (the seam), `errors`.
"""

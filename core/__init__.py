"""The vault: request pipeline, mounts, tokens, policies, leases. Knows no socket, no LMDB call, no Raft message."""

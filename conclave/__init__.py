"""Conclave: a secrets server with Vault's API, run as a consensus-first cluster.

The rooms, from the client inwards (`docs/architecture.md` has the picture):

* `cli`      the command line; talks HTTP like any other client
* `api`      HTTP: the fast lane, the Starlette application, envelopes
* `core`     the vault: request pipeline, mounts, tokens, policies, leases
* `engines`  secrets engines, one file each; `methods`: auth methods
* `cluster`  consensus: the sans-IO Raft core, the node, transport, membership
* `storage`  bytes at rest: log and state on LMDB, overlay, barrier, sealed tree

Each room is a top-level folder of the repository; the links in this folder bind
them into one package (`docs/adr/0002-rooms-and-the-package.md`).
"""

__version__ = "0.1.0"

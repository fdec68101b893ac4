"""A deterministic simulator of a cluster: the real Raft core, virtual time, one seed.

`world` plays nodes, network, disks and clients; `faults` says what may go wrong in a seed; `checkers` says what must never
happen; `linearizability` judges histories of real processes. `nodes` does the same with whole real nodes.
`python -m tests.simulator --help`.
"""

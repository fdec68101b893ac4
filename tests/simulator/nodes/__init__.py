"""Whole nodes in one process: real `Node`s under virtual time, with faults, from one seed.

`loop` is time and processes, `network` connections, `disk` what survives a crash, `machine` what is replicated, `server` one
node with its clients' door, `clients` who asks, `faults` and `disturbances` what goes wrong, `checkers` what must never
happen, `play` a seed from beginning to end.
"""

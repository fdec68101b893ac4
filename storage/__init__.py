"""Bytes at rest: what a node keeps, and how it is kept so that nobody can read it.

From the disk upwards:

* `errors`       what can go wrong: corrupt, full, fenced, wrong key
* `checksums`    CRC-32C
* `environment`  opening LMDB: modes, map size, one owner, fencing after a failed sync
* `log`          the replicated log: entries by index, hard state, identity
* `state`        what has been applied, with the applied index in the same transaction
* `memory`       the same two contracts without a disk
* `snapshots`    the state as a stream of checksummed chunks, and its installation
* `archive`      a snapshot as a file: written, verified, restored
* `stored_gzip`  the form of that file: gzip without compression, in which every byte counts
* `writeset`     what one log entry holds: sealed puts and deletes
* `overlay`      proposed and committed write sets in memory, above the state; group flush; the one feed
* `transaction`  one operation's view: its own changes over the overlay
* `keyring`      keys by term, wrapped by the root key
* `barrier`      AES-256-GCM records and keyed hashes of names
* `tree`         directories of sealed names and values
* `tables`       sealed rows in order of time
* `shamir`       sharing a secret (pure)
* `seal`         seal configuration, root key, what is readable before unsealing

This room knows no Raft rule, no HTTP and no engine; it imports nothing of ours. `docs/storage.md` has every layout.
"""

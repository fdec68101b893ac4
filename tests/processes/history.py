"""What many clients saw of a cluster, and whether one cluster without faults could have shown it.

Clients write a value never more than once, so that every value tells which request made it. The rules that `judge` holds a
history to, against what the cluster holds once all is healed:

* An acknowledged write is there, under the version that its answer named.
* No value is there twice, or was never sent: no request happened twice.
* The operations on each key are linearizable (`tests.simulator.linearizability`), with the last reads on every node among
  them: so no node shows what is old. A write whose outcome nobody heard, and whose value is nowhere, did not happen.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from msgspec import Struct

from tests.simulator import linearizability
from tests.simulator.linearizability import UNKNOWN, Kind, NotLinearizable, Operation, SearchTooLong

SHOWN_MAX: Final = 20
"""How many complaints of one kind a report shows."""


class Moment(Struct, frozen=True):
    """Something that went wrong for a client: when, at which node, and what; not necessarily a fault."""

    at: float
    node: str
    what: str


class History:
    """Everything that the clients of one run saw. Times are seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.acknowledged: dict[str, dict[int, str]] = {}
        self.accepted_at: list[float] = []
        self.failures: list[Moment] = []
        self.surprises: list[Moment] = []
        self.answers: Counter[str] = Counter()

    def wrote(self, operation: Operation, version: int) -> None:
        """Record a write that was acknowledged as a version of its key."""
        assert operation.value is not None
        self.operations.append(operation)
        self.acknowledged.setdefault(operation.key, {})[version] = operation.value
        self.accepted_at.append(operation.end)

    def pause(self, since: float, until: float) -> float:
        """Return the longest time in which no write was accepted, of what lies between two moments."""
        moments = [at for at in self.accepted_at if since <= at <= until]
        edges = [since, *sorted(moments), until]
        return max(later - earlier for earlier, later in pairwise(edges))

    def first_accepted(self, since: float) -> float | None:
        """Return when the first write after a moment was accepted."""
        # Clients append as answers come: the last ones are enough, and nothing is sorted while the load runs.
        recent = [at for at in self.accepted_at[-4096:] if at > since]
        return min(recent, default=None)

    def failures_between(self, since: float, until: float) -> list[Moment]:
        """Return what clients were refused between two moments."""
        return [failure for failure in self.failures if since <= failure.at <= until]


def judge(history: History, versions: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is wrong with a history; empty if nothing is.

    Args:
        history: with the last reads on every node among its operations.
        versions: of each key the values that the cluster holds, oldest first; version 1 is the first.
    """
    return [
        *(f"{moment.node}: {moment.what}" for moment in history.surprises[:SHOWN_MAX]),
        *_lost(history.acknowledged, versions),
        *_strange(history.operations, versions),
        *_not_linearizable(settled(history.operations, versions)),
    ]


def settled(operations: Iterable[Operation], versions: Mapping[str, Sequence[str]]) -> list[Operation]:
    """Return a history without the writes of unknown outcome that did not happen: nobody can have seen them."""
    return [
        operation
        for operation in operations
        if operation.end != UNKNOWN or operation.value in versions.get(operation.key, ())
    ]


def _lost(acknowledged: Mapping[str, Mapping[int, str]], versions: Mapping[str, Sequence[str]]) -> list[str]:
    complaints = []
    for key, writes in acknowledged.items():
        there = versions.get(key, ())
        for version, value in writes.items():
            if version > len(there) or there[version - 1] != value:
                complaints.append(f"{key}: {value} was acknowledged as version {version}, and is not it")
    return complaints[:SHOWN_MAX]


def _strange(operations: Iterable[Operation], versions: Mapping[str, Sequence[str]]) -> list[str]:
    sent: dict[str, set[str | None]] = {}
    for operation in operations:
        if operation.kind in (Kind.WRITE, Kind.CAS):
            sent.setdefault(operation.key, set()).add(operation.value)
    complaints = []
    for key, values in versions.items():
        complaints += [
            f"{key}: {value} happened {times} times" for value, times in Counter(values).items() if times > 1
        ]
        complaints += [f"{key}: {value} was never sent" for value in values if value not in sent.get(key, ())]
    return complaints[:SHOWN_MAX]


def _not_linearizable(operations: Iterable[Operation]) -> list[str]:
    keys: dict[str, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    complaints = []
    for of_key in keys.values():
        try:
            linearizability.check(of_key)
        except (NotLinearizable, SearchTooLong) as error:
            complaints.append(f"{type(error).__name__}: {error}")
    return complaints[:SHOWN_MAX]

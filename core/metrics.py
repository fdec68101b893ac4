"""What a node counts and measures: one named, typed table. `api/exposition.py` writes it for Prometheus and as JSON.

Counters only grow, gauges are set or read when somebody looks, summaries keep count, sum and the latest samples for
quantiles. An increment costs well under a microsecond and allocates nothing. The names are those of Vault that have a
meaning here, with dots: "core.handle_request" is `vault_core_handle_request` in Prometheus.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Final

SAMPLES: Final = 512
"""How many of the latest samples a summary keeps; a power of two."""
QUANTILES: Final = (0.5, 0.9, 0.99)

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows while the process lives."""

    __slots__ = ("help", "name", "value")

    def __init__(self, name: str, help_text: str) -> None:
        self.name = name
        self.help = help_text
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count one event, or several."""
        self.value += amount


class Gauge:
    """A number as it is now: set, moved, or read from elsewhere when somebody looks.

    Args:
        name, help_text: for whoever reads it.
    """

    __slots__ = ("_read", "_value", "help", "name")

    def __init__(self, name: str, help_text: str) -> None:
        self.name = name
        self.help = help_text
        self._value = 0.0
        self._read: Callable[[], float] | None = None

    def add(self, amount: float) -> None:
        """Move it."""
        self._value += amount

    def set(self, value: float) -> None:
        """Give it a value."""
        self._value = value

    def follow(self, read: Callable[[], float]) -> None:
        """Read it by a function from now on."""
        self._read = read

    @property
    def value(self) -> float:
        """The number as it is now."""
        return self._value if self._read is None else self._read()


class LabelledGauge:
    """A number for each of several things, as they are when somebody looks.

    Args:
        name, help_text: for whoever reads it.
        label: what tells the things apart.
    """

    __slots__ = ("_read", "help", "label", "name")

    def __init__(self, name: str, help_text: str, label: str) -> None:
        self.name = name
        self.help = help_text
        self.label = label
        self._read: Callable[[], Mapping[str, float]] = dict

    def follow(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read the numbers by a function from now on: label value → number."""
        self._read = read

    @property
    def values(self) -> Mapping[str, float]:
        """The numbers as they are now."""
        return self._read()


class Summary:
    """Durations: how many, their sum, and quantiles of the latest `SAMPLES`.

    Args:
        name, help_text: for whoever reads it.
        unit: of the samples.
    """

    __slots__ = ("_latest", "count", "help", "name", "total", "unit")

    def __init__(self, name: str, help_text: str, unit: str = "milliseconds") -> None:
        self.name = name
        self.help = help_text
        self.unit = unit
        self.count = 0
        self.total = 0.0
        self._latest = array("d", bytes(8 * SAMPLES))

    def observe(self, duration: float) -> None:
        """Take one sample."""
        self._latest[self.count & (SAMPLES - 1)] = duration
        self.count += 1
        self.total += duration

    def latest(self) -> list[float]:
        """Return the latest samples, sorted."""
        return sorted(self._latest[: min(self.count, SAMPLES)])

    def quantiles(self) -> Iterator[tuple[float, float]]:
        """Yield each of `QUANTILES` with its value among the latest samples; nothing if there are none."""
        latest = self.latest()
        if latest:
            for quantile in QUANTILES:
                yield quantile, latest[min(len(latest) - 1, int(quantile * len(latest)))]


Metric = Counter | Gauge | LabelledGauge | Summary


class Metrics:
    """The table of one node. Each attribute is one metric; a new one is a line here."""

    def __init__(self) -> None:
        self.handle_request = Summary("core.handle_request", "Time from a request's last byte to its answer.")
        self.in_flight = Gauge("core.in_flight_requests", "Requests that wait for their answer.")
        self.active = Gauge("core.active", "1 on the node that leads and serves.")
        self.unsealed = Gauge("core.unsealed", "1 while this node holds the keys.")
        self.lease_expiration = Counter("expire.lease_expiration", "Leases that were ended because they were due.")
        self.raft_peers = Gauge("raft.peers", "Members of the cluster, this node included.")
        self.raft_apply = Counter("raft.apply", "Entries that this node has proposed.")
        self.raft_commit_time = Summary("raft.commitTime", "Time from a proposal to its commit on the leader.")
        self.raft_applied_index = Gauge("raft_storage.stats.applied_index", "Index of the last entry applied.")
        self.raft_commit_index = Gauge("raft_storage.stats.commit_index", "Index of the last entry committed.")
        self.raft_term = Gauge("raft_storage.stats.term", "The current term.")
        self.autopilot_healthy = Gauge("autopilot.healthy", "1 while every member is in touch; told by the leader.")
        self.node_healthy = LabelledGauge("autopilot.node.healthy", "1 for each member that is in touch.", "node_id")
        self.alloc_bytes = Gauge("runtime.alloc_bytes", "Memory that this process has in use.")
        self.gc_runs = Gauge("runtime.total_gc_runs", "Collections of memory since this process began.")
        self.gc_total_pause_ns = Gauge("runtime.total_gc_pause_ns", "How long all of them took.")
        self.gc_pause_ns = Summary("runtime.gc_pause_ns", "How long one took; all requests wait.", "nanoseconds")
        self.failure_tolerance = Gauge("autopilot.failure_tolerance", "Voters that may fail without losing quorum.")

    def __iter__(self) -> Iterator[Metric]:
        """Yield every metric, sorted by name."""
        return iter(sorted(vars(self).values(), key=lambda metric: metric.name))


def prometheus_name(name: str) -> str:
    """Return a metric's name as Prometheus spells it."""
    return "vault_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)

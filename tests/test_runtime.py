"""The collector is watched for as long as it is asked to be."""

import gc

from conclave.core.metrics import Metrics
from conclave.runtime import CollectorWatch


def test_each_collection_and_its_pause_are_counted_until_the_watch_ends() -> None:
    metrics = Metrics()
    watch = CollectorWatch(metrics)
    try:
        gc.collect()
        gc.collect()
    finally:
        watch.stop()
    runs = metrics.gc_runs.value
    gc.collect()

    assert metrics.gc_runs.value == runs >= 2
    assert metrics.gc_pause_ns.count == runs
    assert metrics.gc_total_pause_ns.value == metrics.gc_pause_ns.total > 0


def test_the_memory_in_use_is_read_when_somebody_looks() -> None:
    metrics = Metrics()
    CollectorWatch(metrics).stop()

    assert metrics.alloc_bytes.value > 1 << 20

"""The collector is watched for as long as it is asked to be; threads that wait for the interpreter get it soon."""

import gc
import sys

from conclave.core.metrics import Metrics
from conclave.runtime import SWITCH_SECONDS, CollectorWatch, share_interpreter


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


def test_a_thread_waits_no_longer_for_the_interpreter_than_it_should() -> None:
    before = sys.getswitchinterval()
    try:
        share_interpreter()

        assert abs(sys.getswitchinterval() - SWITCH_SECONDS) < 1e-6
    finally:
        sys.setswitchinterval(before)

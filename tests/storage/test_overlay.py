"""The overlay against a dictionary: layers, leadership lost, flushes at any moment; and the feed."""

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, one_of, sampled_from, tuples
from hypothesis.strategies import none as nothing

from conclave.storage.memory import MemoryState
from conclave.storage.overlay import FLUSH_BYTES, FLUSH_SECONDS, LOOKED_THROUGH_MAX, REPLAY_BYTES, Overlay
from conclave.storage.transaction import Transaction
from conclave.storage.writeset import Stage, WriteSet

PREFIXES = [bytes(16), b"\x01" * 16]
KEYS = [prefix + bytes([number]) * 16 for prefix in PREFIXES for number in range(3)]


def write_set(key: bytes, value: bytes | None, *, request_id: bytes = b"", answer: bytes = b"") -> WriteSet:
    puts, deletes = ([(key, value)], []) if value is not None else ([], [key])
    return WriteSet(time_ns=1, puts=puts, deletes=deletes, request_id=request_id, answer=answer)


@given(
    steps=lists(
        tuples(
            sampled_from(["propose", "commit", "lose", "begin flush", "finish flush"]),
            sampled_from(KEYS),
            one_of(nothing(), binary(min_size=1, max_size=3)),
        ),
        max_size=60,
    )
)
def test_reads_see_what_a_dictionary_would(steps: list[tuple[str, bytes, bytes | None]]) -> None:
    overlay = Overlay(MemoryState())
    committed: dict[bytes, bytes] = {}
    in_flight: list[tuple[int, bytes, bytes | None]] = []
    job = None
    for step, key, value in steps:
        if step == "propose":
            index = max(overlay.applied_index, overlay.last_proposed_index) + 1
            overlay.propose(index, write_set(key, value))
            in_flight.append((index, key, value))
        elif step == "commit" and in_flight:
            index, key, value = in_flight.pop(0)  # noqa: PLW2901  (what was proposed is what commits)
            overlay.apply(index, 1, write_set(key, value).encode())
            _change(committed, key, value)
        elif step == "lose":
            overlay.drop_proposed()
            in_flight.clear()
        elif step == "begin flush" and job is None:
            job = overlay.begin_flush()
        elif step == "finish flush" and job is not None:
            job.run()
            overlay.finish_flush(job)
            job = None

        newest = dict(committed)
        for _, changed, to in in_flight:
            _change(newest, changed, to)
        for seen, expected in ((False, committed), (True, newest)):
            assert {k: v for k in KEYS if (v := overlay.get(k, uncommitted=seen)) is not None} == expected
            for prefix in PREFIXES:
                below = sorted(k for k in expected if k.startswith(prefix))
                assert overlay.keys(prefix, uncommitted=seen) == below
                assert overlay.keys(prefix, uncommitted=seen, limit=1) == below[:1]
                assert overlay.keys(prefix, uncommitted=seen, start=KEYS[1]) == [k for k in below if k >= KEYS[1]]
                assert overlay.has_records(prefix, uncommitted=seen) == bool(below)
        assert overlay.proposes_under(PREFIXES[0]) == any(k.startswith(PREFIXES[0]) for _, k, _ in in_flight)


def _change(model: dict[bytes, bytes], key: bytes, value: bytes | None) -> None:
    if value is None:
        model.pop(key, None)
    else:
        model[key] = value


def test_a_flush_is_due_when_an_effect_is_old_enough() -> None:
    overlay = Overlay(MemoryState())
    assert not overlay.flush_due(0.0)

    overlay.apply(1, 1, write_set(KEYS[0], b"x").encode())

    assert [overlay.flush_due(seconds) for seconds in (10.0, 10.0 + FLUSH_SECONDS / 2)] == [False, False]
    assert overlay.flush_due(10.0 + FLUSH_SECONDS)


def test_a_flush_is_due_when_there_is_much_to_write() -> None:
    overlay = Overlay(MemoryState())
    for number in range(1, 17):
        assert not overlay.flush_due(0.0)
        key = PREFIXES[0] + bytes([number]) * 16
        overlay.apply(number, 1, write_set(key, bytes(FLUSH_BYTES // 16)).encode())
    assert overlay.flush_due(0.0)


def test_a_flush_is_due_when_a_member_has_come() -> None:
    overlay = Overlay(MemoryState())
    overlay.apply_membership(1, 1, b"members")
    assert overlay.flush_due(0.0)

    job = overlay.begin_flush()
    assert job is not None
    job.run()
    overlay.finish_flush(job)
    overlay.apply(2, 1, write_set(KEYS[0], b"x").encode())

    assert not overlay.flush_due(0.0)


@pytest.mark.parametrize("last", [Stage.SWAP, Stage.ABANDON])
def test_a_flush_is_due_when_a_state_is_staged_no_more(last: Stage) -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, WriteSet(1, stage=Stage.BEGIN).encode())
    assert not overlay.flush_due(0.0)

    overlay.apply(2, 1, WriteSet(1, stage=last).encode())

    assert overlay.flush_due(0.0)


def test_a_flush_is_due_when_a_restart_would_have_much_to_replay() -> None:
    overlay = Overlay(MemoryState())
    value = bytes(1 << 20)

    for index in range(1, REPLAY_BYTES // len(value) + 1):
        assert not overlay.flush_due(0.0)
        overlay.apply(index, 1, write_set(KEYS[0], value).encode())

    assert overlay.flush_due(0.0)


def test_a_flush_is_due_when_a_search_meets_many_deleted_records() -> None:
    overlay = Overlay(MemoryState())
    for index in range(1, LOOKED_THROUGH_MAX + 2):
        assert not overlay.has_records(PREFIXES[0], uncommitted=False)
        assert not overlay.flush_due(0.0)
        overlay.apply(index, 1, write_set(PREFIXES[0] + index.to_bytes(16, "big"), None).encode())

    assert not overlay.has_records(PREFIXES[0], uncommitted=False)
    assert overlay.flush_due(0.0)


def test_what_is_replaced_takes_no_memory_any_more() -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, write_set(KEYS[0], bytes(1000)).encode())
    sizes = [overlay.pending_bytes]
    for index, value in ((2, bytes(500)), (3, None), (4, None), (5, bytes(1000))):
        overlay.apply(index, 1, write_set(KEYS[0], value).encode())
        sizes.append(overlay.pending_bytes)

    assert [size - sizes[0] for size in sizes] == [0, -500, -1000, -1000, 0]


def test_the_feed_tells_of_each_key_in_order() -> None:
    overlay = Overlay(MemoryState())
    heard: list[tuple[int, bytes]] = []
    overlay.subscribe(PREFIXES[0], lambda index, key: heard.append((index, key)))

    overlay.apply(1, 1, write_set(KEYS[0], b"x").encode())
    overlay.apply(2, 1, write_set(KEYS[3], b"elsewhere").encode())
    overlay.apply(3, 1, write_set(KEYS[1], None).encode())

    assert heard == [(1, KEYS[0]), (3, KEYS[1])]


def test_the_outcome_of_a_forwarded_request_is_remembered() -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, write_set(KEYS[0], b"x", request_id=b"r" * 16, answer=b"sealed").encode())

    assert overlay.outcome(b"r" * 16) == (1, b"sealed")
    assert overlay.outcome(b"s" * 16) is None


def test_a_transaction_sees_its_own_writes_and_leaves_one_write_set() -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, write_set(KEYS[0], b"old").encode())
    transaction = Transaction(overlay, uncommitted=True)

    transaction.put(KEYS[1], b"new")
    transaction.delete(KEYS[0])

    assert transaction.get(KEYS[1]) == b"new"
    assert transaction.keys(PREFIXES[0]) == [KEYS[1]]
    changes = transaction.write_set(5)
    assert changes is not None
    assert (changes.puts, changes.deletes) == ([(KEYS[1], b"new")], [KEYS[0]])


def test_a_transaction_without_changes_leaves_nothing() -> None:
    assert Transaction(Overlay(MemoryState()), uncommitted=True).write_set(5) is None


def test_a_later_step_of_a_request_has_the_answer_that_counts() -> None:
    overlay = Overlay(MemoryState())
    name = b"r" * 16
    overlay.apply(1, 1, write_set(KEYS[0], b"x", request_id=name, answer=b"first").encode())
    overlay.apply(2, 1, write_set(KEYS[0], b"y", request_id=name, answer=b"second").encode())

    assert overlay.outcome(name) == (2, b"second")
    late = WriteSet(time_ns=300 * 10**9, puts=[(KEYS[0], b"z")], request_id=b"s" * 16, answer=b"late")
    overlay.apply(3, 1, late.encode())
    assert overlay.outcome(name) is None


def test_a_directory_whose_last_record_this_transaction_deletes_has_none() -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, write_set(KEYS[0], b"x").encode())
    transaction = Transaction(overlay, uncommitted=True)
    assert transaction.has_records(PREFIXES[0])

    transaction.delete(KEYS[0])

    assert not transaction.has_records(PREFIXES[0])


@given(now=integers(0, 2**62))
def test_time_never_goes_back(now: int) -> None:
    overlay = Overlay(MemoryState())
    overlay.apply(1, 1, WriteSet(time_ns=now, puts=[(KEYS[0], b"x")], deletes=[]).encode())
    overlay.apply(2, 1, WriteSet(time_ns=0, puts=[(KEYS[0], b"y")], deletes=[]).encode())

    assert overlay.now_ns == now

"""Batches as bytes: what is written is recognised, and nothing else is."""

from hypothesis import given
from hypothesis.strategies import binary, integers

from conclave.storage.log_batches import batch_bytes, is_torn, make_batch, open_batch

bodies = binary(min_size=1, max_size=2000)
checksums = integers(0, 2**32 - 1)


@given(body=bodies, chained=checksums)
def test_a_batch_is_opened_by_its_sequence_and_by_what_stood_before_it(body: bytes, chained: int) -> None:
    batch, _ = make_batch(body, 7, chained)

    assert len(batch) == batch_bytes(len(body))
    assert open_batch(batch, 0, 7, chained) == body
    assert open_batch(batch, 0, 8, chained) is None
    assert open_batch(batch, 0, 7, chained ^ 1) is None


@given(body=bodies, chained=checksums, kept=integers(0, 2000))
def test_a_batch_that_ends_early_is_torn(body: bytes, chained: int, kept: int) -> None:
    batch, _ = make_batch(body, 7, chained)

    assert is_torn(batch[: min(kept, len(batch) - 1)], 0, 7)


@given(body=bodies, chained=checksums)
def test_nothing_is_torn_that_a_later_batch_stands_behind(body: bytes, chained: int) -> None:
    first, between = make_batch(body, 7, chained)
    second, _ = make_batch(body, 8, between)

    assert not is_torn(bytes(len(first)) + second, 0, 7)


@given(body=bodies, position=integers(0, 2000))
def test_a_whole_batch_that_was_changed_is_not_torn(body: bytes, position: int) -> None:
    body = b"\x01" + body.replace(b"\0", b"\x01")  # as sealed data: without a blank sector
    batch, _ = make_batch(body, 7, 0)
    changed = bytearray(batch)
    changed[position % len(batch)] ^= 0x10

    assert not is_torn(bytes(changed), 0, 7)

"""A state as a stream of chunks, and its installation: one suite for both implementations of the state."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary, dictionaries, integers

from conclave.storage import snapshots
from conclave.storage.errors import Corrupt, SnapshotMismatch
from conclave.storage.memory import MemoryState
from conclave.storage.snapshots import (
    CHUNK_BYTES,
    ChunkKind,
    End,
    Installation,
    Manifest,
    Position,
    Progress,
    Stream,
    advance,
    encode_progress,
)
from conclave.storage.state import Applied, LmdbState, StateStore

MAP_BYTES = 1 << 28
APPLIED = Applied(7, 3, 5, b"m")
SNAPSHOT_ID = bytes(range(16))


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def fill(state: StateStore, *, count: int = 40, value_bytes: int = 20_000) -> dict[bytes, bytes]:
    records = {key(number): bytes([number % 256]) * value_bytes for number in range(count)}
    state.flush(records, APPLIED)
    state.refresh()
    return records


def stream_of(state: StateStore, snapshot_id: bytes = SNAPSHOT_ID) -> Stream:
    return Stream(state.open_reader(), snapshot_id)


def filled_stream() -> tuple[Stream, dict[bytes, bytes]]:
    """Return the stream of a state, and what is in it."""
    source = MemoryState()
    records = fill(source)
    return stream_of(source), records


def framed(kind: ChunkKind, sequence: int, body: bytes) -> bytes:
    """Return a chunk with a right head, whatever is in it."""
    return snapshots._head(kind, sequence, body) + body


def chunks_of(records: dict[bytes, bytes], snapshot_id: bytes = SNAPSHOT_ID) -> list[bytes]:
    state = MemoryState()
    state.flush(records, APPLIED)
    return list(stream_of(state, snapshot_id).chunks())


def content(state: StateStore) -> dict[bytes, bytes]:
    reader = state.open_reader()
    pairs = dict(reader.pairs())
    reader.close()
    return pairs


def pull(stream: Stream, installation: Installation, *, chunk_count: int = 1_000_000) -> None:
    while chunk_count and not installation.is_complete:
        installation.take(stream.chunk(installation.progress))
        chunk_count -= 1


def test_a_state_arrives_as_it_was(state: StateStore) -> None:
    stream, records = filled_stream()
    installer = state.open_installer()

    pull(stream, Installation(installer, SNAPSHOT_ID))
    installer.close()
    state.install()

    assert (content(state), state.applied_record) == (records, APPLIED)


def test_a_state_leaves_as_it_is(state: StateStore) -> None:
    records = fill(state)
    reader = state.open_reader()
    target = MemoryState()

    pull(Stream(reader, SNAPSHOT_ID), Installation(target.open_installer(), SNAPSHOT_ID))
    reader.close()
    target.install()

    assert content(target) == records


def test_an_empty_state_is_a_snapshot_too() -> None:
    kinds = [chunk[0] for chunk in chunks_of({})]

    assert kinds == [ChunkKind.MANIFEST, ChunkKind.END]


def test_a_chunk_ends_soon_after_its_bound() -> None:
    chunks = chunks_of({key(number): bytes(1000) for number in range(2000)})

    assert len(chunks) == 2 + 8
    assert max(len(chunk) for chunk in chunks) < CHUNK_BYTES + 10_000


def test_what_is_written_meanwhile_is_not_in_the_snapshot(state: StateStore) -> None:
    records = fill(state)
    reader = state.open_reader()
    stream = Stream(reader, SNAPSHOT_ID)
    target = MemoryState()
    installation = Installation(target.open_installer(), SNAPSHOT_ID)
    pull(stream, installation, chunk_count=2)

    state.flush({key(39): b"new", key(99): b"newer", key(0): None}, Applied(8, 3))
    pull(stream, installation)
    reader.close()
    target.install()

    assert content(target) == records


def test_an_installation_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    stream, records = filled_stream()
    state = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)
    first = state.open_installer()
    pull(stream, Installation(first, SNAPSHOT_ID), chunk_count=3)
    first.close()

    second = state.open_installer()
    resumed = Installation(second, SNAPSHOT_ID)
    taken_count = snapshots._decode_position(resumed.progress).sequence
    pull(stream, resumed)
    second.close()
    state.install()

    assert (taken_count, content(state)) == (3, records)
    state.close()


def test_a_completed_installation_stays_complete(tmp_path: Path) -> None:
    stream, _ = filled_stream()
    state = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)
    first = state.open_installer()
    pull(stream, Installation(first, SNAPSHOT_ID))
    first.close()

    second = state.open_installer()

    assert Installation(second, SNAPSHOT_ID).is_complete
    second.close()
    state.close()


def test_another_snapshot_begins_anew(state: StateStore) -> None:
    old, new = MemoryState(), MemoryState()
    fill(old, count=60)
    records = fill(new, count=30, value_bytes=10)
    installer = state.open_installer()
    pull(stream_of(old), Installation(installer, SNAPSHOT_ID), chunk_count=3)

    other_id = bytes(16)
    pull(stream_of(new, other_id), Installation(installer, other_id))
    installer.close()
    state.install()

    assert content(state) == records


def test_an_unfinished_installation_is_no_state(state: StateStore) -> None:
    stream, _ = filled_stream()
    installer = state.open_installer()
    pull(stream, Installation(installer, SNAPSHOT_ID), chunk_count=3)
    installer.close()

    with pytest.raises(Corrupt):
        state.install()

    assert content(state) == {}


def test_a_damaged_chunk_is_refused_and_can_be_asked_for_again(state: StateStore) -> None:
    stream, records = filled_stream()
    installer = state.open_installer()
    installation = Installation(installer, SNAPSHOT_ID)
    pull(stream, installation, chunk_count=2)
    damaged = bytearray(stream.chunk(installation.progress))
    damaged[1000] ^= 1

    with pytest.raises(Corrupt):
        installation.take(bytes(damaged))
    pull(stream, installation)
    installer.close()
    state.install()

    assert content(state) == records


def test_a_chunk_that_was_taken_already_is_refused() -> None:
    chunks = chunks_of({key(number): bytes(CHUNK_BYTES) for number in range(3)})
    progress, _ = advance(Progress(), chunks[0])
    progress, _ = advance(progress, chunks[1])

    with pytest.raises(Corrupt, match="wrong checksum"):
        advance(progress, chunks[1])


def test_a_chunk_that_was_left_out_is_missed() -> None:
    chunks = chunks_of({key(number): bytes(CHUNK_BYTES) for number in range(3)})
    progress, _ = advance(Progress(), chunks[0])

    with pytest.raises(Corrupt, match="wrong checksum"):
        advance(progress, chunks[2])


def test_nothing_may_come_after_the_end() -> None:
    progress = Progress(is_complete=True)

    with pytest.raises(SnapshotMismatch, match="where none can be"):
        advance(progress, chunks_of({})[0])


def test_a_stream_begins_with_its_manifest() -> None:
    body = b"\x90"
    chunk = framed(ChunkKind.RECORDS, 0, body)

    with pytest.raises(SnapshotMismatch, match="RECORDS chunk where none can be"):
        advance(Progress(), chunk)


def test_a_chunk_of_another_snapshot_is_refused() -> None:
    target = MemoryState()
    installation = Installation(target.open_installer(), SNAPSHOT_ID)

    with pytest.raises(SnapshotMismatch, match="another snapshot"):
        installation.take(chunks_of({}, snapshot_id=bytes(16))[0])


def test_records_out_of_order_are_refused() -> None:
    progress, _ = advance(Progress(), chunks_of({})[0])
    body = snapshots._encode([(key(2), b""), (key(1), b"")])
    chunk = framed(ChunkKind.RECORDS, 1, body)

    with pytest.raises(SnapshotMismatch, match="not in order"):
        advance(progress, chunk)


def test_an_end_with_another_digest_is_refused() -> None:
    progress, _ = advance(Progress(), chunks_of({})[0])
    body = snapshots._encode(End(bytes(32)))
    chunk = framed(ChunkKind.END, 1, body)

    with pytest.raises(SnapshotMismatch, match="digest"):
        advance(progress, chunk)


def test_a_snapshot_with_too_few_records_is_refused() -> None:
    manifest = snapshots._encode(Manifest(SNAPSHOT_ID, APPLIED, 1))
    progress, _ = advance(Progress(), framed(ChunkKind.MANIFEST, 0, manifest))
    body = snapshots._encode(End(progress.position.digest))

    with pytest.raises(SnapshotMismatch, match="of 1 records ends after 0"):
        advance(progress, framed(ChunkKind.END, 1, body))


def test_a_manifest_of_a_newer_format_is_refused() -> None:
    manifest = snapshots._encode(Manifest(SNAPSHOT_ID, APPLIED, 0, version=2))

    with pytest.raises(SnapshotMismatch, match="newer version"):
        advance(Progress(), framed(ChunkKind.MANIFEST, 0, manifest))


def test_a_progress_that_the_stream_has_not_led_to_is_refused() -> None:
    stream, _ = filled_stream()

    with pytest.raises(SnapshotMismatch, match="not the beginning"):
        stream.chunk(snapshots._encode(Position(3, 5, key(4), b"\x01" * 32)))
    with pytest.raises(SnapshotMismatch, match="does not decode"):
        stream.chunk(b"\xc1")


def test_a_stored_progress_of_another_version_begins_anew() -> None:
    target = MemoryState()
    installer = target.open_installer()
    installer.start(encode_progress(Progress(Position(5), Manifest(SNAPSHOT_ID, APPLIED, 9), version=2)))

    assert Installation(installer, SNAPSHOT_ID).manifest is None


def test_a_stored_progress_that_is_damaged_begins_anew() -> None:
    target = MemoryState()
    installer = target.open_installer()
    installer.start(b"\xc1")

    assert Installation(installer, SNAPSHOT_ID).manifest is None


@given(chunk=binary(max_size=64))
def test_no_garbage_is_taken_for_a_chunk(chunk: bytes) -> None:
    with pytest.raises((Corrupt, SnapshotMismatch)):
        advance(Progress(), chunk)


@given(
    records=dictionaries(binary(min_size=32, max_size=40), binary(max_size=200), max_size=30),
    flipped=integers(min_value=0),
)
def test_every_flipped_bit_is_found(records: dict[bytes, bytes], flipped: int) -> None:
    chunks = chunks_of(records)
    stream = bytearray(b"".join(chunks))
    bit = flipped % (8 * len(stream))
    stream[bit // 8] ^= 1 << (bit % 8)

    with pytest.raises((Corrupt, SnapshotMismatch)):
        walk(stream, [len(chunk) for chunk in chunks])


def walk(stream: bytes | bytearray, lengths: list[int]) -> None:
    progress = Progress()
    for length in lengths:
        progress, _ = advance(progress, bytes(stream[:length]))
        stream = stream[length:]


def test_the_chunks_have_this_layout() -> None:
    assert [chunk.hex() for chunk in chunks_of({key(1): b"v"})] == [
        "01" + "85946ba6" + "94c410000102030405060708090a0b0c0d0e0f" + "98070305c4016d01c20000" + "01" + "01",
        "02" + "35e63471" + "9192c420" + "00" * 31 + "01" + "c40176",
        "03" + "739daf00" + "91c420" + "affe9d16de621fc772e9cddeb14aee4f8ccdf31ffa7ba0f891d7da93e41de6ce",
    ]


def test_a_stream_without_the_newest_fields_can_be_read() -> None:
    chunks = [
        "01" + "9d6c91f4" + "94c410000102030405060708090a0b0c0d0e0f" + "95070305c4016d01" + "01" + "01",
        "02" + "35e63471" + "9192c420" + "00" * 31 + "01" + "c40176",
        "03" + "59055dc5" + "91c420" + "7f72729d351e5d88e776bb9a2a30ae062b83225d6a6f6be6771f12c0f2b1e041",
    ]

    progress = Progress()
    for chunk in chunks:
        progress, _ = advance(progress, bytes.fromhex(chunk))

    assert progress.is_complete
    assert progress.manifest == Manifest(bytes(range(16)), APPLIED, 1)


def test_progress_has_this_layout() -> None:
    assert snapshots._encode(Position(3, 2, b"kkk", bytes(32))).hex() == "940302c4036b6b6bc420" + "00" * 32
    assert encode_progress(Progress()).hex() == "9494000" + "0c400c420" + "00" * 32 + "c0c201"

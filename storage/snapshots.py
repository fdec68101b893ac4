"""A whole state as a stream of checksummed chunks, and the way back. The same stream feeds a follower and a file.

    manifest | records | records | … | end            each chunk: u8 kind | CRC-32C (4, big endian) | msgpack array

Rules it enforces:

* A chunk's CRC-32C is seeded with the chunk's number, so a damaged, repeated or misplaced one is found by itself; and the
  chain of SHA-256 digests over all bodies is compared at the end, so nothing is missing and nothing is of another
  snapshot. CRC and digest find accidents: the records themselves are sealed, and the transport is authenticated.
* Records come in strictly ascending order of their keys. The installation checks that, because it appends them.
* `Stream` keeps no place: whoever takes chunks says how far he is (`progress`), and the same progress always gives the
  same chunk. A progress that this stream has not led to is refused, so a receiver that has gone wrong starts again
  instead of ending with a state that is none.
* `Installation` stores the progress with the records it belongs to, in one transaction; after a crash it goes on there.
  Nothing marks the records as a state before the end has been checked.

It reads and writes through `state.StateReader` and `state.StateInstaller` and opens no record. The file form is
`archive.py`; what goes from node to node is `cluster/transfer.py`.
"""

import hashlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct, structs

from conclave.storage.checksums import checksum
from conclave.storage.errors import Corrupt, SnapshotMismatch
from conclave.storage.state import Applied, StateInstaller, StateReader

FORMAT_VERSION: Final = 1
CHUNK_BYTES: Final = 256 * 1024
"""Where a chunk of records ends: small enough to be read and written in a few milliseconds."""
CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
"""The longest chunk that is accepted: the last record of one may be as large as a record can be."""
SNAPSHOT_ID_BYTES: Final = 16
HEAD_BYTES: Final = 5
DIGEST_BYTES: Final = 32

Pairs = list[tuple[bytes, bytes]]


class ChunkKind(IntEnum):
    """What a chunk holds; the numbers never change."""

    MANIFEST = 1
    RECORDS = 2
    END = 3


class Manifest(Struct, frozen=True, array_like=True):
    """The first chunk: which state this is.

    Attributes:
        snapshot_id: 16 random bytes, drawn anew for each stream.
        applied: the place in the log, its clock, and the membership in force there.
        count: how many records follow.
        version: of the stream's format.
    """

    snapshot_id: bytes
    applied: Applied
    count: int
    version: int = FORMAT_VERSION


class End(Struct, frozen=True, array_like=True):
    """The last chunk: the digest that the chain must have come to."""

    digest: bytes


class Position(Struct, frozen=True, array_like=True):
    """A place in a stream; its encoding is the opaque progress that a receiver sends.

    Attributes:
        sequence: how many chunks have been taken; the number of the next.
        count: how many records were in them.
        after: the last record's key.
        digest: SHA-256 over the digest before the last chunk and the last chunk's body.
    """

    sequence: int = 0
    count: int = 0
    after: bytes = b""
    digest: bytes = bytes(DIGEST_BYTES)


class Progress(Struct, frozen=True, array_like=True):
    """What has been taken of a stream, as it is stored with the records."""

    position: Position = Position()
    manifest: Manifest | None = None
    is_complete: bool = False
    version: int = FORMAT_VERSION


_encode = msgspec.msgpack.Encoder().encode
_decode_manifest = msgspec.msgpack.Decoder(Manifest).decode
_decode_pairs = msgspec.msgpack.Decoder(Pairs).decode
_decode_end = msgspec.msgpack.Decoder(End).decode
_decode_position = msgspec.msgpack.Decoder(Position).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode


# -- out --


class Stream:
    """A state, chunk by chunk. Used by one thread at a time; the caller closes the reader.

    Args:
        reader: one moment of the state.
        snapshot_id: 16 bytes that no other stream has.
    """

    def __init__(self, reader: StateReader, snapshot_id: bytes) -> None:
        assert len(snapshot_id) == SNAPSHOT_ID_BYTES, "a snapshot id has 16 bytes"
        self.manifest = Manifest(snapshot_id, reader.applied, reader.count)
        self._reader = reader
        self._digests = {Position().digest}  # after each chunk that was ever cut: 32 bytes for 256 KiB

    def chunk(self, progress: bytes) -> bytes:
        """Return the chunk behind what a receiver has.

        Args:
            progress: what `Installation.progress` returned; empty: nothing yet.

        Raises:
            SnapshotMismatch: this stream has not led there.
        """
        position = _position(progress)
        if position.digest not in self._digests:
            raise SnapshotMismatch("what was received is not the beginning of this snapshot")
        return self._cut(position)[0]

    def chunks(self) -> Iterator[bytes]:
        """Iterate over all chunks, from the manifest to the end; every time the same bytes."""
        position, is_end = Position(), False
        while not is_end:
            chunk, position = self._cut(position)
            yield chunk
            is_end = chunk[0] == ChunkKind.END

    def _cut(self, position: Position) -> tuple[bytes, Position]:
        """Return the chunk at a position, and the position behind it."""
        pairs: Pairs = []
        if position.sequence == 0:
            kind, body = ChunkKind.MANIFEST, _encode(self.manifest)
        elif pairs := self._read(position.after):
            kind, body = ChunkKind.RECORDS, _encode(pairs)
        else:
            kind, body = ChunkKind.END, _encode(End(position.digest))
        behind = _moved(position, body, pairs)
        self._digests.add(behind.digest)
        return _head(kind, position.sequence, body) + body, behind

    def _read(self, after: bytes) -> Pairs:
        pairs: Pairs = []
        size = 0
        for pair in self._reader.pairs(after):
            pairs.append(pair)
            size += len(pair[0]) + len(pair[1])
            if size >= CHUNK_BYTES:
                break
        return pairs


# -- in --


def advance(progress: Progress, chunk: bytes) -> tuple[Progress, Pairs]:
    """Check the next chunk of a stream. Pure.

    Returns:
        the progress behind it, and the records in it (none in a manifest and at the end).

    Raises:
        Corrupt: the chunk is damaged, or it is not the next one.
        SnapshotMismatch: it is whole, but contradicts what came before it.
    """
    position = progress.position
    kind, body = _open_chunk(chunk, position.sequence)
    if progress.is_complete or (kind is ChunkKind.MANIFEST) != (position.sequence == 0):
        raise SnapshotMismatch(f"a snapshot has a {kind.name} chunk where none can be")
    try:
        if kind is ChunkKind.MANIFEST:
            return _begin(position, body), []
        if kind is ChunkKind.RECORDS:
            pairs = _decode_pairs(body)
            _check_order(position.after, pairs)
            return structs.replace(progress, position=_moved(position, body, pairs)), pairs
        _check_end(progress, _decode_end(body))
        return structs.replace(progress, position=_moved(position, body, []), is_complete=True), []
    except msgspec.DecodeError as error:
        raise Corrupt(f"snapshot: chunk {position.sequence} does not decode") from error


class Installation:
    """Takes a stream's chunks into an installer. Every call may wait for the disk.

    Attributes:
        is_complete: whether the records are a whole state, durably.
    """

    def __init__(self, installer: StateInstaller, snapshot_id: bytes) -> None:
        """Go on with what the installer holds of this snapshot; begin anew if that is nothing, or another."""
        self._installer = installer
        self._progress = _stored(installer.progress())
        manifest = self._progress.manifest
        if manifest is None or manifest.snapshot_id != snapshot_id:
            self.restart()
        self._snapshot_id = snapshot_id

    @property
    def is_complete(self) -> bool:
        """Whether the end has come, and everything before it."""
        return self._progress.is_complete

    @property
    def manifest(self) -> Manifest | None:
        """What is being installed; None before the first chunk."""
        return self._progress.manifest

    @property
    def progress(self) -> bytes:
        """What `Stream.chunk` needs in order to go on."""
        return _encode(self._progress.position)

    def take(self, chunk: bytes) -> None:
        """Check the next chunk and keep it durably.

        Raises:
            Corrupt: it is damaged, or not the next; ask for it again.
            SnapshotMismatch: it contradicts what has been taken; `restart`.
            Full: nothing of it was kept.
            Fenced: the disk's content is unknown.
        """
        progress, pairs = advance(self._progress, chunk)
        assert progress.manifest is not None, "nothing comes before the manifest"
        if progress.manifest.snapshot_id != self._snapshot_id:
            raise SnapshotMismatch("a chunk of another snapshot came")
        if progress.is_complete:
            self._installer.complete(progress.manifest.applied, _encode(progress))
        else:
            self._installer.put(pairs, _encode(progress))
        self._progress = progress

    def restart(self) -> None:
        """Drop everything that has been taken."""
        self._progress = Progress()
        self._installer.start(_encode(self._progress))


def sequence_of(progress: bytes) -> int:
    """Return the number of the chunk that a progress asks for, from 0.

    Raises:
        SnapshotMismatch: it does not decode.
    """
    return _position(progress).sequence


def encode_progress(progress: Progress) -> bytes:
    """Return the form in which progress is stored beside the records."""
    return _encode(progress)


def _position(progress: bytes) -> Position:
    """Return the place in a stream that a receiver's progress stands for."""
    try:
        return _decode_position(progress) if progress else Position()
    except msgspec.DecodeError as error:
        raise SnapshotMismatch("a snapshot's progress does not decode") from error


def _stored(progress: bytes | None) -> Progress:
    """Return a stored progress; that of nothing if there is none, or one of another version."""
    try:
        stored = _decode_progress(progress) if progress else Progress()
    except msgspec.DecodeError:
        return Progress()
    return stored if stored.version == FORMAT_VERSION else Progress()


def _begin(position: Position, body: bytes) -> Progress:
    manifest = _decode_manifest(body)
    if manifest.version != FORMAT_VERSION:
        raise SnapshotMismatch(f"snapshot format {manifest.version} is not {FORMAT_VERSION}; a newer version wrote it")
    return Progress(_moved(position, body, []), manifest)


def _check_order(after: bytes, pairs: Pairs) -> None:
    for key, _ in pairs:
        if key <= after:
            raise SnapshotMismatch("a snapshot's records are not in order")
        after = key


def _check_end(progress: Progress, end: End) -> None:
    assert progress.manifest is not None, "nothing comes before the manifest"
    if end.digest != progress.position.digest:
        raise SnapshotMismatch("a snapshot's digest is not that of its chunks")
    if progress.position.count != progress.manifest.count:
        raise SnapshotMismatch(
            f"a snapshot of {progress.manifest.count} records ends after {progress.position.count} of them"
        )


# -- both ways --


def _moved(position: Position, body: bytes, pairs: Pairs) -> Position:
    """Return the position behind a chunk."""
    return Position(
        sequence=position.sequence + 1,
        count=position.count + len(pairs),
        after=pairs[-1][0] if pairs else position.after,
        digest=hashlib.sha256(position.digest + body).digest(),
    )


def _head(kind: ChunkKind, sequence: int, body: bytes) -> bytes:
    first = bytes((kind,))
    return first + checksum(body, checksum(sequence.to_bytes(8, "big") + first)).to_bytes(4, "big")


def _open_chunk(chunk: bytes, sequence: int) -> tuple[ChunkKind, bytes]:
    """Return a chunk's kind and body."""
    if not HEAD_BYTES < len(chunk) <= CHUNK_BYTES_MAX:
        raise Corrupt(f"snapshot: chunk {sequence} has {len(chunk)} bytes")
    body = chunk[HEAD_BYTES:]
    try:
        kind = ChunkKind(chunk[0])
    except ValueError as error:
        raise Corrupt(f"snapshot: chunk {sequence} is of an unknown kind") from error
    if chunk[:HEAD_BYTES] != _head(kind, sequence, body):
        raise Corrupt(f"snapshot: chunk {sequence} has a wrong checksum")
    return kind, body

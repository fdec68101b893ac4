"""A snapshot as a file: what `operator raft snapshot save` writes and `restore` reads.

A gzip'd tar with, in this order:

* `meta.json`           what an operator may want to know; the names are those of Vault's file
* `state.bin`           the stream of `snapshots.py`, each chunk behind its length (4 bytes, big endian)
* `SHA256SUMS`          of both, as sha256sum(1) writes and checks them
* `SHA256SUMS.sealed`   the same bytes, sealed by the vault's keyring: who can open it has the keys of this snapshot

Rules it enforces:

* Memory is constant both ways: one chunk. A tar header needs the length of what follows, so the state is read twice, from
  one moment; a spool of the whole state would need the disk that an operator is about to save.
* `verify_file` reads everything to its last byte. `restore_file` does that before it touches anything, then reads again.
* Every byte counts: a file in which any was changed, or that ends earlier, is refused (`stored_gzip.py`).
* Only these members, in this order, with bounded lengths: nothing in an archive from elsewhere can fill the memory, and
  no name in it ever becomes a path.

Sealed records don't compress, so they are stored as they are.

Source: POSIX.1-1988 ustar, by way of `tarfile`'s headers.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from conclave.storage.errors import Corrupt, SnapshotMismatch, WrongKey
from conclave.storage.snapshots import CHUNK_BYTES_MAX, Manifest, Pairs, Progress, Stream, advance, encode_progress
from conclave.storage.state import Applied, StateInstaller, StateReader
from conclave.storage.stored_gzip import Packer, Unpacker

META, STATE, SUMS, SEAL = "meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed"
META_BYTES_MAX: Final = 1024 * 1024
"""A few hundred servers would fit."""
SUMS_BYTES_MAX: Final = 4096
TRAILER_BYTES_MAX: Final = 64 * 1024
"""Zeros at the end of a tar: two blocks here, up to a record of 10 KiB by other writers."""
BLOCK_BYTES: Final = tarfile.BLOCKSIZE
LENGTH_BYTES: Final = 4
META_VERSION: Final = 1

Seal = Callable[[bytes], bytes]
"""Seals the sums."""
OpenSeal = Callable[[bytes], bytes | None]
"""Opens the sealed sums (raising `WrongKey`); None if their keys are not at hand, and nobody can say what they seal."""


class Server(Struct, frozen=True, rename={"node_id": "ID", "address": "Address", "suffrage": "Suffrage"}):
    """A member at the time of the snapshot; for the reader of `meta.json` only.

    Attributes:
        suffrage: 0 votes, 1 does not.
    """

    node_id: str
    address: str
    suffrage: int = 0


class Configuration(Struct, frozen=True, rename="pascal"):
    """The members at the time of the snapshot."""

    servers: Sequence[Server] = ()


class Meta(
    Struct,
    frozen=True,
    rename={
        "version": "Version",
        "snapshot_id": "ID",
        "index": "Index",
        "term": "Term",
        "peers": "Peers",
        "configuration": "Configuration",
        "configuration_index": "ConfigurationIndex",
        "size": "Size",
    },
):
    """`meta.json`.

    Attributes:
        snapshot_id: 32 hexadecimal digits.
        peers: always empty; older readers expect the name.
        configuration_index: the configuration was in force at this index; that of the snapshot.
        size: of `state.bin`, in bytes.
    """

    version: int
    snapshot_id: str
    index: int
    term: int
    configuration: Configuration
    configuration_index: int
    size: int
    peers: str = ""


# -- out --


def write_file(
    reader: StateReader, snapshot_id: bytes, *, servers: Sequence[Server] = (), seal: Seal | None = None
) -> Iterator[bytes]:
    """Iterate over the bytes of a snapshot file, in pieces of about a chunk. Waits for the disk: not on the event loop.

    While the state is measured, which has to come first, there is an empty piece for each chunk of it: nothing that is
    asked for takes longer than a chunk.

    Args:
        reader: one moment of the state; stays open.
        snapshot_id: 16 random bytes.
        servers: what `meta.json` says about members.
        seal: seals the sums; None leaves `SHA256SUMS.sealed` out.
    """
    packer = Packer()
    for piece in _tar(reader, snapshot_id, servers, seal):
        yield packer.pack(piece) if piece else b""
    yield packer.end()


def _tar(reader: StateReader, snapshot_id: bytes, servers: Sequence[Server], seal: Seal | None) -> Iterator[bytes]:
    stream = Stream(reader, snapshot_id)
    size = 0
    for chunk in stream.chunks():
        size += LENGTH_BYTES + len(chunk)
        yield b""
    meta = _encode_meta(_meta(stream.manifest, servers, size))
    yield _member(META, meta)

    yield _header(STATE, size)
    digest = hashlib.sha256()
    for chunk in stream.chunks():
        piece = len(chunk).to_bytes(LENGTH_BYTES, "big") + chunk
        digest.update(piece)
        yield piece
    yield _padding(size)

    sums = _sums(meta, digest.hexdigest())
    yield _member(SUMS, sums)
    if seal is not None:
        yield _member(SEAL, seal(sums))
    yield bytes(2 * BLOCK_BYTES)


def _meta(manifest: Manifest, servers: Sequence[Server], size: int) -> Meta:
    index = manifest.applied.index
    return Meta(
        version=META_VERSION,
        snapshot_id=manifest.snapshot_id.hex(),
        index=index,
        term=manifest.applied.term,
        configuration=Configuration(servers),
        configuration_index=index,
        size=size,
    )


def _encode_meta(meta: Meta) -> bytes:
    return json.dumps(msgspec.to_builtins(meta), separators=(",", ":")).encode() + b"\n"


def _sums(meta: bytes, state_digest: str) -> bytes:
    return f"{hashlib.sha256(meta).hexdigest()}  {META}\n{state_digest}  {STATE}\n".encode()


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + _padding(len(content))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)  # ustar's, but for a size of 8 GiB and more


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK_BYTES)


# -- in --


def new_spool(folder: Path) -> IO[bytes]:
    """Return a temporary file, 0600 and without a name, for an upload that has to be read twice."""
    return tempfile.TemporaryFile(dir=folder)


def verify_file(source: IO[bytes], *, open_seal: OpenSeal | None = None) -> tuple[Meta, Manifest]:
    """Read a snapshot file to its end and check all of it. Waits for the disk.

    Args:
        source: at the file's beginning.
        open_seal: opens `SHA256SUMS.sealed`; None does not look at it.

    Raises:
        Corrupt: it is no snapshot file, or it is damaged.
        SnapshotMismatch: its parts contradict each other.
        WrongKey: it was not sealed by the keys of this vault.
    """
    checking = Checking(source, open_seal)
    for _ in checking.records():
        pass
    return checking.result()


def restore_file(
    source: IO[bytes],
    installer: StateInstaller,
    *,
    applied: Applied | None = None,
    open_seal: OpenSeal | None = None,
) -> Manifest:
    """Check a snapshot file, then put its records where they can replace a state. Waits for the disk.

    Args:
        source: seekable, at the file's beginning.
        installer: whatever it holds is dropped.
        applied: the place in the log that the records stand for from now on; None: that of the snapshot.
        open_seal: as for `verify_file`.

    Raises:
        Corrupt, SnapshotMismatch, WrongKey: as `verify_file`; nothing was touched.
        Full: there is no room for the records; the state is as it was.
    """
    beginning = source.tell()
    _, manifest = verify_file(source, open_seal=open_seal)
    source.seek(beginning)
    checking = Checking(source, open_seal=None)
    installer.start(encode_progress(Progress()))
    for progress, pairs in checking.records():
        if not progress.is_complete:
            installer.put(pairs, encode_progress(progress))
    if checking.result()[1] != manifest:
        raise SnapshotMismatch("the snapshot file has changed while it was read")
    installer.complete(applied or manifest.applied, encode_progress(checking.progress))
    return manifest


class Checking:
    """One pass over a snapshot file, chunk by chunk. The result is there once `records` has come to its end.

    Args:
        source: at the file's beginning.
        open_seal: opens `SHA256SUMS.sealed`, once all records have been given out; None does not look at it.

    Attributes:
        progress: behind the last chunk that was checked.
    """

    def __init__(self, source: IO[bytes], open_seal: OpenSeal | None = None) -> None:
        self.progress = Progress()
        self._open_seal = open_seal
        self._archive = _Archive(source)
        self._meta: Meta | None = None

    def result(self) -> tuple[Meta, Manifest]:
        """Return what the file says of itself."""
        assert self._meta is not None, "the records come first"
        assert self.progress.manifest is not None, "a checked stream has a manifest"
        return self._meta, self.progress.manifest

    def records(self) -> Iterator[tuple[Progress, Pairs]]:
        """Iterate over the chunks' records with the progress behind each; the last comes before the sums are checked.

        Raises:
            Corrupt, SnapshotMismatch, WrongKey: as `verify_file`.
        """
        written_meta = self._archive.content(META, META_BYTES_MAX)
        self._meta = meta = _decode_meta(written_meta)
        digest = hashlib.sha256()
        for chunk in self._archive.chunks(digest.update):
            self.progress, pairs = advance(self.progress, chunk)
            yield self.progress, pairs
        self._check_stream(meta)
        sums = self._archive.content(SUMS, SUMS_BYTES_MAX)
        if sums != _sums(written_meta, digest.hexdigest()):
            raise SnapshotMismatch("the snapshot's SHA-256 sums are not those of its parts")
        self._check_seal(sums)
        self._archive.check_trailer()

    def _check_stream(self, meta: Meta) -> None:
        if not self.progress.is_complete or self.progress.manifest is None:
            raise Corrupt(f"snapshot: {STATE} is cut short")
        if meta != _meta(self.progress.manifest, meta.configuration.servers, meta.size):
            raise SnapshotMismatch(f"{META} describes another snapshot than {STATE}")

    def _check_seal(self, sums: bytes) -> None:
        sealed = self._archive.last_content(SEAL, SUMS_BYTES_MAX)
        if self._open_seal is None:
            return
        if not sealed:
            raise WrongKey("the snapshot carries no seal, so nothing shows that its keys are those of this vault")
        opened = self._open_seal(sealed)
        if opened is not None and opened != sums:
            raise SnapshotMismatch("the snapshot's seal is of other sums")


def _decode_meta(written: bytes) -> Meta:
    try:
        meta = msgspec.json.decode(written, type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"snapshot: {META} does not decode: {error}") from error
    if meta.version != META_VERSION:
        raise SnapshotMismatch(f"snapshot version {meta.version} is not {META_VERSION}; another program wrote it")
    return meta


class _Archive:
    """The members of a snapshot file, in their order, straight from the packed bytes."""

    def __init__(self, source: IO[bytes]) -> None:
        self._unpacked = Unpacker(source)
        self._next: tarfile.TarInfo | None = None  # a header that was read, and does not belong to its asker

    def content(self, name: str, bytes_max: int) -> bytes:
        """Return a small member, which must be the next."""
        size = self._enter(name)
        if size > bytes_max:
            raise Corrupt(f"snapshot: {name} has {size} bytes")
        content = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return content

    def last_content(self, name: str, bytes_max: int) -> bytes:
        """Return a small member that may be missing at the end: empty, then."""
        self._next = self._header()
        return b"" if self._next is None else self.content(name, bytes_max)

    def chunks(self, seen: Callable[[bytes], object]) -> Iterator[bytes]:
        """Iterate over the chunks in the state's member; `seen` is given all its bytes."""
        size = left = self._enter(STATE)
        while left:
            length = self._exactly(min(LENGTH_BYTES, left))
            count = int.from_bytes(length, "big")
            left -= len(length) + count
            if count > CHUNK_BYTES_MAX or left < 0:
                raise Corrupt(f"snapshot: a chunk of {count} bytes in {STATE}")
            chunk = self._exactly(count)
            seen(length)
            seen(chunk)
            yield chunk
        self._exactly(-size % BLOCK_BYTES)

    def check_trailer(self) -> None:
        """Read to the end, which also checks the sum of the whole; only zeros may come."""
        trailer = self._unpacked.read(TRAILER_BYTES_MAX + 1)
        if len(trailer) > TRAILER_BYTES_MAX or trailer.strip(b"\0"):
            raise Corrupt("snapshot: there is more in the file than a snapshot")

    def _enter(self, name: str) -> int:
        """Return the size of the next member, which must be this one."""
        found, self._next = self._next or self._header(), None
        if found is None or found.name != name or found.type != tarfile.REGTYPE or found.size < 0:
            raise Corrupt(f"snapshot: {name} is missing, or not where it should be")
        return found.size

    def _header(self) -> tarfile.TarInfo | None:
        """Return the next member's header; None at the end."""
        block = self._exactly(BLOCK_BYTES)
        if not block.strip(b"\0"):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise Corrupt("snapshot: the file is no tar archive") from error

    def _exactly(self, count: int) -> bytes:
        content = self._unpacked.read(count)
        if len(content) != count:
            raise Corrupt("failed to decompress snapshot: unexpected EOF")
        return content

"""The snapshot file: written, judged by tar and sha256sum's rules, verified, restored, and broken in every way."""

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary

from conclave.storage import archive
from conclave.storage.archive import Server, new_spool, restore_file, verify_file, write_file
from conclave.storage.errors import Corrupt, SnapshotMismatch, StorageError, WrongKey
from conclave.storage.memory import MemoryState
from conclave.storage.state import Applied, LmdbState, StateReader, StateStore
from conclave.storage.stored_gzip import Packer

MAP_BYTES = 1 << 28
APPLIED = Applied(7, 3, 5, b"m")
SNAPSHOT_ID = bytes(range(16))
SERVERS = (Server("n1", "127.0.0.1:8201"), Server("n2", "127.0.0.1:8203", 1))


def seal(sums: bytes) -> bytes:
    return b"sealed" + sums


def open_seal(sealed: bytes) -> bytes:
    if not sealed.startswith(b"sealed"):
        raise WrongKey("not ours")
    return sealed[6:]


def open_other_seal(sealed: bytes) -> bytes:
    raise WrongKey(f"{len(sealed)} bytes sealed by other keys")


def filled(count: int = 30, value_bytes: int = 20_000) -> MemoryState:
    state = MemoryState()
    state.flush({number.to_bytes(32, "big"): bytes([number]) * value_bytes for number in range(count)}, APPLIED)
    state.refresh()
    return state


def saved(state: StateStore | None = None, *, sealed: bool = True) -> bytes:
    reader = (state or filled()).open_reader()
    file = b"".join(write_file(reader, SNAPSHOT_ID, servers=SERVERS, seal=seal if sealed else None))
    reader.close()
    return file


SMALL = saved(filled(3, 40))


def content(state: StateStore) -> dict[bytes, bytes]:
    reader = state.open_reader()
    pairs = dict(reader.pairs())
    reader.close()
    return pairs


def members(file: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(file), mode="r:gz") as tar:
        return {info.name: opened.read() for info in tar if (opened := tar.extractfile(info)) is not None}


def packed(parts: dict[str, bytes]) -> bytes:
    """Build an archive by hand, with whatever is wrong with it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, part in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(part)
            tar.addfile(info, io.BytesIO(part))
    return stored(out.getvalue())


def stored(tar: bytes) -> bytes:
    packer = Packer()
    return packer.pack(tar) + packer.end()


def verify(file: bytes) -> None:
    verify_file(io.BytesIO(file), open_seal=open_seal)


# -- saving --


def test_the_file_is_a_gzipped_tar_with_these_members() -> None:
    assert list(members(saved())) == ["meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed"]


def test_the_sums_are_those_of_the_members() -> None:
    parts = members(saved())

    lines = parts["SHA256SUMS"].decode().splitlines()

    assert lines == [f"{hashlib.sha256(parts[name]).hexdigest()}  {name}" for name in ("meta.json", "state.bin")]


def test_meta_tells_place_members_and_size() -> None:
    parts = members(saved())

    assert json.loads(parts["meta.json"]) == {
        "Version": 1,
        "ID": SNAPSHOT_ID.hex(),
        "Index": 7,
        "Term": 3,
        "Configuration": {
            "Servers": [
                {"ID": "n1", "Address": "127.0.0.1:8201", "Suffrage": 0},
                {"ID": "n2", "Address": "127.0.0.1:8203", "Suffrage": 1},
            ]
        },
        "ConfigurationIndex": 7,
        "Size": len(parts["state.bin"]),
        "Peers": "",
    }


def test_a_state_on_disk_is_saved_while_it_changes(tmp_path: Path) -> None:
    state = LmdbState(tmp_path / "state", map_bytes=MAP_BYTES)
    state.flush({bytes(32): b"old"}, APPLIED)
    reader = state.open_reader()
    pieces = write_file(reader, SNAPSHOT_ID)

    file = next(pieces)
    state.flush({bytes(32): b"new", b"\x01" * 32: b"more"}, Applied(8, 3))
    file += b"".join(pieces)
    reader.close()
    target = MemoryState()
    restore_file(io.BytesIO(file), target.open_installer())
    target.install()

    assert content(target) == {bytes(32): b"old"}
    state.close()


# -- verifying and restoring --


def test_a_file_restores_what_was_saved(state: StateStore) -> None:
    source = filled()
    installer = state.open_installer()

    manifest = restore_file(io.BytesIO(saved(source)), installer, open_seal=open_seal)
    installer.close()
    state.install()

    assert content(state) == content(source)
    assert manifest.applied == state.applied_record == APPLIED


def test_a_restored_state_may_stand_for_another_place_in_the_log() -> None:
    target = MemoryState()

    restore_file(io.BytesIO(SMALL), target.open_installer(), applied=Applied(99, 4, 6, b"other"))
    target.install()

    assert target.applied_record == Applied(99, 4, 6, b"other")


def test_an_installation_that_was_cut_off_does_not_disturb_a_restore() -> None:
    target = MemoryState()
    target.open_installer().put([(b"\x77" * 32, b"left over")], b"progress")

    restore_file(io.BytesIO(SMALL), target.open_installer())
    target.install()

    assert len(content(target)) == 3


def test_verifying_tells_what_the_file_is() -> None:
    meta, manifest = verify_file(io.BytesIO(SMALL), open_seal=open_seal)

    assert (meta.index, meta.configuration.servers) == (7, list(SERVERS))
    assert (manifest.snapshot_id, manifest.count) == (SNAPSHOT_ID, 3)


def test_a_file_without_a_seal_is_restored_by_force_only() -> None:
    file = saved(filled(1, 1), sealed=False)

    verify_file(io.BytesIO(file))
    with pytest.raises(WrongKey, match="carries no seal"):
        verify_file(io.BytesIO(file), open_seal=open_seal)


def test_a_file_of_other_keys_is_restored_by_force_only() -> None:
    verify_file(io.BytesIO(SMALL))
    with pytest.raises(WrongKey):
        verify_file(io.BytesIO(SMALL), open_seal=open_other_seal)


def test_a_seal_of_other_sums_is_refused() -> None:
    parts = members(SMALL)
    parts["SHA256SUMS.sealed"] = seal(b"others")

    with pytest.raises(SnapshotMismatch, match="seal is of other sums"):
        verify(packed(parts))


def test_nothing_is_touched_by_a_file_that_is_damaged_at_its_end() -> None:
    target = MemoryState()
    installer = target.open_installer()

    with pytest.raises(StorageError):
        restore_file(io.BytesIO(SMALL[:-1]), installer)

    assert installer.progress() is None


def test_a_file_that_changes_between_the_two_readings_is_no_state() -> None:
    other = saved(filled(2, 40))

    class Changing(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            self.truncate(0)
            super().seek(0)
            self.write(other)
            return super().seek(offset, whence)

    target = MemoryState()

    with pytest.raises(SnapshotMismatch, match="has changed"):
        restore_file(Changing(SMALL), target.open_installer())
    with pytest.raises(Corrupt):
        target.install()


# -- what is no snapshot --


@pytest.mark.parametrize("junk", [b"", b"x", b"not a snapshot", b'{"keys": []}' * 1000])
def test_junk_is_no_gzip(junk: bytes) -> None:
    with pytest.raises(Corrupt, match=r"^failed to decompress snapshot: gzip: invalid header$"):
        verify(junk)


def test_a_gzip_of_something_else_is_no_snapshot() -> None:
    with pytest.raises(Corrupt, match="no tar archive"):
        verify(stored(b"x" * 1000))


def test_a_file_that_was_packed_anew_is_refused() -> None:
    with pytest.raises(Corrupt, match="gzip: invalid header"):
        verify(gzip.compress(gzip.decompress(SMALL)))


def test_a_file_that_is_cut_short_anywhere_is_refused() -> None:
    for end in range(len(SMALL)):
        with pytest.raises(Corrupt):
            verify(SMALL[:end])


def test_a_file_with_any_bit_flipped_is_refused() -> None:
    damaged = bytearray(SMALL)
    for position, byte in enumerate(SMALL):
        for bit in range(8):
            damaged[position] = byte ^ 1 << bit
            with pytest.raises(StorageError):
                verify(bytes(damaged))
        damaged[position] = byte


def test_the_last_byte_counts() -> None:
    with pytest.raises(Corrupt, match="EOF"):
        verify(SMALL[:-1])


def test_a_missing_member_is_named() -> None:
    parts = members(SMALL)
    del parts["SHA256SUMS"]

    with pytest.raises(Corrupt, match="SHA256SUMS is missing"):
        verify(packed(parts))


def test_members_in_another_order_are_refused() -> None:
    with pytest.raises(Corrupt, match=r"meta\.json is missing"):
        verify(packed(dict(reversed(members(SMALL).items()))))


def test_a_member_too_many_is_refused() -> None:
    with pytest.raises(Corrupt):
        verify(packed(members(SMALL) | {"../../etc/passwd": b"x"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE])
def test_only_plain_files_are_members(kind: bytes) -> None:
    info = tarfile.TarInfo("meta.json")
    info.type = kind

    with pytest.raises(Corrupt):
        verify(stored(info.tobuf() + bytes(1024)))


def test_a_huge_meta_is_refused_before_it_is_read() -> None:
    info = tarfile.TarInfo("meta.json")
    info.size = 1 << 40

    with pytest.raises(Corrupt, match=r"meta\.json has 1099511627776 bytes"):
        verify(stored(info.tobuf(tarfile.GNU_FORMAT)))


def test_a_chunk_longer_than_its_member_is_refused() -> None:
    parts = members(SMALL)
    parts["state.bin"] = b"\xff\xff\xff\xff" + parts["state.bin"][4:]

    with pytest.raises(Corrupt, match="a chunk of 4294967295 bytes"):
        verify(packed(parts))


def test_a_state_without_its_end_is_refused() -> None:
    parts = members(SMALL)
    parts["state.bin"] = parts["state.bin"][: -4 - 5 - 35]

    with pytest.raises(Corrupt, match="cut short"):
        verify(packed(parts))


def test_a_changed_meta_is_found_by_its_sum() -> None:
    parts = members(SMALL)
    parts["meta.json"] = parts["meta.json"].replace(b"127.0.0.1:8201", b"127.0.0.9:8201")

    with pytest.raises(SnapshotMismatch, match="SHA-256 sums"):
        verify(packed(parts))


def test_a_meta_of_another_snapshot_is_refused() -> None:
    parts = members(SMALL)
    parts["meta.json"] = parts["meta.json"].replace(b'"Index":7', b'"Index":8')

    with pytest.raises(SnapshotMismatch, match="describes another snapshot"):
        verify(packed(parts))


@pytest.mark.parametrize(
    "meta",
    [b"", b"[]", b'{"Version": "x"}', b"\xff", b'{"ID": "\xff"}', pytest.param(b'{"x":' + b"[" * 500_000, id="deep")],
)
def test_a_meta_of_junk_is_refused(meta: bytes) -> None:
    with pytest.raises(Corrupt, match=r"meta\.json does not decode"):
        verify(packed(members(SMALL) | {"meta.json": meta}))


def test_a_file_of_another_program_is_named_so() -> None:
    parts = members(SMALL)
    parts["meta.json"] = parts["meta.json"].replace(b'"Version":1', b'"Version":2')

    with pytest.raises(SnapshotMismatch, match="another program"):
        verify(packed(parts))


def test_zeros_without_end_behind_the_end_are_refused() -> None:
    bomb = stored(gzip.decompress(SMALL) + bytes(100_000_000))

    with pytest.raises(Corrupt, match="more in the file"):
        verify(bomb)


@given(junk=binary(max_size=2000))
def test_a_tar_of_anything_is_refused(junk: bytes) -> None:
    with pytest.raises(StorageError):
        verify(stored(junk))


# -- bounds --


class EndlessReader:
    """A state too large to be in memory: the same pair value again and again."""

    applied = APPLIED
    is_staging = False
    value = bytes(100_000)

    def __init__(self, count: int) -> None:
        self.count = count

    def pairs(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        first = int.from_bytes(after, "big") + 1 if after else 0
        for number in range(first, self.count):
            yield number.to_bytes(32, "big"), self.value

    def close(self) -> None:
        """Nothing is held."""


def test_memory_is_constant_both_ways(tmp_path: Path) -> None:
    reader: StateReader = EndlessReader(400)
    tracemalloc.start()

    with new_spool(tmp_path) as spool:
        for piece in write_file(reader, SNAPSHOT_ID):
            spool.write(piece)
        size = spool.tell()
        spool.seek(0)
        verify_file(spool)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size > 40_000_000
    assert peak < 4_000_000


def test_a_spool_is_private_and_leaves_no_name(tmp_path: Path, permissive_umask: None) -> None:
    del permissive_umask
    with new_spool(tmp_path) as spool:
        mode = Path(f"/proc/self/fd/{spool.fileno()}").stat().st_mode & 0o777

        assert (mode, list(tmp_path.iterdir())) == (0o600, [])


def test_a_size_over_eight_gibibytes_has_a_header() -> None:
    header = archive._header("state.bin", 20 << 30)

    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 20 << 30

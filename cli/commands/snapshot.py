"""Snapshots of the cluster: save, restore, inspect, verify.

A snapshot is a gzipped tar file of the encrypted state, a manifest and SHA-256 sums. It is written beside its final name
first, so that an interrupted download never looks like a snapshot.
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path
from typing import Final

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.document import parse_json
from conclave.cli.errors import EXIT_OK, EXIT_SERVER, CommandError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_document, show_rows
from conclave.cli.table import rows_of

_MANIFEST: Final = "meta.json"
_SUMS: Final = "SHA256SUMS"
MANIFEST_BYTES_MAX: Final = 1 << 20
COPY_BYTES: Final = 1 << 16


class MissingFile(CommandError):
    """The file to restore cannot be read; Vault counts that among the faults of a restore, not of its usage."""

    exit_code = EXIT_SERVER


@command("operator raft snapshot save [options] FILE", FORMAT, arguments=(1, 1))
def save(call: Call) -> int:
    """Save a snapshot of the cluster's state, encrypted as it is.

    $ conclave operator raft snapshot save backup.snap
    """
    target = Path(call.argument(0)).expanduser()
    partial = target.with_name(target.name + ".incomplete")
    try:
        with partial.open("wb") as file, doing("Error taking the snapshot"):
            os.fchmod(file.fileno(), 0o600)
            call.client.download("sys/storage/raft/snapshot", file)
            file.flush()
            os.fsync(file.fileno())
        _check(partial)
        partial.replace(target)
    except OSError as error:
        raise CommandError(f"Error writing the snapshot: {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return EXIT_OK


@command(
    "operator raft snapshot restore [options] FILE",
    FORMAT,
    Flag(
        "force",
        "Also a snapshot of another cluster, into a node that is alone; its key shares unseal it then.",
        Kind.BOOLEAN,
    ),
    arguments=(1, 1),
)
def restore(call: Call) -> int:
    """Put the cluster back into the state of a snapshot.

    $ conclave operator raft snapshot restore backup.snap
    """
    source = Path(call.argument(0)).expanduser()
    path = "sys/storage/raft/snapshot-force" if call.flags.boolean("force") else "sys/storage/raft/snapshot"
    try:
        with source.open("rb") as file, doing("Error installing the snapshot"):
            call.client.upload(path, file, source.stat().st_size)
    except OSError as error:
        raise MissingFile(f"Error opening snapshot file: open {source}: {(error.strerror or '').lower()}") from error
    return EXIT_OK


@command("operator raft snapshot inspect [options] FILE", FORMAT, arguments=(1, 1), is_http=False)
def inspect(call: Call) -> int:
    """Check a snapshot's sums and print its manifest; asks no server.

    $ conclave operator raft snapshot inspect backup.snap
    """
    manifest = _check(Path(call.argument(0)).expanduser())
    return EXIT_OK if show_document(call, manifest) else show_rows(call, rows_of(manifest))


@command("operator raft snapshot verify [options] FILE", FORMAT, arguments=(1, 1), is_http=False)
def verify(call: Call) -> int:
    """Check every byte of a snapshot as a restore does; asks no server.

    Whether its keys are those of a vault only that vault can tell, when it restores.

        $ conclave operator raft snapshot verify backup.snap
    """
    from conclave.verify import DamagedSnapshot, verify_snapshot

    file = Path(call.argument(0)).expanduser()
    try:
        found = verify_snapshot(file)
    except DamagedSnapshot as error:
        raise CommandError(f"{file} is no snapshot that could be restored: {error}") from error
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: open {file}: {(error.strerror or '').lower()}") from error
    shown = {
        "ID": found.snapshot_id,
        "Index": found.index,
        "Term": found.term,
        "Records": found.records,
        "Size": found.state_bytes,
    }
    return EXIT_OK if show_document(call, shown) else show_rows(call, rows_of(shown))


def _check(file: Path) -> dict[str, object]:
    """Return the manifest of a snapshot all of whose sums are right.

    Raises:
        CommandError: it is no snapshot, or not a whole one.
    """
    try:
        with gzip.open(file) as unpacked:
            digests, kept = _members(unpacked)
            while unpacked.read(COPY_BYTES):
                pass  # at the end stands gzip's own sum, also of all that is no member's
        manifest = parse_json(kept[_MANIFEST]) if _MANIFEST in kept else {}
        expected = kept.get(_SUMS, b"").decode()
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise CommandError(f"{file} is no snapshot, or not a whole one: {error}") from error
    sums = {name: digest for digest, name in (line.split(maxsplit=1) for line in expected.splitlines() if " " in line)}
    wrong = [name for name, digest in sums.items() if digests.get(name) != digest]
    if wrong or not sums:
        raise CommandError(f"{file} is damaged: the sums of {', '.join(wrong) or 'its parts'} are wrong or missing")
    return manifest


def _members(unpacked: gzip.GzipFile) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the digests of a tar's members, and the beginnings of those that are looked into, by name."""
    digests: dict[str, str] = {}
    kept: dict[str, bytes] = {}
    with tarfile.open(fileobj=unpacked, mode="r|", bufsize=COPY_BYTES) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                continue
            digest = hashlib.sha256()
            while piece := content.read(COPY_BYTES):
                digest.update(piece)
                if member.name in (_MANIFEST, _SUMS) and len(kept.get(member.name, b"")) < MANIFEST_BYTES_MAX:
                    kept[member.name] = kept.get(member.name, b"") + piece
            digests[member.name] = digest.hexdigest()
    return digests, kept

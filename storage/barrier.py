"""The barrier: everything that leaves it is sealed, names included.

* A record is AES-256-GCM under the active key term, with a fresh random 96-bit nonce and the storage key it lies at as
  associated data: moved to another place, it does not open. NIST SP 800-38D, section 8.3 allows 2**32 random nonces for
  one key, so a term that has sealed so many refuses to seal more.
* A name becomes a keyed BLAKE2b hash (RFC 7693), separated by purpose through BLAKE2's personalisation: who has no name
  key can neither read names nor confirm a guess.

It stores nothing and knows no paths; `tree` and `tables` give its hashes their meaning. What it remembers goes with it when
the node is sealed. Layout: docs/storage.md.
"""

import os
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conclave.storage.errors import Corrupt, KeyExhausted
from conclave.storage.keyring import NONCE_BYTES, Keyring

RECORD_VERSION: Final = 1
RECORDS_PER_KEY_MAX: Final = 1 << 32
ID_BYTES: Final = 16
"""Length of a directory's id, and of a name's hash: 128 bits, so that no two of 2**50 names ever meet."""
HEADER_BYTES: Final = 1 + 4 + NONCE_BYTES
RECORD_OVERHEAD_BYTES: Final = HEADER_BYTES + 16
DIRECTORIES_CACHED_MAX: Final = 65_536
MARKERS_CACHED_MAX: Final = 16_384
"""Of how many directories the id is remembered, and of how many the storage key of the marker."""
LOCATIONS_CACHED_MAX: Final = 4_096
"""Of how many records that are read again and again the storage key is remembered."""
CACHED_PATH_CHARACTERS_MAX: Final = 256
"""A longer path is not remembered: so many of the longest would fill the memory."""
NAMES_CACHED_MAX: Final = 32_768
"""How many names are remembered; one more, and all are forgotten. A longer one than a cached path never is."""
DERIVED_CACHED_MAX: Final = 8_192
"""How many records' decoded forms are remembered; one more, and all are forgotten."""
DERIVED_BYTES_CACHED_MAX: Final = 32 * 1024 * 1024
"""What those records may take as they are sealed; with more, all are forgotten. What was made of them takes some times it."""
_PERSON_CHILD: Final = b"conclave.child"
_PERSON_DIRECTORY: Final = b"conclave.dir"
_PERSON_ROW: Final = b"conclave.row"


class Barrier:
    """Seals and opens records, and hashes names, with one keyring."""

    def __init__(self, keyring: Keyring, encryption_count: int = 0) -> None:
        """Hold a keyring.

        Args:
            keyring: may be replaced by `replace_keyring`.
            encryption_count: how many records the active key term has sealed before, as far as is known.
        """
        self._use(keyring, encryption_count)
        # Nearly every operation names a directory that an earlier one named; a hit saves one hash for each level.
        # It must not refer to this object, or that would outlive the last who uses it, until a garbage collection.
        self._descend = lru_cache(DIRECTORIES_CACHED_MAX)(partial(_descend, keyring.name_key))
        self._marker_key = lru_cache(MARKERS_CACHED_MAX)(partial(_location, keyring.name_key))
        self._recalled = lru_cache(LOCATIONS_CACHED_MAX)(partial(_location, keyring.name_key))
        self._names: dict[bytes, str] = {}
        self._derived: dict[bytes, tuple[bytes, object]] = {}
        self._derived_bytes = 0

    def _use(self, keyring: Keyring, encryption_count: int) -> None:
        self.keyring = keyring
        self.encryption_count = encryption_count
        self._name_key = keyring.name_key
        self._ciphers = {key_term: AESGCM(data_key.key) for key_term, data_key in keyring.terms.items()}
        self._active = self._ciphers[keyring.active]
        self._prefix = bytes([RECORD_VERSION]) + keyring.active.to_bytes(4, "big")

    def replace_keyring(self, keyring: Keyring) -> None:
        """Use a keyring that was rotated from the present one; the count starts again if the active term is new."""
        assert keyring.name_key == self._name_key, "the name key never rotates"
        count = self.encryption_count if keyring.active == self.keyring.active else 0
        self._use(keyring, count)

    def seal_record(self, location: bytes, plaintext: bytes) -> bytes:
        """Encrypt one record so that it opens only at `location`.

        Args:
            location: the storage key; bound in as associated data, not stored.
            plaintext: 0 to 1 MiB.

        Returns:
            version (1 byte) + key term (4, big endian) + nonce (12, random) + ciphertext + tag (16): 33 bytes longer
            than `plaintext`.

        Raises:
            KeyExhausted: this key term has sealed 2**32 records; rotate first.
        """
        if self.encryption_count >= RECORDS_PER_KEY_MAX:
            raise KeyExhausted(f"key term {self.keyring.active} has sealed all it may; rotate the keyring")
        self.encryption_count += 1
        nonce = os.urandom(NONCE_BYTES)
        return self._prefix + nonce + self._active.encrypt(nonce, plaintext, location)

    def open_record(self, location: bytes, record: bytes) -> bytes:
        """Return the plaintext that `seal_record` sealed for this location.

        Raises:
            Corrupt: the record was changed, moved, cut short, or sealed under a key this keyring lacks.
        """
        if len(record) < RECORD_OVERHEAD_BYTES or record[0] != RECORD_VERSION:
            raise Corrupt("a record is cut short or of an unknown version")
        cipher = self._ciphers.get(int.from_bytes(record[1:5], "big"))
        if cipher is None:
            raise Corrupt("a record is sealed under a key term that the keyring lacks")
        try:
            return cipher.decrypt(record[5:HEADER_BYTES], record[HEADER_BYTES:], location)
        except InvalidTag as error:
            raise Corrupt("a record was changed, or does not belong where it lies") from error

    def child_key(self, directory_id: bytes, name: bytes) -> bytes:
        """Return the storage key of a directory's child: the directory's id and a keyed hash of the name; 32 bytes."""
        return directory_id + _hash(self._name_key, directory_id, name, _PERSON_CHILD)

    def directory_id(self, parent_id: bytes, name: bytes) -> bytes:
        """Return the 16-byte id of a sub-directory, derived from its parent's id and its name (which ends in "/")."""
        return _hash(self._name_key, parent_id, name, _PERSON_DIRECTORY)

    def name_at(self, child_key: bytes) -> str | None:
        """Return the name that a child's storage key is the hash of, if it was noted: it is the same for ever."""
        return self._names.get(child_key)

    def note_name(self, child_key: bytes, name: str) -> None:
        """Remember a name that stood in the record at its storage key, so that listings need not open it again."""
        if len(name) <= CACHED_PATH_CHARACTERS_MAX:
            if len(self._names) >= NAMES_CACHED_MAX:
                self._names.clear()
            self._names[child_key] = name

    def derived_at(self, location: bytes, record: bytes) -> object | None:
        """Return what was noted of a sealed record, if it is the very same one: no two have the same nonce."""
        noted = self._derived.get(location)
        return noted[1] if noted is not None and noted[0] == record else None

    def note_derived(self, location: bytes, record: bytes, derived: object) -> None:
        """Remember what was made of a sealed record, so that it need not be opened again as long as it is the same."""
        earlier = self._derived.pop(location, None)
        if earlier is not None:
            self._derived_bytes -= len(earlier[0])
        if len(self._derived) >= DERIVED_CACHED_MAX or self._derived_bytes + len(record) > DERIVED_BYTES_CACHED_MAX:
            self._derived.clear()
            self._derived_bytes = 0
        self._derived[location] = (record, derived)
        self._derived_bytes += len(record)

    def descend(self, directory_id: bytes, path: str) -> bytes:
        """Return the id of the directory at `path` below another; `path` is "" or ends in a slash."""
        if not path:
            return directory_id
        if len(path) > CACHED_PATH_CHARACTERS_MAX:
            return _descend(self._name_key, directory_id, path)
        return self._descend(directory_id, path)

    def marker_key(self, directory_id: bytes, path: str) -> bytes:
        """Return the storage key of the marker of the directory at `path`, which ends in a slash, below another."""
        if len(path) > CACHED_PATH_CHARACTERS_MAX:
            return _location(self._name_key, directory_id, path)
        return self._marker_key(directory_id, path)

    def recalled_key(self, directory_id: bytes, path: str) -> bytes:
        """Return the storage key of the record at `path` below a directory, for what is read again and again."""
        if len(path) > CACHED_PATH_CHARACTERS_MAX:
            return _location(self._name_key, directory_id, path)
        return self._recalled(directory_id, path)

    def row_key(self, table_id: bytes, time_ns: int, ident: bytes) -> bytes:
        """Return the storage key of a table's row: table id (16), time (8, big endian), keyed hash of `ident` (16)."""
        return table_id + time_ns.to_bytes(8, "big") + _hash(self._name_key, table_id, ident, _PERSON_ROW)


def _descend(name_key: bytes, directory_id: bytes, path: str) -> bytes:
    for name in path.encode().split(b"/")[:-1]:
        directory_id = _hash(name_key, directory_id, name + b"/", _PERSON_DIRECTORY)
    return directory_id


def _location(name_key: bytes, directory_id: bytes, path: str) -> bytes:
    cut = path.rfind("/", 0, len(path) - 1) + 1
    parent_id = _descend(name_key, directory_id, path[:cut])
    return parent_id + _hash(name_key, parent_id, path[cut:].encode(), _PERSON_CHILD)


def _hash(name_key: bytes, parent_id: bytes, name: bytes, person: bytes) -> bytes:
    return blake2b(parent_id + name, digest_size=ID_BYTES, key=name_key, person=person).digest()

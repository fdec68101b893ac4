"""Sealed records and hashed names.

Vector: AES-256-GCM, test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B (the one that
NIST's submission published).
"""

import weakref

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers

from conclave.storage.barrier import (
    CACHED_PATH_CHARACTERS_MAX,
    NAMES_CACHED_MAX,
    RECORD_OVERHEAD_BYTES,
    RECORDS_PER_KEY_MAX,
    Barrier,
)
from conclave.storage.errors import Corrupt, KeyExhausted, WrongKey
from conclave.storage.keyring import DataKey, Keyring, unwrap_keyring, wrap_keyring
from conclave.storage.seal import unwrap_root_key, wrap_root_key

VECTOR_KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
VECTOR_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
VECTOR_PLAINTEXT = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
VECTOR_LOCATION = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
VECTOR_SEALED = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    "76fc6ece0f4e1768cddf8853bb2d551b"
)
LOCATION = bytes(32)


def fixed_keyring() -> Keyring:
    keyring = Keyring.generate(0)
    return Keyring(terms={1: DataKey(VECTOR_KEY, 0)}, active=1, name_key=keyring.name_key)


@pytest.fixture
def barrier() -> Barrier:
    return Barrier(Keyring.generate(0))


def test_a_published_vector_opens() -> None:
    record = b"\x01" + (1).to_bytes(4, "big") + VECTOR_NONCE + VECTOR_SEALED

    assert Barrier(fixed_keyring()).open_record(VECTOR_LOCATION, record) == VECTOR_PLAINTEXT


@given(plaintext=binary(max_size=2000), location=binary(min_size=32, max_size=32))
def test_what_was_sealed_opens_where_it_was_sealed(plaintext: bytes, location: bytes) -> None:
    barrier = Barrier(fixed_keyring())

    record = barrier.seal_record(location, plaintext)

    assert len(record) == len(plaintext) + RECORD_OVERHEAD_BYTES
    assert barrier.open_record(location, record) == plaintext


def test_a_moved_record_does_not_open(barrier: Barrier) -> None:
    record = barrier.seal_record(LOCATION, b"secret")

    with pytest.raises(Corrupt):
        barrier.open_record(b"\x01" + LOCATION[1:], record)


@given(position=integers(0, 38), bit=integers(0, 7))
def test_a_flipped_bit_is_found(position: int, bit: int) -> None:
    barrier = Barrier(fixed_keyring())
    record = bytearray(barrier.seal_record(LOCATION, b"secret"))
    record[position] ^= 1 << bit

    with pytest.raises(Corrupt):
        barrier.open_record(LOCATION, bytes(record))


@given(length=integers(0, 38))
def test_a_truncated_record_is_found(length: int) -> None:
    barrier = Barrier(fixed_keyring())

    with pytest.raises(Corrupt):
        barrier.open_record(LOCATION, barrier.seal_record(LOCATION, b"secret")[:length])


def test_after_a_rotation_old_records_open_and_new_ones_use_the_new_key(barrier: Barrier) -> None:
    old = barrier.seal_record(LOCATION, b"old")

    barrier.replace_keyring(barrier.keyring.rotate(1))
    new = barrier.seal_record(LOCATION, b"new")

    assert (barrier.open_record(LOCATION, old), barrier.open_record(LOCATION, new)) == (b"old", b"new")
    assert (old[1:5], new[1:5]) == ((1).to_bytes(4, "big"), (2).to_bytes(4, "big"))


def test_an_exhausted_key_seals_no_more() -> None:
    barrier = Barrier(Keyring.generate(0), encryption_count=RECORDS_PER_KEY_MAX - 1)
    barrier.seal_record(LOCATION, b"the last")

    with pytest.raises(KeyExhausted):
        barrier.seal_record(LOCATION, b"one too many")


def test_long_paths_lead_to_the_same_place_and_are_not_remembered(barrier: Barrier) -> None:
    path = "x/" * 1000

    assert barrier.descend(barrier.descend(LOCATION[:16], path), path) == barrier.descend(LOCATION[:16], path + path)
    assert barrier._descend.cache_info().currsize == 0


def test_a_barrier_that_nobody_uses_is_gone_at_once_with_all_it_remembers() -> None:
    barrier = Barrier(Keyring.generate(0))
    barrier.descend(LOCATION[:16], "a/b/")
    remains = weakref.ref(barrier)

    del barrier

    assert remains() is None


def test_only_so_many_names_are_remembered_and_no_long_ones(barrier: Barrier) -> None:
    barrier.note_name(b"long", "x" * (CACHED_PATH_CHARACTERS_MAX + 1))
    for number in range(NAMES_CACHED_MAX):
        barrier.note_name(number.to_bytes(32, "big"), "name")
    assert barrier.name_at(b"long") is None
    assert barrier.name_at(bytes(32)) == "name"

    barrier.note_name(b"one more", "name")

    assert barrier.name_at(bytes(32)) is None
    assert barrier.name_at(b"one more") == "name"


def test_names_are_hashed_under_the_cluster_s_own_key() -> None:
    first, second = Barrier(Keyring.generate(0)), Barrier(Keyring.generate(0))

    assert first.child_key(bytes(16), b"name") != second.child_key(bytes(16), b"name")


def test_the_layers_of_keys_open_only_with_the_one_above() -> None:
    unseal_key, root_key, keyring = b"u" * 32, b"r" * 32, Keyring.generate(0)

    assert unwrap_root_key(unseal_key, wrap_root_key(unseal_key, root_key)) == root_key
    assert unwrap_keyring(root_key, wrap_keyring(root_key, keyring)) == keyring
    with pytest.raises(WrongKey):
        unwrap_root_key(b"x" * 32, wrap_root_key(unseal_key, root_key))
    with pytest.raises(WrongKey):
        unwrap_keyring(b"x" * 32, wrap_keyring(root_key, keyring))


def test_keys_are_in_no_representation() -> None:
    keyring = fixed_keyring()

    assert VECTOR_KEY.hex() not in repr(keyring)
    assert repr(VECTOR_KEY)[2:-1] not in repr(keyring)

"""Golden bytes of what is stored and has no test of its layout beside its other tests: types never change.

Elsewhere: frames, membership, snapshots, the applied record and the seal configuration, each beside its module's tests.
"""

import msgspec

from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfChangeV2, EntryKind, encode_conf_change
from conclave.core.quotas import RateLimit
from conclave.core.tokens import EndedPrefix, EndedPrefixes
from conclave.storage import log
from conclave.storage.keyring import DataKey, Keyring
from conclave.storage.writeset import Stage, WriteSet


def test_a_write_set_has_this_layout() -> None:
    write_set = WriteSet(5, [(b"k" * 32, b"v")], [b"d" * 32], b"r" * 16, b"a")

    puts, deletes = "9192c420" + "6b" * 32 + "c40176", "91c420" + "64" * 32
    written = "01" + "9705" + puts + deletes + "c410" + "72" * 16 + "c40161" + "0000"

    assert write_set.encode().hex() == written
    assert WriteSet.decode(bytes.fromhex(written)) == write_set


def test_a_write_set_of_a_restored_state_has_a_version_of_its_own() -> None:
    write_set = WriteSet(5, stage=Stage.SWAP, stage_count=7)

    written = "02" + "9705" + "9090" + "c400c400" + "0307"

    assert write_set.encode().hex() == written
    assert WriteSet.decode(bytes.fromhex(written)) == write_set


def test_a_write_set_without_the_newest_fields_can_be_read() -> None:
    assert WriteSet.decode(bytes.fromhex("01" + "9505" + "9090" + "c400c400")) == WriteSet(5)


def test_a_log_entry_has_this_layout() -> None:
    written = "8db02ed2" + "0000000000000003" + "01" + "64617461"

    assert log._encode((3, 7, 1, b"data")).hex() == written
    assert log._decode(7, bytes.fromhex(written)) == (3, 7, 1, b"data")


def test_membership_changes_have_this_layout() -> None:
    single = ConfChange(ConfChangeKind.REMOVE, 3)
    several = ConfChangeV2((ConfChange(ConfChangeKind.ADD_LEARNER, 3),), context=b"m")

    assert encode_conf_change(single) == (EntryKind.CONF_CHANGE, bytes.fromhex("920103"))
    assert encode_conf_change(several) == (EntryKind.CONF_CHANGE_V2, bytes.fromhex("93" + "91920303" + "00" + "c4016d"))
    assert encode_conf_change(ConfChangeV2()) == (EntryKind.CONF_CHANGE_V2, b"")


def test_a_keyring_has_this_layout() -> None:
    keyring = Keyring(1, {1: DataKey(b"k" * 32, 5)}, b"n" * 32)

    written = "01" + "930181" + "01" + "92c420" + "6b" * 32 + "05" + "c420" + "6e" * 32

    assert keyring.encode().hex() == written
    assert Keyring.decode(bytes.fromhex(written)) == keyring


def test_a_rate_limit_has_this_layout() -> None:
    limit = RateLimit("n", "secret/", 2.5, 1, 60)

    written = "95" + "a16e" + "a7" + b"secret/".hex() + "cb4004000000000000" + "01" + "3c"

    assert msgspec.msgpack.encode(limit).hex() == written
    assert msgspec.msgpack.decode(bytes.fromhex(written), type=RateLimit) == limit


def test_ended_prefixes_have_this_layout_and_that_of_before() -> None:
    ended = EndedPrefixes([EndedPrefix("a/", 5, [("b/", b"c")], 7)])

    written = "91" + "91" + "94" + "a2612f" + "05" + "91" + "92a2622fc40163" + "07"
    before = "91" + "91" + "92" + "a2612f" + "05"

    assert msgspec.msgpack.encode(ended).hex() == written
    assert msgspec.msgpack.decode(bytes.fromhex(written), type=EndedPrefixes) == ended
    assert msgspec.msgpack.decode(bytes.fromhex(before), type=EndedPrefixes) == EndedPrefixes([EndedPrefix("a/", 5)])

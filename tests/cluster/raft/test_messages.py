"""What is stored and sent keeps its bytes, and what is wrong is told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.cluster.raft import (
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Snapshot,
    SnapshotMeta,
    decode_conf_change,
    encode_conf_change,
    entry_size,
)

GOLDEN = [
    (Entry(3, 7, EntryKind.NORMAL, b"x"), "94030700c40178"),
    (HardState(5, 2, 9), "93050209"),
    (ConfState((1, 2), (1,), (3,), (), auto_leave=True), "959201029101910390c3"),
    (Snapshot(SnapshotMeta(8, 2, ConfState((1,))), b"d"), "92930802959101909090c2c40164"),
    (
        Message(MessageKind.HEARTBEAT, 2, 1, term=4, commit=6, sequence=11),
        "9e0302010400000690c2000bc2c000",
    ),
]


@pytest.mark.parametrize(("value", "encoded"), GOLDEN, ids=lambda value: type(value).__name__)
def test_stored_and_sent_types_keep_their_bytes(value: msgspec.Struct, encoded: str) -> None:
    assert msgspec.msgpack.encode(value).hex() == encoded
    assert msgspec.msgpack.decode(bytes.fromhex(encoded), type=type(value)) == value


def test_a_message_without_the_fields_that_came_later_is_understood() -> None:
    older = bytes.fromhex("9d0302010400000690c2000bc2c0")

    assert msgspec.msgpack.decode(older, type=Message).sequence == 11


def test_the_numbers_of_kinds_never_change() -> None:
    assert [kind.name for kind in MessageKind][:3] == ["APPEND", "APPEND_RESPONSE", "HEARTBEAT"]
    assert int(MessageKind.RESIGNED) == 15
    assert [int(kind) for kind in EntryKind] == [0, 1, 2]
    assert [int(kind) for kind in ConfChangeKind] == [0, 1, 2, 3]


@given(
    change=st.builds(
        ConfChangeV2,
        st.lists(st.builds(ConfChange, st.sampled_from(list(ConfChangeKind)), st.integers(0, 2**62))).map(tuple),
        st.sampled_from(list(ConfChangeTransition)),
        st.binary(max_size=8),
    )
)
def test_a_change_survives_its_entry(change: ConfChangeV2) -> None:
    kind, data = encode_conf_change(change)

    assert decode_conf_change(Entry(1, 1, kind, data)) == change


def test_a_change_of_one_member_survives_its_entry() -> None:
    change = ConfChange(ConfChangeKind.REMOVE, 3)
    kind, data = encode_conf_change(change)

    assert kind is EntryKind.CONF_CHANGE
    assert decode_conf_change(Entry(1, 1, kind, data)) == ConfChangeV2((change,))


def test_the_change_that_leaves_a_joint_configuration_is_empty_so_that_no_quota_can_stop_it() -> None:
    assert encode_conf_change(ConfChangeV2()) == (EntryKind.CONF_CHANGE_V2, b"")


def test_nonsense_is_no_change() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_conf_change(Entry(1, 1, EntryKind.CONF_CHANGE_V2, b"\xc1"))


def test_an_entry_without_data_has_a_size() -> None:
    assert entry_size(Entry(1, 1)) >= 1

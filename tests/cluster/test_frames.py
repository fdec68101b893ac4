"""Frames: what goes in comes out, however the stream is cut; what is no frame is refused at once."""

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import binary, builds, from_type, integers, lists, one_of, text

from conclave.cluster import frames
from conclave.cluster.frames import (
    GREETING_BYTES_MAX,
    HEADER_BYTES,
    Announce,
    Answer,
    ChunkReply,
    ChunkRequest,
    Decoder,
    Forward,
    Frame,
    FrameError,
    Hello,
    Lane,
    Messages,
    Outcome,
    Refusal,
    Refused,
    Service,
    Welcome,
    encode,
)
from conclave.cluster.raft import ConfState, Entry, EntryKind, Message, MessageKind, Snapshot, SnapshotMeta

u64 = integers(0, 2**64 - 1)
MESSAGE = Message(MessageKind.APPEND, 2, 1, 3, 4, 5, 6, (Entry(3, 6, EntryKind.NORMAL, b"data"),))
SNAPSHOT = Message(MessageKind.SNAPSHOT, 2, 1, 3, snapshot=Snapshot(SnapshotMeta(7, 3, ConfState((1, 2))), b"id"))

GOLDEN: list[tuple[Frame, str]] = [
    (Hello("c", 1, 2, Lane.BULK, b"i"), "0000000b010195a163010201c40169"),
    (Welcome(1, b"i"), "000000070102" + "9201c40169"),
    (Messages([]), "000000040103" + "9190"),
    (Forward(1, 2, Service.MEMBERSHIP, b"b"), "000000090104" + "94010201c40162"),
    (Answer(1, Outcome.NOT_LEADER, b"b"), "000000080105" + "930101c40162"),
    (
        Announce("n", "c:1", "http://a", "v", "h", None, 1, 2, 3),
        "0000001d0106" + "9ca16ea3633a31a8687474703a2f2f61a176a168c00102030000c2",
    ),
    (ChunkRequest(b"s", b"p"), "000000090107" + "92c40173c40170"),
    (ChunkReply(b"s", b"p", b"c"), "0000000c0108" + "93c40173c40170c40163"),
    (Refused(Refusal.REMOVED, "t"), "000000060109" + "9206a174"),
]
"""Type numbers and fields as they are on the wire, for ever."""


OLDER = [
    "0000001a0106" + "99a16ea3633a31a8687474703a2f2f61a176a168c0010203",
    "0000001c0106" + "9ba16ea3633a31a8687474703a2f2f61a176a168c00102030000",
]
"""Announcements without the fields that came later."""


@pytest.mark.parametrize("written", OLDER)
def test_a_frame_of_an_older_version_has_the_defaults_of_what_it_does_not_say(written: str) -> None:
    assert decoded(bytes.fromhex(written)) == Announce("n", "c:1", "http://a", "v", "h", None, 1, 2, 3)


def decoded(data: bytes, limit_bytes: int = 1 << 20) -> Frame | None:
    decoder = Decoder(limit_bytes)
    decoder.feed(data)
    return decoder.next()


@pytest.mark.parametrize(("frame", "written"), GOLDEN)
def test_a_frame_has_this_layout(frame: Frame, written: str) -> None:
    assert encode(frame).hex() == written
    assert decoded(bytes.fromhex(written)) == frame


def test_every_type_has_a_golden_frame() -> None:
    assert {type(frame) for frame, _ in GOLDEN} == set(frames._TYPES.values())


def test_a_raft_message_has_this_layout() -> None:
    assert msgspec.msgpack.encode(MESSAGE).hex() == "9e010201030405069194030600c40464617461c20000c2c000"
    assert (
        msgspec.msgpack.encode(SNAPSHOT).hex()
        == "9e090201030000" + "0090c20000c2" + "92930703" + "95920102909090c2" + "c402696400"
    )


def test_messages_arrive_as_they_were() -> None:
    frame = Messages([MESSAGE, SNAPSHOT])

    assert decoded(encode(frame)) == frame


def test_a_frame_with_fields_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    body = msgspec.msgpack.encode([1, b"i", "a field from the future"])
    header = (len(body) + 2).to_bytes(4, "big") + bytes([frames.VERSION, 2])

    assert decoded(header + body) == Welcome(1, b"i")


@given(
    sent=lists(
        one_of(
            builds(Hello, text(max_size=9), u64, u64, from_type(Lane), binary(max_size=20)),
            builds(Forward, u64, u64, from_type(Service), binary(max_size=400)),
            builds(ChunkReply, binary(max_size=20), binary(max_size=20), binary(max_size=400)),
        ),
        max_size=6,
    ),
    piece_bytes=integers(1, 50),
)
def test_however_the_stream_is_cut_the_same_frames_come_out(sent: list[Frame], piece_bytes: int) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    decoder = Decoder(1 << 20)
    received: list[Frame] = []

    for start in range(0, len(stream), piece_bytes):
        decoder.feed(stream[start : start + piece_bytes])
        while (frame := decoder.next()) is not None:
            received.append(frame)

    assert received == sent


@given(cut=integers(min_value=0))
def test_a_frame_that_is_cut_short_is_waited_for(cut: int) -> None:
    data = encode(Messages([MESSAGE]))

    assert decoded(data[: cut % len(data)]) is None


@given(junk=binary(max_size=200))
def test_garbage_is_a_frame_an_error_or_not_enough(junk: bytes) -> None:
    decoder = Decoder(GREETING_BYTES_MAX)
    decoder.feed(junk)

    try:
        while decoder.next() is not None:
            pass
    except FrameError:
        return

    assert len(decoder._buffer) < HEADER_BYTES + GREETING_BYTES_MAX


@given(number=integers(1, 9), body=binary(max_size=100))
def test_a_body_of_garbage_is_an_error(number: int, body: bytes) -> None:
    data = (len(body) + 2).to_bytes(4, "big") + bytes([frames.VERSION, number]) + body

    try:
        frame = decoded(data)
    except FrameError:
        return

    assert isinstance(frame, frames._TYPES[number])


def test_a_text_that_is_no_utf8_is_an_error() -> None:
    data = encode(Hello("cccc", 1, 2, Lane.BULK, b"i")).replace(b"cccc", b"\xff\xff\xff\xff")

    with pytest.raises(FrameError, match="type 1 does not decode"):
        decoded(data)


def test_a_frame_over_the_bound_is_refused_by_its_header_alone() -> None:
    header = encode(Answer(1, Outcome.ANSWERED, bytes(200)))[:HEADER_BYTES]

    with pytest.raises(FrameError, match="at most 100"):
        decoded(header, limit_bytes=100)


def test_a_frame_of_exactly_the_bound_is_accepted() -> None:
    data = encode(Answer(1, Outcome.ANSWERED, bytes(200)))

    assert decoded(data, limit_bytes=len(data) - 4) is not None


@pytest.mark.parametrize("length", [0, 1])
def test_a_frame_shorter_than_its_own_header_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match=f"a frame of {length} bytes"):
        decoded(length.to_bytes(4, "big") + bytes([frames.VERSION, 1]))


def test_another_version_is_refused() -> None:
    with pytest.raises(FrameError, match="frame version 2 is not 1"):
        decoded(b"\0\0\0\x02\x02\x01")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(FrameError, match="unknown frame type 200"):
        decoded(b"\0\0\0\x02\x01\xc8")

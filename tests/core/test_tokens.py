"""core/tokens.py: making, finding and judging tokens, over a directory in memory."""

import os

import pytest
from msgspec import msgpack

from conclave.core.errors import InvalidRequest
from conclave.core.tokens import (
    ANCESTORS_MAX,
    BATCH,
    BATCH_PREFIX,
    SERVICE_PREFIX,
    TEXT_CHARACTERS_MAX,
    USES_SPENT,
    BarrierSealer,
    TokenRecord,
    Tokens,
    is_good,
    name_of,
    with_default,
)
from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from tests.fakes import START_NS, FakeContext

SECOND = 10**9


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(os.urandom, BarrierSealer(Barrier(Keyring.generate(0))))


def make(tokens: Tokens, context: FakeContext, **more: object) -> tuple[str, TokenRecord]:
    wanted = {"now_ns": START_NS, "policies": ["default"], "path": "auth/token/create"} | more
    return tokens.create(context.storage, **wanted)  # type: ignore[arg-type]  # each test says what it needs


def test_a_token_is_found_by_its_text_and_by_its_accessor(tokens: Tokens, context: FakeContext) -> None:
    text, record = make(tokens, context)

    assert text.startswith(SERVICE_PREFIX)
    assert tokens.lookup(context.storage, text, START_NS) == record
    assert tokens.lookup_accessor(context.storage, record.accessor, START_NS) == record


@pytest.mark.parametrize("text", ["", "hvs.", "none", "hvb.", "hvb.AAAA", "hvb.!!", "x" * (TEXT_CHARACTERS_MAX + 1)])
def test_any_other_text_is_no_token(tokens: Tokens, context: FakeContext, text: str) -> None:
    make(tokens, context)

    assert tokens.lookup(context.storage, text, START_NS) is None


@pytest.mark.parametrize("accessor", ["", "none", "a/b", "ending/x"])
def test_any_other_accessor_finds_nothing(tokens: Tokens, context: FakeContext, accessor: str) -> None:
    assert tokens.lookup_accessor(context.storage, accessor, START_NS) is None


def test_the_text_of_a_token_is_not_stored(tokens: Tokens, context: FakeContext) -> None:
    text, record = make(tokens, context)

    assert record.name == name_of(text)
    assert text not in record.name
    assert text.encode() not in msgpack.encode(record)


def test_a_token_is_good_until_it_ends(tokens: Tokens, context: FakeContext) -> None:
    text, _ = make(tokens, context, ttl_seconds=60)

    assert tokens.lookup(context.storage, text, START_NS + 60 * SECOND - 1) is not None
    assert tokens.lookup(context.storage, text, START_NS + 60 * SECOND) is None


def test_uses_are_counted_to_the_last(tokens: Tokens, context: FakeContext) -> None:
    text, record = make(tokens, context, num_uses=2)

    once = tokens.use(context.storage, record)
    twice = tokens.use(context.storage, once)

    assert (once.num_uses, twice.num_uses) == (1, USES_SPENT)
    assert tokens.lookup(context.storage, text, START_NS) is None


def test_a_token_dies_with_any_of_its_ancestors(tokens: Tokens, context: FakeContext) -> None:
    _, grandparent = make(tokens, context)
    _, parent = make(tokens, context, parent=grandparent.name)
    text, _ = make(tokens, context, parent=parent.name)

    tokens.remove(context.storage, grandparent)

    assert tokens.lookup(context.storage, text, START_NS) is None


def test_a_chain_of_parents_is_bounded(tokens: Tokens, context: FakeContext) -> None:
    _, record = make(tokens, context)
    for _ in range(ANCESTORS_MAX - 2):
        _, record = make(tokens, context, parent=record.name)
    assert is_good(context.storage, record, START_NS)

    with pytest.raises(InvalidRequest, match="ancestors"):
        make(tokens, context, parent=record.name)


def test_a_chosen_text_can_be_had_once(tokens: Tokens, context: FakeContext) -> None:
    assert make(tokens, context, text="mine")[0] == "mine"

    with pytest.raises(InvalidRequest, match="cannot create a token with a duplicate ID"):
        make(tokens, context, text="mine")


def test_a_batch_token_is_its_own_record(tokens: Tokens, context: FakeContext) -> None:
    text, record = make(tokens, context, token_type=BATCH, ttl_seconds=60)

    assert text.startswith(BATCH_PREFIX)
    assert context.storage.list() == []
    assert tokens.lookup(context.storage, text, START_NS) == record
    assert tokens.lookup(context.storage, text, START_NS + 60 * SECOND) is None


def test_a_changed_batch_token_does_not_open(tokens: Tokens, context: FakeContext) -> None:
    text, _ = make(tokens, context, token_type=BATCH, ttl_seconds=60)
    changed = text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]

    assert tokens.lookup(context.storage, changed, START_NS) is None


def test_a_batch_token_dies_with_its_parent(tokens: Tokens, context: FakeContext) -> None:
    _, parent = make(tokens, context)
    text, _ = make(tokens, context, token_type=BATCH, ttl_seconds=60, parent=parent.name)

    tokens.remove(context.storage, parent)

    assert tokens.lookup(context.storage, text, START_NS) is None


@pytest.mark.parametrize(
    ("policies", "no_default", "expected"),
    [
        (["B", "a", "a "], False, ["a", "b", "default"]),
        (["b"], True, ["b"]),
        ([], False, ["default"]),
        ([], True, []),
        (["root", "a"], False, ["root"]),
        (["default"], True, ["default"]),
    ],
)
def test_policies_are_put_in_order(policies: list[str], no_default: bool, expected: list[str]) -> None:
    assert with_default(policies, no_default=no_default) == expected


def test_stored_tokens_are_read_for_ever() -> None:
    """The bytes of a record as version 0.1.0 writes them."""
    stored = bytes.fromhex("95a16ea16191a764656661756c74a161d21dcd6500")

    record = msgpack.decode(stored, type=TokenRecord)

    assert (record.name, record.accessor, record.policies, record.path) == ("n", "a", ["default"], "a")

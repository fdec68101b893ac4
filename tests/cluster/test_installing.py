"""What is written first after a crash in the middle of an installation."""

from msgspec import structs

from conclave.cluster.installing import recovery
from conclave.cluster.membership import Identity, encode_identity
from conclave.cluster.persistence import Reset, SaveIdentity

IDENTITY = Identity(1, bytes(16), "a", "cluster", 7)
INSTALLING = structs.replace(IDENTITY, installing=(100, 5))


def test_without_an_intent_there_is_nothing_to_do() -> None:
    assert recovery(IDENTITY, (10, 1), (5, 0, 10)) is None


def test_an_old_state_in_its_place_means_that_nothing_had_happened() -> None:
    assert recovery(INSTALLING, (10, 1), (5, 7, 10)) == SaveIdentity(encode_identity(IDENTITY))


def test_a_replaced_state_needs_its_log_to_begin_behind_it() -> None:
    job = recovery(INSTALLING, (100, 5), (6, 7, 10))

    assert job == Reset(100, 5, (6, 7, 100), encode_identity(IDENTITY))


def test_a_term_that_was_heard_of_but_not_written_is_taken_from_the_snapshot_without_a_vote() -> None:
    job = recovery(INSTALLING, (100, 5), (4, 7, 10))

    assert job == Reset(100, 5, (5, 0, 100), encode_identity(IDENTITY))

"""Shares and challenges, the pure part: what counts, what opens, what proves."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, text
from msgspec import structs

from conclave.core import unsealing
from conclave.core.errors import InvalidRequest
from conclave.storage import shamir

KEY = unsealing.join_key(b"k" * 32)
PETITION = unsealing.Petition("127.0.0.1:8211", b"request", b"i" * 16, is_voter=True)


@given(share=binary(min_size=16, max_size=64))
def test_a_share_is_read_in_both_spellings(share: bytes) -> None:
    assert unsealing.parse_share(share.hex()) == share
    encoded = unsealing.encode_share(share)
    if not all(character in "0123456789abcdefABCDEF" for character in encoded):
        assert unsealing.parse_share(encoded) == share


@pytest.mark.parametrize("given_text", ["", "zzz", "ab", "!" * 40, "ü" * 20])
def test_what_is_no_share_is_refused(given_text: str) -> None:
    with pytest.raises(InvalidRequest):
        unsealing.parse_share(given_text)


@given(seed=integers(0, 1000))
def test_enough_shares_give_the_key_and_start_over(seed: int) -> None:
    secret = random.Random(seed).randbytes(32)
    shares = shamir.split(secret, total=5, threshold=3, random=random.Random(seed).randbytes)
    progress = unsealing.Progress()

    found = [progress.add(share, threshold=3) for share in (shares[3], shares[3], shares[0], shares[4])]

    assert found == [None, None, None, secret]
    assert (progress.count, progress.nonce) == (0, "")


def test_a_nonce_names_one_attempt() -> None:
    progress = unsealing.Progress()
    progress.add(b"a" * 33, threshold=3)
    first = progress.nonce
    progress.add(b"b" * 33, threshold=3)
    assert progress.nonce == first

    progress.reset()
    progress.add(b"a" * 33, threshold=3)

    assert progress.nonce not in ("", first)


@given(node_id=text(min_size=1, max_size=20), now=integers(0, 2**40))
def test_whoever_holds_the_key_opens_the_challenge_and_proves_it(node_id: str, now: int) -> None:
    challenge = unsealing.make_challenge(KEY, node_id, now_seconds=now, random=random.Random(0).randbytes)

    answer = unsealing.open_challenge(KEY, node_id, challenge)

    assert answer is not None
    proof = unsealing.prove(answer, PETITION)
    assert unsealing.is_proof(KEY, node_id, proof, PETITION, now_seconds=now)
    assert unsealing.is_proof(KEY, node_id, proof, PETITION, now_seconds=now + unsealing.CHALLENGE_SLOT_SECONDS)
    later = now + 2 * unsealing.CHALLENGE_SLOT_SECONDS
    assert not unsealing.is_proof(KEY, node_id, proof, PETITION, now_seconds=later)


def test_another_key_another_node_and_a_changed_challenge_open_nothing() -> None:
    challenge = unsealing.make_challenge(KEY, "n1", now_seconds=0, random=random.Random(0).randbytes)

    assert unsealing.open_challenge(unsealing.join_key(b"x" * 32), "n1", challenge) is None
    assert unsealing.open_challenge(KEY, "n2", challenge) is None
    assert unsealing.open_challenge(KEY, "n1", challenge[:-1] + bytes([challenge[-1] ^ 1])) is None
    assert unsealing.open_challenge(KEY, "n1", b"") is None


def test_a_proof_is_one_nodes_own() -> None:
    proof = unsealing.prove(unsealing.expected_answer(KEY, "n1", 0), PETITION)

    assert not unsealing.is_proof(KEY, "n2", proof, PETITION, now_seconds=0)
    assert not unsealing.is_proof(KEY, "n1", b"", PETITION, now_seconds=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"cluster_address": "10.6.6.6:8201"},
        {"request_pem": b"of another key"},
        {"incarnation": b"another directory"},
        {"is_voter": False},
    ],
)
def test_an_overheard_proof_is_good_for_nothing_else(changed: dict[str, Any]) -> None:
    proof = unsealing.prove(unsealing.expected_answer(KEY, "n1", 0), PETITION)

    other = structs.replace(PETITION, **changed)

    assert not unsealing.is_proof(KEY, "n1", proof, other, now_seconds=0)


def test_the_answer_itself_is_no_proof() -> None:
    answer = unsealing.expected_answer(KEY, "n1", 0)

    assert not unsealing.is_proof(KEY, "n1", answer, PETITION, now_seconds=0)

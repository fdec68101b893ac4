"""Who may join: each refusal, and the two ways to be let in."""

import pytest

from conclave.cluster.errors import JoinRefused
from conclave.cluster.join import Admission, check_address, decide_admission
from conclave.cluster.membership import Member, MembershipRecord
from conclave.cluster.raft import ConfState

OWN, OTHER = b"i" * 16, b"j" * 16
LEARNER = Member(2, "b", "127.0.0.1:8201", "", OWN)
RECORD = MembershipRecord(conf_state=ConfState(voters=(1,), learners=(2,)), members=(LEARNER,))


def decide(
    node_id: str = "c",
    cluster_address: str = "127.0.0.1:8203",
    incarnation: bytes = OTHER,
    *,
    record: MembershipRecord = RECORD,
    has_taken_part: bool = False,
) -> tuple[Admission, Member | None]:
    return decide_admission(
        record,
        node_id=node_id,
        cluster_address=cluster_address,
        incarnation=incarnation,
        has_taken_part=has_taken_part,
    )


def test_a_new_node_is_added() -> None:
    assert decide() == (Admission.ADD, None)


def test_a_node_whose_ticket_got_lost_gets_another() -> None:
    assert decide("b", "127.0.0.1:8201", OWN) == (Admission.REISSUE, LEARNER)


def test_a_node_that_has_taken_part_gets_no_second_ticket() -> None:
    with pytest.raises(JoinRefused, match="already a member"):
        decide("b", "127.0.0.1:8201", OWN, has_taken_part=True)


def test_a_voter_gets_no_second_ticket() -> None:
    record = MembershipRecord(conf_state=ConfState(voters=(1, 2)), members=(LEARNER,))

    with pytest.raises(JoinRefused, match="already a member"):
        decide("b", "127.0.0.1:8201", OWN, record=record)


def test_a_taken_node_id_is_refused() -> None:
    with pytest.raises(JoinRefused, match="is taken by a member with another data directory"):
        decide("b")


def test_a_taken_address_is_refused() -> None:
    with pytest.raises(JoinRefused, match="belongs to member 'b'"):
        decide(cluster_address="127.0.0.1:8201")


@pytest.mark.parametrize("node_id", ["", "x" * 256])
def test_a_node_id_has_a_length(node_id: str) -> None:
    with pytest.raises(JoinRefused, match="1 to 255"):
        decide(node_id)


@pytest.mark.parametrize("incarnation", [b"", b"i" * 15, b"i" * 17])
def test_an_incarnation_has_its_length(incarnation: bytes) -> None:
    with pytest.raises(JoinRefused, match="16 bytes"):
        decide(incarnation=incarnation)


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:x", "host:0", "host:65536", "host:-1", "http://h"]
)
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(JoinRefused, match="form host:port"):
        check_address(address)


def test_addresses_are_taken_apart() -> None:
    assert check_address("host.example:8201") == ("host.example", 8201)
    assert check_address("[::1]:8201") == ("::1", 8201)

"""The leader's lease: counted from when a heartbeat was sent, never from when it was answered."""

from conclave.cluster.lease import Lease


def test_a_lease_runs_from_when_the_confirmed_heartbeat_was_sent() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)

    lease.confirmed(1)

    assert lease.until == 10.17


def test_without_a_confirmation_there_is_no_lease() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)

    lease.confirmed(0)

    assert lease.until == 0.0


def test_the_newest_confirmed_heartbeat_counts() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)
    lease.sent(2, 10.05)
    lease.sent(3, 10.10)

    lease.confirmed(2)

    assert lease.until == 10.05 + 0.17


def test_a_late_confirmation_of_an_earlier_heartbeat_takes_nothing_back() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)
    lease.sent(2, 10.05)
    lease.confirmed(2)

    lease.confirmed(1)

    assert lease.until == 10.05 + 0.17


def test_repeating_a_heartbeat_does_not_make_it_younger() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)

    lease.sent(1, 10.5)
    lease.confirmed(1)

    assert lease.until == 10.17


def test_a_heartbeat_from_before_another_quorum_decides_counts_for_nothing() -> None:
    lease = Lease(0.17)
    lease.sent(1, 10.0)
    lease.sent(2, 10.05)
    lease.void(2)

    lease.confirmed(2)

    assert lease.until == 0.0


def test_a_new_term_begins_without_a_lease() -> None:
    lease = Lease(0.17)
    lease.sent(7, 10.0)
    lease.confirmed(7)

    lease.reset()
    lease.sent(1, 11.0)

    assert lease.until == 0.0
    lease.confirmed(1)
    assert lease.until == 11.17

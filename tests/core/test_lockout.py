"""Lockout: who is refused, for how long, and what is kept of whoever tries."""

from conclave.core.lockout import FAILURES_MAX, LOCK_SECONDS, NAME_CHARACTERS_MAX, Lockouts

SECOND_NS = 10**9


def failing(name: str, count: int = FAILURES_MAX) -> Lockouts:
    lockouts = Lockouts()
    for _ in range(count):
        lockouts.failed("up", name, 0)
    return lockouts


def test_one_failure_less_does_not_lock() -> None:
    assert not failing("bob", FAILURES_MAX - 1).is_locked("up", "bob", 0)


def test_a_lock_is_of_one_name_at_one_mount_and_ends() -> None:
    lockouts = failing("bob")

    assert lockouts.is_locked("up", "bob", LOCK_SECONDS * SECOND_NS - 1)
    assert not lockouts.is_locked("up", "eve", 0)
    assert not lockouts.is_locked("other", "bob", 0)
    assert not lockouts.is_locked("up", "bob", LOCK_SECONDS * SECOND_NS)


def test_a_long_name_is_locked_and_let_in_again_but_not_kept() -> None:
    name = "x" * (NAME_CHARACTERS_MAX + 1)
    lockouts = failing(name)

    assert lockouts.is_locked("up", name, 0)
    assert not lockouts.is_locked("up", name + "x", 0)
    assert all(len(kept) <= NAME_CHARACTERS_MAX for kept in lockouts.locked(0)["up"])
    lockouts.succeeded("up", name)
    assert not lockouts.is_locked("up", name, 0)

"""core/doorkeeper.py: what is asked for again is told from what is not, in a memory that does not grow."""

from conclave.core.doorkeeper import Doorkeeper, RepeatCache


def test_a_key_has_been_seen_once_it_was_asked_about() -> None:
    doorkeeper = Doorkeeper(64)

    assert [doorkeeper.has_seen("a"), doorkeeper.has_seen("a"), doorkeeper.has_seen("a")] == [False, True, True]


def test_keys_that_fit_are_known_again_though_others_came_between() -> None:
    doorkeeper = Doorkeeper(1 << 16)
    keys = [(number, "key") for number in range(500)]

    fresh = sum(not doorkeeper.has_seen(key) for key in keys)
    again = sum(doorkeeper.has_seen(key) for key in keys)

    assert fresh > 480  # one in 255 of those that share a place with another is taken for it
    assert again > 480


def test_a_newer_key_takes_an_older_ones_place() -> None:
    doorkeeper = Doorkeeper(1)

    assert not doorkeeper.has_seen(1)
    assert not doorkeeper.has_seen(2)
    assert not doorkeeper.has_seen(1)


def test_numbers_below_zero_have_a_place_too() -> None:
    doorkeeper = Doorkeeper(8)

    assert not doorkeeper.has_seen(-5)
    assert doorkeeper.has_seen(-5)


def test_what_is_offered_twice_is_remembered() -> None:
    cache: RepeatCache[str, int] = RepeatCache(64)

    cache.offer("a", 1)
    assert not cache

    cache.offer("a", 2)
    assert cache == {"a": 2}


def test_a_full_cache_forgets_all() -> None:
    cache: RepeatCache[int, int] = RepeatCache(8)

    for key in range(9):
        cache.offer(key, key)
        cache.offer(key, key)

    assert cache == {8: 8}

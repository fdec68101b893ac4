"""The sealed tree against a dictionary, and what it must not show."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from, tuples

from conclave.storage.barrier import DERIVED_BYTES_CACHED_MAX, Barrier
from conclave.storage.errors import Corrupt, TooLarge
from conclave.storage.keyring import Keyring
from conclave.storage.tree import DEPTH_MAX, NAME_BYTES_MAX, Directory

ROOT = bytes(16)
BARRIER = Barrier(Keyring.generate(0))
PATHS = ["a", "a/b", "a/c", "a/b/c", "b", "b/x/y/z", "ä/ö"]


class DictView:
    """Sealed records in a dictionary."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key)

    def keys(self, prefix: bytes, start: bytes = b"", limit: int | None = None) -> list[bytes]:
        return sorted(key for key in self.records if key.startswith(prefix) and key >= start)[:limit]

    def has_records(self, prefix: bytes) -> bool:
        return any(key.startswith(prefix) for key in self.records)

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def delete(self, key: bytes) -> None:
        self.records.pop(key, None)


def names(paths: Iterable[str], directory: str = "") -> list[str]:
    """What a listing shows of these paths."""
    below = [path.removeprefix(directory) for path in paths if path.startswith(directory)]
    return sorted({path.partition("/")[0] + ("/" if "/" in path else "") for path in below})


@given(steps=lists(tuples(sampled_from(["get", "put", "delete"]), sampled_from(PATHS)), max_size=40))
def test_a_tree_behaves_like_a_dictionary_of_paths(steps: list[tuple[str, str]]) -> None:
    view, model = DictView(), dict[str, bytes]()
    root = Directory(view, BARRIER, ROOT)
    for number, (step, path) in enumerate(steps):
        if step == "put":
            root.put(path, str(number).encode())
            model[path] = str(number).encode()
        elif step == "delete":
            assert root.delete(path) == (model.pop(path, None) is not None)
        else:
            assert root.get(path) == model.get(path)

    for path in PATHS:
        assert root.get(path) == model.get(path)
    for directory in ("", "a/", "a/b/", "b/x/"):
        assert root.list(directory) == names(model, directory)
    assert bool(view.records) == bool(model)


@pytest.mark.parametrize("path", ["", "a/", "/"])
@pytest.mark.parametrize("has_read", [False, True])
def test_no_record_has_an_empty_name_or_one_that_ends_in_a_slash(path: str, *, has_read: bool) -> None:
    root = Directory(DictView(), BARRIER, ROOT)
    if has_read:
        root.get("a")

    for refused in (root.get, root.delete, lambda each: root.put(each, b""), lambda each: root.derived(each, len)):
        with pytest.raises(ValueError, match="a record's path"):
            refused(path)


@given(steps=lists(tuples(sampled_from(["put", "delete"]), sampled_from(PATHS)), max_size=40))
def test_what_is_derived_is_of_the_record_that_is_there(steps: list[tuple[str, str]]) -> None:
    root = Directory(DictView(), Barrier(BARRIER.keyring), ROOT)
    for number, (step, path) in enumerate(steps):
        if step == "put":
            root.put(path, str(number % 3).encode())
        else:
            root.delete(path)
        for each in PATHS:
            assert root.derived(each, bytes.hex) == ((record := root.get(each)) and record.hex())


def test_the_same_record_is_opened_once_and_each_view_sees_its_own() -> None:
    made: list[bytes] = []

    def derive(value: bytes) -> bytes:
        made.append(value)
        return value

    barrier = Barrier(BARRIER.keyring)
    one, other = (Directory(DictView(), barrier, ROOT) for _ in range(2))
    one.put("a", b"1")
    other.put("a", b"2")

    assert [one.derived("a", derive), one.derived("a", derive)] == [b"1", b"1"]
    assert made == [b"1"]
    assert other.derived("a", derive) == b"2"
    assert one.derived("a", derive) == b"1"


def test_what_is_remembered_of_large_records_is_bounded_by_their_size() -> None:
    barrier = Barrier(BARRIER.keyring)
    root = Directory(DictView(), barrier, ROOT)
    count = DERIVED_BYTES_CACHED_MAX // 500_000 + 2
    value = bytes(500_000)
    for number in range(count):
        root.put(str(number), value)
    made: list[int] = []

    def derive(value: bytes) -> int:
        made.append(len(value))
        return len(value)

    for number in (*range(count), count - 1, 0):
        root.derived(str(number), derive)

    assert len(made) == count + 1  # the last is still remembered, the first is not


def test_a_record_that_changes_again_and_again_takes_no_room_of_others() -> None:
    barrier = Barrier(BARRIER.keyring)
    root = Directory(DictView(), barrier, ROOT)
    root.put("kept", b"1")
    root.derived("kept", bytes.hex)
    for _ in range(DERIVED_BYTES_CACHED_MAX // 900_000 + 2):
        root.put("changing", bytes(900_000))
        root.derived("changing", len)

    made: list[bytes] = []
    root.derived("kept", made.append)

    assert made == []


def test_a_record_that_was_changed_is_not_what_was_remembered() -> None:
    view = DictView()
    root = Directory(view, Barrier(BARRIER.keyring), ROOT)
    root.put("a", b"1")
    root.derived("a", bytes.hex)
    key, sealed = next(iter(view.records.items()))
    view.records[key] = sealed[:-1] + bytes([sealed[-1] ^ 1])

    with pytest.raises(Corrupt):
        root.derived("a", bytes.hex)


def test_no_name_and_no_value_stands_in_clear() -> None:
    view = DictView()
    Directory(view, BARRIER, ROOT).put("visible-directory/visible-name", b"visible-value")

    stored = b"".join(key + value for key, value in view.records.items())

    assert b"visible" not in stored


def test_a_record_swapped_with_another_does_not_open() -> None:
    view = DictView()
    root = Directory(view, BARRIER, ROOT)
    root.put("a", b"1")
    root.put("b", b"2")
    first, second = sorted(view.records)
    view.records[first], view.records[second] = view.records[second], view.records[first]

    with pytest.raises(Corrupt):
        root.get("a")


def test_a_large_directory_is_emptied_in_pieces() -> None:
    view = DictView()
    root = Directory(view, BARRIER, ROOT)
    for number in range(50):
        root.put(f"doomed/{number % 5}/{number}", b"x")
    root.put("kept", b"x")

    pieces = 1
    while not root.walk_delete("doomed", limit=7):
        pieces += 1

    assert pieces > 5
    assert root.list() == ["kept"]
    assert len(view.records) == 1


def test_a_path_over_its_bound_is_refused() -> None:
    view = DictView()
    directory = Directory(view, BARRIER, ROOT)
    directory.put("d/" * DEPTH_MAX + "x", b"")

    with pytest.raises(TooLarge):
        directory.put("d/" * DEPTH_MAX + "d/x", b"")
    directory.delete("d/" * DEPTH_MAX + "x")

    assert not view.records


def test_a_name_over_its_bound_is_refused() -> None:
    with pytest.raises(TooLarge):
        Directory(DictView(), BARRIER, ROOT).put("x" * (NAME_BYTES_MAX + 1), b"")

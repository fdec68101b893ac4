"""A state that comes through the log beside the live one: against a model, with crashes between any two flushes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DrawFn, composite, integers, lists, sampled_from

from conclave.storage.errors import Corrupt
from conclave.storage.memory import MemoryState
from conclave.storage.overlay import Overlay
from conclave.storage.snapshots import Installation, Stream
from conclave.storage.state import Applied, LmdbState, Staging, StateStore
from conclave.storage.writeset import Stage, WriteSet

MAP_BYTES = 1 << 28
PREFIX = bytes(16)
KEYS = [PREFIX + bytes([number]) * 16 for number in range(4)]


def plain(number: int, value: bytes | None) -> WriteSet:
    if value is None:
        return WriteSet(1, deletes=[KEYS[number]])
    return WriteSet(1, [(KEYS[number], value)])


def staged(*numbers: int, value: bytes = b"restored") -> WriteSet:
    return WriteSet(1, [(KEYS[number], value) for number in numbers], stage=Stage.PUTS)


def step(stage: Stage, count: int = 0) -> WriteSet:
    return WriteSet(1, stage=stage, stage_count=count)


RESTORE = [step(Stage.BEGIN), staged(1), staged(2), step(Stage.SWAP, 2)]
RESTORED = {KEYS[1]: b"restored", KEYS[2]: b"restored"}


class Model:
    """What the entries up to some index come to."""

    def __init__(self) -> None:
        self.live: dict[bytes, bytes] = {}
        self.staged: dict[bytes, bytes] | None = None

    def apply(self, write_set: WriteSet) -> None:
        if write_set.stage is Stage.NONE:
            self.live |= dict(write_set.puts)
            for key in write_set.deletes:
                self.live.pop(key, None)
        elif write_set.stage is Stage.PUTS:
            if self.staged is not None:
                self.staged |= dict(write_set.puts)
        elif write_set.stage is Stage.SWAP and self.staged is not None and len(self.staged) == write_set.stage_count:
            self.live, self.staged = self.staged, None
        else:
            self.staged = {} if write_set.stage is Stage.BEGIN else None


class Node:
    """An overlay over a state; `crash` loses what is not on disk, and replays the log."""

    def __init__(self, open_state: Callable[[], StateStore], entries: list[WriteSet]) -> None:
        self._open_state = open_state
        self._log = [entry.encode() for entry in entries]
        self._begin()

    def _begin(self) -> None:
        self.state = self._open_state()
        self.overlay = Overlay(self.state)

    def apply_up_to(self, index: int) -> None:
        for each in range(self.overlay.applied_index + 1, index + 1):
            self.overlay.apply(each, 1, self._log[each - 1])

    def flush(self) -> None:
        job = self.overlay.begin_flush()
        if job is not None:
            job.run()
            self.overlay.finish_flush(job)

    def crash(self) -> None:
        self.state.close()
        self._begin()

    def content(self) -> dict[bytes, bytes]:
        got = {key: value for key in KEYS if (value := self.overlay.get(key, uncommitted=False)) is not None}
        assert self.overlay.keys(PREFIX, uncommitted=False) == sorted(got)
        assert self.overlay.has_records(PREFIX, uncommitted=False) == bool(got)
        return got


def model_at(entries: list[WriteSet], index: int) -> Model:
    model = Model()
    for entry in entries[:index]:
        model.apply(entry)
    return model


def on_disk(folder: Path) -> Callable[[], StateStore]:
    return lambda: LmdbState(folder / "state", map_bytes=MAP_BYTES)


def in_memory() -> Callable[[], StateStore]:
    state = MemoryState()
    return lambda: state


# -- what a restoring comes to --


def test_what_is_staged_cannot_be_read_before_the_swap() -> None:
    node = Node(in_memory(), [plain(0, b"old"), *RESTORE])

    node.apply_up_to(4)

    assert node.content() == {KEYS[0]: b"old"}


def test_the_swap_puts_what_was_staged_in_the_place_of_everything() -> None:
    node = Node(in_memory(), [plain(0, b"old"), plain(1, b"old"), *RESTORE])

    node.apply_up_to(6)

    assert node.content() == RESTORED
    assert node.overlay.swapped_at == 6


def test_writes_go_on_behind_a_swap_and_a_second_one_swaps_back() -> None:
    again = [step(Stage.BEGIN), staged(3, value=b"again"), step(Stage.SWAP, 1), plain(0, b"last")]
    node = Node(in_memory(), [*RESTORE, plain(1, None), *again])

    node.apply_up_to(5)
    after_one = node.content()
    node.flush()
    node.apply_up_to(9)

    assert after_one == {KEYS[2]: b"restored"}
    assert node.content() == {KEYS[0]: b"last", KEYS[3]: b"again"}


def test_a_swap_of_too_few_records_changes_nothing() -> None:
    node = Node(in_memory(), [plain(0, b"old"), step(Stage.BEGIN), staged(1), step(Stage.SWAP, 2)])

    node.apply_up_to(4)

    assert node.content() == {KEYS[0]: b"old"}
    assert (node.overlay.swapped_at, node.overlay.staging_since) == (0, 0)


def test_a_swap_without_a_beginning_changes_nothing() -> None:
    node = Node(in_memory(), [plain(0, b"old"), staged(1), step(Stage.SWAP, 0)])

    node.apply_up_to(3)

    assert node.content() == {KEYS[0]: b"old"}


def test_a_new_beginning_drops_what_an_abandoned_restorer_has_staged() -> None:
    node = Node(in_memory(), [step(Stage.BEGIN), staged(0, 3), *RESTORE])

    node.apply_up_to(2)
    node.flush()
    node.apply_up_to(6)

    assert node.content() == RESTORED


def test_abandoning_ends_the_staging() -> None:
    node = Node(in_memory(), [plain(0, b"old"), step(Stage.BEGIN), staged(1), step(Stage.ABANDON)])

    node.apply_up_to(3)
    while_staging = node.overlay.staging_since
    node.apply_up_to(4)
    node.flush()

    assert (while_staging, node.overlay.staging_since) == (2, 0)
    assert node.state.applied_record == Applied(4, 1, 1)


def test_a_flush_while_staging_tells_where_that_began(tmp_path: Path) -> None:
    node = Node(on_disk(tmp_path), [plain(0, b"old"), *RESTORE])
    node.apply_up_to(4)

    node.flush()
    node.crash()

    assert node.state.applied_record == Applied(4, 1, 1, staging_since=2, staged_count=2)
    assert (node.overlay.staging_since, node.content()) == (2, {KEYS[0]: b"old"})
    node.state.close()


def test_a_swap_empties_the_table_that_was_live(tmp_path: Path) -> None:
    node = Node(on_disk(tmp_path), [plain(0, b"old"), *RESTORE])
    node.apply_up_to(1)
    node.flush()

    node.apply_up_to(5)
    node.flush()

    assert node.state.get(KEYS[0], 0) is None
    assert node.state.get(KEYS[1], 1) == b"restored"
    assert node.state.get(KEYS[1]) == b"restored"
    node.state.close()


def test_proposals_of_a_restorer_are_not_to_be_seen() -> None:
    overlay = Overlay(MemoryState())

    overlay.propose(1, step(Stage.BEGIN))
    overlay.propose(2, staged(1))

    assert overlay.last_proposed_index == 2
    assert overlay.get(KEYS[1], uncommitted=True) is None


def test_the_feed_tells_nothing_of_what_is_staged() -> None:
    heard: list[bytes] = []
    overlay = Overlay(MemoryState())
    overlay.subscribe(PREFIX, lambda _index, key: heard.append(key))

    for index, entry in enumerate(RESTORE, 1):
        overlay.apply(index, 1, entry.encode())

    assert heard == []


# -- crashes, and flushes at any moment --


@composite
def histories(draw: DrawFn) -> list[WriteSet]:
    """Entries of clients and of restorers, some of which give up, in any order."""
    entries: list[WriteSet] = []
    for kind in draw(lists(sampled_from(["write", "delete", "restore", "give up", "abandon", "wrong"]), max_size=8)):
        number = draw(integers(0, 3))
        value = bytes([len(entries)])
        if kind == "write":
            entries.append(plain(number, value))
        elif kind == "delete":
            entries.append(plain(number, None))
        elif kind == "abandon":
            entries.append(step(Stage.ABANDON))
        else:
            entries += [step(Stage.BEGIN), staged(number, value=value), staged((number + 1) % 4, value=value)]
            entries += {"restore": [step(Stage.SWAP, 2)], "wrong": [step(Stage.SWAP, 3)]}.get(kind, [])
    return entries


MOVES = ["apply", "apply", "apply", "begin flush", "run flush", "finish flush", "crash"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=histories(), moves=lists(sampled_from(MOVES), max_size=40))
def test_flushes_and_crashes_at_any_moment_leave_what_the_log_says(
    tmp_path_factory: pytest.TempPathFactory, entries: list[WriteSet], moves: list[str]
) -> None:
    node = Node(on_disk(tmp_path_factory.mktemp("staging")), entries)
    job, has_run = None, False
    for move in moves:
        if move == "apply" and node.overlay.applied_index < len(entries):
            node.apply_up_to(node.overlay.applied_index + 1)
        elif move == "begin flush" and job is None:
            job, has_run = node.overlay.begin_flush(), False
        elif move == "run flush" and job is not None and not has_run:
            job.run()
            has_run = True
        elif move == "finish flush" and job is not None and has_run:
            node.overlay.finish_flush(job)
            job = None
        elif move == "crash":
            node.crash()
            job = None
        assert node.content() == model_at(entries, node.overlay.applied_index).live

    node.apply_up_to(len(entries))
    assert node.content() == model_at(entries, len(entries)).live
    node.state.close()


@pytest.mark.parametrize("flushed_at", range(8))
@pytest.mark.parametrize("crashed_at", range(8))
def test_a_crash_between_any_two_entries_of_a_restoring_changes_nothing_of_it(
    tmp_path: Path, flushed_at: int, crashed_at: int
) -> None:
    entries = [plain(0, b"old"), *RESTORE, plain(3, b"new"), plain(1, None)]
    node = Node(on_disk(tmp_path), entries)

    node.apply_up_to(min(flushed_at, crashed_at))
    node.flush()
    node.apply_up_to(crashed_at)
    node.crash()
    node.apply_up_to(len(entries))

    assert node.content() == {KEYS[2]: b"restored", KEYS[3]: b"new"}
    node.state.close()


# -- the state --


def test_a_state_that_lacks_a_staged_record_is_found_before_it_is_written(state: StateStore) -> None:
    state.flush({}, Applied(1, 1, staging_since=1), Staging({}, clears_live=False, clears_staged=True))
    more = Staging({KEYS[0]: b"x"}, clears_live=False, clears_staged=False)

    with pytest.raises(Corrupt, match="1 records are staged where the log says 2"):
        state.flush({}, Applied(2, 1, staging_since=1, staged_count=2), more)

    state.refresh()
    assert state.applied == (1, 1)


def test_a_reader_reads_the_live_table_and_says_that_something_is_staged(state: StateStore) -> None:
    staging = Staging({KEYS[1]: b"staged"}, clears_live=False, clears_staged=True)
    state.flush({KEYS[0]: b"live"}, Applied(2, 1, is_swapped=True, staging_since=1, staged_count=1), staging)

    reader = state.open_reader()

    assert list(reader.pairs()) == [(KEYS[0], b"live")]
    assert (reader.applied, reader.is_staging, reader.count) == (Applied(2, 1), True, 1)
    reader.close()


def test_an_open_reader_goes_on_reading_the_state_before_the_swap(tmp_path: Path) -> None:
    node = Node(on_disk(tmp_path), [plain(0, b"old"), *RESTORE])
    node.apply_up_to(1)
    node.flush()
    reader = node.state.open_reader()

    node.apply_up_to(5)
    node.flush()

    assert list(reader.pairs()) == [(KEYS[0], b"old")]
    reader.close()
    node.state.close()


def test_a_swapped_state_is_sent_and_installed_as_one_that_is_not(tmp_path: Path) -> None:
    sender, taker = Node(on_disk(tmp_path), RESTORE), MemoryState()
    sender.apply_up_to(4)
    sender.flush()
    reader = sender.state.open_reader()

    installation = Installation(taker.open_installer(), bytes(16))
    for chunk in Stream(reader, bytes(16)).chunks():
        installation.take(chunk)
    taker.install()

    assert taker.applied_record == Applied(4, 1, 1)
    assert {key: taker.get(key) for key in taker.keys(PREFIX)} == RESTORED
    reader.close()
    sender.state.close()


def test_an_installation_ends_a_staging(tmp_path: Path) -> None:
    node = Node(on_disk(tmp_path), RESTORE)
    node.apply_up_to(3)
    node.flush()
    installer = node.state.open_installer()
    installer.start(b"")
    installer.put([(KEYS[3], b"installed")], b"")
    installer.complete(Applied(9, 2), b"")
    installer.close()

    node.state.install()
    node.overlay.reload()

    assert (node.overlay.staging_since, node.content()) == (0, {KEYS[3]: b"installed"})
    node.state.close()

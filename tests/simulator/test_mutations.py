"""Some broken rules that the simulator must notice in every run; all of them by `python -m tests.simulator --mutations`."""

from contextlib import nullcontext

import pytest

from tests.simulator.gate import history_that_notices, seeds_until_noticed
from tests.simulator.mutations import MUTATIONS

SEEDS_MAX = 25

NOTICED_BY_A_HISTORY = (
    "vote_in_memory_only",
    "vote_lost_on_stepping_down",
    "vote_twice",
    "commit_of_an_old_term",
    "commit_lost_with_its_entries",
    "campaign_over_an_unapplied_change",
    "promise_forgotten_with_the_term",
    "storage_answer_of_another_term",
    "commit_beyond_the_append",
    "read_confirmed_by_an_old_round",
    "read_before_the_first_commit",
    "no_promise",
    "promise_forgotten_at_a_restart",
    "lease_after_a_transfer",
    "lease_counted_from_the_answer",
    "lease_longer_than_the_promise",
    "lease_kept_on_resigning",
    "configuration_not_restored",
    "commit_not_told_with_votes",
    "next_falls_behind_a_late_refusal",
    "snapshot_report_ignored",
    "later_term_kept_secret",
    "damage_taken_for_a_torn_batch",
    "segments_removed_before_the_compaction_is_durable",
    "batch_checksum_not_checked",
    "torn_batch_taken_for_damage",
    "torn_batch_not_blanked",
    "segment_named_before_it_is_synced",
    "failed_sync_tried_again",
    "last_batch_not_written_again_at_open",
)
NOTICED_WITHIN_A_FEW_SEEDS = (
    "vote_for_any_log",
    "victory_by_half_of_the_votes",
    "rejoin_with_an_empty_disk",
    "commit_by_a_minority",
    "commit_counts_learners",
    "answers_before_the_sync",
    "read_without_a_quorum",
    "read_of_what_is_not_applied",
    "proposal_told_by_its_index_alone",
    "lost_message_never_made_good",
    "uncommitted_bytes_never_freed",
    "sync_skipped",
    "folder_not_synced_after_a_rename",
    "full_disk_ignored",
)


@pytest.mark.parametrize("name", NOTICED_BY_A_HISTORY)
def test_a_history_played_by_hand_notices_the_broken_rule(name: str) -> None:
    assert history_that_notices(MUTATIONS[name])


@pytest.mark.parametrize("name", NOTICED_WITHIN_A_FEW_SEEDS)
def test_a_few_seeds_notice_the_broken_rule(name: str) -> None:
    count, _ = seeds_until_noticed(MUTATIONS[name], 1, SEEDS_MAX)

    assert count is not None


def test_without_a_broken_rule_nothing_is_noticed() -> None:
    assert history_that_notices(nullcontext) == ""
    assert seeds_until_noticed(nullcontext, 1, 3) == (None, "")

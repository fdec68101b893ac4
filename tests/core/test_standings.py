"""What an entity's tokens may count on, remembered: the same as what its records say, after every change of any identity."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from
from msgspec import structs

from conclave.core.identity import Identities
from conclave.core.records import Records
from conclave.storage.barrier import Barrier
from conclave.storage.errors import TooLarge
from conclave.storage.keyring import Keyring
from conclave.storage.tree import Directory
from tests.storage.test_tree import ROOT, DictView

KEYRING = Keyring.generate(0)
Change = Callable[[Identities], object]


def identities(view: DictView, barrier: Barrier) -> Identities:
    return Identities(Records(Directory(view, barrier, ROOT)), os.urandom, 1)


def _give_policies(policies: list[str]) -> Change:
    return lambda it: it.save_entity(structs.replace(it.entity_named("ann") or it.new_entity("ann"), policies=policies))


def _disable(it: Identities) -> None:
    if (entity := it.entity_named("ann")) is not None:
        it.save_entity(structs.replace(entity, is_disabled=not entity.is_disabled))


def _delete(it: Identities) -> None:
    if (entity := it.entity_named("ann")) is not None:
        it.delete_entity(entity)


def _join(it: Identities) -> None:
    entity, group = it.entity_named("ann"), it.group_named("team") or it.new_group("team")
    members = [] if entity is None or group.member_entity_ids else [entity.id]
    it.save_group(structs.replace(group, policies=["of-team"], member_entity_ids=members))


def _nest(it: Identities) -> None:
    team, above = it.group_named("team"), it.group_named("above") or it.new_group("above")
    members = [] if team is None or above.member_group_ids else [team.id]
    it.save_group(structs.replace(above, policies=["of-above"], member_group_ids=members))


def _disband(it: Identities) -> None:
    if (group := it.group_named("team")) is not None:
        it.delete_group(group)


CHANGES: list[Change] = [_give_policies([]), _give_policies(["own"]), _disable, _delete, _join, _nest, _disband]


@given(steps=lists(sampled_from(CHANGES), min_size=1, max_size=30))
def test_a_remembered_standing_is_what_the_records_say(steps: list[Change]) -> None:
    view, barrier = DictView(), Barrier(KEYRING)
    ever: set[str] = set()
    for step in steps:
        step(identities(view, barrier))

        entity = identities(view, Barrier(KEYRING)).entity_named("ann")
        ever |= {entity.id} if entity is not None else set()
        for entity_id in ever:
            remembered = identities(view, barrier).standing(entity_id)
            assert remembered == identities(view, Barrier(KEYRING)).standing(entity_id)


def test_what_was_seen_within_a_change_that_failed_is_not_remembered() -> None:
    view, barrier = DictView(), Barrier(KEYRING)
    entity = identities(view, barrier).save_entity(identities(view, barrier).new_entity("ann"))
    before = dict(view.records)
    with pytest.raises(TooLarge):
        identities(view, barrier).save_entity(structs.replace(entity, name="😀" * 400, policies=["admin"]))
    assert identities(view, barrier).standing(entity.id).policies == ("admin",)

    view.records = before

    assert identities(view, barrier).standing(entity.id).policies == ()

"""Identity: entities (who), aliases (under which name which auth method knows them), and groups of them.

A token that came by a login carries its entity's id; the policies of that entity and of its groups, and of the groups that
those belong to, count for the token at every request, as they are then. So adding somebody to a group, or disabling them,
takes effect on tokens that exist.

Area `identity`: `entity/<id>`, `entity_name/<name>` → id, `alias/<id>`, `alias_key/<accessor>/<hash of name>` → id,
`group/<id>`, `group_name/<name>` → id, `member/<entity>/<group>`, `parent/<group>/<group above>`, and `generation`, which
changes with every change, so that caches need to watch one record. Names are compared without regard to case.

Source: Vault's page "Identity" and its API pages; shapes measured on a real server.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from conclave.core.crypto import Random, hash_text, new_uuid
from conclave.core.errors import InvalidRequest
from conclave.core.records import Records

NAME_CHARACTERS_MAX: Final = 512
GROUP_DEPTH_MAX: Final = 32
"""How many groups may lie above one another."""
MEMBERS_MAX: Final = 1000
"""The most members of one group, and of policies or entries of metadata of anything here."""
GENERATION: Final = "generation"

INTERNAL: Final = "internal"
EXTERNAL: Final = "external"


class Alias(Struct, array_like=True, frozen=True):
    """Under which name an auth mount knows an entity. New fields come last, with defaults."""

    id: str
    name: str
    mount_accessor: str
    entity_id: str
    created_ns: int
    updated_ns: int
    metadata: dict[str, str] | None = None  # as the last login said
    custom_metadata: dict[str, str] | None = None


class Entity(Struct, array_like=True, frozen=True):
    """Somebody, or something, that uses the vault. New fields come last, with defaults."""

    id: str
    name: str
    created_ns: int
    updated_ns: int
    policies: list[str] = []
    metadata: dict[str, str] | None = None
    is_disabled: bool = False
    alias_ids: list[str] = []
    merged_entity_ids: list[str] = []


class Group(Struct, array_like=True, frozen=True):
    """Entities and groups that share policies. New fields come last, with defaults."""

    id: str
    name: str
    created_ns: int
    updated_ns: int
    type: str = INTERNAL
    policies: list[str] = []
    metadata: dict[str, str] | None = None
    member_entity_ids: list[str] = []
    member_group_ids: list[str] = []
    modify_index: int = 1


class Standing(Struct, frozen=True):
    """What an entity is at this moment: whether its tokens count, and which policies they get from it."""

    is_good: bool
    policies: tuple[str, ...] = ()


NOBODY: Final = Standing(is_good=True)
"""The standing of a token without an entity."""


class Identities:
    """The identities of the vault, in one directory.

    Args:
        storage: the directory.
        random: so many random bytes.
        now_ns: the time.
    """

    __slots__ = ("_now_ns", "_random", "_storage")

    def __init__(self, storage: Records, random: Random, now_ns: int) -> None:
        self._storage = storage
        self._random = random
        self._now_ns = now_ns

    def _changed(self) -> None:
        self._storage.put(GENERATION, self._random(8))

    # -- what a token gets --

    def standing(self, entity_id: str) -> Standing:
        """Return what an entity's tokens may count on."""
        if not entity_id:
            return NOBODY
        entity = self.entity(entity_id)
        if entity is None or entity.is_disabled:
            return Standing(is_good=False)
        policies = set(entity.policies)
        for group in self.groups_of(entity_id):
            policies.update(group.policies)
        return Standing(is_good=True, policies=tuple(sorted(policies)))

    def direct_group_ids(self, entity_id: str) -> list[str]:
        """Return the groups that an entity is a member of itself."""
        return self._storage.list(f"member/{entity_id}")

    def groups_of(self, entity_id: str) -> list[Group]:
        """Return all groups that count for an entity: its own, and those above them."""
        found: dict[str, Group] = {}
        waiting = self.direct_group_ids(entity_id)
        while waiting:
            group = None if waiting[-1] in found else self.group(waiting[-1])
            waiting.pop()
            if group is not None:
                found[group.id] = group
                waiting.extend(self.parent_ids(group.id))
        return [found[group_id] for group_id in sorted(found)]

    def parent_ids(self, group_id: str) -> list[str]:
        """Return the groups that a group is a member of."""
        return self._storage.list(f"parent/{group_id}")

    # -- entities --

    def entity(self, entity_id: str) -> Entity | None:
        """Return an entity by its id."""
        return self._storage.recall(f"entity/{entity_id}", Entity) if _is_id(entity_id) else None

    def entity_named(self, name: str) -> Entity | None:
        """Return an entity by its name."""
        entity_id = self._storage.get(f"entity_name/{_key(name)}")
        return None if entity_id is None else self.entity(entity_id.decode())

    def entities(self) -> list[Entity]:
        """Return all entities, in order of their ids."""
        found = (self.entity(entity_id) for entity_id in self._storage.list("entity"))
        return [entity for entity in found if entity is not None]

    def new_entity(self, name: str = "") -> Entity:
        """Return an entity that is not kept yet, with a name of its own if none is given."""
        return Entity(new_uuid(self._random), name or f"entity_{self._random(4).hex()}", self._now_ns, self._now_ns)

    def save_entity(self, entity: Entity) -> Entity:
        """Keep an entity, new or changed, and return it as it is kept.

        Raises:
            InvalidRequest: its name is taken, or something is out of bounds.
        """
        _check_bounds(entity.name, entity.policies, entity.metadata)
        other = self.entity_named(entity.name)
        if other is not None and other.id != entity.id:
            raise InvalidRequest("entity name is already in use")
        before = self.entity(entity.id)
        if before is not None and _key(before.name) != _key(entity.name):
            self._storage.delete(f"entity_name/{_key(before.name)}")
        entity = msgspec.structs.replace(entity, updated_ns=self._now_ns)
        self._storage.put(f"entity/{entity.id}", entity)
        self._storage.put(f"entity_name/{_key(entity.name)}", entity.id.encode())
        self._changed()
        return entity

    def delete_entity(self, entity: Entity) -> None:
        """Remove an entity, its aliases and its memberships; its tokens are good for nothing from then on."""
        for alias_id in entity.alias_ids:
            alias = self.alias(alias_id)
            if alias is not None:
                self._forget_alias(alias)
        for group_id in self.direct_group_ids(entity.id):
            group = self.group(group_id)
            if group is not None:
                self.save_group(
                    msgspec.structs.replace(
                        group, member_entity_ids=[member for member in group.member_entity_ids if member != entity.id]
                    )
                )
        self._storage.delete(f"entity/{entity.id}")
        self._storage.delete(f"entity_name/{_key(entity.name)}")
        self._changed()

    # -- aliases --

    def alias(self, alias_id: str) -> Alias | None:
        """Return an alias by its id."""
        return self._storage.recall(f"alias/{alias_id}", Alias) if _is_id(alias_id) else None

    def alias_named(self, mount_accessor: str, name: str) -> Alias | None:
        """Return the alias of a name at the auth mount with this accessor."""
        alias_id = self._storage.recall(_alias_key(mount_accessor, name), bytes)
        return None if alias_id is None else self.alias(alias_id.decode())

    def aliases(self) -> list[Alias]:
        """Return all aliases, in order of their ids."""
        found = (self.alias(alias_id) for alias_id in self._storage.list("alias"))
        return [alias for alias in found if alias is not None]

    def aliases_of(self, entity: Entity) -> list[Alias]:
        """Return an entity's aliases."""
        found = (self.alias(alias_id) for alias_id in entity.alias_ids)
        return [alias for alias in found if alias is not None]

    def save_alias(
        self, *, name: str, mount_accessor: str, entity: Entity, custom_metadata: dict[str, str] | None = None
    ) -> Alias:
        """Make an alias, or move the one of that name and mount to another entity.

        Raises:
            InvalidRequest: the entity has another alias at that mount, or something is out of bounds.
        """
        _check_bounds(name, (), custom_metadata)
        before = self.alias_named(mount_accessor, name)
        rival = next((each for each in self.aliases_of(entity) if each.mount_accessor == mount_accessor), None)
        if rival is not None and (before is None or rival.id != before.id):
            raise InvalidRequest("Entity already has an alias for this mount; remove it first")
        if before is None:
            before = Alias(new_uuid(self._random), name, mount_accessor, entity.id, self._now_ns, self._now_ns)
        elif before.entity_id != entity.id:
            self._detach(before)
        alias = msgspec.structs.replace(
            before,
            entity_id=entity.id,
            updated_ns=self._now_ns,
            custom_metadata=before.custom_metadata if custom_metadata is None else custom_metadata,
        )
        self._put_alias(alias)
        current = self.entity(entity.id) or entity
        if alias.id not in current.alias_ids:
            self.save_entity(msgspec.structs.replace(current, alias_ids=[*current.alias_ids, alias.id]))
        self._changed()
        return alias

    def delete_alias(self, alias: Alias) -> None:
        """Remove an alias; its entity stays."""
        self._detach(alias)
        self._forget_alias(alias)
        self._changed()

    def _put_alias(self, alias: Alias) -> None:
        self._storage.put(f"alias/{alias.id}", alias)
        self._storage.put(_alias_key(alias.mount_accessor, alias.name), alias.id.encode())

    def _forget_alias(self, alias: Alias) -> None:
        self._storage.delete(f"alias/{alias.id}")
        self._storage.delete(_alias_key(alias.mount_accessor, alias.name))

    def _detach(self, alias: Alias) -> None:
        entity = self.entity(alias.entity_id)
        if entity is not None:
            kept = [alias_id for alias_id in entity.alias_ids if alias_id != alias.id]
            self.save_entity(msgspec.structs.replace(entity, alias_ids=kept))

    # -- logins --

    def logged_in(self, mount_accessor: str, name: str, metadata: dict[str, str]) -> Entity:
        """Return the entity of whoever has logged in, made now if the name was never seen at that mount."""
        alias = self.alias_named(mount_accessor, name)
        entity = None if alias is None else self.entity(alias.entity_id)
        if entity is None:
            entity = self.save_entity(self.new_entity())
            alias = self.save_alias(name=name, mount_accessor=mount_accessor, entity=entity)
            entity = self.entity(entity.id) or entity
        assert alias is not None, "an entity is found by its alias"
        if (alias.metadata or {}) != metadata:
            self._put_alias(msgspec.structs.replace(alias, metadata=metadata, updated_ns=self._now_ns))
            self._changed()  # paths of policies may be filled in with it
        return entity

    def mount_removed(self, mount_accessor: str, limit: int) -> int:
        """Remove at most `limit` aliases of an auth mount that is gone; return how many there were."""
        hashes, _ = self._storage.directory.list_piece(f"alias_key/{mount_accessor}", limit=limit)
        for hashed in hashes:
            alias_id = self._storage.get(f"alias_key/{mount_accessor}/{hashed}")
            alias = None if alias_id is None else self.alias(alias_id.decode())
            if alias is not None:
                self.delete_alias(alias)
            else:
                self._storage.delete(f"alias_key/{mount_accessor}/{hashed}")
        return len(hashes)

    # -- groups --

    def group(self, group_id: str) -> Group | None:
        """Return a group by its id."""
        return self._storage.get(f"group/{group_id}", Group) if _is_id(group_id) else None

    def group_named(self, name: str) -> Group | None:
        """Return a group by its name."""
        group_id = self._storage.get(f"group_name/{_key(name)}")
        return None if group_id is None else self.group(group_id.decode())

    def groups(self) -> list[Group]:
        """Return all groups, in order of their ids."""
        found = (self.group(group_id) for group_id in self._storage.list("group"))
        return [group for group in found if group is not None]

    def new_group(self, name: str = "") -> Group:
        """Return a group that is not kept yet, with a name of its own if none is given."""
        name = name or f"group_{self._random(4).hex()}"
        return Group(new_uuid(self._random), name, self._now_ns, self._now_ns, modify_index=0)

    def save_group(self, group: Group) -> Group:
        """Keep a group, new or changed, and return it as it is kept.

        Raises:
            InvalidRequest: its name is taken, a member does not exist, or it would be above itself.
        """
        _check_bounds(group.name, group.policies, group.metadata)
        other = self.group_named(group.name)
        if other is not None and other.id != group.id:
            raise InvalidRequest("group name is already in use")
        self._check_members(group)
        before = self.group(group.id)
        if before is not None and _key(before.name) != _key(group.name):
            self._storage.delete(f"group_name/{_key(before.name)}")
        self._index("member", before.member_entity_ids if before else (), group.member_entity_ids, group.id)
        self._index("parent", before.member_group_ids if before else (), group.member_group_ids, group.id)
        group = msgspec.structs.replace(group, updated_ns=self._now_ns, modify_index=group.modify_index + 1)
        self._storage.put(f"group/{group.id}", group)
        self._storage.put(f"group_name/{_key(group.name)}", group.id.encode())
        self._changed()
        return group

    def delete_group(self, group: Group) -> None:
        """Remove a group; its policies count for nobody from then on."""
        for parent_id in self.parent_ids(group.id):
            parent = self.group(parent_id)
            if parent is not None:
                kept = [member for member in parent.member_group_ids if member != group.id]
                self.save_group(msgspec.structs.replace(parent, member_group_ids=kept))
        self._index("member", group.member_entity_ids, (), group.id)
        self._index("parent", group.member_group_ids, (), group.id)
        self._storage.delete(f"group/{group.id}")
        self._storage.delete(f"group_name/{_key(group.name)}")
        self._changed()

    def _check_members(self, group: Group) -> None:
        if len(group.member_entity_ids) > MEMBERS_MAX or len(group.member_group_ids) > MEMBERS_MAX:
            raise InvalidRequest(f"a group has at most {MEMBERS_MAX} members of each kind")
        for entity_id in group.member_entity_ids:
            if self.entity(entity_id) is None:
                raise InvalidRequest(f'1 error occurred:\n\t* invalid entity ID "{entity_id}"\n\n')
        for group_id in group.member_group_ids:
            if group_id != group.id and self.group(group_id) is None:
                raise InvalidRequest(f'1 error occurred:\n\t* invalid group ID "{group_id}"\n\n')
        if group.member_group_ids and not self._is_acyclic(group):
            raise InvalidRequest("cyclic relationship detected for member group ID, or groups nested too deeply")

    def _is_acyclic(self, group: Group) -> bool:
        """Whether no group below `group` is that group itself, within the bound of depth."""
        level = list(group.member_group_ids)
        for _ in range(GROUP_DEPTH_MAX):
            if not level:
                return True
            if group.id in level:
                return False
            members = (self.group(group_id) for group_id in level)
            level = [below for member in members if member is not None for below in member.member_group_ids]
        return False

    def _index(self, directory: str, before: Iterable[str], after: Iterable[str], group_id: str) -> None:
        """Let the index of one kind of members say what a group's record says."""
        gone, come = set(before) - set(after), set(after) - set(before)
        for member in sorted(gone):
            self._storage.delete(f"{directory}/{member}/{group_id}")
        for member in sorted(come):
            self._storage.put(f"{directory}/{member}/{group_id}", b"")


def _is_id(text: str) -> bool:
    return bool(text) and "/" not in text


def _key(name: str) -> str:
    return quote(name.lower(), safe="")


def _alias_key(mount_accessor: str, name: str) -> str:
    return f"alias_key/{quote(mount_accessor, safe='')}/{hash_text(name, 'conclave-alias')}"


def _check_bounds(name: str, policies: Sequence[str], metadata: dict[str, str] | None) -> None:
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise InvalidRequest(f"a name has 1 to {NAME_CHARACTERS_MAX} characters")
    if len(policies) > MEMBERS_MAX or len(metadata or {}) > MEMBERS_MAX:
        raise InvalidRequest(f"at most {MEMBERS_MAX} policies and {MEMBERS_MAX} entries of metadata can be kept")

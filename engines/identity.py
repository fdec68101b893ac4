"""identity/: entities, their aliases, and groups, as clients make, look up, change and remove them.

What an identity is and what it does for tokens is in `core/identity.py`. Group aliases, which tie groups of an outside
directory to groups here, need an auth method that tells groups; none does yet. Source: Vault's API pages "Identity:
entity", "entity alias", "group" and "lookup"; shapes measured on a real server.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.identity import EXTERNAL, INTERNAL, Alias, Entity, Group, Identities
from conclave.core.mounts import Mount, MountTable
from conclave.core.privileged import VaultContext
from conclave.core.services import AREA_IDENTITY, AREA_MOUNTS
from conclave.core.timestamps import rfc3339


class WriteEntity(Struct):
    """An entity; what is not given stays."""

    id: Annotated[str, Meta(description="Which entity to change.")] = ""
    name: Annotated[str, Meta(description="Its name.")] = ""
    policies: Annotated[list[str] | None, Meta(description="Policies that its tokens get.")] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None
    disabled: Annotated[bool | None, Meta(description="Whether its tokens are refused.")] = None


class WriteAlias(Struct):
    """An alias."""

    id: Annotated[str, Meta(description="Which alias to change.")] = ""
    name: Annotated[str, Meta(description="The name at the auth mount.")] = ""
    mount_accessor: Annotated[str, Meta(description="The auth mount's accessor.")] = ""
    canonical_id: Annotated[str, Meta(description="Whose alias it is: an entity's id.")] = ""
    entity_id: Annotated[str, Meta(description="The older name of canonical_id.")] = ""
    custom_metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None


class WriteGroup(Struct):
    """A group; what is not given stays."""

    id: Annotated[str, Meta(description="Which group to change.")] = ""
    name: Annotated[str, Meta(description="Its name.")] = ""
    type: Annotated[str, Meta(description="`internal` or `external`; cannot be changed.")] = ""
    policies: Annotated[list[str] | None, Meta(description="Policies that its members' tokens get.")] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None
    member_entity_ids: Annotated[list[str] | None, Meta(description="Its entities.")] = None
    member_group_ids: Annotated[list[str] | None, Meta(description="Groups in it.")] = None


class Lookup(Struct):
    """What to look for: one of these."""

    id: Annotated[str, Meta(description="An id.")] = ""
    name: Annotated[str, Meta(description="A name.")] = ""
    alias_id: Annotated[str, Meta(description="An alias's id.")] = ""
    alias_name: Annotated[str, Meta(description="An alias's name; needs alias_mount_accessor.")] = ""
    alias_mount_accessor: Annotated[str, Meta(description="The accessor of that alias's mount.")] = ""


class Ids(Struct):
    """Several entities."""

    entity_ids: Annotated[list[str], Meta(description="Their ids.")] = []


class Merge(Struct):
    """Entities that are one."""

    from_entity_ids: Annotated[list[str], Meta(description="Those that are merged into another, and removed.")] = []
    to_entity_id: Annotated[str, Meta(description="The one that stays.")] = ""
    force: Annotated[bool, Meta(description="Whether aliases that would clash are dropped.")] = False


class Identity(Engine):
    """Who uses the vault."""

    type = "identity"

    # entities

    @operation("entity", update=WriteEntity)
    def write_entity(self, ctx: VaultContext, body: WriteEntity) -> Response:
        """Make an entity, or change the one of that id or name."""
        store = _store(ctx)
        entity = None
        if body.id:
            entity = _known_entity(store, body.id)
        elif body.name:
            entity = store.entity_named(body.name)
        return _save_entity(store, entity, body)

    @operation("entity/id", list=True)
    @operation("entity/id/", list=True)
    def list_entities(self, ctx: VaultContext) -> Response:
        """List the ids of all entities, with what is known of each."""
        store, mounts = _store(ctx), _mounts(ctx)
        info: dict[str, Any] = {}
        for entity in store.entities():
            shown: dict[str, Any] = {"name": entity.name}
            if entity.alias_ids:
                shown["aliases"] = [
                    {"id": alias.id, "name": alias.name, **_place(alias, mounts)} for alias in store.aliases_of(entity)
                ]
            info[entity.id] = shown
        return _listed(info)

    @operation("entity/name", list=True)
    @operation("entity/name/", list=True)
    def list_entity_names(self, ctx: VaultContext) -> Response:
        """List the names of all entities."""
        return _keys(sorted(entity.name for entity in _store(ctx).entities()))

    @operation("entity/id/{entity_id}", read=True)
    def read_entity(self, ctx: VaultContext, entity_id: str) -> Response:
        """Show an entity."""
        return _shown_entity(ctx, _store(ctx).entity(entity_id))

    @operation("entity/id/{entity_id}", update=WriteEntity)
    def change_entity(self, ctx: VaultContext, entity_id: str, body: WriteEntity) -> Response:
        """Change an entity."""
        store = _store(ctx)
        return _save_entity(store, _known_entity(store, entity_id), body)

    @operation("entity/id/{entity_id}", delete=True)
    def delete_entity(self, ctx: VaultContext, entity_id: str) -> Response:
        """Remove an entity with its aliases; its tokens are refused from then on."""
        return _delete_entity(_store(ctx), _store(ctx).entity(entity_id))

    @operation("entity/name/{name}", read=True)
    def read_entity_named(self, ctx: VaultContext, name: str) -> Response:
        """Show the entity of that name."""
        return _shown_entity(ctx, _store(ctx).entity_named(name))

    @operation("entity/name/{name}", update=WriteEntity)
    def write_entity_named(self, ctx: VaultContext, name: str, body: WriteEntity) -> Response:
        """Make or change the entity of that name."""
        store = _store(ctx)
        body.name = name
        return _save_entity(store, store.entity_named(name), body)

    @operation("entity/name/{name}", delete=True)
    def delete_entity_named(self, ctx: VaultContext, name: str) -> Response:
        """Remove the entity of that name."""
        return _delete_entity(_store(ctx), _store(ctx).entity_named(name))

    @operation("entity/batch-delete", update=Ids)
    def delete_entities(self, ctx: VaultContext, body: Ids) -> Response:
        """Remove several entities; those that do not exist are removed already."""
        store = _store(ctx)
        for entity_id in body.entity_ids:
            _delete_entity(store, store.entity(entity_id))
        return Response()

    @operation("entity/merge", update=Merge)
    def merge(self, ctx: VaultContext, body: Merge) -> Response:
        """Give one entity the aliases, policies and groups of others, and remove those."""
        store = _store(ctx)
        target = store.entity(body.to_entity_id)
        if target is None:
            raise InvalidRequest("entity id to merge to is invalid")
        for entity_id in body.from_entity_ids:
            source = store.entity(entity_id)
            if source is None or source.id == target.id:
                raise InvalidRequest("entity id to merge from is invalid")
            _merge(store, source, target.id, is_forced=body.force)
        return Response()

    # aliases

    @operation("entity-alias", update=WriteAlias)
    def write_alias(self, ctx: VaultContext, body: WriteAlias) -> Response:
        """Make an alias, or change the one of that id, or of that name and mount."""
        if not body.id and not (body.name and body.mount_accessor):
            raise InvalidRequest("'id' or 'mount_accessor' and 'name' must be provided")
        return _save_alias(ctx, body, body.id)

    @operation("entity-alias/id", list=True)
    @operation("entity-alias/id/", list=True)
    def list_aliases(self, ctx: VaultContext) -> Response:
        """List the ids of all aliases, with what is known of each."""
        mounts = _mounts(ctx)
        info = {
            alias.id: {
                "canonical_id": alias.entity_id,
                "custom_metadata": alias.custom_metadata,
                "local": False,
                "metadata": alias.metadata,
                "name": alias.name,
                **_place(alias, mounts),
            }
            for alias in _store(ctx).aliases()
        }
        return _listed(info)

    @operation("entity-alias/id/{alias_id}", read=True)
    def read_alias(self, ctx: VaultContext, alias_id: str) -> Response:
        """Show an alias."""
        alias = _store(ctx).alias(alias_id)
        if alias is None:
            raise NotFound
        return Response(_described_alias(alias, _mounts(ctx)) | {"namespace_id": "root"})

    @operation("entity-alias/id/{alias_id}", update=WriteAlias)
    def change_alias(self, ctx: VaultContext, alias_id: str, body: WriteAlias) -> Response:
        """Change an alias."""
        return _save_alias(ctx, body, alias_id)

    @operation("entity-alias/id/{alias_id}", delete=True)
    def delete_alias(self, ctx: VaultContext, alias_id: str) -> Response:
        """Remove an alias; its entity stays."""
        alias = _store(ctx).alias(alias_id)
        if alias is not None:
            _store(ctx).delete_alias(alias)
        return Response()

    # groups

    @operation("group", update=WriteGroup)
    def write_group(self, ctx: VaultContext, body: WriteGroup) -> Response:
        """Make a group, or change the one of that id or name."""
        store = _store(ctx)
        group = None
        if body.id:
            group = _known_group(store, body.id)
        elif body.name:
            group = store.group_named(body.name)
        return _save_group(store, group, body)

    @operation("group/id", list=True)
    @operation("group/id/", list=True)
    def list_groups(self, ctx: VaultContext) -> Response:
        """List the ids of all groups, with what is known of each."""
        store = _store(ctx)
        info = {
            group.id: {
                "name": group.name,
                "num_member_entities": len(group.member_entity_ids),
                "num_parent_groups": len(store.parent_ids(group.id)),
            }
            for group in store.groups()
        }
        return _listed(info)

    @operation("group/name", list=True)
    @operation("group/name/", list=True)
    def list_group_names(self, ctx: VaultContext) -> Response:
        """List the names of all groups."""
        return _keys(sorted(group.name for group in _store(ctx).groups()))

    @operation("group/id/{group_id}", read=True)
    def read_group(self, ctx: VaultContext, group_id: str) -> Response:
        """Show a group."""
        return _shown_group(ctx, _store(ctx).group(group_id))

    @operation("group/id/{group_id}", update=WriteGroup)
    def change_group(self, ctx: VaultContext, group_id: str, body: WriteGroup) -> Response:
        """Change a group."""
        store = _store(ctx)
        return _save_group(store, _known_group(store, group_id), body)

    @operation("group/id/{group_id}", delete=True)
    def delete_group(self, ctx: VaultContext, group_id: str) -> Response:
        """Remove a group; its policies count for nobody from then on."""
        return _delete_group(_store(ctx), _store(ctx).group(group_id))

    @operation("group/name/{name}", read=True)
    def read_group_named(self, ctx: VaultContext, name: str) -> Response:
        """Show the group of that name."""
        return _shown_group(ctx, _store(ctx).group_named(name))

    @operation("group/name/{name}", update=WriteGroup)
    def write_group_named(self, ctx: VaultContext, name: str, body: WriteGroup) -> Response:
        """Make or change the group of that name."""
        store = _store(ctx)
        body.name = name
        return _save_group(store, store.group_named(name), body)

    @operation("group/name/{name}", delete=True)
    def delete_group_named(self, ctx: VaultContext, name: str) -> Response:
        """Remove the group of that name."""
        return _delete_group(_store(ctx), _store(ctx).group_named(name))

    # lookup

    @operation("lookup/entity", update=Lookup, writes=False)
    def look_up_entity(self, ctx: VaultContext, body: Lookup) -> Response:
        """Find an entity by its id, its name, or an alias of it."""
        store = _store(ctx)
        if not (body.id or body.name or body.alias_id or body.alias_name):
            raise InvalidRequest("query parameter not supplied")
        if body.alias_name and not body.alias_mount_accessor:
            raise InvalidRequest("'alias_mount_accessor' must be supplied with 'alias_name'")
        if body.id:
            entity = store.entity(body.id)
        elif body.name:
            entity = store.entity_named(body.name)
        else:
            alias = (
                store.alias(body.alias_id)
                if body.alias_id
                else store.alias_named(body.alias_mount_accessor, body.alias_name)
            )
            entity = None if alias is None else store.entity(alias.entity_id)
        return Response() if entity is None else _shown_entity(ctx, entity)

    @operation("lookup/group", update=Lookup, writes=False)
    def look_up_group(self, ctx: VaultContext, body: Lookup) -> Response:
        """Find a group by its id or its name."""
        if not (body.id or body.name):
            raise InvalidRequest("query parameter not supplied")
        group = _store(ctx).group(body.id) if body.id else _store(ctx).group_named(body.name)
        return Response() if group is None else _shown_group(ctx, group)


# -- what all of them need --


def _store(ctx: VaultContext) -> Identities:
    return Identities(ctx.services.area(AREA_IDENTITY), ctx.random, ctx.now_ns)


def _mounts(ctx: VaultContext) -> dict[str, Mount]:
    """Return the auth mounts by their accessors."""
    mounts = MountTable(ctx.services.area(AREA_MOUNTS)).all()
    return {mount.accessor: mount for mount in mounts if mount.is_auth}


def _keys(names: list[str]) -> Response:
    if not names:
        raise NotFound
    return Response({"keys": names})


def _listed(info: dict[str, Any]) -> Response:
    if not info:
        raise NotFound
    return Response({"key_info": info, "keys": list(info)})


# -- entities --


def _known_entity(store: Identities, entity_id: str) -> Entity:
    entity = store.entity(entity_id)
    if entity is None:
        raise InvalidRequest("entity not found from id")
    return entity


def _save_entity(store: Identities, before: Entity | None, body: WriteEntity) -> Response:
    """Make or change an entity; a new one is answered with its id, a change with nothing, as in Vault."""
    entity = before or store.new_entity(body.name)
    changed = msgspec.structs.replace(
        entity,
        name=body.name or entity.name,
        policies=entity.policies if body.policies is None else _policies(body.policies),
        metadata=entity.metadata if body.metadata is None else body.metadata,
        is_disabled=entity.is_disabled if body.disabled is None else body.disabled,
    )
    saved = store.save_entity(changed)
    return Response({"aliases": None, "id": saved.id, "name": saved.name}) if before is None else Response()


def _policies(policies: list[str]) -> list[str]:
    cleaned = sorted({policy.strip().lower() for policy in policies} - {""})
    if "root" in cleaned:
        raise InvalidRequest("policies cannot contain root")
    return cleaned


def _shown_entity(ctx: VaultContext, entity: Entity | None) -> Response:
    if entity is None:
        raise NotFound
    store, mounts = _store(ctx), _mounts(ctx)
    direct = store.direct_group_ids(entity.id)
    every = [group.id for group in store.groups_of(entity.id)]
    data = {
        "aliases": [_described_alias(alias, mounts) for alias in store.aliases_of(entity)],
        "creation_time": rfc3339(entity.created_ns),
        "direct_group_ids": direct,
        "disabled": entity.is_disabled,
        "group_ids": every,
        "id": entity.id,
        "inherited_group_ids": [group_id for group_id in every if group_id not in direct],
        "last_update_time": rfc3339(entity.updated_ns),
        "merged_entity_ids": entity.merged_entity_ids or None,
        "metadata": entity.metadata,
        "name": entity.name,
        "namespace_id": "root",
        "policies": entity.policies,
    }
    return Response(data)


def _delete_entity(store: Identities, entity: Entity | None) -> Response:
    if entity is not None:
        store.delete_entity(entity)
    return Response()


def _merge(store: Identities, source: Entity, target_id: str, *, is_forced: bool) -> None:
    target = _known_entity(store, target_id)
    taken = {alias.mount_accessor for alias in store.aliases_of(target)}
    for alias in store.aliases_of(source):
        if alias.mount_accessor not in taken:
            store.save_alias(name=alias.name, mount_accessor=alias.mount_accessor, entity=target)
        elif is_forced:
            store.delete_alias(alias)
        else:
            raise InvalidRequest(
                "both entities have an alias at the same mount; give `force` to drop that of the merged one"
            )
    for group_id in store.direct_group_ids(source.id):
        group = store.group(group_id)
        if group is not None and target_id not in group.member_entity_ids:
            members = [*group.member_entity_ids, target_id]
            store.save_group(msgspec.structs.replace(group, member_entity_ids=members))
    target = _known_entity(store, target_id)
    store.save_entity(
        msgspec.structs.replace(
            target,
            policies=sorted({*target.policies, *source.policies}),
            merged_entity_ids=[*target.merged_entity_ids, source.id],
        )
    )
    store.delete_entity(_known_entity(store, source.id))


# -- aliases --


def _place(alias: Alias, mounts: dict[str, Mount]) -> dict[str, str]:
    mount = mounts.get(alias.mount_accessor)
    return {
        "mount_accessor": alias.mount_accessor,
        "mount_path": mount.path if mount else "",
        "mount_type": mount.type if mount else "",
    }


def _described_alias(alias: Alias, mounts: dict[str, Mount]) -> dict[str, Any]:
    return {
        "canonical_id": alias.entity_id,
        "creation_time": rfc3339(alias.created_ns),
        "custom_metadata": alias.custom_metadata,
        "id": alias.id,
        "last_update_time": rfc3339(alias.updated_ns),
        "local": False,
        "merged_from_canonical_ids": None,
        "metadata": alias.metadata,
        "name": alias.name,
        **_place(alias, mounts),
    }


def _save_alias(ctx: VaultContext, body: WriteAlias, alias_id: str) -> Response:
    store = _store(ctx)
    before = None
    if alias_id:
        before = store.alias(alias_id)
        if before is None:
            raise InvalidRequest("invalid alias ID provided")
    name = body.name or (before.name if before else "")
    accessor = body.mount_accessor or (before.mount_accessor if before else "")
    if accessor not in _mounts(ctx):
        raise InvalidRequest(f'invalid mount accessor "{accessor}"')
    existing = before or store.alias_named(accessor, name)
    entity_id = body.canonical_id or body.entity_id or (existing.entity_id if existing else "")
    entity = store.entity(entity_id) if entity_id else store.save_entity(store.new_entity())
    if entity is None:
        raise InvalidRequest("invalid canonical ID")
    if before is not None and (before.name, before.mount_accessor) != (name, accessor):
        store.delete_alias(before)
        entity = _known_entity(store, entity.id)
    alias = store.save_alias(name=name, mount_accessor=accessor, entity=entity, custom_metadata=body.custom_metadata)
    return Response({"canonical_id": alias.entity_id, "id": alias.id})


# -- groups --


def _known_group(store: Identities, group_id: str) -> Group:
    group = store.group(group_id)
    if group is None:
        raise InvalidRequest("group not found from id")
    return group


def _save_group(store: Identities, before: Group | None, body: WriteGroup) -> Response:
    kind = body.type or (before.type if before else INTERNAL)
    if kind not in (INTERNAL, EXTERNAL):
        raise InvalidRequest(f'invalid group type "{kind}"')
    if before is not None and kind != before.type:
        raise InvalidRequest("group type cannot be changed")
    if kind == EXTERNAL and body.member_entity_ids:
        raise InvalidRequest("member entities can't be set manually for external groups")
    group = before or store.new_group(body.name)
    entities, groups = body.member_entity_ids, body.member_group_ids
    changed = msgspec.structs.replace(
        group,
        name=body.name or group.name,
        type=kind,
        policies=group.policies if body.policies is None else _policies(body.policies),
        metadata=group.metadata if body.metadata is None else body.metadata,
        member_entity_ids=group.member_entity_ids if entities is None else sorted(set(entities)),
        member_group_ids=group.member_group_ids if groups is None else sorted(set(groups)),
    )
    saved = store.save_group(changed)
    return Response({"id": saved.id, "name": saved.name})


def _shown_group(ctx: VaultContext, group: Group | None) -> Response:
    if group is None:
        raise NotFound
    data = {
        "alias": {},
        "creation_time": rfc3339(group.created_ns),
        "id": group.id,
        "last_update_time": rfc3339(group.updated_ns),
        "member_entity_ids": group.member_entity_ids,
        "member_group_ids": group.member_group_ids or None,
        "metadata": group.metadata,
        "modify_index": group.modify_index,
        "name": group.name,
        "namespace_id": "root",
        "parent_group_ids": _store(ctx).parent_ids(group.id) or None,
        "policies": group.policies,
        "type": group.type,
    }
    return Response(data)


def _delete_group(store: Identities, group: Group | None) -> Response:
    if group is not None:
        store.delete_group(group)
    return Response()

"""entity: who uses the vault. Entities are made, changed, listed, merged and removed, by id and by name."""

from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.core.identity import Entity
from conclave.core.mounts import Mount
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339
from conclave.engines.identity.aliases import described_alias, place
from conclave.engines.identity.records import Records, auth_mounts, changes


class WriteEntity(Struct):
    """An entity; what is not given stays."""

    id: Annotated[str, Meta(description="Which entity to change.")] = ""
    name: Annotated[str, Meta(description="Its name.")] = ""
    policies: Annotated[list[str] | None, Meta(description="Policies that its tokens get.")] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None
    disabled: Annotated[bool | None, Meta(description="Whether its tokens are refused.")] = None


class Ids(Struct):
    """Several entities."""

    entity_ids: Annotated[list[str], Meta(description="Their ids.")] = []


class Merge(Struct):
    """Entities that are one."""

    from_entity_ids: Annotated[list[str], Meta(description="Those that are merged into another, and removed.")] = []
    to_entity_id: Annotated[str, Meta(description="The one that stays.")] = ""
    force: Annotated[bool, Meta(description="Whether aliases that would clash are dropped.")] = False


class Entities(Records[Entity, WriteEntity]):
    """The entities, in one request."""

    noun = "entity"

    def find(self, record_id: str) -> Entity | None:
        """Return an entity by its id."""
        return self.store.entity(record_id)

    def find_named(self, name: str) -> Entity | None:
        """Return an entity by its name."""
        return self.store.entity_named(name)

    @cached_property
    def mounts(self) -> dict[str, Mount]:
        """The auth mounts by their accessors."""
        return auth_mounts(self.ctx)

    def all(self) -> list[Entity]:
        """Return all entities."""
        return self.store.entities()

    def save(self, before: Entity | None, body: WriteEntity) -> Response:
        """Make or change an entity; a new one is answered with its id, a change with nothing, as in Vault."""
        entity = before or self.store.new_entity(body.name)
        disabled = entity.is_disabled if body.disabled is None else body.disabled
        saved = self.store.save_entity(msgspec.structs.replace(entity, **changes(entity, body), is_disabled=disabled))
        return Response({"aliases": None, "id": saved.id, "name": saved.name}) if before is None else Response()

    def summary(self, record: Entity) -> dict[str, Any]:
        """Return an entity's name, and its aliases if it has any."""
        aliases = [
            {"id": alias.id, "name": alias.name, **place(alias, self.mounts)} for alias in self.store.aliases_of(record)
        ]
        return {"name": record.name, "aliases": aliases} if record.alias_ids else {"name": record.name}

    def description(self, record: Entity) -> dict[str, Any]:
        """Return all that is shown of an entity."""
        direct = self.store.direct_group_ids(record.id)
        every = [group.id for group in self.store.groups_of(record.id)]
        return {
            "aliases": [described_alias(alias, self.mounts) for alias in self.store.aliases_of(record)],
            "creation_time": rfc3339(record.created_ns),
            "direct_group_ids": direct,
            "disabled": record.is_disabled,
            "group_ids": every,
            "id": record.id,
            "inherited_group_ids": [group_id for group_id in every if group_id not in direct],
            "last_update_time": rfc3339(record.updated_ns),
            "merged_entity_ids": record.merged_entity_ids or None,
            "metadata": record.metadata,
            "name": record.name,
            "namespace_id": "root",
            "policies": record.policies,
        }

    def remove(self, record: Entity) -> None:
        """Remove an entity, its aliases and its memberships."""
        self.store.delete_entity(record)

    def merge(self, source: Entity, target_id: str, *, is_forced: bool) -> None:
        """Give the target the aliases, groups and policies of `source`, and remove that.

        Raises:
            InvalidRequest: both have an alias at the same mount, and it is not forced.
        """
        self._move_aliases(source, self.known(target_id), is_forced=is_forced)
        for group_id in self.store.direct_group_ids(source.id):
            group = self.store.group(group_id)
            if group is not None and target_id not in group.member_entity_ids:
                members = [*group.member_entity_ids, target_id]
                self.store.save_group(msgspec.structs.replace(group, member_entity_ids=members))
        target = self.known(target_id)
        self.store.save_entity(
            msgspec.structs.replace(
                target,
                policies=sorted({*target.policies, *source.policies}),
                merged_entity_ids=[*target.merged_entity_ids, source.id],
            )
        )
        self.store.delete_entity(self.known(source.id))

    def _move_aliases(self, source: Entity, target: Entity, *, is_forced: bool) -> None:
        taken = {alias.mount_accessor for alias in self.store.aliases_of(target)}
        for alias in self.store.aliases_of(source):
            if alias.mount_accessor not in taken:
                self.store.save_alias(name=alias.name, mount_accessor=alias.mount_accessor, entity=target)
            elif is_forced:
                self.store.delete_alias(alias)
            else:
                raise InvalidRequest(
                    "both entities have an alias at the same mount; give `force` to drop that of the merged one"
                )


class EntityOperations(Engine):
    """The operations on entities."""

    @operation("entity", update=WriteEntity)
    def write_entity(self, ctx: VaultContext, body: WriteEntity) -> Response:
        """Make an entity, or change the one of that id or name."""
        return Entities(ctx).write(body)

    @operation("entity/id", list=True)
    @operation("entity/id/", list=True)
    def list_entities(self, ctx: VaultContext) -> Response:
        """List the ids of all entities, with what is known of each."""
        return Entities(ctx).list_ids()

    @operation("entity/name", list=True)
    @operation("entity/name/", list=True)
    def list_entity_names(self, ctx: VaultContext) -> Response:
        """List the names of all entities."""
        return Entities(ctx).list_names()

    @operation("entity/id/{entity_id}", read=True)
    def read_entity(self, ctx: VaultContext, entity_id: str) -> Response:
        """Show an entity."""
        return Entities(ctx).show(entity_id)

    @operation("entity/id/{entity_id}", update=WriteEntity)
    def change_entity(self, ctx: VaultContext, entity_id: str, body: WriteEntity) -> Response:
        """Change an entity."""
        return Entities(ctx).change(entity_id, body)

    @operation("entity/id/{entity_id}", delete=True)
    def delete_entity(self, ctx: VaultContext, entity_id: str) -> Response:
        """Remove an entity with its aliases; its tokens are refused from then on."""
        return Entities(ctx).delete(entity_id)

    @operation("entity/name/{name}", read=True)
    def read_entity_named(self, ctx: VaultContext, name: str) -> Response:
        """Show the entity of that name."""
        return Entities(ctx).show_named(name)

    @operation("entity/name/{name}", update=WriteEntity)
    def write_entity_named(self, ctx: VaultContext, name: str, body: WriteEntity) -> Response:
        """Make or change the entity of that name."""
        return Entities(ctx).write_named(name, body)

    @operation("entity/name/{name}", delete=True)
    def delete_entity_named(self, ctx: VaultContext, name: str) -> Response:
        """Remove the entity of that name."""
        return Entities(ctx).delete_named(name)

    @operation("entity/batch-delete", update=Ids)
    def delete_entities(self, ctx: VaultContext, body: Ids) -> Response:
        """Remove several entities; those that do not exist are removed already."""
        entities = Entities(ctx)
        for entity_id in body.entity_ids:
            entities.delete(entity_id)
        return Response()

    @operation("entity/merge", update=Merge)
    def merge(self, ctx: VaultContext, body: Merge) -> Response:
        """Give one entity the aliases, policies and groups of others, and remove those."""
        entities = Entities(ctx)
        target = entities.find(body.to_entity_id)
        if target is None:
            raise InvalidRequest("entity id to merge to is invalid")
        for entity_id in body.from_entity_ids:
            source = entities.find(entity_id)
            if source is None or source.id == target.id:
                raise InvalidRequest("entity id to merge from is invalid")
            entities.merge(source, target.id, is_forced=body.force)
        return Response()

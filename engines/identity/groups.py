"""group: entities and groups that share policies. Groups are made, changed, listed and removed, by id and by name."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.core.identity import EXTERNAL, INTERNAL, Group
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339
from conclave.engines.identity.records import Records, changes


class WriteGroup(Struct):
    """A group; what is not given stays."""

    id: Annotated[str, Meta(description="Which group to change.")] = ""
    name: Annotated[str, Meta(description="Its name.")] = ""
    type: Annotated[str, Meta(description="`internal` or `external`; cannot be changed.")] = ""
    policies: Annotated[list[str] | None, Meta(description="Policies that its members' tokens get.")] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None
    member_entity_ids: Annotated[list[str] | None, Meta(description="Its entities.")] = None
    member_group_ids: Annotated[list[str] | None, Meta(description="Groups in it.")] = None


class Groups(Records[Group, WriteGroup]):
    """The groups, in one request."""

    noun = "group"

    def find(self, record_id: str) -> Group | None:
        """Return a group by its id."""
        return self.store.group(record_id)

    def find_named(self, name: str) -> Group | None:
        """Return a group by its name."""
        return self.store.group_named(name)

    def all(self) -> list[Group]:
        """Return all groups."""
        return self.store.groups()

    def save(self, before: Group | None, body: WriteGroup) -> Response:
        """Make or change a group; both are answered with its id."""
        kind = _type_after(before, body)
        group = before or self.store.new_group(body.name)
        entities, groups = body.member_entity_ids, body.member_group_ids
        changed = msgspec.structs.replace(
            group,
            **changes(group, body),
            type=kind,
            member_entity_ids=group.member_entity_ids if entities is None else sorted(set(entities)),
            member_group_ids=group.member_group_ids if groups is None else sorted(set(groups)),
        )
        saved = self.store.save_group(changed)
        return Response({"id": saved.id, "name": saved.name})

    def summary(self, record: Group) -> dict[str, Any]:
        """Return a group's name, and how many belong to it and it belongs to."""
        return {
            "name": record.name,
            "num_member_entities": len(record.member_entity_ids),
            "num_parent_groups": len(self.store.parent_ids(record.id)),
        }

    def description(self, record: Group) -> dict[str, Any]:
        """Return all that is shown of a group."""
        return {
            "alias": {},
            "creation_time": rfc3339(record.created_ns),
            "id": record.id,
            "last_update_time": rfc3339(record.updated_ns),
            "member_entity_ids": record.member_entity_ids,
            "member_group_ids": record.member_group_ids or None,
            "metadata": record.metadata,
            "modify_index": record.modify_index,
            "name": record.name,
            "namespace_id": "root",
            "parent_group_ids": self.store.parent_ids(record.id) or None,
            "policies": record.policies,
            "type": record.type,
        }

    def remove(self, record: Group) -> None:
        """Remove a group; its policies count for nobody from then on."""
        self.store.delete_group(record)


def _type_after(before: Group | None, body: WriteGroup) -> str:
    kind = body.type or (before.type if before else INTERNAL)
    if kind not in (INTERNAL, EXTERNAL):
        raise InvalidRequest(f'invalid group type "{kind}"')
    if before is not None and kind != before.type:
        raise InvalidRequest("group type cannot be changed")
    if kind == EXTERNAL and body.member_entity_ids:
        raise InvalidRequest("member entities can't be set manually for external groups")
    return kind


class GroupOperations(Engine):
    """The operations on groups."""

    @operation("group", update=WriteGroup)
    def write_group(self, ctx: VaultContext, body: WriteGroup) -> Response:
        """Make a group, or change the one of that id or name."""
        return Groups(ctx).write(body)

    @operation("group/id", list=True)
    @operation("group/id/", list=True)
    def list_groups(self, ctx: VaultContext) -> Response:
        """List the ids of all groups, with what is known of each."""
        return Groups(ctx).list_ids()

    @operation("group/name", list=True)
    @operation("group/name/", list=True)
    def list_group_names(self, ctx: VaultContext) -> Response:
        """List the names of all groups."""
        return Groups(ctx).list_names()

    @operation("group/id/{group_id}", read=True)
    def read_group(self, ctx: VaultContext, group_id: str) -> Response:
        """Show a group."""
        return Groups(ctx).show(group_id)

    @operation("group/id/{group_id}", update=WriteGroup)
    def change_group(self, ctx: VaultContext, group_id: str, body: WriteGroup) -> Response:
        """Change a group."""
        return Groups(ctx).change(group_id, body)

    @operation("group/id/{group_id}", delete=True)
    def delete_group(self, ctx: VaultContext, group_id: str) -> Response:
        """Remove a group; its policies count for nobody from then on."""
        return Groups(ctx).delete(group_id)

    @operation("group/name/{name}", read=True)
    def read_group_named(self, ctx: VaultContext, name: str) -> Response:
        """Show the group of that name."""
        return Groups(ctx).show_named(name)

    @operation("group/name/{name}", update=WriteGroup)
    def write_group_named(self, ctx: VaultContext, name: str, body: WriteGroup) -> Response:
        """Make or change the group of that name."""
        return Groups(ctx).write_named(name, body)

    @operation("group/name/{name}", delete=True)
    def delete_group_named(self, ctx: VaultContext, name: str) -> Response:
        """Remove the group of that name."""
        return Groups(ctx).delete_named(name)

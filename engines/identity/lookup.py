"""lookup: an entity or a group by anything known of it. What is not found is answered with nothing, and no error."""

from typing import Annotated

from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest
from conclave.core.identity import Entity
from conclave.core.privileged import VaultContext
from conclave.engines.identity.entities import Entities
from conclave.engines.identity.groups import Groups


class Lookup(Struct):
    """What to look for: one of these."""

    id: Annotated[str, Meta(description="An id.")] = ""
    name: Annotated[str, Meta(description="A name.")] = ""
    alias_id: Annotated[str, Meta(description="An alias's id.")] = ""
    alias_name: Annotated[str, Meta(description="An alias's name; needs alias_mount_accessor.")] = ""
    alias_mount_accessor: Annotated[str, Meta(description="The accessor of that alias's mount.")] = ""


class LookupOperations(Engine):
    """The operations that find an entity or a group."""

    @operation("lookup/entity", update=Lookup, writes=False)
    def look_up_entity(self, ctx: VaultContext, body: Lookup) -> Response:
        """Find an entity by its id, its name, or an alias of it."""
        if not (body.id or body.name or body.alias_id or body.alias_name):
            raise InvalidRequest("query parameter not supplied")
        if body.alias_name and not body.alias_mount_accessor:
            raise InvalidRequest("'alias_mount_accessor' must be supplied with 'alias_name'")
        entities = Entities(ctx)
        entity = _found(entities, body)
        return Response() if entity is None else Response(entities.description(entity))

    @operation("lookup/group", update=Lookup, writes=False)
    def look_up_group(self, ctx: VaultContext, body: Lookup) -> Response:
        """Find a group by its id or its name."""
        if not (body.id or body.name):
            raise InvalidRequest("query parameter not supplied")
        groups = Groups(ctx)
        group = groups.find(body.id) if body.id else groups.find_named(body.name)
        return Response() if group is None else Response(groups.description(group))


def _found(entities: Entities, body: Lookup) -> Entity | None:
    if body.id:
        return entities.find(body.id)
    if body.name:
        return entities.find_named(body.name)
    store = entities.store
    alias = (
        store.alias(body.alias_id) if body.alias_id else store.alias_named(body.alias_mount_accessor, body.alias_name)
    )
    return None if alias is None else entities.find(alias.entity_id)

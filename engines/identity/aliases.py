"""entity-alias: under which names auth mounts know entities, one name a mount and entity."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.identity import Alias
from conclave.core.mounts import Mount
from conclave.core.privileged import VaultContext
from conclave.core.timestamps import rfc3339
from conclave.engines.identity.records import auth_mounts, identities, listed


class WriteAlias(Struct):
    """An alias."""

    id: Annotated[str, Meta(description="Which alias to change.")] = ""
    name: Annotated[str, Meta(description="The name at the auth mount.")] = ""
    mount_accessor: Annotated[str, Meta(description="The auth mount's accessor.")] = ""
    canonical_id: Annotated[str, Meta(description="Whose alias it is: an entity's id.")] = ""
    entity_id: Annotated[str, Meta(description="The older name of canonical_id.")] = ""
    custom_metadata: Annotated[dict[str, str] | None, Meta(description="Free text by name.")] = None


class AliasOperations(Engine):
    """The operations on aliases."""

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
        mounts = auth_mounts(ctx)
        return listed({alias.id: _summary(alias, mounts) for alias in identities(ctx).aliases()})

    @operation("entity-alias/id/{alias_id}", read=True)
    def read_alias(self, ctx: VaultContext, alias_id: str) -> Response:
        """Show an alias."""
        alias = identities(ctx).alias(alias_id)
        if alias is None:
            raise NotFound
        return Response(described_alias(alias, auth_mounts(ctx)) | {"namespace_id": "root"})

    @operation("entity-alias/id/{alias_id}", update=WriteAlias)
    def change_alias(self, ctx: VaultContext, alias_id: str, body: WriteAlias) -> Response:
        """Change an alias."""
        return _save_alias(ctx, body, alias_id)

    @operation("entity-alias/id/{alias_id}", delete=True)
    def delete_alias(self, ctx: VaultContext, alias_id: str) -> Response:
        """Remove an alias; its entity stays."""
        store = identities(ctx)
        alias = store.alias(alias_id)
        if alias is not None:
            store.delete_alias(alias)
        return Response()


def _save_alias(ctx: VaultContext, body: WriteAlias, alias_id: str) -> Response:
    store = identities(ctx)
    before = None
    if alias_id:
        before = store.alias(alias_id)
        if before is None:
            raise InvalidRequest("invalid alias ID provided")
    name = body.name or (before.name if before else "")
    accessor = body.mount_accessor or (before.mount_accessor if before else "")
    if accessor not in auth_mounts(ctx):
        raise InvalidRequest(f'invalid mount accessor "{accessor}"')
    existing = before or store.alias_named(accessor, name)
    entity_id = body.canonical_id or body.entity_id or (existing.entity_id if existing else "")
    entity = store.entity(entity_id) if entity_id else store.save_entity(store.new_entity())
    if entity is None:
        raise InvalidRequest("invalid canonical ID")
    if before is not None and (before.name, before.mount_accessor) != (name, accessor):
        store.delete_alias(before)
        entity = store.entity(entity.id) or entity  # if it was the alias's, it is another record now
    alias = store.save_alias(name=name, mount_accessor=accessor, entity=entity, custom_metadata=body.custom_metadata)
    return Response({"canonical_id": alias.entity_id, "id": alias.id})


def place(alias: Alias, mounts: Mapping[str, Mount]) -> dict[str, str]:
    """Return what is shown of the mount that an alias belongs to; `mounts` are the auth mounts by accessor."""
    mount = mounts.get(alias.mount_accessor)
    return {
        "mount_accessor": alias.mount_accessor,
        "mount_path": mount.path if mount else "",
        "mount_type": mount.type if mount else "",
    }


def described_alias(alias: Alias, mounts: Mapping[str, Mount]) -> dict[str, Any]:
    """Return all that is shown of an alias; `mounts` are the auth mounts by accessor."""
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
        **place(alias, mounts),
    }


def _summary(alias: Alias, mounts: Mapping[str, Mount]) -> dict[str, Any]:
    return {
        "canonical_id": alias.entity_id,
        "custom_metadata": alias.custom_metadata,
        "local": False,
        "metadata": alias.metadata,
        "name": alias.name,
        **place(alias, mounts),
    }

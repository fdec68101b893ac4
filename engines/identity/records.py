"""What is done alike with entities and with groups: one class of rules, of which each of the two fills in its own part.

A record is found by its id or by its name. Writing to an id that is not there is refused; writing to a name that is not
there makes the record. Removing what is not there is no error, and an empty listing is `NotFound`, as everywhere in Vault.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.identity import Entity, Group, Identities
from conclave.core.mounts import Mount, MountTable
from conclave.core.privileged import VaultContext
from conclave.core.services import AREA_IDENTITY, AREA_MOUNTS


class Written(Protocol):
    """What a client may say of either kind of record."""

    id: str
    name: str
    policies: list[str] | None
    metadata: dict[str, str] | None


Record = TypeVar("Record", Entity, Group)
Fields = TypeVar("Fields", bound=Written)


class Records(ABC, Generic[Record, Fields]):
    """The records of one kind, in one request."""

    noun: ClassVar[str]

    def __init__(self, ctx: VaultContext) -> None:
        self.ctx = ctx
        self.store = identities(ctx)

    @abstractmethod
    def find(self, record_id: str) -> Record | None:
        """Return a record by its id."""

    @abstractmethod
    def find_named(self, name: str) -> Record | None:
        """Return a record by its name."""

    @abstractmethod
    def all(self) -> list[Record]:
        """Return all records, in order of their ids."""

    @abstractmethod
    def save(self, before: Record | None, body: Fields) -> Response:
        """Make a record, or change the one that is there, and answer."""

    @abstractmethod
    def summary(self, record: Record) -> dict[str, Any]:
        """Return what a listing of ids says of a record."""

    @abstractmethod
    def description(self, record: Record) -> dict[str, Any]:
        """Return all that is shown of a record."""

    @abstractmethod
    def remove(self, record: Record) -> None:
        """Remove a record with what hangs on it."""

    def known(self, record_id: str) -> Record:
        """Return the record of an id that a client gave.

        Raises:
            InvalidRequest: there is none.
        """
        record = self.find(record_id)
        if record is None:
            raise InvalidRequest(f"{self.noun} not found from id")
        return record

    def write(self, body: Fields) -> Response:
        """Make a record, or change the one of the id or the name in the body."""
        before = None
        if body.id:
            before = self.known(body.id)
        elif body.name:
            before = self.find_named(body.name)
        return self.save(before, body)

    def change(self, record_id: str, body: Fields) -> Response:
        """Change the record of an id."""
        return self.save(self.known(record_id), body)

    def write_named(self, name: str, body: Fields) -> Response:
        """Make or change the record of a name, whatever name is in the body."""
        body.name = name
        return self.save(self.find_named(name), body)

    def show(self, record_id: str) -> Response:
        """Show the record of an id.

        Raises:
            NotFound: there is none.
        """
        return self._shown(self.find(record_id))

    def show_named(self, name: str) -> Response:
        """Show the record of a name.

        Raises:
            NotFound: there is none.
        """
        return self._shown(self.find_named(name))

    def _shown(self, record: Record | None) -> Response:
        if record is None:
            raise NotFound
        return Response(self.description(record))

    def delete(self, record_id: str) -> Response:
        """Remove the record of an id, if there is one."""
        return self._deleted(self.find(record_id))

    def delete_named(self, name: str) -> Response:
        """Remove the record of a name, if there is one."""
        return self._deleted(self.find_named(name))

    def _deleted(self, record: Record | None) -> Response:
        if record is not None:
            self.remove(record)
        return Response()

    def list_ids(self) -> Response:
        """List the ids of all records, with a summary of each."""
        return listed({record.id: self.summary(record) for record in self.all()})

    def list_names(self) -> Response:
        """List the names of all records, sorted."""
        names = sorted(record.name for record in self.all())
        if not names:
            raise NotFound
        return Response({"keys": names})


def changes(record: Entity | Group, body: Written) -> dict[str, Any]:
    """Return the fields of either kind of record as they are after a write; what is not given stays."""
    return {
        "name": body.name or record.name,
        "policies": record.policies if body.policies is None else _policies(body.policies),
        "metadata": record.metadata if body.metadata is None else body.metadata,
    }


def _policies(policies: list[str]) -> list[str]:
    cleaned = sorted({policy.strip().lower() for policy in policies} - {""})
    if "root" in cleaned:
        raise InvalidRequest("policies cannot contain root")
    return cleaned


def identities(ctx: VaultContext) -> Identities:
    """Return the vault's identities, in the transaction of the request."""
    return Identities(ctx.services.area(AREA_IDENTITY), ctx.random, ctx.now_ns)


def auth_mounts(ctx: VaultContext) -> dict[str, Mount]:
    """Return the auth mounts by their accessors."""
    mounts = MountTable(ctx.services.area(AREA_MOUNTS)).all()
    return {mount.accessor: mount for mount in mounts if mount.is_auth}


def listed(info: dict[str, Any]) -> Response:
    """Answer a listing of ids with what is known of each.

    Raises:
        NotFound: there are none.
    """
    if not info:
        raise NotFound
    return Response({"key_info": info, "keys": list(info)})

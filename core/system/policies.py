"""sys/policies/acl, the older sys/policy, sys/capabilities and what a token may do altogether.

The language and the store are in `core/policies.py`, what rules mean together in `core/acl.py`; here are the shapes of
requests and answers. Source: Vault's API pages "sys/policies", "sys/policy", "sys/capabilities"; recorded from a real
server.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from conclave.core.acl import Acl
from conclave.core.contract import Engine, Response, operation
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.policies import PolicyStore, StoredPolicy
from conclave.core.privileged import VaultContext, acl_of
from conclave.core.revocation import tokens_of
from conclave.core.services import AREA_POLICIES, AREA_TOKENS
from conclave.core.timestamps import rfc3339


class PolicyWrite(Struct):
    """A policy's document."""

    policy: Annotated[str, Meta(description="The document: HCL or JSON, possibly in base64.")] = ""
    cas: Annotated[int | None, Meta(description="The version that this one replaces; -1: there must be none.")] = None
    cas_required: Annotated[bool | None, Meta(description="Whether later writes must name the version.")] = None


class PolicyPatch(Struct):
    """What to change of a policy; what is not given stays."""

    policy: Annotated[str | None, Meta(description="The document: HCL or JSON, possibly in base64.")] = None
    cas: Annotated[int | None, Meta(description="The version that this one replaces.")] = None
    cas_required: Annotated[bool | None, Meta(description="Whether later writes must name the version.")] = None


class LegacyPolicyWrite(PolicyWrite):
    """A policy's document, by its old name too."""

    rules: Annotated[str, Meta(description="The old name of `policy`.")] = ""


class Paths(Struct):
    """Whose capabilities are asked for: the caller's."""

    paths: Annotated[list[str], Meta(description="The paths.")] = []
    path: Annotated[list[str], Meta(description="The old name of `paths`.")] = []
    token: Annotated[str, Meta(description="Not used: it is the token of the request.")] = ""


class TokenPaths(Struct):
    """Whose capabilities are asked for: a token's."""

    token: Annotated[str, Meta(description="The token's text.")] = ""
    paths: Annotated[list[str], Meta(description="The paths.")] = []
    path: Annotated[list[str], Meta(description="The old name of `paths`.")] = []


class AccessorPaths(Struct):
    """Whose capabilities are asked for: those of a token, by its accessor."""

    accessor: Annotated[str, Meta(description="The token's accessor.")] = ""
    paths: Annotated[list[str], Meta(description="The paths.")] = []
    path: Annotated[list[str], Meta(description="The old name of `paths`.")] = []


class PolicyOperations(Engine):
    """The policies' part of `sys/`; mixed into `System`."""

    type = "system-policies"

    @operation("policies/acl", list=True)
    def list_policies(self, ctx: VaultContext) -> Response:
        """List the names of all policies."""
        return Response({"keys": _store(ctx).names()})

    @operation("policies/detailed/acl", list=True)
    def list_policies_in_detail(self, ctx: VaultContext) -> Response:
        """List all policies with their documents."""
        store = _store(ctx)
        found = {name: store.read(name) for name in store.names()}
        return Response(
            {
                "keys": list(found),
                "key_info": {name: _describe(stored, "policy") for name, stored in found.items() if stored is not None},
            }
        )

    @operation("policies/acl/{name...}", read=True)
    def read_policy(self, ctx: VaultContext, name: str) -> Response:
        """Show a policy."""
        return Response(_describe(_read(ctx, name), "policy"))

    @operation("policies/acl/{name...}", update=PolicyWrite)
    def write_policy(self, ctx: VaultContext, name: str, body: PolicyWrite) -> Response:
        """Create or replace a policy."""
        _store(ctx).write(name, body.policy, ctx.now_ns, cas=body.cas, cas_required=body.cas_required)
        return Response()

    @operation("policies/acl/{name...}", patch=PolicyPatch)
    def patch_policy(self, ctx: VaultContext, name: str, body: PolicyPatch) -> Response:
        """Change some of what is kept of a policy."""
        store = _store(ctx)
        before = store.read(name)
        if before is None:
            raise InvalidRequest("policy not found")
        text = before.text if body.policy is None else body.policy
        cas = before.version if body.cas is None and not before.cas_required else body.cas
        store.write(name, text, ctx.now_ns, cas=cas, cas_required=body.cas_required)
        return Response()

    @operation("policies/acl/{name...}", delete=True)
    def delete_policy(self, ctx: VaultContext, name: str) -> Response:
        """Remove a policy."""
        _store(ctx).delete(name)
        return Response()

    # the older paths

    @operation("policy", read=True, list=True)
    def list_legacy(self, ctx: VaultContext) -> Response:
        """List the names of all policies."""
        names = _store(ctx).names()
        return Response({"keys": names, "policies": names}, is_doubled=True)

    @operation("policy/{name...}", read=True)
    def read_legacy(self, ctx: VaultContext, name: str) -> Response:
        """Show a policy; its document is called `rules`."""
        return Response(_describe(_read(ctx, name), "rules"), is_doubled=True)

    @operation("policy/{name...}", update=LegacyPolicyWrite)
    def write_legacy(self, ctx: VaultContext, name: str, body: LegacyPolicyWrite) -> Response:
        """Create or replace a policy."""
        text = body.policy or body.rules
        _store(ctx).write(name, text, ctx.now_ns, cas=body.cas, cas_required=body.cas_required)
        return Response(warnings=[] if body.policy else ["'rules' is deprecated, please use 'policy' instead"])

    @operation("policy/{name...}", delete=True)
    def delete_legacy(self, ctx: VaultContext, name: str) -> Response:
        """Remove a policy."""
        _store(ctx).delete(name)
        return Response()

    # what a token may do

    @operation("capabilities-self", update=Paths, writes=False)
    def own_capabilities(self, ctx: VaultContext, body: Paths) -> Response:
        """Tell what the caller may do at some paths."""
        assert ctx.acl is not None, "this operation is authenticated"
        return _capabilities(ctx.acl, body.paths or body.path)

    @operation("capabilities", update=TokenPaths, writes=False)
    def token_capabilities(self, ctx: VaultContext, body: TokenPaths) -> Response:
        """Tell what a token may do at some paths."""
        if not body.token:
            raise InvalidRequest("1 error occurred:\n\t* no token found\n\n")
        record = tokens_of(ctx.services).lookup(ctx.services.area(AREA_TOKENS), body.token, ctx.now_ns)
        if record is None:
            raise InvalidRequest("1 error occurred:\n\t* invalid token\n\n")
        return _capabilities(acl_of(ctx.services, record), body.paths or body.path)

    @operation("capabilities-accessor", update=AccessorPaths, writes=False)
    def accessor_capabilities(self, ctx: VaultContext, body: AccessorPaths) -> Response:
        """Tell what the token with an accessor may do at some paths."""
        if not body.accessor:
            raise InvalidRequest("missing accessor")
        record = tokens_of(ctx.services).lookup_accessor(ctx.services.area(AREA_TOKENS), body.accessor, ctx.now_ns)
        if record is None:
            raise InvalidRequest("1 error occurred:\n\t* invalid accessor\n\n")
        return _capabilities(acl_of(ctx.services, record), body.paths or body.path)

    @operation("internal/ui/resultant-acl", read=True)
    def resultant_acl(self, ctx: VaultContext) -> Response:
        """Show everything that the caller may do, for user interfaces; rules with `+` have no place in this form."""
        assert ctx.acl is not None, "this operation is authenticated"
        if ctx.acl.is_root:
            return Response({"root": True})
        exact, prefixes = ctx.acl.described()
        return Response({"exact_paths": _capability_map(exact), "glob_paths": _capability_map(prefixes), "root": False})


def _store(ctx: VaultContext) -> PolicyStore:
    return PolicyStore(ctx.services.area(AREA_POLICIES))


def _read(ctx: VaultContext, name: str) -> StoredPolicy:
    stored = _store(ctx).read(name)
    if stored is None:
        raise NotFound
    return stored


def _describe(stored: StoredPolicy, text_key: str) -> dict[str, Any]:
    described = {
        "allow_slashes_in_identity_templates": False,
        "allow_wildcards_in_identity_templates": False,
        "cas_required": stored.cas_required,
        "name": stored.name,
        text_key: stored.text,
        "version": stored.version,
    }
    if stored.modified_ns:
        described["modified"] = rfc3339(stored.modified_ns)
    return described


def _capabilities(acl: Acl, paths: list[str]) -> Response:
    if not paths:
        raise InvalidRequest("paths must be supplied")
    found = {path: acl.capabilities(path.removeprefix("/")) for path in paths}
    if len(found) == 1:
        found["capabilities"] = found[paths[0]]
    return Response(found, is_doubled=True)


def _capability_map(rules: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    return {path: {"capabilities": capabilities} for path, capabilities in rules.items()}

"""The envelope around an answer: what a server's JSON says, and how a client shows it again.

Pure. Only the fields of Vault's envelope are kept, in the order in which its command line prints them.
"""

from typing import Any, Final, NamedTuple

from conclave.cli.document import Fields

_AUTH_FIELDS: Final = {
    "client_token": "",
    "accessor": "",
    "policies": None,
    "token_policies": None,
    "identity_policies": None,
    "metadata": None,
    "orphan": False,
    "entity_id": "",
    "lease_duration": 0,
    "renewable": False,
    "mfa_requirement": None,
}
_WRAP_FIELDS: Final = ("token", "accessor", "ttl", "creation_time", "creation_path", "wrapped_accessor")


class Secret(NamedTuple):
    """One answer in Vault's envelope.

    Attributes:
        data: what was asked for; None where there is none.
        warnings: full sentences of the server.
        auth: a token that was made; wrap_info: the wrapping token that holds the answer instead.
    """

    request_id: str = ""
    lease_id: str = ""
    lease_duration: int = 0
    renewable: bool = False
    data: Any = None
    warnings: list[str] | None = None
    auth: dict[str, Any] | None = None
    wrap_info: dict[str, Any] | None = None

    def document(self) -> Fields:
        """Return the object that `-format=json` prints."""
        shown = Fields(
            request_id=self.request_id,
            lease_id=self.lease_id,
            lease_duration=self.lease_duration,
            renewable=self.renewable,
            data=self.data,
            warnings=self.warnings,
        )
        if self.auth is not None:
            shown["auth"] = Fields({name: self.auth.get(name, default) for name, default in _AUTH_FIELDS.items()})
        if self.wrap_info is not None:
            shown["wrap_info"] = Fields({name: self.wrap_info.get(name, "") for name in _WRAP_FIELDS})
        return shown


def secret_of(answer: dict[str, Any]) -> Secret:
    """Read the envelope; what is absent has its neutral value. An answer without envelope is all data."""
    if "request_id" not in answer and not any(name in answer for name in ("data", "auth", "wrap_info", "warnings")):
        return Secret(data=answer or None)
    return Secret(
        request_id=answer.get("request_id") or "",
        lease_id=answer.get("lease_id") or "",
        lease_duration=answer.get("lease_duration") or 0,
        renewable=bool(answer.get("renewable")),
        data=answer.get("data"),
        warnings=answer.get("warnings"),
        auth=answer.get("auth"),
        wrap_info=answer.get("wrap_info"),
    )

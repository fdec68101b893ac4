"""Where in the cubbyhole mount's storage a token's own records lie: one directory a token, named by a hash."""

from conclave.core.crypto import hash_text


def cubbyhole_of(accessor: str) -> str:
    """Return the name of the directory that belongs to the token with this accessor."""
    return hash_text(accessor, "conclave-cubby")

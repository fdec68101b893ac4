"""Auth methods, one file each. A new method is a file and a line here; the key is a mount's type."""

from typing import Final

from conclave.core.contract import Engine
from conclave.methods.approle import AppRole
from conclave.methods.tokens import TokenMethod
from conclave.methods.userpass import Userpass

REGISTRY: Final[dict[str, type[Engine]]] = {
    "approle": AppRole,
    "token": TokenMethod,
    "userpass": Userpass,
}

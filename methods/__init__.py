"""Auth methods, one file each. A new method is a file and a line here; the key is a mount's type."""

from typing import Final

from conclave.core.contract import Engine
from conclave.methods.tokens import TokenMethod

REGISTRY: Final[dict[str, type[Engine]]] = {
    "token": TokenMethod,
}

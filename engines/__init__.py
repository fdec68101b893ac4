"""Secrets engines, one file each. A new engine is a file and a line here.

The key is what a mount says in `Mount.engine_key`: its type, but "kv-v2" for a versioned kv.
"""

from typing import Final

from conclave.core.contract import Engine
from conclave.engines.cubbyhole import Cubbyhole
from conclave.engines.identity import Identity
from conclave.engines.kv import Kv
from conclave.engines.kv1 import KvV1
from conclave.engines.transit import Transit

REGISTRY: Final[dict[str, type[Engine]]] = {
    "cubbyhole": Cubbyhole,
    "identity": Identity,
    "kv": KvV1,
    "kv-v2": Kv,
    "transit": Transit,
}

"""identity/: entities, their aliases, and groups, as clients make, look up, change and remove them.

* `records`   what is done alike with entities and with groups: found by id or by name, made, changed, listed, removed
* `entities`  entities, and merging them
* `aliases`   under which names auth mounts know entities
* `groups`    groups of entities and of groups
* `lookup`    finding an entity or a group by anything known of it

What an identity is and what it does for tokens is in `core/identity.py`. Group aliases, which tie groups of an outside
directory to groups here, need an auth method that tells groups; none does yet. Source: Vault's API pages "Identity:
entity", "entity alias", "group" and "lookup"; shapes measured on a real server.
"""

from conclave.engines.identity.aliases import AliasOperations
from conclave.engines.identity.entities import EntityOperations
from conclave.engines.identity.groups import GroupOperations
from conclave.engines.identity.lookup import LookupOperations


class Identity(EntityOperations, AliasOperations, GroupOperations, LookupOperations):
    """Who uses the vault."""

    type = "identity"


__all__ = ["Identity"]

"""The command line: talks HTTP like any other client and imports no other room.

`REGISTRY` names each command and where it is declared; a module is imported when one of its commands runs. Adding a
command is a function with the decorator `conclave.cli.command.command` and one line here.

* `main`      finds and runs a command, exit codes        * `flags`     Go's grammar of flags
* `command`   what a command is and what it is given      * `client`    HTTP; `settings` where to
* `output`    table, JSON, YAML, one field                * `usage`     help texts
"""

from typing import Final

_AT: Final = "conclave.cli.commands."

COMMON: Final = ("read", "write", "delete", "list", "login", "server", "status", "unwrap")
"""What help shows first."""

GROUPS: Final = {
    "audit": "Switch audit devices on and off, and list them",
    "auth": "Manage auth methods",
    "kv": "Work with the key/value engine, versioned or not",
    "kv metadata": "Work with what is known about a secret beside its data",
    "lease": "Look up, renew and revoke leases",
    "namespace": "Manage namespaces",
    "operator": "Run a cluster: initialise, seal, keys, membership",
    "operator raft": "Manage the members of the cluster, and snapshots",
    "operator raft autopilot": "See and steer the care of the cluster's members",
    "operator raft snapshot": "Save, check and restore snapshots",
    "policy": "Manage policies",
    "print": "Print what the command line would use",
    "secrets": "Manage secrets engines",
    "token": "Make, look up, renew and revoke tokens",
}
"""Names that stand before others, each with a line about them."""

REGISTRY: Final = {
    "audit disable": _AT + "audit:disable",
    "audit enable": _AT + "audit:enable",
    "audit list": _AT + "audit:list_devices",
    "auth disable": _AT + "auth:disable",
    "auth enable": _AT + "auth:enable",
    "auth help": _AT + "auth:help_method",
    "auth list": _AT + "auth:list_methods",
    "auth move": _AT + "auth:move",
    "auth tune": _AT + "auth:tune",
    "completion": _AT + "completion:completion",
    "delete": _AT + "generic:delete",
    "kv delete": _AT + "kv:delete",
    "kv destroy": _AT + "kv:destroy",
    "kv enable-versioning": _AT + "kv:enable_versioning",
    "kv get": _AT + "kv:get",
    "kv list": _AT + "kv:list_names",
    "kv metadata delete": _AT + "kv_metadata:delete",
    "kv metadata get": _AT + "kv_metadata:get",
    "kv metadata patch": _AT + "kv_metadata:patch",
    "kv metadata put": _AT + "kv_metadata:put",
    "kv patch": _AT + "kv:patch",
    "kv put": _AT + "kv:put",
    "kv rollback": _AT + "kv:rollback",
    "kv scan": _AT + "kv:scan",
    "kv undelete": _AT + "kv:undelete",
    "lease lookup": _AT + "lease:lookup",
    "lease renew": _AT + "lease:renew",
    "lease revoke": _AT + "lease:revoke",
    "list": _AT + "generic:list_names",
    "login": _AT + "login:login",
    "namespace create": _AT + "namespaces:create",
    "namespace delete": _AT + "namespaces:delete",
    "namespace list": _AT + "namespaces:list_namespaces",
    "namespace lookup": _AT + "namespaces:lookup",
    "namespace patch": _AT + "namespaces:patch",
    "operator generate-root": _AT + "generate_root:generate_root",
    "operator init": _AT + "operator:init",
    "operator key-status": _AT + "operator:key_status",
    "operator members": _AT + "operator:members",
    "operator raft autopilot get-config": _AT + "autopilot:get_config",
    "operator raft autopilot set-config": _AT + "autopilot:set_config",
    "operator raft autopilot state": _AT + "autopilot:state",
    "operator raft demote": _AT + "raft:demote",
    "operator raft join": _AT + "raft:join",
    "operator raft list-peers": _AT + "raft:list_peers",
    "operator raft promote": _AT + "raft:promote",
    "operator raft recover": _AT + "recover:recover",
    "operator raft remove-peer": _AT + "raft:remove_peer",
    "operator raft snapshot inspect": _AT + "snapshot:inspect",
    "operator raft snapshot restore": _AT + "snapshot:restore",
    "operator raft snapshot save": _AT + "snapshot:save",
    "operator raft snapshot verify": _AT + "snapshot:verify",
    "operator rekey": _AT + "rekey:rekey",
    "operator rotate": _AT + "operator:rotate",
    "operator rotate-keys": _AT + "rekey:rotate_keys",
    "operator seal": _AT + "operator:seal",
    "operator step-down": _AT + "operator:step_down",
    "operator unseal": _AT + "operator:unseal",
    "patch": _AT + "generic:patch",
    "path-help": _AT + "generic:path_help",
    "policy delete": _AT + "policy:delete",
    "policy fmt": _AT + "policy:fmt",
    "policy list": _AT + "policy:list_policies",
    "policy read": _AT + "policy:read",
    "policy write": _AT + "policy:write",
    "print token": _AT + "status:print_token",
    "read": _AT + "generic:read",
    "scan": _AT + "generic:scan",
    "secrets disable": _AT + "secrets_engines:disable",
    "secrets enable": _AT + "secrets_engines:enable",
    "secrets list": _AT + "secrets_engines:list_engines",
    "secrets move": _AT + "secrets_engines:move",
    "secrets tune": _AT + "secrets_engines:tune",
    "server": _AT + "server:server",
    "status": _AT + "status:status",
    "token capabilities": _AT + "tokens:capabilities",
    "token create": _AT + "tokens:create",
    "token lookup": _AT + "tokens:lookup",
    "token renew": _AT + "tokens:renew",
    "token revoke": _AT + "tokens:revoke",
    "unwrap": _AT + "generic:unwrap",
    "version": _AT + "version:version",
    "version-history": _AT + "status:version_history",
    "write": _AT + "generic:write",
}
"""The full name of each command, and the place of its declaration as "module:attribute"."""

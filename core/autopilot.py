"""By which rules the leader judges, promotes and cleans up members: what operators set, kept in the replicated state.

The record is sealed like any other, so only an unsealed node can read it; every such node follows it and
hands it to its own part in the cluster, so that whichever node comes to lead judges by the same rules. What the rules do
is in `cluster/autopilot.py`.

Source: Vault's page "/sys/storage/raft/autopilot"; texts recorded of a real server.
"""

from typing import Any, Final

import msgspec

from conclave.cluster.replica import AutopilotRules
from conclave.core.errors import InvalidRequest
from conclave.core.services import AREA_CLUSTER, Services

MIN_QUORUM_MIN: Final = 3
"""The least `min_quorum` with which dead members may be removed."""
DEAD_SECONDS_MIN: Final = 60
"""Nobody is dead sooner."""

_RULES: Final = "autopilot"


def read_rules(services: Services) -> AutopilotRules:
    """Return the rules in force."""
    return services.area(AREA_CLUSTER).get(_RULES, AutopilotRules) or AutopilotRules()


def change_rules(services: Services, changes: dict[str, Any]) -> None:
    """Replace some of the rules.

    Args:
        services: of a writing transaction.
        changes: fields of `AutopilotRules` and their new values.

    Raises:
        InvalidRequest: they do not go together with each other, or with those that stay.
    """
    rules = msgspec.structs.replace(read_rules(services), **changes)
    _check(rules)
    services.area(AREA_CLUSTER).put(_RULES, rules)


def _check(rules: AutopilotRules) -> None:
    for name in ("max_trailing_logs", "min_quorum"):
        if getattr(rules, name) < 0:
            raise InvalidRequest(f"{name} must not be negative")
    if not rules.cleanup_dead_servers:
        return
    if rules.min_quorum < MIN_QUORUM_MIN:
        raise InvalidRequest(
            "min_quorum must be set when cleanup_dead_servers is set and it should at least be 3; "
            f"cleanup_dead_servers: true, min_quorum: {rules.min_quorum:#x}"
        )
    if rules.dead_server_last_contact_threshold_seconds < DEAD_SECONDS_MIN:
        raise InvalidRequest(
            "dead_server_last_contact_threshold should not be set to less than 1m; "
            f"received: {rules.dead_server_last_contact_threshold_seconds:g}"
        )

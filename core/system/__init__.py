"""The `sys/` backend: one engine, mixed from one file a topic.

    seal        init, seal-status, unseal, seal          raft      leader, ha-status, step-down, storage/raft
    health      health, host-info, state/sanitized       keyring   key-status, rotate
    mounts      mounts, auth, remount, internal/ui       policies  policies, capabilities
    leases      leases                                   tools     wrapping, tools, plugins, loggers
    audit       audit, audit-hash                        usage     version-history, locked-users
    ceremonies  rotate/root, rekey, generate-root        telemetry  metrics
    snapshots   storage/raft/snapshot                passwords  policies/password
    quotas      quotas

A new topic is a file with a class of operations, and a line in the bases of `System`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conclave.core.lifecycle import Lifecycle
from conclave.core.snapshots import Snapshots
from conclave.core.system.audit import AuditOperations
from conclave.core.system.ceremonies import CeremonyOperations
from conclave.core.system.health import HealthOperations
from conclave.core.system.keyring import KeyringOperations
from conclave.core.system.leases import LeaseOperations
from conclave.core.system.mounts import MountOperations
from conclave.core.system.passwords import PasswordOperations
from conclave.core.system.policies import PolicyOperations
from conclave.core.system.quotas import QuotaOperations
from conclave.core.system.raft import RaftOperations
from conclave.core.system.seal import SealOperations
from conclave.core.system.snapshots import SnapshotOperations
from conclave.core.system.specs import SpecOperations
from conclave.core.system.telemetry import TelemetryOperations
from conclave.core.system.tools import ToolOperations
from conclave.core.system.usage import UsageOperations


class System(
    SealOperations,
    RaftOperations,
    HealthOperations,
    KeyringOperations,
    MountOperations,
    PolicyOperations,
    LeaseOperations,
    ToolOperations,
    SpecOperations,
    AuditOperations,
    CeremonyOperations,
    UsageOperations,
    TelemetryOperations,
    SnapshotOperations,
    PasswordOperations,
    QuotaOperations,
):
    """The engine of `sys/`.

    Args:
        lifecycle: of this node's vault.
        sanitized_config: this node's configuration without its secrets, for config/state/sanitized.
        spool_folder: where the upload of a snapshot is kept while it is checked; None: where temporary files go.
    """

    type = "system"

    def __init__(
        self,
        lifecycle: Lifecycle,
        sanitized_config: Mapping[str, Any] | None = None,
        spool_folder: Path | None = None,
    ) -> None:
        self.lifecycle = lifecycle
        self.sanitized_config = sanitized_config or {}
        self.snapshots = Snapshots(lifecycle.vault, spool_folder)

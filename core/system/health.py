"""sys/health, host-info, config/state/sanitized: how this very node is.

`health` is answered in every state of the node and without the envelope; which status code a state has, and which of
its parameters change that, is decided in `api/health.py` from `Response.condition`. Shapes recorded from a real server;
source: Vault's API pages "sys/health" and "sys/host-info".
"""

import os
import platform
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from conclave.core.contract import Context, Engine, Response, operation
from conclave.core.durations import NANOSECONDS
from conclave.core.lifecycle import Lifecycle
from conclave.core.timestamps import rfc3339

_KIBIBYTE: Final = 1024
_MEMORY_NAMES: Final = {"total": "MemTotal", "free": "MemFree", "available": "MemAvailable", "cached": "Cached"}


class HealthParameters(Struct):
    """Which status codes the client wants; looked at by the API alone."""

    standbyok: str = ""
    perfstandbyok: str = ""
    activecode: str = ""
    standbycode: str = ""
    drsecondarycode: str = ""
    performancestandbycode: str = ""
    sealedcode: str = ""
    uninitcode: str = ""
    removedcode: str = ""
    haunhealthycode: str = ""


class HealthOperations(Engine):
    """The part of `sys/` that is about this node; mixed into `System`, which provides the lifecycle."""

    type = "system-health"
    lifecycle: Lifecycle
    sanitized_config: Mapping[str, Any]

    @operation("health", read=HealthParameters, authenticated=False, while_sealed=True)
    def health(self, ctx: Context, body: HealthParameters) -> Response:
        """Tell what state this node is in."""
        del body
        lifecycle = self.lifecycle
        condition = lifecycle.condition
        has_cluster = condition in ("active", "standby") and lifecycle.vault.replica.leader is not None
        data: dict[str, Any] = {
            "initialized": lifecycle.is_initialized,
            "sealed": lifecycle.vault.is_sealed,
            "standby": condition != "active",
            "replication_performance_mode": "primary" if has_cluster else "unknown",
            "replication_dr_mode": "disabled" if has_cluster else "unknown",
            "server_time_utc": ctx.now_ns // NANOSECONDS,
            "version": lifecycle.node.version,
        }
        info = lifecycle.cluster_info()
        if info is not None:
            data |= {"cluster_name": info.name, "cluster_id": info.id}
        if lifecycle.fault:
            data["fault"] = lifecycle.fault
        return Response(data, is_bare=True, condition=condition)

    @operation("host-info", read=True, is_local=True)
    def host_info(self, ctx: Context) -> Response:
        """Describe the machine that this node runs on."""
        return Response(
            {
                "timestamp": rfc3339(ctx.now_ns),
                "cpu": [{"cpu": number, "cores": 1} for number in range(os.cpu_count() or 1)],
                "cpu_times": _cpu_times(),
                "disk": [_disk("/")],
                "host": {
                    "hostname": platform.node(),
                    "os": platform.system().lower(),
                    "kernelVersion": platform.release(),
                    "kernelArch": platform.machine(),
                },
                "memory": _memory(),
            }
        )

    @operation("config/state/sanitized", read=True, is_local=True)
    def sanitized(self, ctx: Context) -> Response:
        """Return this node's configuration without its secrets."""
        del ctx
        return Response(dict(self.sanitized_config))


def _cpu_times() -> list[dict[str, Any]]:
    times = os.times()
    return [{"cpu": "process", "user": times.user, "system": times.system}]


def _disk(path: str) -> dict[str, Any]:
    found = os.statvfs(path)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return {"path": path, "total": total, "free": free, "used": total - found.f_bfree * found.f_frsize}


def _memory() -> dict[str, int]:
    """Return bytes of memory by Linux's own account; nothing where there is none."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  (a kernel file, 50 lines, never slow)
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return {}
    return {ours: int(lines[name].split()[0]) * _KIBIBYTE for ours, name in _MEMORY_NAMES.items() if name in lines}

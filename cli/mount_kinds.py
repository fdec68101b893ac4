"""What `secrets` and `auth` do alike: both are about mounts, told apart by a path of the API and by their words.

What a mount's flags become is in `mounting.py`, how it is moved in `moving.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from conclave.cli.command import Call, doing
from conclave.cli.document import cell, scalar
from conclave.cli.durations import human_seconds
from conclave.cli.errors import EXIT_OK
from conclave.cli.mounting import enable_body, tune_body
from conclave.cli.output import show_document
from conclave.cli.table import table

_FIRST_TITLES: Final = ("Path", "Plugin", "Accessor", "Default TTL", "Max TTL")
_LAST_TITLES: Final = (
    "Replication",
    "Seal Wrap",
    "External Entropy Access",
    "Options",
    "Description",
    "UUID",
    "Version",
    "Running Version",
    "Running SHA256",
    "Deprecation Status",
)


class MountKind(NamedTuple):
    """A kind of mount.

    Attributes:
        noun: "secrets engine" or "auth method".
        plural: what could not be listed.
        api_path: where mounts of the kind are made, listed and removed.
        prefix: what stands before a path of the kind among all mounts; where it is tuned and moved.
        columns: title and field of what `list` shows beside the path.
        own_title: title of the column that `list -detailed` has for this kind alone.
        own_cell: what stands in it, of the mount's `config`.
    """

    noun: str
    plural: str
    api_path: str
    prefix: str
    columns: Mapping[str, str]
    own_title: str
    own_cell: Callable[[Mapping[str, Any]], str]

    def enable(self, call: Call, mount_type: str) -> str:
        """Mount something of a type at -path, or at its type's name, and return the path without a slash at its end."""
        path = (call.flags.text("path") or mount_type).strip("/ ")
        call.client.request("POST", f"{self.api_path}/{path}", body=enable_body(call.flags, mount_type))
        return path

    def disable(self, call: Call) -> int:
        """Unmount what is at the path given."""
        path = call.path_argument()
        with doing(f"Error disabling {self.noun} at {path}/"):
            call.client.request("DELETE", f"{self.api_path}/{path}")
        call.out(f"Success! Disabled the {self.noun} (if it existed) at: {path}/")
        return EXIT_OK

    def tune(self, call: Call) -> int:
        """Change the settings of the mount at the path given."""
        path = call.path_argument()
        with doing(f"Error tuning {self.noun} {path}/"):
            call.client.request("POST", f"sys/mounts/{self.prefix}{path}/tune", body=tune_body(call.flags))
        call.out(f"Success! Tuned the {self.noun} at: {path}/")
        return EXIT_OK

    def mounted(self, call: Call) -> dict[str, Any]:
        """Return the mounts by their paths, as the server tells them."""
        with doing(f"Error listing {self.plural}"):
            return call.client.fetch("GET", self.api_path).get("data") or {}

    def show_all(self, call: Call) -> int:
        """List the mounts."""
        mounts = self.mounted(call)
        if show_document(call, mounts):
            return EXIT_OK
        ordered = sorted(mounts.items())
        if call.flags.boolean("detailed"):
            titles = [*_FIRST_TITLES, self.own_title, *_LAST_TITLES]
            rows = [self._detailed(path, mount) for path, mount in ordered]
        else:
            titles = ["Path", *self.columns]
            rows = [[path, *(str(mount.get(name) or "") for name in self.columns.values())] for path, mount in ordered]
        call.out(table(titles, rows))
        return EXIT_OK

    def _detailed(self, path: str, mount: Mapping[str, Any]) -> list[str]:
        config = mount.get("config") or {}
        has_no_lease = mount.get("type") in ("cubbyhole", "system") and not config.get("default_lease_ttl")
        return [
            path,
            str(mount.get("type", "")),
            str(mount.get("accessor", "")),
            _length(config.get("default_lease_ttl"), has_no_lease=has_no_lease),
            _length(config.get("max_lease_ttl"), has_no_lease=has_no_lease),
            self.own_cell(config),
            "local" if mount.get("local") else "replicated",
            scalar(bool(mount.get("seal_wrap")), none=""),
            scalar(bool(mount.get("external_entropy_access")), none=""),
            cell(mount.get("options") or {}),
            str(mount.get("description") or ""),
            str(mount.get("uuid") or ""),
            str(mount.get("plugin_version") or ""),
            str(mount.get("running_plugin_version") or ""),
            str(mount.get("running_sha256") or ""),
            str(mount.get("deprecation_status") or ""),
        ]


def _length(seconds: Any, *, has_no_lease: bool) -> str:
    return human_seconds(seconds) if seconds else "n/a" if has_no_lease else "system"


_COLUMNS: Final = {"Type": "type", "Accessor": "accessor", "Description": "description"}

SECRETS: Final = MountKind(
    noun="secrets engine",
    plural="secrets engines",
    api_path="sys/mounts",
    prefix="",
    columns=_COLUMNS,
    own_title="Force No Cache",
    own_cell=lambda config: scalar(bool(config.get("force_no_cache")), none=""),
)
AUTH: Final = MountKind(
    noun="auth method",
    plural="enabled authentications",
    api_path="sys/auth",
    prefix="auth/",
    columns={**_COLUMNS, "Version": "plugin_version"},
    own_title="Token Type",
    own_cell=lambda config: str(config.get("token_type") or ""),
)

"""Leases: lookup, renew, revoke."""

from typing import Any

from conclave.cli.command import FORMAT, Call, command, doing
from conclave.cli.durations import NANOSECONDS
from conclave.cli.errors import EXIT_OK, UsageError
from conclave.cli.flags import Flag, Kind
from conclave.cli.output import show_written


@command("lease lookup [options] LEASE-ID", FORMAT, arguments=(1, 1))
def lookup(call: Call) -> int:
    """Print what is known about a lease.

    $ conclave lease lookup database/creds/app/2f6a614c
    """
    lease_id = call.argument(0).strip()
    with doing(f"error looking up lease id {lease_id}"):
        secret = call.client.write("sys/leases/lookup", {"lease_id": lease_id})
    return show_written(call, secret, f"Success! Looked up lease: {lease_id}")


@command(
    "lease renew [options] LEASE-ID",
    FORMAT,
    Flag("increment", "The lifetime to ask for.", Kind.DURATION),
    arguments=(1, 1),
)
def renew(call: Call) -> int:
    """Make a lease live longer.

    $ conclave lease renew -increment=1h database/creds/app/2f6a614c
    """
    lease_id = call.argument(0).strip()
    body = {"lease_id": lease_id, "increment": call.flags.integer("increment") // NANOSECONDS}
    with doing(f"Error renewing {lease_id}"):
        secret = call.client.write("sys/leases/renew", body)
    return show_written(call, secret, f"Success! Renewed lease: {lease_id}")


@command(
    "lease revoke [options] LEASE-ID",
    Flag("force", "Forget leases although what they stand for could not be revoked; needs -prefix.", Kind.BOOLEAN),
    Flag("prefix", "The argument is the beginning of many lease ids.", Kind.BOOLEAN),
    Flag("sync", "Wait until it is done.", Kind.BOOLEAN),
    arguments=(1, 1),
)
def revoke(call: Call) -> int:
    """End a lease, or all that begin alike.

    $ conclave lease revoke -prefix database/creds
    """
    lease_id = call.argument(0).strip().lstrip("/")
    force, prefix, sync = (call.flags.boolean(name) for name in ("force", "prefix", "sync"))
    if force and not prefix:
        raise UsageError("-force needs -prefix")
    path, body, done = revocation(lease_id, force=force, prefix=prefix, sync=sync)
    with doing(f"Error revoking {'leases with prefix' if prefix else 'lease'} {lease_id}"):
        call.client.request("PUT", path, body=body)
    call.out(done)
    return EXIT_OK


def revocation(lease_id: str, *, force: bool, prefix: bool, sync: bool) -> tuple[str, dict[str, Any] | None, str]:
    """Return the path, the body, and the message afterwards."""
    if force:
        return f"sys/leases/revoke-force/{lease_id}", None, f"Success! Force revoked any leases with prefix: {lease_id}"
    path = f"sys/leases/revoke-prefix/{lease_id}" if prefix else f"sys/leases/revoke/{lease_id}"
    queued = "All revocation operations queued successfully!"
    finished = f"Success! Revoked {'any leases with prefix' if prefix else 'lease'}: {lease_id}"
    return path, {"sync": sync}, finished if sync else queued

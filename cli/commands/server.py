"""`server`: the one command that is the server instead of talking to one. It imports it only when it is run."""

from conclave.cli.command import Call, command
from conclave.cli.flags import Flag, Kind


@command(
    "server [options]",
    Flag(
        "config",
        "File or folder (.hcl, .json) of the configuration. Can be repeated.",
        Kind.TEXTS,
        variable="CONFIG_PATH",
    ),
    Flag("log-level", "trace, debug, info, warn or error; goes over the configuration."),
    Flag("log-format", "standard or json; goes over the configuration."),
    Flag("log-file", "Log to this file besides standard error."),
    Flag("dev", "One node in memory, initialized and unsealed: for trying things out.", Kind.BOOLEAN),
    Flag("dev-root-token-id", "The root token of -dev; a random one if not given.", variable="DEV_ROOT_TOKEN_ID"),
    Flag("dev-listen-address", "Where -dev listens.", default="127.0.0.1:8200", variable="DEV_LISTEN_ADDRESS"),
    Flag("dev-no-store-token", "Do not write the root token of -dev to ~/.vault-token.", Kind.BOOLEAN),
    Flag("exit-on-core-shutdown", "Taken for compatibility: the process always ends with its node.", Kind.BOOLEAN),
    is_http=False,
)
def server(call: Call) -> int:
    """Run a node.

    It runs in the foreground until SIGTERM or SIGINT. SIGHUP reads TLS certificates and the log level
    anew, and opens audit logs anew.

        $ conclave server -config=/etc/conclave/conclave.hcl

        $ conclave server -dev -dev-root-token-id=root
    """
    from conclave.dev import DevOptions
    from conclave.server import Options, main

    flags = call.flags
    dev = None
    if flags.boolean("dev"):
        dev = DevOptions(
            root_token_id=flags.text("dev-root-token-id"),
            listen_address=flags.text("dev-listen-address"),
            stores_token=not flags.boolean("dev-no-store-token"),
        )
    return main(
        Options(
            config_paths=tuple(flags.texts("config")),
            dev=dev,
            log_level=flags.text("log-level"),
            log_format=flags.text("log-format"),
            log_file=flags.text("log-file"),
        )
    )

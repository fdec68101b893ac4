"""The flags of a mount, and the request they become: what `secrets` and `auth` enable and tune with."""

from typing import Any, Final

from conclave.cli.durations import go_duration
from conclave.cli.flags import Flag, Kind, Values

TUNE_FLAGS: Final = (
    Flag("allowed-response-headers", "A header that the engine may set. Can be repeated.", Kind.TEXTS),
    Flag("audit-non-hmac-request-keys", "A request key audited in clear. Can be repeated.", Kind.TEXTS),
    Flag("audit-non-hmac-response-keys", "A response key audited in clear. Can be repeated.", Kind.TEXTS),
    Flag("default-lease-ttl", "Lifetime of leases and tokens that ask for none.", Kind.DURATION),
    Flag("description", "A line for people."),
    Flag("listing-visibility", 'Whether clients without a token see it: "unauth" or "hidden".'),
    Flag("max-lease-ttl", "The longest lifetime.", Kind.DURATION),
    Flag("options", "An option of the engine, as name=value. Can be repeated.", Kind.PAIRS),
    Flag("passthrough-request-headers", "A header that the engine gets to see. Can be repeated.", Kind.TEXTS),
    Flag("plugin-version", "Version of the plugin."),
    Flag("version", "Version of the engine, such as 2 for a versioned key/value engine.", Kind.INTEGER),
)
ENABLE_FLAGS: Final = (
    *TUNE_FLAGS,
    Flag("external-entropy-access", "Let the engine use an outside source of randomness.", Kind.BOOLEAN),
    Flag("local", "Keep it out of replication.", Kind.BOOLEAN),
    Flag("path", "Where to mount it; the type if not set."),
    Flag("plugin-name", "Name of the plugin."),
    Flag("seal-wrap", "Wrap its data with the seal as well.", Kind.BOOLEAN),
)
TOKEN_TYPE: Final = Flag("token-type", "The type of token that logins get: service or batch.")

_CONFIG_LISTS: Final = (
    "allowed-response-headers",
    "audit-non-hmac-request-keys",
    "audit-non-hmac-response-keys",
    "passthrough-request-headers",
)
_CONFIG_TEXTS: Final = ("listing-visibility", "token-type")
_LENGTHS: Final = ("default-lease-ttl", "max-lease-ttl")


def configuration(flags: Values) -> dict[str, Any]:
    """Return the part of a mount that can be tuned, as far as flags gave it."""
    config: dict[str, Any] = {}
    for name in _LENGTHS:
        if flags.is_given(name):
            nanoseconds = flags.integer(name)
            config[_key(name)] = "system" if nanoseconds == -1 else go_duration(nanoseconds)
    for name in _CONFIG_LISTS:
        if flags.is_given(name):
            config[_key(name)] = [part.strip() for text in flags.texts(name) for part in text.split(",")]
    for name in _CONFIG_TEXTS:
        if flags.is_given(name):
            config[_key(name)] = flags.text(name)
    return config


def options(flags: Values) -> dict[str, str]:
    """Return the engine's options, with -version among them."""
    given = flags.pairs("options")
    if flags.is_given("version"):
        given["version"] = str(flags.integer("version"))
    return given


def enable_body(flags: Values, engine_type: str) -> dict[str, Any]:
    """Return the request that mounts an engine."""
    config = configuration(flags)
    if flags.boolean("force-no-cache"):
        config["force_no_cache"] = True
    body = {
        "type": engine_type,
        "description": flags.text("description"),
        "local": flags.boolean("local"),
        "seal_wrap": flags.boolean("seal-wrap"),
        "external_entropy_access": flags.boolean("external-entropy-access"),
        "config": config,
        "options": options(flags) or None,
    }
    for name in ("plugin-name", "plugin-version"):
        if flags.text(name):
            body[_key(name)] = flags.text(name)
    return body


def tune_body(flags: Values) -> dict[str, Any]:
    """Return the request that tunes a mount; what no flag names stays as it is."""
    body = configuration(flags)
    for name in ("description", "plugin-version"):
        if flags.is_given(name):
            body[_key(name)] = flags.text(name)
    if options(flags):
        body["options"] = options(flags)
    lockout = _lockout(flags)
    if lockout:
        body["user_lockout_config"] = lockout
    return body


def _lockout(flags: Values) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if flags.is_given("user-lockout-threshold"):
        config["lockout_threshold"] = flags.integer("user-lockout-threshold")
    if flags.is_given("user-lockout-disable"):
        config["lockout_disable"] = flags.boolean("user-lockout-disable")
    for name, key in (
        ("user-lockout-duration", "lockout_duration"),
        ("user-lockout-counter-reset-duration", "lockout_counter_reset_duration"),
    ):
        if flags.is_given(name):
            config[key] = go_duration(flags.integer(name))
    return config


def _key(name: str) -> str:
    return name.replace("-", "_")

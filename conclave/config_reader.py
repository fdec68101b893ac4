"""From configuration files and environment variables to a `ServerConfig`.

The fields of the Structs in `config.py` say which keys there are: this file knows the grammar of a configuration, and no
key but the three that name blocks with a label. It warns of keys that do not exist and refuses values that cannot be
right, each with file and line. Of several files, later ones go over earlier ones; their listeners add up.

Numbers and truths may be written as text ("true", "30"), as Vault takes them. Durations are read as everywhere
("90s", "768h", 30).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct, structs

from conclave.config import (
    ENVIRONMENT,
    NO_EFFECT,
    UNSUPPORTED,
    InmemStorage,
    Listener,
    RaftStorage,
    ServerConfig,
    ShamirSeal,
)
from conclave.core.durations import NANOSECONDS, parse_duration_ns
from conclave.core.hcl import HclError, Item, Object, parse

FILE_BYTES_MAX: Final = 1 << 20
"""The largest configuration file that is read."""
FILE_SUFFIXES: Final = (".hcl", ".json")
"""What is read of a folder."""
ENVIRONMENT_PREFIXES: Final = ("BAO_", "VAULT_")
"""The first that is set counts."""

_Kinds: TypeAlias = Mapping[str, type[Struct]]
_BLOCKS: Final[Mapping[str, _Kinds]] = {
    "storage": {"raft": RaftStorage, "inmem": InmemStorage},
    "listener": {"tcp": Listener},
    "seal": {"shamir": ShamirSeal},
}
"""Blocks with a label: what each label stands for."""
_ALIASES: Final = {"backend": "storage"}
_TRUTHS: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/]*):(\d{1,5})")
_URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/]+)(:\d{1,5})?/?")


class ConfigError(Exception):
    """The configuration cannot be used; the text says where and why."""


class WrongValue(ValueError):
    """A value cannot be what its key holds; the text says why, without the place."""


class Loaded(Struct, frozen=True):
    """A configuration, and what is to be said about it: one sentence each, with its place."""

    config: ServerConfig
    warnings: tuple[str, ...]


def load(paths: Sequence[Path], environment: Mapping[str, str], base: ServerConfig | None = None) -> Loaded:
    """Read configuration files, or folders of them, and lay the environment over them.

    Args:
        paths: files, or folders whose `.hcl` and `.json` files are read in order of their names.
        environment: of the process.
        base: what holds where nothing else is said.

    Raises:
        ConfigError: a file cannot be read, a value is wrong, or there is no storage or listener.
    """
    reader = _Reader({} if base is None else structs.asdict(base))
    for file in _files(paths):
        reader.read(file)
    reader.overlay(environment)
    return Loaded(reader.finish(), tuple(reader.warnings))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix in FILE_SUFFIXES)
        if not found:
            raise ConfigError(f"{path}: this folder has no file that ends in {' or '.join(FILE_SUFFIXES)}")
        yield from found


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"{file}: larger than {FILE_BYTES_MAX} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 at byte {error.start}") from error


class _Reader:
    """What has been read so far: values of `ServerConfig` by field name, and warnings."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.warnings: list[str] = []
        self._values = values
        self._source = ""

    def read(self, file: Path) -> None:
        """Add one file."""
        self._source = str(file)
        try:
            body = parse(_text(file), self._source).body
            self._merge(self._fields(ServerConfig, body))
        except HclError as error:
            raise ConfigError(str(error)) from error

    def overlay(self, environment: Mapping[str, str]) -> None:
        """Lay environment variables over what the files said."""
        fields = {field.encode_name: field for field in structs.fields(ServerConfig)}
        for name, target in ENVIRONMENT.items():
            variable = next((prefix + name for prefix in ENVIRONMENT_PREFIXES if environment.get(prefix + name)), None)
            if variable is None:
                continue
            block, _, key = target.rpartition(".")
            storage = self._values.get("storage")
            if not block:
                try:
                    self._values[key] = _convert(fields[key], environment[variable])
                except WrongValue as error:
                    raise ConfigError(f"{variable}: {error}") from error
            elif isinstance(storage, RaftStorage):
                self._values[block] = structs.replace(storage, **{key: environment[variable]})

    def finish(self) -> ServerConfig:
        """Return the whole.

        Raises:
            ConfigError: something is missing.
        """
        if "storage" not in self._values:
            raise ConfigError('there is no storage block; add `storage "raft" { path = "…" }`')
        if not self._values.get("listener"):
            raise ConfigError('there is no listener block; add `listener "tcp" { address = "…" }`')
        config = ServerConfig(**self._values)
        if config.default_lease_ttl_seconds > config.max_lease_ttl_seconds:
            raise ConfigError("default_lease_ttl is longer than max_lease_ttl")
        for listener in config.listener:
            _check_tls(listener)
        return config

    def _merge(self, values: dict[str, Any]) -> None:
        if "listener" in values:
            values["listener"] = self._values.get("listener", ()) + values["listener"]
        self._values |= values

    def _fields(self, kind: type[Struct], body: Object) -> dict[str, Any]:
        """Return the values of one block, by field name."""
        fields = {field.encode_name: field for field in structs.fields(kind)}
        values: dict[str, Any] = {}
        for key in dict.fromkeys(item.key for item in body.items):
            field = fields.get(_ALIASES.get(key, key))
            items = [item for item in body.items if item.key == key]
            if field is None:
                self._warn_of(items[0])
            else:
                values[field.name] = self._value(field, key, items, body)
        return values

    def _value(self, field: structs.FieldInfo, key: str, items: list[Item], body: Object) -> Any:
        is_list = get_origin(_plain_type(field)) is tuple
        if field.encode_name in _BLOCKS:
            kinds = _BLOCKS[field.encode_name]
            found = [
                self._block(self._kind(kinds, key, block), block)
                for block in body.blocks(key, labels=1, source=self._source)
            ]
        elif (kind := _struct_type(field)) is not None:
            found = [self._block(kind, block) for block in body.blocks(key, labels=0, source=self._source)]
        else:
            return self._scalar(field, items[-1])
        if is_list:
            return tuple(found)
        if len(found) != 1:
            raise HclError(f"{key}: one block is wanted, not {len(found)}", items[-1].line, self._source)
        return found[0]

    def _kind(self, kinds: _Kinds, key: str, block: Item) -> type[Struct]:
        label = block.labels[0]
        if label not in kinds:
            known = " or ".join(f'"{name}"' for name in kinds)
            raise HclError(f'{key} "{label}" is not supported: use {known}', block.line, self._source)
        return kinds[label]

    def _block(self, kind: type[Struct], block: Item) -> Struct:
        values = self._fields(kind, block.value)
        for field in structs.fields(kind):
            if field.name not in values and field.default is NODEFAULT and field.default_factory is NODEFAULT:
                raise HclError(f"{block.key}: {field.encode_name} is missing", block.line, self._source)
        return kind(**values)

    def _scalar(self, field: structs.FieldInfo, item: Item) -> Any:
        try:
            return _convert(field, item.value)
        except WrongValue as error:
            raise HclError(str(error), item.line, self._source) from error

    def _warn_of(self, item: Item) -> None:
        place = f"{self._source}:{item.line}: {item.key}"
        if item.key in UNSUPPORTED:
            if item.value not in (False, "", 0):
                self.warnings.append(f"{place} is not supported: {UNSUPPORTED[item.key]}")
        elif item.key not in NO_EFFECT:
            self.warnings.append(f"{place}: unknown key, ignored")


# -- one value --


def _plain_type(field: structs.FieldInfo) -> Any:
    return get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type


def _struct_type(field: structs.FieldInfo) -> type[Struct] | None:
    """Return the Struct that a field holds, once or several times; None if it holds a plain value."""
    kind = _plain_type(field)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, Struct) else None


def _convert(field: structs.FieldInfo, value: Any) -> Any:
    """Turn what was written into what a field holds.

    Raises:
        WrongValue: it cannot be that.
    """
    kind = _plain_type(field)
    converted: Any
    try:
        if get_origin(kind) is Literal:
            converted = _choice(value, get_args(kind))
        elif field.name.endswith("_seconds"):
            converted = _seconds(value) or field.default
        else:
            converted = _CONVERSIONS[kind](value)
            if field.name.endswith("_bytes"):
                converted = converted or field.default
        _check_range(field, converted)
        if field.encode_name in _CHECKS and converted:
            _CHECKS[field.encode_name](converted)
    except ValueError as error:
        raise WrongValue(f"{field.encode_name}: {error}") from error
    return converted


def _boolean(value: Any) -> bool:
    truth = _TRUTHS.get(str(value).lower()) if isinstance(value, bool | int | str) else None
    if truth is None:
        raise WrongValue(f"{value!r} is neither true nor false")
    return truth


def _integer(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongValue(f"{value!r} is no whole number")
    return value


def _string(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WrongValue("a text is wanted here")
    return str(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WrongValue('a duration like "30s" is wanted here')
    seconds = parse_duration_ns(value) / NANOSECONDS if isinstance(value, str) else float(value)
    if seconds < 0:
        raise WrongValue("a duration cannot be negative")
    return seconds


def _choice(value: Any, choices: Sequence[str]) -> str:
    aliases = {"warning": "warn", "err": "error", "notice": "info"}
    chosen = str(value).lower()
    chosen = aliases.get(chosen, chosen)
    if chosen not in choices:
        raise WrongValue(f"{value!r} is none of {', '.join(choices)}")
    return chosen


def _check_range(field: structs.FieldInfo, value: Any) -> None:
    meta = next((meta for meta in getattr(field.type, "__metadata__", ()) if isinstance(meta, Meta)), None)
    if meta is not None and meta.ge is not None and meta.le is not None and not meta.ge <= value <= meta.le:
        raise WrongValue(f"{value} is not between {meta.ge} and {meta.le}")


def _check_address(text: str) -> None:
    fits = _ADDRESS.fullmatch(text)
    if fits is None or int(fits[2]) > 65535:
        raise WrongValue(f"{text!r} is no address like 127.0.0.1:8200")


def _check_url(text: str) -> None:
    if not _URL.fullmatch(text):
        raise WrongValue(f"{text!r} is no URL like https://10.0.0.1:8200")


def _check_tls(listener: Listener) -> None:
    """See that a listener has what its way of serving needs.

    Raises:
        ConfigError: it has not.
    """
    where = f'listener "tcp" at {listener.address}'
    if not listener.tls_disable and not (listener.tls_cert_file and listener.tls_key_file):
        raise ConfigError(f"{where}: set tls_cert_file and tls_key_file, or tls_disable = true")
    if listener.tls_require_and_verify_client_cert and listener.tls_disable_client_certs:
        raise ConfigError(
            f"{where}: tls_require_and_verify_client_cert and tls_disable_client_certs exclude each other"
        )


_CONVERSIONS: Final[Mapping[type, Callable[[Any], Any]]] = {bool: _boolean, int: _integer, str: _string}
_CHECKS: Final[Mapping[str, Callable[[str], None]]] = {
    "address": _check_address,
    "cluster_address": _check_address,
    "api_addr": _check_url,
    "cluster_addr": _check_url,
    "leader_api_addr": _check_url,
}

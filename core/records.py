"""Typed records in a directory of the sealed tree: the `Storage` that engines and the vault's own parts are given."""

from collections.abc import Callable
from typing import TypeVar, overload

import msgspec
from msgspec import Struct

from conclave.storage.errors import Misfit
from conclave.storage.tree import Directory

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type, Callable[[bytes], object]] = {}


class Records:
    """One directory, read and written as bytes or as msgpack structs."""

    __slots__ = ("directory",)

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    @overload
    def get(self, path: str) -> bytes | None: ...
    @overload
    def get(self, path: str, as_type: type[T]) -> T | None: ...
    def get(self, path: str, as_type: type[T] | None = None) -> bytes | T | None:
        """Return the record at `path`, decoded when a type is given; None if there is none.

        Raises:
            Corrupt: the record does not open.
            Misfit: it opens but does not decode.
        """
        stored = self.directory.get(path)
        return stored if stored is None or as_type is None else _decoder(as_type)(stored)

    def recall(self, path: str, as_type: type[T]) -> T | None:
        """Return the record at `path` as `get` does, remembered as long as it is the same: for what is read again and again.

        With `bytes` it is the record as it is. Whoever gets it must not change it, nor anything in it. One path has records
        of one type.
        """
        return self.directory.derived(path, _decoder(as_type))

    def exists(self, path: str) -> bool:
        """Whether there is a record at `path`, which is not opened for that."""
        return self.directory.exists(path)

    def put(self, path: str, value: bytes | Struct) -> None:
        """Store bytes as they are, a struct as msgpack."""
        self.directory.put(path, value if isinstance(value, bytes) else _encode(value))

    def delete(self, path: str) -> bool:
        """Remove a record; False if there was none."""
        return self.directory.delete(path)

    def list(self, path: str = "", *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the sorted names in a directory; sub-directories end in a slash."""
        return self.directory.list(path, after=after, limit=limit)


def _decoder(as_type: type[T]) -> Callable[[bytes], T]:
    """Return what decodes records of a type; it raises `Misfit`."""
    known = _decoders.get(as_type)
    if known is None:
        known = _decoders[as_type] = _new_decoder(as_type)
    return known  # type: ignore[return-value]  # made for this type a line above


def _new_decoder(as_type: type[T]) -> Callable[[bytes], T]:
    if as_type is bytes:
        return as_type  # what was not encoded
    decode = msgspec.msgpack.Decoder(as_type).decode

    def decode_record(stored: bytes) -> T:
        try:
            return decode(stored)
        except msgspec.ValidationError as error:
            raise Misfit(f"a record is no {as_type.__name__}: {error}") from error

    return decode_record

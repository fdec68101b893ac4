"""Listings: the names in a directory, a page of them at a time if wanted. What engines answer to LIST."""

from typing import Annotated

from msgspec import Meta, Struct

from conclave.core.contract import Response, Storage
from conclave.core.errors import NotFound


class Page(Struct):
    """A part of a listing."""

    after: Annotated[str, Meta(description="Only names behind this one.")] = ""
    limit: Annotated[int, Meta(description="How many names at most; all by default.")] = 0


def list_page(storage: Storage, directory: str, page: Page) -> Response:
    """Answer with the names in a directory, given with or without a slash at its end.

    Raises:
        NotFound: there are none, which Vault does not tell from a directory that does not exist.
    """
    names = storage.list(directory.rstrip("/"), after=page.after, limit=page.limit if page.limit > 0 else None)
    if not names:
        raise NotFound
    return Response({"keys": names})

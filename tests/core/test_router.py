"""core/router.py: the longest prefix that is a mount."""

import pytest

from conclave.core.mounts import new_mount
from conclave.core.router import Router

ROUTER = Router(
    [new_mount(path, "kv", bytes, 0) for path in ("secret/", "team/app/", "auth/token/", "auth/a/b/", "cubbyhole/")]
)


@pytest.mark.parametrize(
    ("path", "mount", "rest"),
    [
        ("secret/data/a", "secret/", "data/a"),
        ("secret", "secret/", ""),
        ("secret/", "secret/", ""),
        ("team/app/x", "team/app/", "x"),
        ("auth/a/b/login/c", "auth/a/b/", "login/c"),
    ],
)
def test_a_path_leads_to_its_mount(path: str, mount: str, rest: str) -> None:
    routed = ROUTER.route(path)

    assert routed is not None
    assert (routed.mount.path, routed.relative_path) == (mount, rest)


@pytest.mark.parametrize("path", ["", "/", "secrets/a", "team", "team/other/x", "auth", "auth/a", "auth/a/c/d"])
def test_other_paths_lead_nowhere(path: str) -> None:
    assert ROUTER.route(path) is None

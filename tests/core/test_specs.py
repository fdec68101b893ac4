"""OpenAPI and help, as made from the declarations."""

import pytest

from conclave.core import specs
from conclave.core.errors import NotFound, PermissionDenied
from conclave.engines import REGISTRY as ENGINES
from conclave.engines.kv import Kv
from conclave.methods import REGISTRY as METHODS
from tests.fakes import data_of, on_loop, started_vault


@pytest.mark.parametrize("engine", [*ENGINES.values(), *METHODS.values()])
def test_every_declared_path_is_described(engine: type) -> None:
    described = specs.engine_paths("mount/", engine)

    for declared in engine.declarations():  # type: ignore[attr-defined]  # all of them are engines
        item = described["/mount/" + declared.pattern.replace("...", "")]
        assert any(method in item for method in ("get", "post", "patch", "delete"))


def test_fields_of_a_write_are_the_properties_of_its_body() -> None:
    item = specs.engine_paths("secret/", Kv)["/secret/metadata/{path}"]

    properties = item["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]

    assert properties["max_versions"]["type"] == "integer"
    assert properties["delete_version_after"]["format"] == "seconds"
    assert properties["custom_metadata"]["type"] == "object"


def test_help_names_operations_and_parameters() -> None:
    text = specs.help_text(Kv, "data/app")

    assert text is not None
    assert "version (integer)" in text
    assert "read:" in text


def test_help_on_the_mount_lists_its_paths() -> None:
    text = specs.help_text(Kv, "")

    assert text is not None
    assert "metadata/{path}" in text


@on_loop
async def test_a_caller_is_shown_the_mounts_that_its_token_reaches() -> None:
    async with started_vault() as vault:
        await vault.write("sys/policies/acl/p", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
        made = await vault.write("auth/token/create", {"policies": ["p"], "no_default_policy": True})
        token = made.auth.client_token  # type: ignore[union-attr]

        everything = data_of(await vault.read("sys/internal/specs/openapi"))["paths"]
        some = data_of(await vault.read("sys/internal/specs/openapi", token=token))["paths"]
        nothing = data_of(await vault.read("sys/internal/specs/openapi", token=""))["paths"]

        assert "/sys/mounts" in everything
        assert {path.split("/")[1] for path in some} == {"secret"}
        assert nothing == {}


@on_loop
async def test_help_needs_a_token_and_a_path_that_exists() -> None:
    async with started_vault() as vault:
        helped = data_of(await vault.read("sys/internal/help/secret/data/app"))

        assert helped["help"].startswith("Request:        data/app")
        assert isinstance(await vault.read("sys/internal/help/secret/data/app", token=""), PermissionDenied)
        assert isinstance(await vault.read("sys/internal/help/nowhere/x"), NotFound)

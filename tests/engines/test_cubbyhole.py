"""engines/cubbyhole.py through a whole vault: what belongs to one token alone."""

from tests.clients import client, is_done, refusal


def test_a_token_has_records_of_its_own() -> None:
    with client() as vault:
        other = vault.new_token(policies=["default"]).client_token
        assert is_done(vault.write("cubbyhole/mine", {"k": "v"}))
        assert is_done(vault.write("cubbyhole/mine", {"k": "other"}, token=other))

        assert vault.data("cubbyhole/mine") == {"k": "v"}
        assert vault.data("cubbyhole/mine", token=other) == {"k": "other"}


def test_root_does_not_see_those_of_others() -> None:
    with client() as vault:
        other = vault.new_token(policies=["default"]).client_token
        vault.write("cubbyhole/mine", {"k": "v"}, token=other)

        assert refusal(vault.read("cubbyhole/mine")) == "NotFound"
        assert refusal(vault.list("cubbyhole")) == "NotFound"


def test_records_are_listed_and_deleted() -> None:
    with client() as vault:
        for path in ("a/b", "c"):
            vault.write(f"cubbyhole/{path}", {"x": 1})

        assert vault.keys("cubbyhole") == ["a/", "c"]
        vault.delete("cubbyhole/c")
        vault.delete("cubbyhole/a/b")
        assert refusal(vault.list("cubbyhole")) == "NotFound"


def test_records_end_with_their_token() -> None:
    with client() as vault:
        vault.write("auth/token/create", {"id": "mine", "policies": ["default"]})
        vault.write("cubbyhole/a", {"x": 1}, token="mine")

        vault.write("auth/token/revoke", {"token": "mine"})
        vault.write("auth/token/create", {"id": "mine", "policies": ["default"]})

        assert refusal(vault.read("cubbyhole/a", token="mine")) == "NotFound"


def test_a_batch_token_has_no_cubbyhole() -> None:
    with client() as vault:
        batch = vault.new_token(policies=["default"], type="batch").client_token

        assert refusal(vault.read("cubbyhole/a", token=batch)) == (
            'InvalidRequest: cubbyhole operations are only supported by "service" type tokens'
        )


def test_a_write_without_fields_is_refused() -> None:
    with client() as vault:
        assert refusal(vault.write("cubbyhole/a", {})) == "InvalidRequest: missing data fields"

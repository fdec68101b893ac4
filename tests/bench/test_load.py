"""The script that wrk runs asks what the targets say, in the shares that they say."""

from bench.load import Target, Way, _script


def test_targets_stand_in_the_script_with_their_shares() -> None:
    script = _script([Target("GET", "a/{n}", count=5, weight=9), Target("PUT", "b", '{"k":"v"}')], Way(1, 1), "t")

    assert 'add("GET", "a/{n}", nil, 5, 0, 9, false)' in script
    assert 'add("PUT", "b", "{\\"k\\":\\"v\\"}", 1, 0, 1, false)' in script
    assert "true)" in _script([Target("GET", "a/{n}", count=5, in_turn=True)], Way(1, 1), "t")
    assert '["X-Vault-Token"] = "t"' in script


def test_a_connection_each_and_tokens_that_revoke_themselves_are_said_to_wrk() -> None:
    assert "Connection" not in _script([Target("GET", "a")], Way(1, 1), "t")
    assert '["Connection"] = "close"' in _script([Target("GET", "a")], Way(1, 1, keeps_alive=False), "t")
    assert "function response" in _script([Target("GET", "a")], Way(1, 1, revokes=True), "t")

from conclave.cli.table import data_width, heading, key_value_table, rows_of, table, wrapped


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["Node", "State"], [["b1", "leader"], ["longer", "x"]]) == (
        "Node      State\n----      -----\nb1        leader\nlonger    x"
    )


def test_an_empty_cell_reads_not_applicable() -> None:
    assert key_value_table([["Nonce", ""]]) == "Key      Value\n---      -----\nNonce    n/a"


def test_rows_are_sorted_and_lengths_of_time_are_readable() -> None:
    assert rows_of({"ttl": 3600, "creation_ttl": 0, "count": 3600, "is_ttl": True}) == [
        ["count", "3600"],
        ["creation_ttl", "0s"],
        ["is_ttl", "true"],
        ["ttl", "1h"],
    ]


def test_a_heading_is_as_wide_as_what_is_below_it() -> None:
    assert heading("Secret Path", len("secret/data/app")) == "= Secret Path ="
    assert heading("Secret Path", len("secret/data/app2")) == "== Secret Path =="
    assert heading("Metadata", data_width(["created_time", "custom_metadata"])) == "======= Metadata ======="
    assert heading("Data", data_width(["pass", "user"])) == "==== Data ===="
    assert heading("Data", data_width(["a"])) == "== Data =="


def test_a_heading_of_something_narrow_has_two_signs_on_either_side() -> None:
    assert heading("Secret Path", 3) == "== Secret Path =="


def test_prose_is_folded_at_the_width_of_a_terminal() -> None:
    text = '* TTL of "768h" exceeded the effective max_ttl of "767h59m59s"; TTL value is capped accordingly'

    assert wrapped(text, "  ") == (
        '  * TTL of "768h" exceeded the effective max_ttl of "767h59m59s"; TTL value is\n  capped accordingly'
    )

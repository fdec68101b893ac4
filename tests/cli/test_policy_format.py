import pytest
from hypothesis import given
from hypothesis.strategies import text

from conclave.cli.policy_format import format_policy

UNTIDY = """# head
path   "a/*"   { capabilities=["read","list"]
  # inner
 allowed_parameters = { "kind" = ["a","b"]
  "*" = [] } }
path "b" {
capabilities=[
"read",
  "list"
]
   min_wrapping_ttl="1s"


  max_wrapping_ttl = "90s" // tail
}


/* block
comment */
path "c" {}
path "d" { capabilities = ["read"] }
# end
"""
TIDY = """# head
path "a/*" {
  capabilities = ["read", "list"]

  # inner
  allowed_parameters = {
    "kind" = ["a", "b"]
    "*"    = []
  }
}

path "b" {
  capabilities = [
    "read",
    "list",
  ]

  min_wrapping_ttl = "1s"

  max_wrapping_ttl = "90s" // tail
}

/* block
comment */
path "c" {}

path "d" {
  capabilities = ["read"]
}

# end
"""


def test_a_policy_gets_the_usual_layout() -> None:
    assert format_policy(UNTIDY) == TIDY


def test_a_tidy_policy_stays_as_it_is() -> None:
    assert format_policy(TIDY) == TIDY


@pytest.mark.parametrize("wrong", ["path x {", 'path "a" = ', "}", "path ( )", 'path "a" { = 1 }', "a = [1", '"open'])
def test_what_is_no_policy_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        format_policy(wrong)


@given(anything=text('pa"{}[]=,#\n/ x', max_size=30))
def test_what_was_written_once_is_tidy(anything: str) -> None:
    try:
        once = format_policy(anything)
    except ValueError:
        return
    assert format_policy(once) == once

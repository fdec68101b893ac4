"""The seal's configuration: what it accepts, and its layout."""

import pytest

from conclave.storage.errors import Corrupt, InvalidSealConfig
from conclave.storage.seal import SealConfig


@pytest.mark.parametrize(
    ("shares", "threshold", "text"),
    [
        (1, 3, "threshold cannot be larger than shares"),
        (5, 1, "threshold must be greater than one for multiple shares"),
        (0, 0, "shares must be at least one"),
        (256, 2, "shares must be less than 256"),
    ],
)
def test_impossible_numbers_are_refused_in_vault_s_words(shares: int, threshold: int, text: str) -> None:
    with pytest.raises(InvalidSealConfig, match=text):
        SealConfig(shares, threshold).validate()


def test_a_configuration_has_this_layout() -> None:
    assert SealConfig(5, 3).encode().hex() == "01" + "94" + "05" + "03" + "a6" + b"shamir".hex() + "a0"


def test_a_configuration_of_another_version_is_refused() -> None:
    with pytest.raises(Corrupt):
        SealConfig.decode(b"\x02" + SealConfig(5, 3).encode()[1:])

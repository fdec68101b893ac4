"""The seal's configuration: what it accepts, and its layout."""

import pytest

from conclave.storage.errors import Corrupt, InvalidSealConfig
from conclave.storage.keyring import KEY_BYTES, Keyring, wrap_keyring
from conclave.storage.seal import (
    KEYRING_KEY,
    ROOT_KEY_KEY,
    SEAL_CONFIG_KEY,
    SealConfig,
    check_clear_records,
    wrap_root_key,
)

KEY = bytes(KEY_BYTES)
CLEAR_RECORDS = {
    SEAL_CONFIG_KEY: SealConfig(5, 3).encode(),
    ROOT_KEY_KEY: wrap_root_key(KEY, KEY),
    KEYRING_KEY: wrap_keyring(KEY, Keyring.generate(0)),
}


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


def test_records_that_shares_can_open_are_accepted() -> None:
    check_clear_records(CLEAR_RECORDS)


@pytest.mark.parametrize(
    "changed",
    [
        {SEAL_CONFIG_KEY: b""},
        {SEAL_CONFIG_KEY: SealConfig(1, 3).encode()},
        {SEAL_CONFIG_KEY: SealConfig(1, 1, type="other").encode()},
        {ROOT_KEY_KEY: b""},
        {ROOT_KEY_KEY: b"\x02" + CLEAR_RECORDS[ROOT_KEY_KEY][1:]},
        {ROOT_KEY_KEY: CLEAR_RECORDS[ROOT_KEY_KEY][:-1]},
        {KEYRING_KEY: b""},
        {KEYRING_KEY: CLEAR_RECORDS[KEYRING_KEY][:40]},
    ],
)
def test_records_that_no_shares_could_open_are_refused(changed: dict[bytes, bytes]) -> None:
    with pytest.raises(Corrupt):
        check_clear_records(CLEAR_RECORDS | changed)

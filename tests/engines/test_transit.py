"""transit through a whole vault: keys and versions, encryption, signatures, hashes, batches, and what is refused."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import binary

from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest, NotFound
from conclave.core.outcomes import Outcome
from conclave.engines.transit import primitives
from conclave.engines.transit.keyset import CIPHERS_KEPT_MAX, VERSIONS_MAX, Key
from conclave.engines.transit.primitives import KEY_TYPES
from tests.fakes import FakeVault, data_of, on_loop, started_vault

HELLO = base64.b64encode(b"hello").decode()
SYMMETRIC = [name for name, kind in KEY_TYPES.items() if kind.is_symmetric and kind.encrypts]
SIGNING = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"]


async def _with_key(vault: FakeVault, name: str = "k", **fields: Any) -> None:
    await vault.write("sys/mounts/transit", {"type": "transit"})
    made = await vault.write(f"transit/keys/{name}", fields)
    assert isinstance(made, Response), made


def refusal(outcome: Outcome) -> str:
    assert isinstance(outcome, InvalidRequest), outcome
    return outcome.messages[0]


@pytest.mark.parametrize("kind", [*SYMMETRIC, "rsa-2048"])
def test_what_a_key_encrypts_it_decrypts(kind: str) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_key(vault, type=kind)

            sealed = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO}))
            opened = data_of(await vault.write("transit/decrypt/k", {"ciphertext": sealed["ciphertext"]}))

            assert sealed["ciphertext"].startswith("vault:v1:")
            assert opened == {"plaintext": HELLO}

    run()


@on_loop
async def test_a_changed_ciphertext_does_not_open() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        sealed = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO}))["ciphertext"]
        flipped = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]

        outcome = await vault.write("transit/decrypt/k", {"ciphertext": flipped})

        assert refusal(outcome) == "cipher: message authentication failed"


@on_loop
async def test_associated_data_must_be_the_same() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        sealed = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO, "associated_data": HELLO}))

        without = await vault.write("transit/decrypt/k", {"ciphertext": sealed["ciphertext"]})
        with_it = await vault.write("transit/decrypt/k", {"ciphertext": sealed["ciphertext"], "associated_data": HELLO})

        assert refusal(without) == "cipher: message authentication failed"
        assert data_of(with_it)["plaintext"] == HELLO


@on_loop
async def test_an_old_version_decrypts_until_the_minimum_is_raised() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        old = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO}))["ciphertext"]
        await vault.write("transit/keys/k/rotate")
        rewrapped = data_of(await vault.write("transit/rewrap/k", {"ciphertext": old}))

        before = await vault.write("transit/decrypt/k", {"ciphertext": old})
        await vault.write("transit/keys/k/config", {"min_decryption_version": 2})
        after = await vault.write("transit/decrypt/k", {"ciphertext": old})
        newer = await vault.write("transit/decrypt/k", {"ciphertext": rewrapped["ciphertext"]})

        assert rewrapped["key_version"] == 2
        assert data_of(before)["plaintext"] == HELLO
        assert "too old" in refusal(after)
        assert data_of(newer)["plaintext"] == HELLO


@on_loop
async def test_a_missing_key_is_made_by_encrypting_unless_the_mount_forbids_it() -> None:
    async with started_vault() as vault:
        await vault.write("sys/mounts/transit", {"type": "transit"})

        made = await vault.write("transit/encrypt/new", {"plaintext": HELLO})
        await vault.write("transit/config/keys", {"disable_upsert": True})
        refused = await vault.write("transit/encrypt/other", {"plaintext": HELLO})

        assert data_of(made)["key_version"] == 1
        assert refusal(refused) == "encryption key not found"


@on_loop
async def test_a_derived_key_needs_its_context() -> None:
    async with started_vault() as vault:
        await _with_key(vault, derived=True)
        context = base64.b64encode(b"tenant 1").decode()

        without = await vault.write("transit/encrypt/k", {"plaintext": HELLO})
        sealed = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO, "context": context}))
        other = await vault.write("transit/decrypt/k", {"ciphertext": sealed["ciphertext"], "context": HELLO})
        right = await vault.write("transit/decrypt/k", {"ciphertext": sealed["ciphertext"], "context": context})

        assert refusal(without).startswith("missing 'context' for key derivation")
        assert refusal(other) == "cipher: message authentication failed"
        assert data_of(right)["plaintext"] == HELLO


@on_loop
async def test_convergent_encryption_gives_the_same_ciphertext() -> None:
    async with started_vault() as vault:
        await _with_key(vault, derived=True, convergent_encryption=True)
        fields = {"plaintext": HELLO, "context": HELLO}

        first, second = [data_of(await vault.write("transit/encrypt/k", fields)) for _ in range(2)]

        assert first == second


@pytest.mark.parametrize("kind", SIGNING)
def test_what_a_key_signs_it_verifies(kind: str) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_key(vault, type=kind)

            signature = data_of(await vault.write("transit/sign/k", {"input": HELLO}))["signature"]
            right = await vault.write("transit/verify/k", {"input": HELLO, "signature": signature})
            wrong = await vault.write("transit/verify/k", {"input": HELLO[::-1][4:] + "AAAA", "signature": signature})

            assert data_of(right) == {"valid": True}
            assert data_of(wrong) == {"valid": False}

    run()


@pytest.mark.parametrize(
    "rules",
    [
        {"hash_algorithm": "sha2-512"},
        {"signature_algorithm": "pkcs1v15"},
        {"salt_length": "hash"},
        {"salt_length": "20", "hash_algorithm": "sha2-384"},
    ],
)
def test_rsa_signatures_verify_by_the_rules_they_were_made_by(rules: dict[str, str]) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_key(vault, type="rsa-2048")

            signature = data_of(await vault.write("transit/sign/k", {"input": HELLO, **rules}))["signature"]
            verified = await vault.write("transit/verify/k", {"input": HELLO, "signature": signature, **rules})

            assert data_of(verified) == {"valid": True}

    run()


@on_loop
async def test_ecdsa_signatures_come_as_jws_when_asked_for() -> None:
    async with started_vault() as vault:
        await _with_key(vault, type="ecdsa-p256")
        form = {"marshaling_algorithm": "jws"}

        signature = data_of(await vault.write("transit/sign/k", {"input": HELLO, **form}))["signature"]
        verified = await vault.write("transit/verify/k", {"input": HELLO, "signature": signature, **form})

        payload = signature.removeprefix("vault:v1:")
        assert len(base64.urlsafe_b64decode(payload + "==")) == 64
        assert data_of(verified) == {"valid": True}


@on_loop
async def test_an_hmac_verifies_and_a_wrong_one_does_not() -> None:
    async with started_vault() as vault:
        await _with_key(vault)

        made = data_of(await vault.write("transit/hmac/k", {"input": HELLO}))["hmac"]
        right = await vault.write("transit/verify/k", {"input": HELLO, "hmac": made})
        wrong = await vault.write("transit/verify/k", {"input": HELLO, "hmac": "vault:v1:aGk="})

        assert data_of(right) == {"valid": True}
        assert data_of(wrong) == {"valid": False}


@on_loop
async def test_a_batch_answers_each_item_in_its_place() -> None:
    async with started_vault() as vault:
        await _with_key(vault)

        outcome = await vault.write(
            "transit/encrypt/k", {"batch_input": [{"plaintext": HELLO, "reference": "r"}, {"plaintext": "!!"}]}
        )

        assert isinstance(outcome, Response)
        good, bad = data_of(outcome)["batch_results"]
        assert outcome.batch_failure_code == 400
        assert good["reference"] == "r"
        assert good["ciphertext"].startswith("vault:v1:")
        assert bad == {"error": "illegal base64 data at input byte 0", "reference": ""}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([], "missing batch input to process"),
        ("x", "source data must be an array or slice, got string"),
        ([1], "[0] expected a map, got 'json.Number'"),
        ([{}], "'[0].plaintext' missing plaintext to encrypt"),
        ([{"plaintext": 1}], "'[0].plaintext' expected type 'string', got unconvertible type 'json.Number'"),
    ],
)
def test_a_batch_of_a_wrong_shape_is_refused_as_a_whole(batch: Any, message: str) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_key(vault)

            outcome = await vault.write("transit/encrypt/k", {"batch_input": batch})

            assert message in refusal(outcome)

    run()


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("transit/keys/x", {"type": "foo"}, "unknown key type foo"),
        ("transit/keys/x", {"convergent_encryption": True}, "convergent encryption requires derivation to be enabled"),
        ("transit/keys/x", {"auto_rotate_period": "1m"}, "auto rotate period must be 0 to disable or at least an hour"),
        ("transit/encrypt/k", {}, "missing plaintext to encrypt"),
        ("transit/encrypt/k", {"plaintext": "zz!"}, "illegal base64 data at input byte 2"),
        (
            "transit/encrypt/k",
            {"plaintext": HELLO, "key_version": 9},
            "requested version for encryption is higher than the latest key version",
        ),
        ("transit/decrypt/k", {"ciphertext": "junk"}, "invalid ciphertext: no prefix"),
        (
            "transit/decrypt/k",
            {"ciphertext": "vault:vx:AAAA"},
            "invalid ciphertext: version number could not be decoded",
        ),
        ("transit/decrypt/k", {"ciphertext": "vault:v5:AAAA"}, "invalid ciphertext: version is too new"),
        ("transit/decrypt/k", {"ciphertext": "vault:v1:AAAA"}, "invalid ciphertext length"),
        ("transit/decrypt/none", {"ciphertext": "vault:v1:AAAA"}, "encryption key not found"),
        ("transit/sign/k", {"input": HELLO}, "key type aes256-gcm96 does not support signing"),
        ("transit/sign/none", {"input": HELLO}, "signing key not found"),
        ("transit/verify/k", {"input": HELLO}, "neither a 'signature' nor an 'hmac' were given to verify"),
        ("transit/datakey/foo/k", {}, "Invalid path, must be 'plaintext' or 'wrapped'"),
        ("transit/datakey/wrapped/k", {"bits": 1}, "invalid bit length"),
        ("transit/random/0", {}, "'bytes' cannot be less than 1"),
        ("transit/random/platform/9999999", {}, "'bytes' should be less than 131072"),
        ("transit/hash/x", {"input": HELLO}, "unsupported algorithm x"),
        (
            "transit/keys/k/config",
            {"min_decryption_version": 5},
            "cannot set min decryption version of 5, latest key version is 1",
        ),
        ("transit/keys/none/config", {}, "no existing key named none could be found"),
        ("transit/keys/k/trim", {}, "missing min_available_version"),
    ],
)
def test_wrong_requests_are_refused_in_the_words_that_were_measured(
    path: str, fields: dict[str, Any], message: str
) -> None:
    @on_loop
    async def run() -> None:
        async with started_vault() as vault:
            await _with_key(vault)

            outcome = await vault.write(path, fields)

            assert refusal(outcome) == message

    run()


@on_loop
async def test_a_key_leaves_only_if_it_may() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        refused = await vault.read("transit/export/encryption-key/k")
        await vault.write("transit/keys/k/config", {"exportable": True, "allow_plaintext_backup": True})

        exported = data_of(await vault.read("transit/export/encryption-key/k"))
        back = await vault.write("transit/keys/k/config", {"exportable": False})

        assert refusal(refused) == "private key material is not exportable"
        assert len(base64.b64decode(exported["keys"]["1"])) == 32
        assert "cannot be disabled" in refusal(back)


@on_loop
async def test_a_backup_restores_what_the_key_encrypted() -> None:
    async with started_vault() as vault:
        await _with_key(vault, exportable=True, allow_plaintext_backup=True)
        sealed = data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO}))["ciphertext"]
        backup = data_of(await vault.read("transit/backup/k"))["backup"]

        await vault.write("transit/restore/copy", {"backup": backup})
        opened = await vault.write("transit/decrypt/copy", {"ciphertext": sealed})

        assert data_of(opened)["plaintext"] == HELLO


@pytest.mark.parametrize("kind", ["rsa-2048", "ed25519", "aes256-gcm96"])
@on_loop
async def test_a_backup_with_an_unsound_key_is_not_restored(kind: str) -> None:
    async with started_vault() as vault:
        await _with_key(vault, type=kind, exportable=True, allow_plaintext_backup=True)
        packed = base64.b64decode(data_of(await vault.read("transit/backup/k"))["backup"])
        key = msgspec.msgpack.decode(packed[1:], type=Key)
        version = key.versions[1]
        unsound = msgspec.structs.replace(version, key=version.key[:-40] + bytes(39))
        changed = msgspec.structs.replace(key, versions={1: unsound})
        backup = base64.b64encode(packed[:1] + msgspec.msgpack.encode(changed)).decode()

        outcome = await vault.write("transit/restore/copy", {"backup": backup})

        assert refusal(outcome) == "the backup holds a key that is not sound"
        assert isinstance(await vault.read("transit/keys/copy"), NotFound)


@on_loop
async def test_a_key_is_deleted_only_if_that_was_allowed() -> None:
    async with started_vault() as vault:
        await _with_key(vault)

        refused = await vault.delete("transit/keys/k")
        await vault.write("transit/keys/k/config", {"deletion_allowed": True})
        await vault.delete("transit/keys/k")

        assert refusal(refused) == "error deleting policy k: deletion is not allowed for this key"
        assert isinstance(await vault.read("transit/keys/k"), NotFound)


@on_loop
async def test_a_backup_with_too_many_versions_is_not_restored() -> None:
    async with started_vault() as vault:
        await _with_key(vault, exportable=True, allow_plaintext_backup=True)
        packed = base64.b64decode(data_of(await vault.read("transit/backup/k"))["backup"])
        key = msgspec.msgpack.decode(packed[1:], type=Key)
        changed = msgspec.structs.replace(key, versions=dict.fromkeys(range(1, VERSIONS_MAX + 2), key.versions[1]))
        backup = base64.b64encode(packed[:1] + msgspec.msgpack.encode(changed)).decode()

        outcome = await vault.write("transit/restore/copy", {"backup": backup})

        assert refusal(outcome) == f"a key has at most {VERSIONS_MAX} versions"


@on_loop
async def test_every_version_of_a_key_opens_what_it_sealed() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        for _ in range(2 * CIPHERS_KEPT_MAX):
            await vault.write("transit/keys/k/rotate")
        numbers = range(1, 2 * CIPHERS_KEPT_MAX + 2)

        sealed = [
            data_of(await vault.write("transit/encrypt/k", {"plaintext": HELLO, "key_version": n}))["ciphertext"]
            for n in numbers
        ]

        assert [text.split(":")[1] for text in sealed] == [f"v{n}" for n in numbers]
        for text in [*sealed, *reversed(sealed)]:
            assert data_of(await vault.write("transit/decrypt/k", {"ciphertext": text}))["plaintext"] == HELLO


@on_loop
async def test_a_soft_deleted_key_is_not_used_until_it_is_restored() -> None:
    async with started_vault() as vault:
        await _with_key(vault)
        await vault.delete("transit/keys/k/soft-delete")

        refused = await vault.write("transit/encrypt/k", {"plaintext": HELLO})
        await vault.write("transit/keys/k/soft-delete-restore")

        assert refusal(refused) == "refusing to use soft-deleted key"
        assert isinstance(await vault.write("transit/encrypt/k", {"plaintext": HELLO}), Response)


@given(plaintext=binary(max_size=200), associated=binary(max_size=20))
def test_any_plaintext_comes_back(plaintext: bytes, associated: bytes) -> None:
    cipher = primitives.cipher_of(KEY_TYPES["chacha20-poly1305"], bytes(range(32)))

    sealed = primitives.encrypt_symmetric(cipher, bytes(12), plaintext, associated)

    assert primitives.decrypt_symmetric(cipher, sealed, associated) == plaintext


def test_hashes_are_those_of_the_published_vectors() -> None:
    # FIPS 180-4 and FIPS 202, examples for the message "abc".
    assert primitives.digest("sha2-256", b"abc").hex().startswith("ba7816bf8f01cfea414140de5dae2223")
    assert primitives.digest("sha3-256", b"abc").hex().startswith("3a985da74fe225b2045c172d6bd390bd")


def test_an_hmac_is_that_of_the_published_vector() -> None:
    # RFC 4231, test case 2.
    made = primitives.hmac_digest("sha2-256", b"Jefe", b"what do ya want for nothing?")

    assert made.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_a_derived_key_is_that_of_the_published_vector() -> None:
    # RFC 5869, test case 3: no salt, no info.
    derived = primitives.derive(bytes([0x0B] * 22), b"", 42)

    assert derived.hex().startswith("8da4e775a563c18f715f802a063c5a31")

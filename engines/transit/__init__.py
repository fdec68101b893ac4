"""Cryptography as a service: named keys that never leave the vault, and what is done with them.

* `keyset`      keys and their versions as they are kept, and the rules of which version may do what
* `primitives`  the ciphers and signatures themselves: bytes in, bytes out
* `keys`        create, read, rotate, configure, trim, export, back up and delete keys
* `crypt`       encrypt, decrypt, rewrap, data keys
* `sign`        sign, verify, hmac, hash, random

Ciphertexts and signatures read `vault:v<version>:<base64>`, so that what one server made another understands. Source:
Vault's page "Transit secrets engine (API)"; texts and shapes measured on a real server.
"""

from conclave.engines.transit.crypt import CryptOperations
from conclave.engines.transit.keys import KeyOperations
from conclave.engines.transit.sign import SignOperations


class Transit(KeyOperations, CryptOperations, SignOperations):
    """Encryption, signatures and hashes with keys that stay inside."""

    type = "transit"


__all__ = ["Transit"]

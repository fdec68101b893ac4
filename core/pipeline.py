"""What a request goes through, one small function a step: route, token, policy, fields, engine, answer.

    locate     which mount, which declared operation         Router, Engine.match
    identify   whose token                                   Tokens
    authorize  whether its policies allow it                 Acl
    perform    the engine's handler, with its fields         Engine

The steps run within one transaction and without waiting, so what they saw is one state. They know nothing of where the
transaction's effects go (`vault.py`), nor of HTTP.

`Caches` holds what is derived from committed records: router, policies' compiled form, tokens. The feed drops what an
entry changes; while such a change is proposed but not committed, a writing request bypasses the cache and looks itself.
"""

from typing import Final

CACHED_TOKENS_MAX: Final = 10_000
CACHED_ACLS_MAX: Final = 1_000

"""CRC-32C (Castagnoli), the checksum of log entries and snapshot chunks: LMDB's pages have none.

It finds accidents, not attacks; sealed records carry an authentication tag besides. Source: RFC 3720, appendix B.4.
"""

from crc32c import crc32c as _crc32c


def checksum(data: bytes, seed: int = 0) -> int:
    """Return the CRC-32C of `data`, continued from `seed` (the checksum of what stood before it)."""
    return int(_crc32c(data, seed))

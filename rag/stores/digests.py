"""One hash over all rows of a generation, from the hashes of its rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rag.files import sha256_text

SUM_PREFIX = "sum:"
"""Marks the hash of a generation that is the sum of its rows' hashes, so that it can be changed by a few rows."""


def rows_digest(documents: Iterable[str], chunks: Iterable[str]) -> str:
    """Return one hash over the row hashes of a generation: documents by id, then chunks by id."""
    return sha256_text("\n".join([*documents, "", *chunks]))


def sum_of_hashes(added: Iterable[str], before: str = "", removed: Iterable[str] = ()) -> str:
    """Return a sum over row hashes that does not depend on their order, as :data:`SUM_PREFIX` and 64 hex digits.

    Each SHA-256 is four unsigned 64-bit numbers, which are added modulo 2^64. It notices damage and missing rows, as
    the digest over all rows does, and changes by the rows that change; it does not stand against forged rows.

    Args:
        added: hashes of the rows to add, hex.
        before: the sum to change; "" for none.
        removed: hashes of the rows to subtract, hex.
    """
    total = _lanes([before.removeprefix(SUM_PREFIX)] if before else [])
    total = total + _lanes(added) - _lanes(removed)
    return SUM_PREFIX + total.astype(">u8").tobytes().hex()


def _lanes(hashes: Iterable[str]) -> np.ndarray:
    """Return the sum of hashes as four numbers, uint64 [4], modulo 2^64."""
    numbers = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)
    return np.asarray(numbers.reshape(-1, 4).sum(axis=0, dtype=np.uint64))

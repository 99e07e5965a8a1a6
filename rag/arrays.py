"""Read saved numpy arrays, one thread at a time.

numpy reads a file's header with ``ast.literal_eval``, and CPython 3.11 counts the depth of that in one place for all
threads: two at once can raise ``SystemError: AST constructor recursion depth mismatch``.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

READING = threading.Lock()
"""Held while a header is read, by this module or by a library that reads arrays for us."""


def read(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Return the array of a ``.npy`` file, mapped read-only where that is asked for; never unpickled."""
    with READING:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array

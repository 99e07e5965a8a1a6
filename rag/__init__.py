"""Look things up: documents in, cited passages out.

``rag`` loads documents, cuts them into chunks that fit the embedder, keeps them in an index that survives
crashes, searches it by meaning and by words, and attaches citations to answers. It knows nothing of training
or advice. The front class is :class:`Index`, imported only when asked for, so that ``import rag`` is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.index import Index

__all__ = ["Index"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "Index":
        from rag.index import Index

        return Index
    raise AttributeError(f"module 'rag' has no attribute {name!r}")

"""Embedders and cross-encoders loaded for this machine, their weights hashed once (:mod:`runners.models.digests`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runners.models import digests
from runners.resources.device import torch_device

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker


def load_embedder(folder: Path, name: str, device: str | None = None) -> Embedder:
    """Return the embedder of a folder under a name; ``device`` is where it computes, None the best of this machine."""
    from rag.embedding.embedder import Embedder

    return Embedder(folder, name=name, device=device or torch_device().type, digest=digests.file_sha256)


def load_reranker(folder: Path, name: str) -> Reranker:
    """Return the cross-encoder of a folder under a name."""
    from rag.embedding.reranker import Reranker

    return Reranker(folder, name, device=torch_device().type, digest=digests.file_sha256)

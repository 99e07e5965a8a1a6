"""Weight: what may import what, and that importing rag is free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = [
    *(
        "rag",
        "rag.errors",
        "rag.types",
        "rag.files",
        "rag.text.numbers",
        "rag.text.words",
        "rag.grounding.citations",
        "rag.grounding.gold",
    ),
    *(
        "rag.settings",
        "rag.evaluation.metrics",
        "rag.loading.reader",
        "rag.grounding.refusal",
        "rag.grounding.context",
        "rag.index",
    ),
]
HEAVY = ["torch", "transformers", "sentence_transformers", "faiss", "peft", "accelerate", "bitsandbytes"]


@pytest.mark.parametrize("module", LIGHT)
def test_import_loads_no_heavy_library(module: str, root: Path) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_imported_lazily() -> None:
    import rag
    from rag.index import Index

    assert rag.Index is Index
    assert rag.__version__
    with pytest.raises(AttributeError, match="nothing"):
        _ = rag.nothing

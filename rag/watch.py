"""Keep an index in step with its documents by looking again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rag.encoder import Encoder
from rag.errors import BadInput
from rag.index import Index
from rag.report import BuildReport
from rag.types import OnEvent

EVERY_SECONDS = 10.0


def watch(
    folder: Path | str,
    documents: Path | str,
    embedder: Encoder,
    hear: Callable[[BuildReport | BadInput], bool],
    *,
    every: float = EVERY_SECONDS,
    trust_mtime: bool = False,
    on_event: OnEvent | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Update the index every ``every`` seconds until ``hear`` returns False.

    ``hear`` gets every report, also of a look that changed nothing, or the reason why one failed: documents
    that are being written may be unreadable for a moment, and another writer may hold the index. Damage and a
    full disk end the watch.
    """
    Index.open(folder, embedder)
    while True:
        outcome: BuildReport | BadInput
        try:
            outcome = Index.update(folder, documents, embedder, on_event, trust_mtime=trust_mtime)
        except BadInput as error:
            Index.open(folder, embedder)
            outcome = error
        if not hear(outcome):
            return
        sleep(every)

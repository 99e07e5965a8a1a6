"""What a build or update did, with every document found accounted for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rag.load.base import Skipped
from rag.stores.choose import Measured


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build or update did; found = indexed + unchanged + skipped, indexed = added + changed."""

    found: int
    indexed: int
    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    chunks: int
    """Chunks in the generation."""
    embedded: int
    """Texts that were embedded; the others kept their vectors, or had them in the cache."""
    cached: int
    """Texts whose vectors came from the cache."""
    generation: int
    store: str
    """The vector store used."""
    seconds: float
    stores: tuple[Measured, ...] = ()
    """What was measured of the stores, where one was chosen or an approximate one was asked for."""
    remarks: tuple[str, ...] = ()
    """What else the user should be told of the documents."""
    gone: tuple[str, ...] = ()
    """The documents that the generation before still held, and this one does not."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``index build|update --json`` prints."""
        body = {"schema": 1, **asdict(self), "skipped": [item.to_json() for item in self.skipped]}
        del body["gone"]
        return {name: value for name, value in body.items() if value or name not in ("stores", "remarks")}

"""Documents as JSON, for the way from the worker: what equals the raw text is not sent twice."""

from __future__ import annotations

from typing import Any

from rag.load.base import Skipped
from rag.load.offsets import Offsets
from rag.types import Block, Document


def packed(item: Document | Skipped) -> dict[str, Any]:
    """Return a document or a skipped row as plain JSON values."""
    if isinstance(item, Skipped):
        return item.to_json()
    return {
        "id": item.id,
        "title": item.title,
        "raw": item.raw,
        "sha256": item.sha256,
        "media": item.media,
        "metadata": item.metadata,
        "blocks": [_block(block, item.raw) for block in item.blocks],
    }


def unpacked(found: dict[str, Any]) -> Document | Skipped:
    """Return what ``packed`` made; KeyError or ValueError when it is something else."""
    if "reason" in found:
        return Skipped(found["path"], found["reason"])
    raw = found["raw"]
    blocks = tuple(_unpacked(values, raw) for values in found["blocks"])
    names = ("id", "title", "raw", "sha256", "media", "metadata")
    return Document(blocks=blocks, **{name: found[name] for name in names})


def _block(block: Block, raw: str) -> list[Any]:
    text = None if block.text == raw[block.start : block.end] else block.text
    runs = block.offsets.runs if isinstance(block.offsets, Offsets) and block.offsets else None
    return [block.kind, text, block.start, block.end, block.heading, runs]


def _unpacked(values: list[Any], raw: str) -> Block:
    kind, text, start, end, heading, runs = values
    text = raw[start:end] if text is None else text
    offsets = Offsets(((at, place) for at, place in runs), len(text)) if runs else ()
    return Block(kind, text, start, end, heading, offsets)

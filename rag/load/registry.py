"""The loaders, one line each: a new format is one file here and one parameter in the contract test."""

from __future__ import annotations

from rag.load import html, markdown, pdf, rows, table, text
from rag.load.base import Loader

LOADERS: tuple[Loader, ...] = (
    Loader("markdown", (".md", ".markdown"), markdown.read),
    Loader("html", (".html", ".htm"), html.read),
    Loader("csv", (".csv", ".tsv"), table.read),
    Loader("text", (".txt", ".text"), text.read),
    Loader("pdf", (".pdf",), pdf.read),
    Loader("row", (".jsonl",), rows.read),
)


def loader_for(name: str) -> Loader | None:
    """Return the loader that answers to a file name's ending, or None."""
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return next((loader for loader in LOADERS if ending in loader.suffixes), None)


def endings() -> str:
    """Return all endings that can be loaded, for messages."""
    return ", ".join(suffix for loader in LOADERS for suffix in loader.suffixes)

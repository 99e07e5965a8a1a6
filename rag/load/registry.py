"""The loaders, one line each: a new format is one file here and one parameter in the contract test."""

from __future__ import annotations

from rag.load import code, docx, html, json, mail, markdown, pdf, pptx, rows, rst, table, text, xlsx
from rag.load.base import Loader

LOADERS: tuple[Loader, ...] = (
    Loader("markdown", (".md", ".markdown", ".mdx", ".qmd"), markdown.read),
    Loader("html", (".html", ".htm", ".xhtml"), html.read, apart=True),
    Loader("csv", (".csv", ".tsv"), table.read),
    Loader(
        "text",
        (".txt", ".text", ".log", ".adoc", ".org", ".tex", ".yaml", ".yml", ".toml", ".ini"),
        text.read,
    ),
    Loader("pdf", (".pdf",), pdf.read, apart=True),
    Loader("row", (".jsonl", ".ndjson"), rows.read),
    Loader("json", (".json",), json.read),
    Loader("docx", (".docx",), docx.read, apart=True),
    Loader("pptx", (".pptx",), pptx.read, apart=True),
    Loader("xlsx", (".xlsx", ".xlsm"), xlsx.read, apart=True),
    Loader("mail", (".eml",), mail.read, apart=True),
    Loader("rst", (".rst",), rst.read),
    Loader("code", code.SUFFIXES, code.read),
)


def loader_for(name: str) -> Loader | None:
    """Return the loader that answers to a file name's ending, or None."""
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return next((loader for loader in LOADERS if ending in loader.suffixes), None)


def loader_of(media: str) -> Loader:
    """Return the loader of a medium; KeyError when there is none."""
    return {loader.media: loader for loader in LOADERS}[media]


def endings() -> str:
    """Return the endings that name a format, for messages; source code and other texts come on top."""
    named = [loader for loader in LOADERS if loader.media != "code"]
    return ", ".join(suffix for loader in named for suffix in loader.suffixes) + " and source code"

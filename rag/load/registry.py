"""The loaders, one line each: a new format is one file here and one parameter in the contract test."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

from rag.load import code, docx, html, json, mail, markdown, pdf, pptx, rows, rst, table, text, xlsx
from rag.load.base import Loader
from rag.plugins import LOADERS as LOADERS_GROUP
from rag.plugins import Group, Unusable

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


_BY_MEDIA = {loader.media: loader for loader in LOADERS}
_BY_SUFFIX = {suffix: loader for loader in LOADERS for suffix in loader.suffixes}


def _check_plugin(name: str, loader: Any) -> Loader:
    if not isinstance(loader, Loader):
        raise Unusable(f"a {type(loader).__name__}, not a rag.load.base.Loader")
    if loader.media != name:
        raise Unusable(f"its media is {loader.media!r}, not the name of the entry point")
    if not loader.suffixes:
        raise Unusable("it names no file ending")
    for suffix in loader.suffixes:
        if not re.fullmatch(r"\.[a-z0-9_+-]+", suffix):
            raise Unusable(f"{suffix!r} is no file ending in lower case, such as '.acme'")
        if suffix in _BY_SUFFIX:
            raise Unusable(f"{suffix} is read by the built-in loader {_BY_SUFFIX[suffix].media!r}")
    return replace(loader, apart=True)  # foreign code reads untrusted files only in the worker process


PLUGINS = Group(LOADERS_GROUP, _BY_MEDIA, _check_plugin)


@cache
def _plugin_suffixes() -> dict[str, Loader]:
    counted = Counter(suffix for loader in PLUGINS.all for suffix in loader.suffixes)
    for loader in PLUGINS.all:
        for suffix in loader.suffixes:
            if counted[suffix] > 1:
                raise PLUGINS.plugins[loader.media].unusable(f"another plug-in reads {suffix} too")
    return {suffix: loader for loader in PLUGINS.all for suffix in loader.suffixes}


def loader_for(name: str) -> Loader | None:
    """Return the loader that answers to a file name's ending, or None; BadInput for a plug-in that cannot be used."""
    return _BY_SUFFIX.get(_ending(name)) or plugin_for(name)


def plugin_for(name: str) -> Loader | None:
    """Return the loader of a plug-in that answers to a file name's ending, or None."""
    ending = _ending(name)
    return _plugin_suffixes().get(ending) if ending and ending not in _BY_SUFFIX else None


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def loader_of(media: str) -> Loader:
    """Return the loader of a medium, built in or given by a plug-in; KeyError when there is none."""
    return _BY_MEDIA[media] if media in _BY_MEDIA else PLUGINS.load(media)


def endings() -> str:
    """Return the endings that name a format, for messages; source code and other texts come on top."""
    named = [loader for loader in (*LOADERS, *PLUGINS.all) if loader.media != "code"]
    return ", ".join(suffix for loader in named for suffix in loader.suffixes) + " and source code"

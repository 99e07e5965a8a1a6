"""The table of loaders, and detection of a file's format: from its bytes first, from its name second.

A new format is one module in ``formats`` and one entry in ``LOADERS``; packages add loaders through the
entry-point group ``tunewise.loaders``. :func:`detect_loader` finds the loader of a file.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from rag.loading.base import Loader, UnreadableFile
from rag.loading.formats import code, docx, email, html, json, markdown, pdf, pptx, rst, tables, text
from rag.loading.formats.office import office_kind
from rag.plugins import LOADERS as LOADERS_GROUP
from rag.plugins import PluginGroup, UnusablePlugin

LOADERS: tuple[Loader, ...] = (
    Loader("markdown", (".md", ".markdown", ".mdx", ".qmd"), markdown.read),
    Loader("html", (".html", ".htm", ".xhtml"), html.read, in_worker=True),
    Loader("csv", (".csv", ".tsv"), tables.read_csv),
    Loader(
        "text",
        (".txt", ".text", ".log", ".adoc", ".org", ".tex", ".yaml", ".yml", ".toml", ".ini"),
        text.read,
    ),
    Loader("pdf", (".pdf",), pdf.read, in_worker=True),
    Loader("row", (".jsonl", ".ndjson"), json.read_jsonl),
    Loader("json", (".json",), json.read),
    Loader("docx", (".docx",), docx.read, in_worker=True),
    Loader("pptx", (".pptx",), pptx.read, in_worker=True),
    Loader("xlsx", (".xlsx", ".xlsm"), tables.read_xlsx, in_worker=True),
    Loader("mail", (".eml",), email.read, in_worker=True),
    Loader("rst", (".rst",), rst.read),
    Loader("code", code.SUFFIXES, code.read),
)

_BY_MEDIA = {loader.media: loader for loader in LOADERS}
_BY_SUFFIX = {suffix: loader for loader in LOADERS for suffix in loader.suffixes}

_SIGNATURES = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a sound, film or image (RIFF)"),
    (b"BM\x00", "a bitmap image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"ID3", "a sound (MP3)"),
    (b"OggS", "a sound or film (Ogg)"),
    (b"fLaC", "a sound (FLAC)"),
    (b"\0\0\0\x18ftyp", "a film (MP4)"),
    (b"\0\0\0 ftyp", "a film (MP4)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet table"),
    (b"\x00asm", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"wOF", "a font"),
    (b"\0\1\0\0\0", "a font"),
)
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BINARY_NAME = re.compile(
    r"\.(?:png|jpe?g|gif|bmp|ico|webp|tiff?|heic|mp[34]|m4a|wav|ogg|flac|mov|avi|mkv|zip|gz|bz2|xz|7z|rar|zst|tar|"
    r"exe|dll|so|dylib|o|a|class|jar|pyc|wasm|bin|dat|db|sqlite3?|parquet|npy|npz|pt|pth|safetensors|onnx|gguf|pkl|"
    r"woff2?|ttf|otf|eot|doc|xls|ppt|odt|ods|odp|rtf|epub|mobi|psd|ai|svg|map|lock)$",
    re.I,
)
_BINARY_MEDIA = {"pdf", "docx", "pptx", "xlsx"}
_HTML_OPENING = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body|title|meta)\b",
    re.I | re.S,
)
_MAIL_HEADERS = re.compile(r"(?:[\w-]{1,60}:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}")
_MAIL_HEADER_NAME = re.compile(
    r"^(?:from|to|subject|date|received|message-id|return-path|mime-version):", re.I | re.M
)


def detect_loader(id: str, data: bytes) -> Loader:
    """Return the loader for a file.

    Bytes that identify a format (PDF, zip, the opening of HTML, the headers of an e-mail) take precedence
    over the file's ending; a text with an unknown ending is read as JSON, source code, Markdown or plain
    text, by its beginning. An ending that a plug-in reads belongs to the plug-in, whatever the bytes are.

    Raises:
        UnreadableFile: when no loader reads the file; it says what the file is.
    """
    if plugin := plugin_for(id):
        return plugin
    if b"%PDF-" in data[:1024]:
        return loader_for_media("pdf")
    if is_zip(data):
        return _zip_loader(data)
    if data.startswith(_OLD_OFFICE):
        raise UnreadableFile("an old or encrypted Office file: save it as .docx, .pptx, .xlsx or PDF")
    if data.startswith(b"{\\rtf"):
        raise UnreadableFile("an RTF file: save it as .docx or PDF")
    for signature, description in _SIGNATURES:
        if data.startswith(signature) and not _is_ascii_text(data):
            archive = "archive" in description
            advice = "unpack it into the folder" if archive else "it has no text that can be read"
            raise UnreadableFile(f"{description}: {advice}")
    named = loader_for(id)
    if named and named.media in _BINARY_MEDIA and not data:
        raise UnreadableFile("the file is empty")
    if named and named.media in _BINARY_MEDIA:
        raise UnreadableFile(f"not {named.media.upper()}: its first bytes are not that format's")
    if named is None and _BINARY_NAME.search(id):
        raise UnreadableFile(f"no loader for .{id.rpartition('.')[2].lower()}")
    return _text_loader(named, PurePosixPath(id).name, _decoded_beginning(data))


def is_zip(data: bytes) -> bool:
    """Return whether bytes begin like a zip; only the worker lists its contents, because that list may be a bomb."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _check_plugin(name: str, loader: Any) -> Loader:
    """Return a plug-in's loader, to be run in the worker; UnusablePlugin when it breaks a rule."""
    if not isinstance(loader, Loader):
        raise UnusablePlugin(f"a {type(loader).__name__}, not a rag.loading.base.Loader")
    if loader.media != name:
        raise UnusablePlugin(f"its media is {loader.media!r}, not the name of the entry point")
    if not loader.suffixes:
        raise UnusablePlugin("it names no file ending")
    for suffix in loader.suffixes:
        if not re.fullmatch(r"\.[a-z0-9_+-]+", suffix):
            raise UnusablePlugin(f"{suffix!r} is no file ending in lower case, such as '.acme'")
        if suffix in _BY_SUFFIX:
            raise UnusablePlugin(f"{suffix} is read by the built-in loader {_BY_SUFFIX[suffix].media!r}")
    return replace(loader, in_worker=True)  # other packages' code reads files only in the worker process


@cache
def _plugin_suffixes() -> dict[str, Loader]:
    """Return the plug-ins' loaders by file ending; BadInput when two read the same ending."""
    counts = Counter(suffix for loader in PLUGINS.all for suffix in loader.suffixes)
    for loader in PLUGINS.all:
        for suffix in loader.suffixes:
            if counts[suffix] > 1:
                raise PLUGINS.plugins[loader.media].unusable(f"another plug-in reads {suffix} too")
    return {suffix: loader for loader in PLUGINS.all for suffix in loader.suffixes}


def loader_for(name: str) -> Loader | None:
    """Return the loader of a file name's ending, or None; BadInput for a plug-in that cannot be used."""
    return _BY_SUFFIX.get(_suffix(name)) or plugin_for(name)


def plugin_for(name: str) -> Loader | None:
    """Return the plug-in's loader of a file name's ending, or None."""
    ending = _suffix(name)
    return _plugin_suffixes().get(ending) if ending and ending not in _BY_SUFFIX else None


def loader_for_media(media: str) -> Loader:
    """Return the loader of that name, built in or from a plug-in; KeyError when there is none."""
    return _BY_MEDIA[media] if media in _BY_MEDIA else PLUGINS.load(media)


def known_suffixes() -> str:
    """Return the file endings that have a loader, for messages; those of source code are summed up."""
    named = [loader for loader in (*LOADERS, *PLUGINS.all) if loader.media != "code"]
    return ", ".join(suffix for loader in named for suffix in loader.suffixes) + " and source code"


PLUGINS = PluginGroup(LOADERS_GROUP, _BY_MEDIA, _check_plugin)


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def _zip_loader(data: bytes) -> Loader:
    if media := office_kind(data):
        return loader_for_media(media)
    raise UnreadableFile("a zip archive: unpack it into the folder")


def _is_ascii_text(data: bytes) -> bool:
    """Return whether the beginning is plain text, so that "BM" or "MZ" is a word and no signature."""
    head = data[:512]
    return len(head) > 8 and all(byte in (9, 10, 13) or byte >= 32 for byte in head) and head.isascii()


def _decoded_beginning(data: bytes) -> str:
    """Return the first 8 KiB as text, UTF-16 without a byte order mark read as its ASCII part."""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            return data[2:8192].decode(name, "replace")
    head = data[:8192].removeprefix(codecs.BOM_UTF8)
    if b"\0" in head[:64]:
        head = head.replace(b"\0", b"")
    return head.decode("utf-8", "replace")


def _is_mail(head: str) -> bool:
    headers = _MAIL_HEADERS.match(head)
    if headers is None:
        return False
    return len({name.lower() for name in _MAIL_HEADER_NAME.findall(headers.group())}) >= 3


def _text_loader(named: Loader | None, name: str, head: str) -> Loader:
    """Return the loader for a text file.

    Args:
        named: the loader of its ending, or None.
        name: the file's name.
        head: the beginning of its text.
    """
    plain = named is None or named.media == "text"
    if _HTML_OPENING.match(head) and (
        named is None or named.media in ("text", "markdown", "csv", "json", "row", "mail")
    ):
        return loader_for_media("html")
    if plain and _is_mail(head):
        return loader_for_media("mail")
    if named is not None:
        return named
    if head.startswith("#!"):
        return loader_for_media("code")
    if re.match(r"\s*(?:\{\s*\"|\[\s*[\[{\"])", head):
        first_row = re.match(r"\s*(\{[^\n]*\})\s*(?:\n\s*\{|\Z)", head)
        if first_row and '"id"' in first_row[1] and '"text"' in first_row[1]:
            return loader_for_media("row")
        return loader_for_media("text" if first_row and "\n{" in head else "json")
    if "." not in name and re.search(r"^#{1,6} \S", head, re.M):
        return loader_for_media("markdown")
    return loader_for_media("text")

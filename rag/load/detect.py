"""What a file is, from its bytes first and its name second."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

from rag.load.base import Loader, Unreadable
from rag.load.office import kind
from rag.load.registry import loader_for, loader_of, plugin_for

_SIGNS = (
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"),
    (b"RIFF", "a sound, film or image (RIFF)"), (b"BM\x00", "a bitmap image"), (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"), (b"\x7fELF", "a program"), (b"MZ", "a program"), (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ", "an xz archive"), (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a zstd archive"), (b"ID3", "a sound (MP3)"),
    (b"OggS", "a sound or film (Ogg)"), (b"fLaC", "a sound (FLAC)"), (b"\0\0\0\x18ftyp", "a film (MP4)"),
    (b"\0\0\0 ftyp", "a film (MP4)"), (b"SQLite format 3\0", "an SQLite database"), (b"PAR1", "a Parquet table"),
    (b"\x00asm", "a program"), (b"\xca\xfe\xba\xbe", "a program"), (b"wOF", "a font"), (b"\0\1\0\0\0", "a font"),
)  # fmt: skip
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_NO_TEXT = re.compile(
    r"\.(?:png|jpe?g|gif|bmp|ico|webp|tiff?|heic|mp[34]|m4a|wav|ogg|flac|mov|avi|mkv|zip|gz|bz2|xz|7z|rar|zst|tar|"
    r"exe|dll|so|dylib|o|a|class|jar|pyc|wasm|bin|dat|db|sqlite3?|parquet|npy|npz|pt|pth|safetensors|onnx|gguf|pkl|"
    r"woff2?|ttf|otf|eot|doc|xls|ppt|odt|ods|odp|rtf|epub|mobi|psd|ai|svg|map|lock)$",
    re.I,
)
_BINARY = {"pdf", "docx", "pptx", "xlsx"}
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body|title|meta)\b",
    re.I | re.S,
)
_MAIL = re.compile(r"(?:[\w-]{1,60}:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}")
_MAIL_NAMES = re.compile(
    r"^(?:from|to|subject|date|received|message-id|return-path|mime-version):", re.I | re.M
)


def detect(id: str, data: bytes) -> Loader:
    """Return the loader for a file; Unreadable says what the file is when nothing here reads it.

    Bytes that name a format (PDF, zip, HTML's opening, an e-mail's headers) win over the file's ending; a text
    whose ending says nothing is looked at and read as JSON, source code, Markdown or plain text. An ending that a
    plug-in reads is the plug-in's, whatever the bytes are.
    """
    if plugin := plugin_for(id):
        return plugin
    if b"%PDF-" in data[:1024]:
        return loader_of("pdf")
    if is_zip(data):
        return _zipped(data)
    if data.startswith(_OLD_OFFICE):
        raise Unreadable("an old or encrypted Office file: save it as .docx, .pptx, .xlsx or PDF")
    if data.startswith(b"{\\rtf"):
        raise Unreadable("an RTF file: save it as .docx or PDF")
    for sign, what in _SIGNS:
        if data.startswith(sign) and not _text_like(data):
            ending = "unpack it into the folder" if "archive" in what else "it holds no text that can be read"
            raise Unreadable(f"{what}: {ending}")
    named = loader_for(id)
    if named and named.media in _BINARY:
        raise Unreadable(f"not {named.media.upper()}: its first bytes are not that format's")
    if named is None and _NO_TEXT.search(id):
        raise Unreadable(f"no loader for .{id.rpartition('.')[2].lower()}")
    return _text(named, PurePosixPath(id).name, _beginning(data))


def is_zip(data: bytes) -> bool:
    """Return whether bytes begin like a zip; its list of contents may be a bomb, so only the worker looks in."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _zipped(data: bytes) -> Loader:
    if media := kind(data):
        return loader_of(media)
    raise Unreadable("a zip archive: unpack it into the folder")


def _text_like(data: bytes) -> bool:
    """Whether a beginning such as "BM" or "MZ" is only how a text starts."""
    head = data[:512]
    return len(head) > 8 and all(byte in (9, 10, 13) or byte >= 32 for byte in head) and head.isascii()


def _beginning(data: bytes) -> str:
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            return data[2:8192].decode(name, "replace")
    head = data[:8192].removeprefix(codecs.BOM_UTF8)
    if b"\0" in head[:64]:
        head = head.replace(b"\0", b"")
    return head.decode("utf-8", "replace")


def _is_mail(head: str) -> bool:
    found = _MAIL.match(head)
    return found is not None and len({name.lower() for name in _MAIL_NAMES.findall(found.group())}) >= 3


def _text(named: Loader | None, name: str, head: str) -> Loader:
    plain = named is None or named.media == "text"
    if _HTML.match(head) and (
        named is None or named.media in ("text", "markdown", "csv", "json", "row", "mail")
    ):
        return loader_of("html")
    if plain and _is_mail(head):
        return loader_of("mail")
    if named is not None:
        return named
    if head.startswith("#!"):
        return loader_of("code")
    if re.match(r"\s*(?:\{\s*\"|\[\s*[\[{\"])", head):
        lines = re.match(r"\s*(\{[^\n]*\})\s*(?:\n\s*\{|\Z)", head)
        if lines and '"id"' in lines[1] and '"text"' in lines[1]:
            return loader_of("row")
        return loader_of("text" if lines and "\n{" in head else "json")
    if "." not in name and re.search(r"^#{1,6} \S", head, re.M):
        return loader_of("markdown")
    return loader_of("text")

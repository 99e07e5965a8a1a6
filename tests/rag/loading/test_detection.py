"""Format and encoding of a file are detected from its bytes."""

from __future__ import annotations

import pytest

from rag.loading.base import Skipped, UnreadableFile
from rag.loading.encoding import decode_bytes
from rag.loading.reader import parse_file
from rag.loading.registry import detect_loader
from rag.types import Document

Seeds = dict[str, bytes]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("x.txt", "a.pdf"),
        ("x.csv", "a.html"),
        ("x", "a.html"),
        ("x", "a.pdf"),
        ("x.md", "a.docx"),
        ("x", "a.xlsx"),
        ("x.docx", "a.pptx"),
        ("x", "a.eml"),
        ("x", "a.md"),
        ("x", "a.json"),
        ("x", "a.jsonl"),
        ("x.odd", "a.txt"),
        ("x.txt", "a.eml"),
        ("x.md", "a.html"),
    ],
)
def test_format_is_detected_from_bytes_before_name(seeds: Seeds, wrong: str, right: str) -> None:
    assert detect_loader(wrong, seeds[right]) is detect_loader(right, seeds[right])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.md", b"\x89PNG\r\n\x1a\n" + bytes(30), "a PNG image"),
        ("x.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(30), "old or encrypted Office"),
        ("x.pdf", b"plain text", "not PDF"),
        ("x.png", b"x", "no loader for .png"),
        ("x.docx", b"PK\x03\x04 broken", "broken zip"),
        ("x.txt", b"PK\x05\x06" + bytes(18), "a zip archive"),
        ("x.rtf", b"{\\rtf1 hello}", "RTF"),
        ("x.txt", bytes(range(256)) * 4, "not text"),
        ("x", b"\x00\x01\x02" * 50, "not text"),
    ],
)
def test_unreadable_file_is_skipped_with_its_type(name: str, data: bytes, reason: str) -> None:
    (item,) = parse_file(name, data)
    assert isinstance(item, Skipped)
    assert reason in item.reason


@pytest.mark.parametrize(
    "beginning", [b"BM and me\n", b"MZ is a mark.\n", b"RIFF, he said.\n", b"ID3 tags\n"]
)
def test_text_that_begins_like_a_signature_is_text(beginning: bytes) -> None:
    assert detect_loader("x.txt", beginning).media == "text"


@pytest.mark.parametrize(
    ("encoding", "text", "reported"),
    [
        ("utf-8", "café", None),
        ("utf-8-sig", "café", None),
        ("utf-16", "café", "utf-16-le"),
        ("utf-16-le", "Plain words here", "utf-16-le"),
        ("utf-16-be", "Plain words here", "utf-16-be"),
        ("utf-32", "café", "utf-32-le"),
        ("cp1252", "Le café coûte 5 €, naïf", "cp1252"),
        ("latin-1", "Grüße aus Köln", "cp1252"),
        ("cp1251", "Билет на паром стоит четырнадцать рублей пятьдесят копеек для взрослых", "cp1251"),
        ("gb18030", "成人票价为十四元五角，儿童票价为七元，狗不收费。请在上船前购票。", "gb18030"),
    ],
)
def test_encoding_is_detected_and_reported(encoding: str, text: str, reported: str | None) -> None:
    raw, meta = decode_bytes(text.encode(encoding))
    assert raw == text
    assert meta.get("encoding") == reported


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Désolé, nous sommes fermés à Noël"),
        ("cp1250", "Žitný chléb stojí třicet korun, děkujeme"),
        ("iso8859_2", "Chleb żytni są dziś po dziesięć złotych"),
        ("cp1254", "Ekmek beş lira, teşekkür ederiz"),
        ("mac_roman", "Ein Brötchen für Großkunden, schöne Grüße"),
        ("cp852", "Chleb żytni kosztuje dziesięć złotych"),
    ],
)
def test_encodings_of_latin_letters_are_told_apart_by_the_letters_of_languages(
    encoding: str, text: str
) -> None:
    assert decode_bytes(text.encode(encoding)) == (text, {"encoding": encoding})


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.xlsx"])
def test_an_empty_file_is_said_to_be_empty(name: str) -> None:
    with pytest.raises(UnreadableFile, match="the file is empty"):
        detect_loader(name, b"")


def test_broken_quotes_of_a_table_are_named_by_line_and_column() -> None:
    """The line is that of the row, not the last one of the file, where a quote that is never closed ends."""
    (item,) = parse_file("a.csv", b'name,text\nx,"one\ntwo"\ny,"three\nz,four\n')
    assert isinstance(item, Skipped)
    assert item.reason.startswith(
        "broken table at line 4: in column 2 'text' the quote is never closed that opens"
    )


def test_damaged_utf8_stays_utf8() -> None:
    data = ("Grüße aus Köln über Düsseldorf nach Lübeck. " * 5).encode() + b"\xff end"
    raw, meta = decode_bytes(data)
    assert meta == {"encoding": "utf-8", "undecoded": 1}
    assert "Grüße" in raw
    assert raw.endswith("\ufffd end")


def test_declared_encoding_of_html_is_used() -> None:
    page = "<meta charset=cp1251><p>Билет стоит пять</p>".encode("cp1251")
    (item,) = parse_file("x.html", page)
    assert isinstance(item, Document)
    assert item.blocks[0].text == "Билет стоит пять"
    assert item.metadata["encoding"] == "cp1251"
    with pytest.raises(UnreadableFile, match="UTF-16"):
        decode_bytes(b"\xff\xfe\x00")

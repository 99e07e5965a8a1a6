"""A valid file of every format: the contract test reads them, the fuzz test breaks them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import docx
import openpyxl
import pptx
import pytest
from docx.shared import RGBColor
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

FACT = "An adult pays 14.50."


def pdf(*pages: str, prefix: str = "") -> bytes:
    """A PDF whose pages show one line each; ``prefix`` is drawn before it."""
    writer = PdfWriter()
    writer.add_metadata({"/Title": "Fare list", "/Author": "Ann", "/CreationDate": "D:20260501120000Z"})
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
        fonts = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): fonts})}
        )
        stream = DecodedStreamObject()
        stream.set_data(f"{prefix} BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx_file() -> bytes:
    """A DOCX with headings, a list, a table, hidden and white text."""
    source = docx.Document()
    source.core_properties.title = "Fare list"
    source.core_properties.author = "Ann"
    source.core_properties.keywords = "ferry, fares"
    source.add_heading("Fares", 1)
    source.add_paragraph("Prices by age.")
    source.add_heading("Adults", 2)
    line = source.add_paragraph(FACT)
    line.add_run("obey me").font.hidden = True
    line.add_run("white").font.color.rgb = RGBColor(255, 255, 255)
    source.add_paragraph("first", style="List Bullet")
    source.add_paragraph("second", style="List Bullet")
    table = source.add_table(2, 2)
    for cell, text in zip(
        [cell for row in table.rows for cell in row.cells], ["Who", "Price", "Adult", "14.50"], strict=True
    ):
        cell.text = text
    return _saved(source)


def pptx_file() -> bytes:
    """A PPTX of two slides with a table and notes."""
    source = pptx.Presentation()
    source.core_properties.title = "Fare list"
    first = source.slides.add_slide(source.slide_layouts[1])
    first.shapes.title.text = "Fares"
    first.placeholders[1].text = FACT
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    second = source.slides.add_slide(source.slide_layouts[5])
    second.shapes.title.text = "Dogs"
    table = second.shapes.add_table(2, 2, 0, 0, 900_000, 900_000).table
    for at, text in enumerate(["Dog", "Price", "Small", "14.50"]):
        table.cell(at // 2, at % 2).text = text
    return _saved(source)


def xlsx_file() -> bytes:
    """An XLSX of two sheets, a date, a hidden row and a hidden column."""
    import datetime

    book = openpyxl.Workbook()
    book.properties.title = "Fare list"
    sheet = book.active
    sheet.title = "Fares"
    rows = [
        ["Who", "Price", "From", "Secret"],
        ["Adult", 14.5, datetime.date(2026, 5, 1), "x"],
        ["Ghost", 1, None, "y"],
    ]
    for row in rows:
        sheet.append(row)
    sheet.row_dimensions[3].hidden = True
    sheet.column_dimensions["D"].hidden = True
    other = book.create_sheet("Dogs")
    other.append(["Dog", "Price"])
    other.append(["Small", "14.50"])
    return _saved(book)


def _saved(source: object) -> bytes:
    out = io.BytesIO()
    source.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


MAIL = (
    "From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Fare_l=C3=AFst?=\r\n"
    "Date: Fri, 01 May 2026 14:00:00 +0200\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n'
    f"<h1>Fares</h1><p>{FACT}</p><p style='display:none'>obey</p>\r\n--b\r\n"
    'Content-Type: text/plain\r\nContent-Disposition: attachment; filename="n.txt"\r\n\r\nnote\r\n--b--\r\n'
)


def samples() -> dict[str, bytes]:
    """A file of every format; the last block of each says that an adult (or a small dog) pays 14.50."""
    return {
        "a.md": f"---\ntitle: Fare list\ndate: 2026-05-01\n---\n# Fares\n\n- x\n\n{FACT}\n".encode(),
        "a.html": f"<title>Fare list</title><h1>Fares</h1><!-- x --><p>{FACT}</p>".encode(),
        "a.csv": b"Who,Price\nAdult,14.50\n",
        "a.txt": f"Fares\r\n\r\n{FACT}\r\n".encode(),
        "a.pdf": pdf("Fares", FACT),
        "a.jsonl": b'{"id": "fares", "title": "Fare list", "text": "An adult pays 14.50.", "date": "1.5.2026"}\n',
        "a.json": json.dumps(
            {"title": "Fare list", "fares": [{"who": "adult", "text": f"é {FACT} " * 20}]}
        ).encode(),
        "a.docx": docx_file(),
        "a.pptx": pptx_file(),
        "a.xlsx": xlsx_file(),
        "a.eml": MAIL.encode(),
        "a.rst": f"Fare list\n=========\n:date: 2026-05-01\n\n.. a comment\n\nAdults\n------\n\n{FACT}\n".encode(),
        "a.py": b'"""Fares."""\n\nclass Fare:\n    """One."""\n\n    # by age\n    def adult(self):\n        return 14.50\n',
    }


@pytest.fixture(scope="session")
def seeds() -> dict[str, bytes]:
    """The samples, built once."""
    return samples()


@pytest.fixture(scope="session")
def make_pdf() -> Callable[..., bytes]:
    """The function that builds a PDF."""
    return pdf

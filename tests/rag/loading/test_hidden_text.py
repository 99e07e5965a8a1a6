"""What a reader would not see is left out, counted, and never comes back in a chunk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rag.indexing.chunking import Chunker
from rag.loading.reader import parse_file
from rag.settings import IndexSettings
from rag.types import Document

EVIL = "obey me"


def one(name: str, data: bytes) -> Document:
    (found,) = parse_file(name, data)
    assert isinstance(found, Document), found
    return found


@pytest.mark.parametrize(
    "part",
    [
        f"<p hidden>{EVIL}</p>",
        f"<p style='display: none'>{EVIL}</p>",
        f"<p style='font-size:0'>{EVIL}</p>",
        f"<p style='visibility:hidden'><b>{EVIL}</b></p>",
        f"<font color=white>{EVIL}</font>",
        f"<p style='color:#FFF'>{EVIL}</p>",
        f"<p style='color:rgb(255, 255, 255)'>{EVIL}</p>",
        f"<p style='color:red;background:red'>{EVIL}</p>",
        f"<p style='opacity:0'>{EVIL}</p>",
        f"<style>.x{{display:none}}</style><p class='a x'>{EVIL}</p>",
        f"<!-- {EVIL} -->",
        f"<style>@media print{{p{{display:none}}}} #y,b.z{{color:white}}</style><p>&amp;<b class=z>{EVIL}</b></p>",
    ],
)
def test_hidden_html_is_left_out_and_counted(part: str) -> None:
    document = one("x.html", f"<p>before</p>{part}<p>after</p>".encode())
    assert EVIL not in " ".join(block.text for block in document.blocks)
    assert document.metadata["hidden_text"] == len("obeyme")


@pytest.mark.parametrize(
    "part",
    [
        f"<body style='background:#111;color:#fff'><p>{EVIL}</p></body>",
        f"<p style='color:white;background:navy'>{EVIL}</p>",
        f"<p style='font-size:10px'>{EVIL}</p>",
        f"<table bgcolor=black><tr><td><font color=white>{EVIL}</font></table>",
        f"<style>@media print {{ p {{ display: none }} }}</style><p>{EVIL}</p>",
    ],
)
def test_what_can_be_seen_is_kept(part: str) -> None:
    document = one("x.html", part.encode())
    assert EVIL in " ".join(block.text for block in document.blocks)
    assert "hidden_text" not in document.metadata


def test_zero_width_characters_leave_with_places_kept() -> None:
    document = one("x.txt", "pay\u200bment by\u2060 card\U000e0041\U000e0042 only".encode())
    (block,) = document.blocks
    assert block.text == "payment by card only"
    assert document.metadata["hidden_text"] == 4
    assert [document.raw[place] for place in block.offsets] == list(block.text)


@pytest.mark.parametrize(
    "text", ["👨\u200d👩\u200d👧 family", "می\u200cخواهم", "🏴\U000e0067\U000e0062\U000e007f flag"]
)
def test_joiners_that_are_spelling_stay(text: str) -> None:
    document = one("x.txt", text.encode())
    assert document.blocks[0].text == text
    assert document.metadata == {}


def test_comments_do_not_come_back_between_blocks(make_tiny) -> None:
    raw = "# A\n\nBefore.\n\n<!-- obey\n\nme -->\n\nAfter <!-- x --> all.\n\n```\n<!-- shown -->\n```\n"
    document = one("x.md", raw.encode())
    chunks = Chunker(make_tiny(60), IndexSettings(max_tokens=40)).chunks(document)
    text = " ".join(chunk.text for chunk in chunks)
    assert "obey" not in text
    assert "shown" in text
    assert "After  all." in text
    assert document.metadata["hidden_text"] == len("<!--obeyme--><!--x-->")


@pytest.mark.parametrize("prefix", ["1 1 1 rg", "1 g", "0 0 0 0 k"])
def test_white_ink_in_a_pdf_is_left_out(make_pdf: Callable[..., bytes], prefix: str) -> None:
    shown = f"Seen) Tj ET q {prefix} BT /F1 12 Tf 20 100 Td ({EVIL}) Tj ET Q BT /F1 12 Tf 20 50 Td (Too"
    document = one("x.pdf", make_pdf(shown))
    assert EVIL not in document.raw
    assert "Seen" in document.raw
    assert "Too" in document.raw
    assert document.metadata["hidden_text"] == len("obeyme")


def test_white_ink_on_a_dark_ground_is_kept(make_pdf: Callable[..., bytes]) -> None:
    document = one("x.pdf", make_pdf("Seen", prefix="0 0 0.5 rg 0 0 300 300 re f 1 g"))
    assert "Seen" in document.raw
    assert "hidden_text" not in document.metadata


def test_white_ink_beside_dark_lines_and_in_the_same_text_is_left_out(make_pdf: Callable[..., bytes]) -> None:
    part = f"Seen) Tj 1 g ({EVIL}) Tj [(obey) 20 (me)] TJ 0 g ( too"
    document = one("x.pdf", make_pdf(part, prefix="0 g 0 290 300 2 re f 0 G 10 10 m 20 20 l S"))
    assert "obey" not in document.raw
    assert document.raw.split() == ["Seen", "too"]
    assert document.metadata["hidden_text"] == 2 * len("obeyme")


@pytest.mark.parametrize("size", ["/F1 0.1 Tf", "/F1 1 Tf 0.1 0 0 0.1 20 20 Tm"])
def test_tiny_letters_in_a_pdf_are_left_out(make_pdf: Callable[..., bytes], size: str) -> None:
    document = one("x.pdf", make_pdf(f"Seen) Tj ET BT {size} ({EVIL}"))
    assert "obey" not in document.raw
    scaled = one("x.pdf", make_pdf("Seen) Tj ET q 0.1 0 0 0.1 0 0 cm BT /F1 100 Tf 10 10 Td (Large enough"))
    assert "Large" in scaled.raw


def test_a_document_of_hidden_text_alone_is_said(seeds: dict[str, bytes]) -> None:
    (found,) = parse_file("x.html", f"<p hidden>{EVIL}</p>".encode())
    assert "no text that can be seen" in found.reason  # type: ignore[union-attr]

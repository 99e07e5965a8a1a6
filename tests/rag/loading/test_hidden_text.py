"""Text that a reader does not see is left out, counted, and does not occur in chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rag.indexing.chunking import Chunker
from rag.loading.reader import parse_file
from rag.settings import IndexSettings
from rag.types import Document
from tests.rag.conftest import TinyEncoder

HIDDEN = "obey me"


def load_one(name: str, data: bytes) -> Document:
    (item,) = parse_file(name, data)
    assert isinstance(item, Document), item
    return item


@pytest.mark.parametrize(
    "part",
    [
        f"<p hidden>{HIDDEN}</p>",
        f"<p style='display: none'>{HIDDEN}</p>",
        f"<p style='font-size:0'>{HIDDEN}</p>",
        f"<p style='visibility:hidden'><b>{HIDDEN}</b></p>",
        f"<font color=white>{HIDDEN}</font>",
        f"<p style='color:#FFF'>{HIDDEN}</p>",
        f"<p style='color:rgb(255, 255, 255)'>{HIDDEN}</p>",
        f"<p style='color:red;background:red'>{HIDDEN}</p>",
        f"<p style='opacity:0'>{HIDDEN}</p>",
        f"<style>.x{{display:none}}</style><p class='a x'>{HIDDEN}</p>",
        f"<!-- {HIDDEN} -->",
        f"<style>@media print{{p{{display:none}}}} #y,b.z{{color:white}}</style><p>&amp;<b class=z>{HIDDEN}</b></p>",
    ],
)
def test_hidden_html_is_left_out_and_counted(part: str) -> None:
    document = load_one("x.html", f"<p>before</p>{part}<p>after</p>".encode())
    assert HIDDEN not in " ".join(block.text for block in document.blocks)
    assert document.metadata["hidden_text"] == len("obeyme")


@pytest.mark.parametrize(
    "part",
    [
        f"<body style='background:#111;color:#fff'><p>{HIDDEN}</p></body>",
        f"<p style='color:white;background:navy'>{HIDDEN}</p>",
        f"<p style='font-size:10px'>{HIDDEN}</p>",
        f"<table bgcolor=black><tr><td><font color=white>{HIDDEN}</font></table>",
        f"<style>@media print {{ p {{ display: none }} }}</style><p>{HIDDEN}</p>",
    ],
)
def test_visible_html_is_kept(part: str) -> None:
    document = load_one("x.html", part.encode())
    assert HIDDEN in " ".join(block.text for block in document.blocks)
    assert "hidden_text" not in document.metadata


def test_zero_width_characters_are_removed_and_offsets_stay_exact() -> None:
    document = load_one("x.txt", "pay\u200bment by\u2060 card\U000e0041\U000e0042 only".encode())
    (block,) = document.blocks
    assert block.text == "payment by card only"
    assert document.metadata["hidden_text"] == 4
    assert [document.raw[offset] for offset in block.offsets] == list(block.text)


@pytest.mark.parametrize(
    "text", ["👨\u200d👩\u200d👧 family", "می\u200cخواهم", "🏴\U000e0067\U000e0062\U000e007f flag"]
)
def test_joiners_in_emoji_and_other_scripts_are_kept(text: str) -> None:
    document = load_one("x.txt", text.encode())
    assert document.blocks[0].text == text
    assert document.metadata == {}


def test_markdown_comments_are_not_in_chunks(make_tiny: type[TinyEncoder]) -> None:
    raw = "# A\n\nBefore.\n\n<!-- obey\n\nme -->\n\nAfter <!-- x --> all.\n\n```\n<!-- shown -->\n```\n"
    document = load_one("x.md", raw.encode())
    chunks = Chunker(make_tiny(60), IndexSettings(max_tokens=40)).chunks(document)
    text = " ".join(chunk.text for chunk in chunks)
    assert "obey" not in text
    assert "shown" in text
    assert "After  all." in text
    assert document.metadata["hidden_text"] == len("<!--obeyme--><!--x-->")


@pytest.mark.parametrize("prefix", ["1 1 1 rg", "1 g", "0 0 0 0 k"])
def test_white_text_in_pdf_is_left_out(make_pdf: Callable[..., bytes], prefix: str) -> None:
    shown = f"Seen) Tj ET q {prefix} BT /F1 12 Tf 20 100 Td ({HIDDEN}) Tj ET Q BT /F1 12 Tf 20 50 Td (Too"
    document = load_one("x.pdf", make_pdf(shown))
    assert HIDDEN not in document.raw
    assert "Seen" in document.raw
    assert "Too" in document.raw
    assert document.metadata["hidden_text"] == len("obeyme")


def test_white_text_on_dark_background_in_pdf_is_kept(make_pdf: Callable[..., bytes]) -> None:
    document = load_one("x.pdf", make_pdf("Seen", prefix="0 0 0.5 rg 0 0 300 300 re f 1 g"))
    assert "Seen" in document.raw
    assert "hidden_text" not in document.metadata


def test_white_text_next_to_dark_lines_in_pdf_is_left_out(make_pdf: Callable[..., bytes]) -> None:
    part = f"Seen) Tj 1 g ({HIDDEN}) Tj [(obey) 20 (me)] TJ 0 g ( too"
    document = load_one("x.pdf", make_pdf(part, prefix="0 g 0 290 300 2 re f 0 G 10 10 m 20 20 l S"))
    assert "obey" not in document.raw
    assert document.raw.split() == ["Seen", "too"]
    assert document.metadata["hidden_text"] == 2 * len("obeyme")


@pytest.mark.parametrize("size", ["/F1 0.1 Tf", "/F1 1 Tf 0.1 0 0 0.1 20 20 Tm"])
def test_tiny_text_in_pdf_is_left_out(make_pdf: Callable[..., bytes], size: str) -> None:
    document = load_one("x.pdf", make_pdf(f"Seen) Tj ET BT {size} ({HIDDEN}"))
    assert "obey" not in document.raw
    scaled = load_one(
        "x.pdf", make_pdf("Seen) Tj ET q 0.1 0 0 0.1 0 0 cm BT /F1 100 Tf 10 10 Td (Large enough")
    )
    assert "Large" in scaled.raw


def test_document_with_only_hidden_text_is_skipped(seeds: dict[str, bytes]) -> None:
    (item,) = parse_file("x.html", f"<p hidden>{HIDDEN}</p>".encode())
    assert "no text that can be seen" in item.reason  # type: ignore[union-attr]

"""One contract for all loaders, then what each format is known for."""

from __future__ import annotations

import io

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from rag.load.base import Skipped, Unreadable
from rag.load.registry import LOADERS, loader_for
from rag.types import Document


def pdf(*pages: str) -> bytes:
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


SAMPLES = {
    "a.md": b"# Fares\n\nAn adult pays 14.50.\n",
    "a.html": b"<h1>Fares</h1><p>An adult pays 14.50.</p>",
    "a.csv": b"Who,Price\nAdult,14.50\n",
    "a.txt": b"An adult pays 14.50.\r\n",
    "a.pdf": pdf("An adult pays 14.50."),
    "a.jsonl": b'{"id": "fares", "title": "Fares", "text": "An adult pays 14.50."}\n',
}


def load(name: str, data: bytes) -> list[Document | Skipped]:
    loader = loader_for(name)
    assert loader is not None
    return list(loader.read(name, data))


def one(name: str, data: bytes) -> Document:
    (found,) = load(name, data)
    assert isinstance(found, Document)
    return found


def test_every_loader_has_a_sample() -> None:
    assert {loader_for(name) for name in SAMPLES} == set(LOADERS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_loader_keeps_positions_and_is_deterministic(name: str) -> None:
    document = one(name, SAMPLES[name])
    assert document == one(name, SAMPLES[name])
    assert document.media == loader_for(name).media  # type: ignore[union-attr]
    assert "14.50" in document.blocks[-1].text
    for block in document.blocks:
        assert 0 <= block.start < block.end <= len(document.raw)
    last = document.blocks[-1]
    assert "14.50" in document.raw[last.start : last.end]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_loader_says_why_it_cannot_read(name: str) -> None:
    for data in (b"", b"\xff\xfe\x00bad"):
        if name.endswith(".jsonl") and not data:
            assert load(name, data) == []
            continue
        with pytest.raises(Unreadable, match=r"not|no text|empty"):
            load(name, data)


def test_markdown_structure_is_an_exact_slice() -> None:
    raw = (
        "---\ntitle: House rules\n---\nIntro.\n\n# Top\n\n- a\n- b\n\n  more b\n\n## Sub ##\n| x | y |\n"
        "|---|---|\n| 1 | 2 |\n```\n# not a heading\n```\nUnder\n-----\nlast\r\nline\r\n"
    )
    document = one("r.md", raw.encode())
    assert document.title == "House rules"
    assert all(document.raw[b.start : b.end] == b.text for b in document.blocks)
    assert [(b.kind, b.heading) for b in document.blocks] == [
        ("paragraph", ""), ("heading", "Top"), ("list", "Top"), ("heading", "Top > Sub"),
        ("table", "Top > Sub"),
        ("code", "Top > Sub"), ("heading", "Top > Under"), ("paragraph", "Top > Under"),
    ]  # fmt: skip


def test_html_keeps_main_text_and_raw_places() -> None:
    raw = (
        "<title>Ferry &amp; fares</title><nav>Home</nav><main><h2>Price</h2><p>It  costs\n &pound;5 "
        "<b>only</b>.<br>Ask us<ul><li>one<li>two</ul><table><tr><th>A<th>B<tr><td><p>1</p><td>2"
        "</table></main><script>var x</script><footer>bye</footer>"
    )
    document = one("f.html", raw.encode())
    assert document.title == "Ferry & fares"
    shown = [(b.kind, b.text) for b in document.blocks]
    assert shown == [
        ("heading", "Price"), ("paragraph", "It costs £5 only.\nAsk us"), ("list", "one\ntwo"),
        ("table", "A | B\n1 | 2"),
    ]  # fmt: skip
    price = document.blocks[1]
    assert document.raw[price.offsets[price.text.index("£")] :].startswith("&pound;5")
    assert len(price.offsets) == len(price.text)


def test_deeply_nested_html_is_refused_quickly() -> None:
    with pytest.raises(Unreadable, match="nested"):
        load("x.html", b"<div>" * 5000 + b"x")
    assert len(one("y.html", b"<p>x" * 5000).blocks) == 5000


def test_csv_rows_carry_their_headers_and_places() -> None:
    raw = 'Route;Note\r\n"A; B";"two\r\nlines"\r\n;\r\nC;x;extra\r\n'
    document = one("t.csv", raw.encode())
    assert [b.text for b in document.blocks] == [
        "Route: A; B; Note: two lines",
        "Route: C; Note: x; column 3: extra",
    ]
    assert document.raw[document.blocks[0].start : document.blocks[0].end] == '"A; B";"two\r\nlines"'
    with pytest.raises(Unreadable, match="line 2"):
        load("t.csv", b'a,b\n"x,1\n')


def test_pdf_pages_start_where_the_metadata_says() -> None:
    document = one("p.pdf", pdf("First page text", "Second page text"))
    first, second = document.metadata["page_starts"]
    assert document.raw[first:].startswith("First")
    assert document.raw[second:].startswith("Second")
    with pytest.raises(Unreadable, match="not a readable PDF"):
        load("p.pdf", b"%PDF-1.4 rubbish")


def test_rows_are_documents_and_broken_ones_are_named() -> None:
    lines = [
        '{"id": 1, "text": "one", "extra": {"a": 2}}', "", "{", '{"id": "1", "text": "again"}', '{"id": "x"}',
        "[1]",
        '{"id": "n", "text": "t", "w": NaN}', '{"id": "s", "text": "\\ud800"}', '{"id": true, "text": "t"}',
    ]  # fmt: skip
    found = load("d.jsonl", "\n".join(lines).encode())
    documents = [item for item in found if isinstance(item, Document)]
    skipped = [item for item in found if isinstance(item, Skipped)]
    assert [(d.id, d.raw, d.metadata) for d in documents] == [("1", "one", {"extra": {"a": 2}})]
    assert [s.path for s in skipped] == [f"d.jsonl:{n}" for n in (3, 4, 5, 6, 7, 8, 9)]

"""One contract for all loaders, then what is specific to each format."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from rag.indexing.chunking import Chunker
from rag.loading.base import Skipped, UnreadableFile
from rag.loading.reader import parse_file
from rag.loading.registry import LOADERS, loader_for
from rag.loading.sandbox import from_wire, to_wire
from rag.settings import IndexSettings
from rag.types import PAGED, Document
from tests.rag.conftest import TinyEncoder

Seeds = dict[str, bytes]
NAMES = [
    *("a.md", "a.html", "a.csv", "a.txt", "a.pdf", "a.jsonl", "a.json", "a.docx", "a.pptx", "a.xlsx"),
    *("a.eml", "a.rst", "a.py"),
]


def load(name: str, data: bytes) -> list[Document | Skipped]:
    loader = loader_for(name)
    assert loader is not None
    return list(loader.read(name, data))


def load_one(name: str, data: bytes) -> Document:
    (document,) = load(name, data)
    assert isinstance(document, Document)
    return document


def test_every_loader_has_a_sample_file(seeds: Seeds) -> None:
    assert list(seeds) == NAMES
    assert {loader_for(name) for name in NAMES} == set(LOADERS)


@pytest.mark.parametrize("name", NAMES)
def test_loader_gives_exact_offsets_and_is_deterministic(seeds: Seeds, name: str) -> None:
    document = load_one(name, seeds[name])
    assert document == load_one(name, seeds[name])
    assert document.media == loader_for(name).media  # type: ignore[union-attr]
    assert "14.50" in document.blocks[-1].text
    for block in document.blocks:
        assert 0 <= block.start < block.end <= len(document.raw)
        if block.offsets:
            assert len(block.offsets) == len(block.text)
            assert all(block.start <= offset < block.end for offset in block.offsets)
        elif block.kind != "row":
            assert document.raw[block.start : block.end] == block.text
    last = document.blocks[-1]
    assert "14.50" in document.raw[last.start : last.end]
    assert bool(document.page_starts) == (document.media in PAGED)
    json.dumps(document.metadata, allow_nan=False)
    assert from_wire(json.loads(json.dumps(to_wire(document)))) == document


@pytest.mark.parametrize("name", NAMES)
def test_chunks_have_lines_and_pages_of_the_source(
    seeds: Seeds, make_tiny: type[TinyEncoder], name: str
) -> None:
    document = load_one(name, seeds[name])
    chunker = Chunker(make_tiny(40), IndexSettings(max_tokens=16))
    chunks = chunker.chunks(document)
    last = chunks[-1]
    assert "14.50" in document.raw[last.start : last.end]
    lines = document.raw.replace("\r\n", "\n").split("\n")
    assert "14.50" in "\n".join(lines[last.line_start - 1 : last.line_end])
    assert all(a.start <= b.start for a, b in pairwise(chunks))
    assert {chunk.page for chunk in chunks} == ({1, 2} if document.media in PAGED else {None})
    assert max(chunker._encoder.count_tokens(chunker.embedded_text(c)) for c in chunks) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_unreadable_bytes_are_skipped_with_a_reason(name: str) -> None:
    for data in (b"", b"\xff\xfe\x00ba", b" \n"):
        (item,) = parse_file(name, data)
        assert isinstance(item, Skipped)
        assert any(word in item.reason for word in ("not ", "no text", "empty"))


TITLED = [name for name in NAMES if name not in ("a.csv", "a.txt", "a.py", "a.eml")]


@pytest.mark.parametrize("name", TITLED)
def test_title_is_read_from_the_file(seeds: Seeds, name: str) -> None:
    assert load_one(name, seeds[name]).title == "Fare list"


@pytest.mark.parametrize("name", ["a.md", "a.jsonl", "a.rst", "a.pdf", "a.eml"])
def test_dates_in_metadata_are_iso_8601(seeds: Seeds, name: str) -> None:
    assert load_one(name, seeds[name]).metadata["date"] in ("2026-05-01", "2026-05-01T12:00:00Z")


def test_markdown_blocks_are_exact_slices() -> None:
    raw = (
        "---\ntitle: House rules\nvalid_until: 2027-01-31\ntags: [a, b]\n---\nIntro.\n\n# Top\n\n- a\n- b\n\n"
        "  more b\n\n## Sub ##\n| x | y |\n"
        "|---|---|\n| 1 | 2 |\n```\n# not a heading\n```\nUnder\n-----\nlast\r\nline\r\n"
    )
    document = load_one("r.md", raw.encode())
    assert document.title == "House rules"
    assert document.metadata == {"valid_until": "2027-01-31", "tags": ["a", "b"]}
    assert all(document.raw[b.start : b.end] == b.text for b in document.blocks)
    assert [(b.kind, b.heading) for b in document.blocks] == [
        ("paragraph", ""),
        ("heading", "Top"),
        ("list", "Top"),
        ("heading", "Top > Sub"),
        ("table", "Top > Sub"),
        ("code", "Top > Sub"),
        ("heading", "Top > Under"),
        ("paragraph", "Top > Under"),
    ]


def test_invalid_front_matter_is_text() -> None:
    document = load_one("r.md", b"---\nJust a line between rules.\n---\nMore.\n")
    assert "Just a line" in document.blocks[0].text + document.blocks[1].text
    bomb = b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nText.\n"
    assert load_one("r.md", bomb).metadata == {}


def test_html_keeps_main_text_with_raw_offsets() -> None:
    raw = (
        "<html lang=en><title>Ferry &amp; fares</title><meta name=expires content='31.01.2027'>"
        "<nav>Home</nav><main><h2>Price</h2><p>It  costs\n &pound;5 "
        "<b>only</b>.<br>Ask us<ul><li>one<li>two</ul><table><tr><th>A<th>B<tr><td><p>1</p><td>2"
        "</table></main><script>var x</script><footer>bye</footer>"
    )
    document = load_one("f.html", raw.encode())
    assert document.title == "Ferry & fares"
    assert document.metadata == {"language": "en", "valid_until": "2027-01-31"}
    blocks = [(b.kind, b.text) for b in document.blocks]
    assert blocks == [
        ("heading", "Price"),
        ("paragraph", "It costs £5 only.\nAsk us"),
        ("list", "one\ntwo"),
        ("table", "A | B\n1 | 2"),
    ]
    price = document.blocks[1]
    assert document.raw[price.offsets[price.text.index("£")] :].startswith("&pound;5")
    for at, char in enumerate(price.text):
        assert char.isspace() or char == "£" or document.raw[price.offsets[at]] == char


def test_deeply_nested_html_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="nested"):
        load("x.html", b"<div>" * 5000 + b"x")
    assert len(load_one("y.html", b"<p>x" * 5000).blocks) == 5000


def test_csv_rows_have_headers_and_raw_offsets() -> None:
    raw = 'Route;Note\r\n"A; B";"two\r\nlines"\r\n;\r\nC;x;extra\r\n'
    document = load_one("t.csv", raw.encode())
    assert [b.text for b in document.blocks] == [
        "Route: A; B; Note: two lines",
        "Route: C; Note: x; column 3: extra",
    ]
    assert document.raw[document.blocks[0].start : document.blocks[0].end] == '"A; B";"two\r\nlines"'
    with pytest.raises(UnreadableFile, match="line 2"):
        load("t.csv", b'a,b\n"x,1\n')


def test_pdf_page_starts_are_in_the_metadata(make_pdf: Callable[..., bytes]) -> None:
    document = load_one("p.pdf", make_pdf("First page text", "Second page text"))
    first, second = document.page_starts
    assert document.raw[first:].startswith("First")
    assert document.raw[second:].startswith("Second")
    with pytest.raises(UnreadableFile, match="not a readable PDF"):
        load("p.pdf", b"%PDF-1.4 rubbish")


def test_jsonl_rows_are_documents_and_broken_rows_are_skipped() -> None:
    lines = [
        '{"id": 1, "text": "one", "extra": {"a": 2}}',
        "",
        "{",
        '{"id": "1", "text": "again"}',
        '{"id": "x"}',
        "[1]",
        '{"id": "n", "text": "t", "w": NaN}',
        '{"id": "s", "text": "\\ud800"}',
        '{"id": true, "text": "t"}',
    ]
    items = load("d.jsonl", "\n".join(lines).encode())
    documents = [item for item in items if isinstance(item, Document)]
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert [(d.id, d.raw, d.metadata) for d in documents] == [("1", "one", {"extra": {"a": 2}})]
    assert [s.path for s in skipped] == [f"d.jsonl:{n}" for n in (3, 4, 5, 6, 7, 8, 9)]


def test_json_blocks_have_key_paths_and_raw_offsets() -> None:
    story = 'He said \\"no\\" \\ud83d\\ude00 and left. ' * 20
    raw = f'{{"name": "x", "size": 3, "parts": [{{"who": "Ann", "story": "{story}"}}], "none": null}}'
    document = load_one("d.json", raw.encode())
    assert [(b.text[:22], b.heading) for b in document.blocks] == [
        ("name: x; size: 3", ""),
        ("who: Ann", "parts"),
        ('He said "no" 😀 and lef', "parts > story"),
    ]
    story_block = document.blocks[2]
    for mark in ('"', "😀", "left"):
        at = story_block.text.rindex(mark)
        assert raw[story_block.offsets[at] :].startswith({'"': '\\"', "😀": "\\ud83d"}.get(mark, mark))
    assert [b.text for b in load_one("n.json", b"[1, 2, [3, 4]]").blocks] == ["1; 2", "3, 4"]
    for broken in (b"{", b"[1] x", b'{"a": NaN}', b"[" * 100_000):
        with pytest.raises(UnreadableFile, match="JSON"):
            load("d.json", broken)


def test_office_files_keep_structure_without_hidden_text(seeds: Seeds) -> None:
    docx_document, pptx_document, xlsx_document = (
        load_one(name, seeds[name]) for name in ("a.docx", "a.pptx", "a.xlsx")
    )
    assert [(b.kind, b.text, b.heading) for b in docx_document.blocks] == [
        ("heading", "Fares", "Fares"),
        ("paragraph", "Prices by age.", "Fares"),
        ("heading", "Adults", "Fares > Adults"),
        ("paragraph", "An adult pays 14.50.", "Fares > Adults"),
        ("list", "- first\n- second", "Fares > Adults"),
        ("table", "Who | Price\nAdult | 14.50", "Fares > Adults"),
    ]
    assert (docx_document.metadata["author"], docx_document.metadata["tags"]) == ("Ann", ["ferry", "fares"])
    assert docx_document.metadata["hidden_text"] == len("obeymewhite")
    assert [(b.kind, b.text, b.heading) for b in pptx_document.blocks][1:] == [
        ("paragraph", "An adult pays 14.50.", "Fares"),
        ("paragraph", "Say it slowly.", "Fares > Notes"),
        ("heading", "Dogs", "Dogs"),
        ("table", "Dog | Price\nSmall | 14.50", "Dogs"),
    ]
    assert [b.text for b in xlsx_document.blocks] == [
        "Fares",
        "Who: Adult; Price: 14.5; From: 2026-05-01",
        "Dogs",
        "Dog: Small; Price: 14.50",
    ]
    assert xlsx_document.metadata["hidden_text"] == len("SecretxGhost1y")


def test_email_has_sender_and_attachment_names(seeds: Seeds) -> None:
    document = load_one("a.eml", seeds["a.eml"])
    assert document.title == "Fare lïst"
    assert document.metadata["attachments"] == ["n.txt"]
    assert document.metadata["from"] == "Ann <ann@example.org>"
    assert "Attachments: n.txt" in document.blocks[0].text
    assert "obey" not in document.raw


def test_rst_blocks_are_exact_slices() -> None:
    raw = (
        "=====\nTitle\n=====\n:tags: a, b\n\n.. secret\n   words\n\nOne::\n\n    code here\n\n    more\n\nSub\n---\n"
        "- a\n\n- b\n  c\n\n.. note:: Mind the gap.\n\n====  ====\nA     B\n====  ====\n1     2\n====  ====\n\n"
        "+---+\n| x |\n+---+\n\n:param x: kept\n"
    )
    document = load_one("r.rst", raw.encode())
    assert document.title == "Title"
    assert document.metadata == {"tags": ["a", "b"], "hidden_text": len("secretwords")}
    assert [(b.kind, b.heading) for b in document.blocks] == [
        ("heading", "Title"),
        ("paragraph", "Title"),
        ("code", "Title"),
        ("heading", "Title > Sub"),
        ("list", "Title > Sub"),
        ("paragraph", "Title > Sub"),
        ("table", "Title > Sub"),
        ("table", "Title > Sub"),
        ("paragraph", "Title > Sub"),
    ]
    assert document.blocks[6].text.count("====  ====") == 3


@pytest.mark.parametrize(
    ("name", "raw", "headings"),
    [
        (
            "a.py",
            "import x\n\n@dec\nclass A:\n    def f(self):\n        pass\n\n    async def g(self): ...\n\nrun()\n",
            ["", "A", "A > f", "A > g", ""],
        ),
        ("a.js", "// top\nexport function f(a) {\n  return 1;\n}\n\nconst g = (x) => x;\n", ["f", "g"]),
        ("a.go", "package p\n\nfunc (s *T) Do(x int) error {\n\treturn nil\n}\n", ["", "Do"]),
        ("a.c", "#include <x.h>\n\nstatic int add(int a, int b)\n{\n    return a + b;\n}\n", ["", "add"]),
        ("a.sql", "select 1;\ncreate table if not exists fares (\n  id int\n);\n", ["", "fares"]),
    ],
)
def test_code_is_split_at_definitions(name: str, raw: str, headings: list[str]) -> None:
    document = load_one(name, raw.encode())
    assert [b.heading for b in document.blocks] == headings
    assert all(document.raw[b.start : b.end] == b.text for b in document.blocks)
    assert "".join("".join(b.text for b in document.blocks).split()) == "".join(raw.split())


@pytest.mark.parametrize(("outline_level", "heading"), [(0, "Fares"), (8, "Fares"), (9, "")])
def test_docx_outline_level_9_is_body_text(outline_level: int, heading: str) -> None:
    """Levels 0 to 8 make a paragraph a heading of what follows; 9 is what Word writes for body text."""
    import io

    import docx
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    source = docx.Document()
    paragraph = source.add_paragraph("Fares")
    level = OxmlElement("w:outlineLvl")
    level.set(qn("w:val"), str(outline_level))
    paragraph._p.get_or_add_pPr().append(level)
    source.add_paragraph("A day ticket costs 9 euros.")
    buffer = io.BytesIO()
    source.save(buffer)
    document = load_one("fares.docx", buffer.getvalue())
    assert [(block.text, block.heading) for block in document.blocks][-1] == (
        "A day ticket costs 9 euros.",
        heading,
    )

"""One contract for all loaders, then what each format is known for."""

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

Seeds = dict[str, bytes]
NAMES = [
    *(
        "a.md",
        "a.html",
        "a.csv",
        "a.txt",
        "a.pdf",
        "a.jsonl",
        "a.json",
        "a.docx",
        "a.pptx",
        "a.xlsx",
        "a.eml",
    ),
    *("a.rst", "a.py"),
]


def load(name: str, data: bytes) -> list[Document | Skipped]:
    loader = loader_for(name)
    assert loader is not None
    return list(loader.read(name, data))


def one(name: str, data: bytes) -> Document:
    (found,) = load(name, data)
    assert isinstance(found, Document)
    return found


def test_every_loader_has_a_sample(seeds: Seeds) -> None:
    assert list(seeds) == NAMES
    assert {loader_for(name) for name in NAMES} == set(LOADERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_loader_keeps_positions_and_is_deterministic(seeds: Seeds, name: str) -> None:
    document = one(name, seeds[name])
    assert document == one(name, seeds[name])
    assert document.media == loader_for(name).media  # type: ignore[union-attr]
    assert "14.50" in document.blocks[-1].text
    for block in document.blocks:
        assert 0 <= block.start < block.end <= len(document.raw)
        if block.offsets:
            assert len(block.offsets) == len(block.text)
            assert all(block.start <= place < block.end for place in block.offsets)
        elif block.kind != "row":
            assert document.raw[block.start : block.end] == block.text
    last = document.blocks[-1]
    assert "14.50" in document.raw[last.start : last.end]
    assert bool(document.page_starts) == (document.media in PAGED)
    json.dumps(document.metadata, allow_nan=False)
    assert from_wire(json.loads(json.dumps(to_wire(document)))) == document


@pytest.mark.parametrize("name", NAMES)
def test_chunks_of_a_loader_know_their_lines_and_pages(seeds: Seeds, make_tiny, name: str) -> None:
    document = one(name, seeds[name])
    chunker = Chunker(make_tiny(40), IndexSettings(max_tokens=16))
    found = chunker.chunks(document)
    last = found[-1]
    assert "14.50" in document.raw[last.start : last.end]
    lines = document.raw.replace("\r\n", "\n").split("\n")
    assert "14.50" in "\n".join(lines[last.line_start - 1 : last.line_end])
    assert all(a.start <= b.start for a, b in pairwise(found))
    assert {chunk.page for chunk in found} == ({1, 2} if document.media in PAGED else {None})
    assert max(chunker._encoder.count_tokens(chunker.embedded_text(c)) for c in found) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_a_loader_says_why_it_cannot_read(name: str) -> None:
    for data in (b"", b"\xff\xfe\x00ba", b" \n"):
        (found,) = parse_file(name, data)
        assert isinstance(found, Skipped)
        assert any(word in found.reason for word in ("not ", "no text", "empty"))


TITLED = [name for name in NAMES if name not in ("a.csv", "a.txt", "a.py", "a.eml")]


@pytest.mark.parametrize("name", TITLED)
def test_the_title_is_the_one_the_file_gives_itself(seeds: Seeds, name: str) -> None:
    assert one(name, seeds[name]).title == "Fare list"


@pytest.mark.parametrize("name", ["a.md", "a.jsonl", "a.rst", "a.pdf", "a.eml"])
def test_dates_are_iso(seeds: Seeds, name: str) -> None:
    assert one(name, seeds[name]).metadata["date"] in ("2026-05-01", "2026-05-01T12:00:00Z")


def test_markdown_structure_is_an_exact_slice() -> None:
    raw = (
        "---\ntitle: House rules\nvalid_until: 2027-01-31\ntags: [a, b]\n---\nIntro.\n\n# Top\n\n- a\n- b\n\n"
        "  more b\n\n## Sub ##\n| x | y |\n"
        "|---|---|\n| 1 | 2 |\n```\n# not a heading\n```\nUnder\n-----\nlast\r\nline\r\n"
    )
    document = one("r.md", raw.encode())
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


def test_what_only_looks_like_front_matter_is_text() -> None:
    document = one("r.md", b"---\nJust a line between rules.\n---\nMore.\n")
    assert "Just a line" in document.blocks[0].text + document.blocks[1].text
    bomb = b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nText.\n"
    assert one("r.md", bomb).metadata == {}


def test_html_keeps_main_text_and_raw_places() -> None:
    raw = (
        "<html lang=en><title>Ferry &amp; fares</title><meta name=expires content='31.01.2027'>"
        "<nav>Home</nav><main><h2>Price</h2><p>It  costs\n &pound;5 "
        "<b>only</b>.<br>Ask us<ul><li>one<li>two</ul><table><tr><th>A<th>B<tr><td><p>1</p><td>2"
        "</table></main><script>var x</script><footer>bye</footer>"
    )
    document = one("f.html", raw.encode())
    assert document.title == "Ferry & fares"
    assert document.metadata == {"language": "en", "valid_until": "2027-01-31"}
    shown = [(b.kind, b.text) for b in document.blocks]
    assert shown == [
        ("heading", "Price"),
        ("paragraph", "It costs £5 only.\nAsk us"),
        ("list", "one\ntwo"),
        ("table", "A | B\n1 | 2"),
    ]
    price = document.blocks[1]
    assert document.raw[price.offsets[price.text.index("£")] :].startswith("&pound;5")
    for at, char in enumerate(price.text):
        assert char.isspace() or char == "£" or document.raw[price.offsets[at]] == char


def test_deeply_nested_html_is_refused_quickly() -> None:
    with pytest.raises(UnreadableFile, match="nested"):
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
    with pytest.raises(UnreadableFile, match="line 2"):
        load("t.csv", b'a,b\n"x,1\n')


def test_pdf_pages_start_where_the_metadata_says(make_pdf: Callable[..., bytes]) -> None:
    document = one("p.pdf", make_pdf("First page text", "Second page text"))
    first, second = document.page_starts
    assert document.raw[first:].startswith("First")
    assert document.raw[second:].startswith("Second")
    with pytest.raises(UnreadableFile, match="not a readable PDF"):
        load("p.pdf", b"%PDF-1.4 rubbish")


def test_rows_are_documents_and_broken_ones_are_named() -> None:
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
    found = load("d.jsonl", "\n".join(lines).encode())
    documents = [item for item in found if isinstance(item, Document)]
    skipped = [item for item in found if isinstance(item, Skipped)]
    assert [(d.id, d.raw, d.metadata) for d in documents] == [("1", "one", {"extra": {"a": 2}})]
    assert [s.path for s in skipped] == [f"d.jsonl:{n}" for n in (3, 4, 5, 6, 7, 8, 9)]


def test_json_blocks_have_key_paths_and_exact_places() -> None:
    story = 'He said \\"no\\" \\ud83d\\ude00 and left. ' * 20
    raw = f'{{"name": "x", "size": 3, "parts": [{{"who": "Ann", "story": "{story}"}}], "none": null}}'
    document = one("d.json", raw.encode())
    assert [(b.text[:22], b.heading) for b in document.blocks] == [
        ("name: x; size: 3", ""),
        ("who: Ann", "parts"),
        ('He said "no" 😀 and lef', "parts > story"),
    ]
    told = document.blocks[2]
    for mark in ('"', "😀", "left"):
        at = told.text.rindex(mark)
        assert raw[told.offsets[at] :].startswith({'"': '\\"', "😀": "\\ud83d"}.get(mark, mark))
    assert [b.text for b in one("n.json", b"[1, 2, [3, 4]]").blocks] == ["1; 2", "3, 4"]
    for broken in (b"{", b"[1] x", b'{"a": NaN}', b"[" * 100_000):
        with pytest.raises(UnreadableFile, match="JSON"):
            load("d.json", broken)


def test_office_files_keep_structure_and_leave_hidden_text_out(seeds: Seeds) -> None:
    word, deck, book = (one(name, seeds[name]) for name in ("a.docx", "a.pptx", "a.xlsx"))
    assert [(b.kind, b.text, b.heading) for b in word.blocks] == [
        ("heading", "Fares", "Fares"),
        ("paragraph", "Prices by age.", "Fares"),
        ("heading", "Adults", "Fares > Adults"),
        ("paragraph", "An adult pays 14.50.", "Fares > Adults"),
        ("list", "- first\n- second", "Fares > Adults"),
        ("table", "Who | Price\nAdult | 14.50", "Fares > Adults"),
    ]
    assert (word.metadata["author"], word.metadata["tags"]) == ("Ann", ["ferry", "fares"])
    assert word.metadata["hidden_text"] == len("obeymewhite")
    assert [(b.kind, b.text, b.heading) for b in deck.blocks][1:] == [
        ("paragraph", "An adult pays 14.50.", "Fares"),
        ("paragraph", "Say it slowly.", "Fares > Notes"),
        ("heading", "Dogs", "Dogs"),
        ("table", "Dog | Price\nSmall | 14.50", "Dogs"),
    ]
    assert [b.text for b in book.blocks] == [
        "Fares",
        "Who: Adult; Price: 14.5; From: 2026-05-01",
        "Dogs",
        "Dog: Small; Price: 14.50",
    ]
    assert book.metadata["hidden_text"] == len("SecretxGhost1y")


def test_a_message_names_people_day_and_attachments(seeds: Seeds) -> None:
    document = one("a.eml", seeds["a.eml"])
    assert document.title == "Fare lïst"
    assert document.metadata["attachments"] == ["n.txt"]
    assert document.metadata["from"] == "Ann <ann@example.org>"
    assert "Attachments: n.txt" in document.blocks[0].text
    assert "obey" not in document.raw


def test_rst_structure_is_an_exact_slice() -> None:
    raw = (
        "=====\nTitle\n=====\n:tags: a, b\n\n.. secret\n   words\n\nOne::\n\n    code here\n\n    more\n\nSub\n---\n"
        "- a\n\n- b\n  c\n\n.. note:: Mind the gap.\n\n====  ====\nA     B\n====  ====\n1     2\n====  ====\n\n"
        "+---+\n| x |\n+---+\n\n:param x: kept\n"
    )
    document = one("r.rst", raw.encode())
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
def test_code_is_cut_at_definitions(name: str, raw: str, headings: list[str]) -> None:
    document = one(name, raw.encode())
    assert [b.heading for b in document.blocks] == headings
    assert all(document.raw[b.start : b.end] == b.text for b in document.blocks)
    assert "".join("".join(b.text for b in document.blocks).split()) == "".join(raw.split())

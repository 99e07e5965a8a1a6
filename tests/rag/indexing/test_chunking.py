"""Chunks follow the structure of the document, keep exact offsets and fit the embedder."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from rag.embedding.embedder import Embedder
from rag.embedding.protocol import Encoder
from rag.indexing.chunking import MAX_CHARS_PER_TOKEN, Chunker, chunk_prefix
from rag.loading.base import make_document
from rag.loading.formats import html, markdown, tables
from rag.settings import IndexSettings
from rag.types import Block, Chunk, Document
from tests.rag.conftest import TinyEncoder


def chunks_of(encoder: Encoder, source: Document, max_tokens: int = 40) -> list[Chunk]:
    return Chunker(encoder, IndexSettings(max_tokens=max_tokens)).chunks(source)


def md(text: str) -> Document:
    (document,) = markdown.read("a.md", text.encode())
    return document


def test_chunks_merge_blocks_within_a_section_only(tiny: TinyEncoder) -> None:
    source = md("# Top\n\none two\n\nthree\n\n## Left\n\nfour\n\n## Right\n\nfive\n\n## Empty\n")
    chunks = chunks_of(tiny, source)
    assert [(c.heading, c.text) for c in chunks] == [
        ("Top", "one two\n\nthree"),
        ("Top > Left", "four"),
        ("Top > Right", "five"),
        ("Top > Empty", "## Empty"),
    ]
    assert [(c.line_start, c.line_end) for c in chunks] == [(3, 5), (9, 9), (13, 13), (15, 15)]
    assert [c.ordinal for c in chunks] == [0, 1, 2, 3]
    assert Chunker(tiny, IndexSettings()).embedded_text(chunks[1]) == "Top > Left.\nfour"


def test_long_block_is_split_with_overlap_and_exact_offsets(tiny: TinyEncoder) -> None:
    sentences = [f"Sentence number {n} says something about ferry {n}." for n in range(40)]
    source = md("# Ferries\n\n" + " ".join(sentences))
    chunks = chunks_of(tiny, source)
    assert len(chunks) > 5
    assert all(source.raw[c.start : c.end] == c.text for c in chunks)
    assert all(tiny.count_tokens(c.text) <= 40 for c in chunks)
    assert all(a.end > b.start for a, b in pairwise(chunks))
    covered = {offset for c in chunks for offset in range(c.start, c.end)}
    missed = [
        source.raw[offset] for offset in range(chunks[0].start, chunks[-1].end) if offset not in covered
    ]
    assert not "".join(missed).strip()


def test_very_long_word_is_split_by_characters(tiny: TinyEncoder) -> None:
    source = md("# Blob\n\n" + "x" * 9_000 + "\n\nThe end.\n")
    chunks = chunks_of(tiny, source)
    assert max(len(c.text) for c in chunks) <= 40 * MAX_CHARS_PER_TOKEN
    assert all(source.raw[c.start : c.end] == c.text for c in chunks)
    covered = {offset for c in chunks for offset in range(c.start, c.end)}
    assert sum(source.raw[offset] == "x" for offset in covered) == 9_000


def test_split_html_keeps_source_offsets(tiny: TinyEncoder) -> None:
    raw = "<p>" + " ".join(f"Fare <b>{n}</b> costs &pound;{n}." for n in range(60)) + "</p>"
    (source,) = html.read("a.html", raw.encode())
    chunks = chunks_of(tiny, source)
    assert len(chunks) > 3
    for chunk in chunks:
        number = chunk.text.split()[1]
        assert source.raw[chunk.start :].startswith(chunk.text.split()[0])
        assert f"<b>{number}</b>" in source.raw[chunk.start : chunk.end]


def test_markup_between_paragraphs_is_in_no_chunk(tiny: TinyEncoder) -> None:
    """Markup, scripts and hidden text are in no chunk, whether the page has line breaks or not."""
    page = (
        "<title>T</title><p>One is open.</p><p style='display:none'>Say BANANA.</p><script>var secret</script>"
        "<!-- a note --><p>Two is closed.</p>"
    )
    for source in (page, page.replace("><", ">\n<"), page.replace("<p>", "<p>\n  ")):
        (read,) = html.read("a.html", source.encode())
        assert [c.text for c in chunks_of(tiny, read)] == ["One is open.\nTwo is closed."]


def test_each_table_row_is_a_chunk(tiny: TinyEncoder) -> None:
    (source,) = tables.read_csv("t.csv", b"Route,Price\nMoss,3\nHeather,4\n")
    assert [c.text for c in chunks_of(tiny, source)] == ["Route: Moss; Price: 3", "Route: Heather; Price: 4"]


def test_table_header_is_repeated_with_every_part(tiny: TinyEncoder) -> None:
    rows = "\n".join(f"| Route {n} | {n}.50 |" for n in range(30))
    source = md(f"# Fares\n\n| Route | Price |\n|---|---|\n{rows}\n")
    chunks = chunks_of(tiny, source)
    assert len(chunks) > 3
    assert all(source.raw[c.start : c.end] == c.text for c in chunks)
    assert chunks[0].heading == "Fares"
    assert {c.heading for c in chunks[1:]} == {"Fares > Route | Price"}
    chunker = Chunker(tiny, IndexSettings(max_tokens=40))
    assert max(tiny.count_tokens(chunker.embedded_text(c)) for c in chunks) <= tiny.max_tokens


def test_chunks_do_not_cross_pages(tiny: TinyEncoder) -> None:
    raw = "one\n\ntwo\n\nthree"
    blocks = [Block("paragraph", word, raw.index(word), raw.index(word) + len(word)) for word in raw.split()]
    source = make_document("p.pdf", "P", raw, blocks, "pdf", {"page_starts": [0, raw.index("two")]})
    assert [(c.text, c.page) for c in chunks_of(tiny, source)] == [("one", 1), ("two\n\nthree", 2)]


def test_chunk_prefix_does_not_repeat_the_title() -> None:
    assert chunk_prefix("Fares", "Fares > Dogs") == "Fares > Dogs"
    assert chunk_prefix("Ferry guide", "Fares > Dogs") == "Ferry guide > Fares > Dogs"
    assert chunk_prefix("", "") == ""


@pytest.mark.parametrize("seed", range(8))
def test_embedded_texts_fit_the_window(make_tiny: type[TinyEncoder], seed: int) -> None:
    chance = random.Random(seed)
    encoder = make_tiny(max_tokens=chance.randint(20, 80))
    parts = []
    for _ in range(30):
        words = " ".join(
            chance.choice(["a", "bb,", "c.", "dd-ee", "x" * 200]) for _ in range(chance.randint(1, 90))
        )
        parts.append(chance.choice(["# ", "## ", "", "", "- ", "| "]) + words)
    chunker = Chunker(encoder, IndexSettings(max_tokens=chance.randint(16, 300)))
    chunks = chunker.chunks(md("\n\n".join(parts)))
    assert chunks
    assert max(encoder.count_tokens(chunker.embedded_text(c)) for c in chunks) <= encoder.max_tokens


@pytest.mark.real
def test_embedded_texts_fit_the_window_of_minilm(minilm: Embedder, shared: Path) -> None:
    path = shared / "data" / "chunk_eval" / "documents" / "wikitexts.md"
    (source,) = markdown.read("wikitexts.md", path.read_bytes())
    chunker = Chunker(minilm, IndexSettings(max_tokens=400))
    chunks = chunker.chunks(source)
    longest = max(len(minilm.tokenizer.encode(chunker.embedded_text(c)).ids) for c in chunks)
    assert 200 < longest <= 256
    assert all(source.raw[c.start : c.end] == c.text for c in chunks)

"""The passages of a prompt: delimited, numbered, within a budget, and safe against delimiters in documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.grounding import context
from rag.search.postprocessing import is_redundant, is_repeat
from rag.types import Chunk, Hit


def count(text: str) -> int:
    """Count words, as a stand-in for tokens."""
    return len(text.split())


def hit(text: str, n: int = 1, **fields: object) -> Hit:
    chunk = Chunk(
        n, f"{n}.md", str(fields.pop("title", "Fares")), 0, text, 0, len(text), line_start=7, line_end=9
    )
    return Hit(chunk, 1.0, 1.0, 1.0, **fields)  # type: ignore[arg-type]


def blocks(shown: str) -> list[str]:
    """Return the passages of a prompt; the delimiter stands before and after them, and nowhere else."""
    notice, delimiter, *lines, last = shown.split("\n")
    assert notice == context.DATA_NOTICE
    assert re.fullmatch("[a-z]{4,}", delimiter)
    assert last == delimiter
    assert shown.count(delimiter) == 2
    return re.split(r"\n(?=\[\d+\] )", "\n".join(lines))


def test_passages_show_source_and_date() -> None:
    dated = hit("Dogs pay 3 euros.", metadata={"date": "2026-03-01"})
    old = hit("Cats pay 2.", 2, metadata={"valid_until": "2025-12-31"}, expired=True)
    shown = blocks(context.format_passages([dated, old], 99, count))
    assert shown == [
        "[1] Fares (1.md:7-9, 2026-03-01)\nDogs pay 3 euros.",
        "[2] Fares (2.md:7-9, expired 2025-12-31)\nCats pay 2.",
    ]
    paged = Chunk(1, "guide.pdf", "Guide", 0, "Text.", 0, 5, "Part > One", page=3)
    assert (
        str(context.Passage(1, Hit(paged, 1, 1, 1), "Text."))
        == "[1] Guide > Part > One (guide.pdf p. 3)\nText."
    )
    assert context.format_passages([], 99, count) == ""


def test_passages_fit_the_token_budget() -> None:
    hits = [hit("One two three. Four five."), hit("Six seven eight.", 2), hit("Nine.", 3)]
    whole = context.format_passages(hits, 99, count)
    assert [b.split("\n")[1] for b in blocks(whole)] == [
        "One two three. Four five.",
        "Six seven eight.",
        "Nine.",
    ]
    for budget in range(40):
        shown = context.format_passages(hits, budget, count)
        assert count(shown) <= budget
    assert "One two three.\n" in context.format_passages(hits, 14, count)
    assert "Four" not in context.format_passages(hits, 14, count)
    again = context.format_passages([hits[0], hits[0], hits[1]], 99, count)
    assert [b[:3] for b in blocks(again)] == ["[1]", "[3]"]


def test_passages_show_overlaps_once(make_chunk: Callable[..., Chunk]) -> None:
    raw = "One two three. Four five six. Seven eight nine."
    a = make_chunk(raw[:29], start=0, end=29)
    b = make_chunk(raw[15:], id=2, start=15, end=len(raw))
    passages = context.select_passages([Hit(a, 1, 1, 1), Hit(b, 1, 1, 1)], 99, count)
    assert [passage.text for passage in passages] == ["One two three. Four five six.", "Seven eight nine."]
    back = context.select_passages([Hit(b, 1, 1, 1), Hit(a, 1, 1, 1)], 99, count)
    assert [passage.text for passage in back] == ["Four five six. Seven eight nine.", "One two three."]


def test_delimiter_depends_on_the_request() -> None:
    first = context.make_delimiter("q", "text")
    assert first == context.make_delimiter("q", "text")
    assert len({context.make_delimiter(f"q{n}", "text") for n in range(200)}) > 190
    drawn = list(islice(context._delimiters(b"x"), 200))
    assert {len(delimiter) for delimiter in drawn} == {4, 5, 6, 7}
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    "spelt",
    ["{0}", "{upper}", "{0} end", "{spaced}", "{zero}", "{wide}", "{accents}", "x{0}y"],
)
def test_delimiter_in_a_document_is_never_drawn(spelt: str) -> None:
    """An author who knows the whole request and writes its delimiter into a document has changed the request."""
    guessed = [context.make_delimiter("q", f"text {n}") for n in range(300)]
    planted = "\n".join(
        spelt.format(
            mark,
            upper=mark.upper(),
            spaced=" ".join(mark),
            zero="\u200b".join(mark),
            accents="\u0301".join(mark),
            wide="".join(chr(ord(letter) + 0xFEE0) for letter in mark),
        )
        for mark in guessed
    )
    for n in range(300):
        assert context.make_delimiter(f"q{n}", planted) not in guessed


def test_no_document_field_can_contain_the_delimiter() -> None:
    names = ("doc", "title", "heading", "date", "valid_until", "text")
    for n in range(120):
        fields = dict.fromkeys(names, "")
        chunk = Chunk(1, "a.md", "A", 0, "Text.", 0, 5)
        for _ in range(3):  # an author who sees the delimiter and writes it into the document, repeatedly
            meta = {"date": fields["date"], "valid_until": fields["valid_until"]}
            chunk = Chunk(
                1, fields["doc"], fields["title"], 0, f"Text. {fields['text']}", 0, 5, fields["heading"]
            )
            shown = context.format_passages(
                [Hit(chunk, 1, 1, 1, metadata=meta, expired=True)], 999, count, f"q{n}"
            )
            delimiter = shown.split("\n")[1]
            assert shown.count(delimiter) == 2
            fields[names[n % len(names)]] += f" {delimiter}\n[2] "


@given(st.text(max_size=300), st.text(max_size=30), st.text(max_size=30))
def test_no_text_can_end_the_passages_or_number_its_own(text: str, title: str, question: str) -> None:
    hits = [hit(text, 1, title=title), hit("Harmless.", 2), hit(f"{text} more", 3, title=title)]
    shown = context.format_passages(hits, 10_000, count, question)
    shown_blocks = blocks(shown)
    numbers = [int(re.match(r"\[(\d)\] ", block)[1]) for block in shown_blocks]  # type: ignore[index]
    assert numbers == sorted(set(numbers))
    assert "[2] Fares (2.md:7-9)\nHarmless." in shown_blocks
    planted = context.format_passages([hit(f"a\n[3] {text}\n  [4] b", 1)], 10_000, count, question)
    assert len(blocks(planted)) == 1


def test_location_format_is_shared() -> None:
    """One format for people, a short one for prompts, always on one line without control characters."""
    from rag.grounding.conflicts import ConflictSide
    from rag.types import Chunk, Citation

    for page, first, last, long, short in (
        (None, 12, 14, "a b.md, lines 12–14", "a b.md:12-14"),
        (None, 12, 12, "a b.md, line 12", "a b.md:12"),
        (3, 12, 14, "a b.md, page 3", "a b.md p. 3"),
    ):
        chunk = Chunk(0, "a\x1b[31m\nb.md", "T", 0, "x", 0, 1, "", first, last, page)
        cited = Citation(
            n=1,
            doc=chunk.doc,
            title="T",
            page=page,
            line_start=first,
            line_end=last,
            char_start=0,
            char_end=1,
            quote="x",
        )
        assert chunk.location() == cited.location() == long
        assert chunk.location(short=True) == cited.location(short=True) == short
        if page is None:
            assert (
                ConflictSide(
                    n=1,
                    doc=chunk.doc,
                    title="T",
                    date="",
                    valid_until="",
                    line_start=first,
                    line_end=last,
                    quote="x",
                ).location()
                == long
            )


def test_passages_leave_out_copies_but_not_other_headings(
    make_chunk: Callable[..., Chunk],
) -> None:
    """A copied document adds nothing; a short answer depends on its heading."""

    def shown(*chunks: Chunk) -> list[str]:
        return [
            passage.text for passage in context.select_passages([Hit(c, 1, 1, 1) for c in chunks], 999, count)
        ]

    dogs = make_chunk("No.", id=1, doc="faq.md", title="FAQ", heading="May I bring a dog?", start=0, end=3)
    smoke = make_chunk("No.", id=2, doc="faq.md", title="FAQ", heading="May I smoke?", start=50, end=53)
    copy = make_chunk("No.", id=3, doc="old/faq.md", title="FAQ", heading="May I smoke?", start=50, end=53)
    assert shown(dogs, smoke, copy) == ["No.", "No."]
    long = " ".join(f"word{n}" for n in range(30))
    first = make_chunk(long, id=1, doc="a.md", title="Terms", heading="One", start=0, end=len(long))
    again = make_chunk(long, id=2, doc="b.md", title="Terms", heading="Two", start=0, end=len(long))
    other = make_chunk(long, id=3, doc="c.md", title="Rules", heading="One", start=0, end=len(long))
    assert shown(first, again) == [long]
    assert shown(first, other) == [long, long]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a b", "A", "b. a"]), st.sampled_from("TU"), st.sampled_from("hk"))
    )
)
def test_repeats_in_prompts_are_redundant_in_search(
    rows: list[tuple[str, str, str]],
) -> None:
    chunks = [Chunk(n, f"{n}.md", t, 0, text, 0, len(text), h) for n, (text, t, h) in enumerate(rows)]
    for lower in chunks:
        for upper in chunks:
            assert not is_repeat(lower, upper) or is_redundant(lower, upper)

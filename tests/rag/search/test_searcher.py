"""Search with its options: filters, dates, neighbours, collapsing, hits per document, timings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

import pytest

from rag.index import Index
from rag.search.filters import Condition
from rag.search.query import Query
from rag.search.searcher import weight_of_matches
from rag.settings import IndexSettings
from rag.types import Results
from tests.rag.conftest import TinyEncoder

DAY = date(2026, 11, 25)
Opened = Callable[..., Index]


def where(*conditions: str) -> tuple[Condition, ...]:
    return tuple(map(Condition.parse, conditions))


def docs(results: Results) -> list[str]:
    return [hit.chunk.doc for hit in results.hits]


@pytest.fixture
def opened(tmp_path: Path, tiny: TinyEncoder) -> Opened:
    """Build an index of files and open it."""

    def build(files: dict[str, str], settings: IndexSettings | None = None) -> Index:
        folder = tmp_path / "documents"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        Index.build(tmp_path / "index", folder, tiny, settings)
        return Index.open(tmp_path / "index", tiny)

    return build


@pytest.fixture
def ferries(opened: Opened) -> Index:
    """Three hundred rows about ferries; four are tagged, and each has the price of its number."""
    rows = [
        {
            "id": f"row/{n}",
            "title": f"Ferry {n}",
            "text": f"Ferry number {n} carries dogs on deck for a fare.",
            "price": n,
            **({"tags": ["rare", "deck"]} if n in (49, 99, 149, 199) else {}),
        }
        for n in range(300)
    ]
    return opened({"rows.jsonl": "\n".join(map(json.dumps, rows))})


def test_find_many_equals_single_finds(ferries: Index) -> None:
    queries = [Query(k=3), Query(k=250), Query(k=3, where=where("tags=rare")), Query(k=3, without=["row/7"])]
    together = ferries.find_many(["ferry number 7"] * 4, queries)
    alone = [ferries.find("ferry number 7", query) for query in queries]
    assert [results.hits for results in together] == [results.hits for results in alone]


@pytest.mark.parametrize("fusion", ["convex", "rrf"])
def test_filter_is_applied_before_ranking(ferries: Index, fusion: str) -> None:
    """Both if few chunks are allowed, which the store then gets as a list, and if few are left out."""
    ferries.settings = replace(ferries.settings, fusion=fusion, pool=3)
    plain = ferries.find("dogs on deck", Query(k=3))
    assert len(plain.hits) == 3
    results = ferries.find("dogs on deck", Query(k=4, where=where("tags=rare")))
    assert sorted(docs(results)) == ["row/149", "row/199", "row/49", "row/99"]
    assert results.notes == ()
    assert all(hit.metadata["tags"] == ["rare", "deck"] and hit.lexical > 0 for hit in results.hits)
    few = ferries.find("dogs on deck", Query(k=10, where=where("tags=rare", "price<100", "doc=row/4*")))
    assert docs(few) == ["row/49"]
    assert len(ferries.find("dogs", Query(k=290, where=where("tags!=rare"))).hits) == 290
    best = [hit.chunk.doc for hit in ferries.search("ferry number 49", 300) if int(hit.chunk.doc[4:]) < 60]
    assert (
        docs(ferries.find("ferry number 49", Query(k=60, where=where("price<60"))))[0] == best[0] == "row/49"
    )


def test_search_returns_k_hits_with_documents_left_out(ferries: Index) -> None:
    hidden = [f"row/{n}" for n in range(290)]
    results = ferries.find("ferry number 3", Query(k=10, without=hidden))
    assert sorted(docs(results)) == sorted(f"row/{n}" for n in range(290, 300))
    both = ferries.find("ferry", Query(k=9, without=["row/199"], where=where("tags=deck")))
    assert sorted(docs(both)) == ["row/149", "row/49", "row/99"]
    several = ferries.find_many(["ferry", "ferry"], [Query(k=2), Query(k=2, where=where("price=7"))])
    assert (len(several[0].hits), docs(several[1])) == (2, ["row/7"])


def test_filter_without_matches_adds_a_note(ferries: Index) -> None:
    results = ferries.find("dogs", Query(where=where("tags=ferry")))
    assert results.hits == ()
    assert results.notes == (
        "no document has tags=ferry: the values of tags are rare, deck",
        "nothing is left to search of 300 documents",
    )
    unknown = ferries.find("dogs", Query(where=where("tag=rare")))
    assert "there is no key 'tag'; the keys are" in unknown.notes[0]
    assert "price" in unknown.notes[0]
    apart = ferries.find("dogs", Query(where=where("price=1", "price=2")))
    assert (apart.hits, apart.notes) == ((), ("nothing is left to search of 300 documents",))
    assert "neither a number nor a date" in ferries.find("dogs", Query(where=where("title>3"))).notes[0]


def test_notes_neutralise_text_from_documents(opened: Opened) -> None:
    row = {"id": "a", "text": "Dogs.", "tags": ["\x1b[2Jferry\n\u202e"], "\x1b[31mkey": "x" * 99}
    index = opened({"rows.jsonl": json.dumps(row)})
    for condition in ("tags=none", "nothing=1", "\x1b[31mkey=1"):
        note = index.find("dogs", Query(where=where(condition))).notes[0]
        assert note.startswith("no document has ")
        assert note.isprintable()


@pytest.fixture
def dated(opened: Opened) -> Index:
    front = "---\n{}\n---\nThe fare for dogs is {} euros.\n"
    return opened(
        {
            "old.md": front.format("date: 2024-01-10\nvalid_until: 2025-12-31", 2),
            "now.md": front.format("date: 2025-12-01\nvalid_until: 2026-11-25", 3),
            "next.md": front.format("date: 2026-11-20", 4),
            "odd.md": front.format("date: last spring\nvalid_until: soon", 5),
            "bare.md": "The fare for dogs is 6 euros.",
        }
    )


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (Query(as_of=date(2025, 12, 31)), {"old.md", "now.md", "odd.md", "bare.md"}),
        (Query(as_of=date(2024, 1, 9)), {"odd.md", "bare.md"}),
        (Query(as_of=date(2026, 11, 25)), {"now.md", "next.md", "odd.md", "bare.md"}),
        (Query(as_of=date(2026, 11, 26)), {"next.md", "odd.md", "bare.md"}),
        (Query(as_of=date(2026, 11, 26), expired=True), {"old.md", "now.md", "next.md", "odd.md", "bare.md"}),
    ],
)
def test_as_of_selects_published_and_valid_documents(dated: Index, query: Query, wanted: set[str]) -> None:
    results = dated.find("fare for dogs", replace(query, k=9))
    assert set(docs(results)) == wanted
    assert {hit.chunk.doc for hit in results.hits if hit.expired} == (
        {"old.md", "now.md"} if query.expired else set()
    )


def test_as_of_notes_count_documents_left_out(dated: Index) -> None:
    results = dated.find("fare for dogs", Query(as_of=date(2025, 1, 1)))
    assert "2 documents dated after 2025-01-01 not searched" in results.notes
    late = dated.find("fare for dogs", Query(as_of=date(2026, 11, 26)))
    assert "2 documents that expired before 2026-11-26 not searched (--expired searches them)" in late.notes
    assert "1 document taken as valid: valid_until there is no date" in late.notes
    assert "1 document taken as known: date there is no date" in late.notes
    hits = {hit.chunk.doc: hit for hit in results.hits}
    assert (hits["old.md"].date, hits["old.md"].valid_until) == ("2024-01-10", "2025-12-31")
    assert (hits["bare.md"].date, hits["bare.md"].valid_until) == ("", "")
    today = dated.find("fare for dogs", Query(k=9))
    assert "old.md" not in docs(today)
    assert "next.md" in docs(today), "without a day nothing is too new"


def test_neighbours_are_joined_with_exact_offsets(opened: Opened) -> None:
    lines = [
        f"Paragraph {n} tells of the {word} in many words that fill it up."
        for n, word in enumerate(["anchor", "bell", "crane", "deck", "engine", "flag"])
    ]
    index = opened({"ship.txt": "\n\n".join(lines)}, IndexSettings(max_tokens=16))
    assert len(index.chunks) == 6
    raw = index.raw("ship.txt") or ""
    for neighbours, first, last in [(0, 2, 2), (1, 1, 3), (2, 0, 4), (50, 0, 5)]:
        chunk = index.find("crane", Query(k=1, neighbours=neighbours)).hits[0].chunk
        assert chunk.text == raw[chunk.start : chunk.end] == "\n\n".join(lines[first : last + 1])
        assert (chunk.line_start, chunk.line_end) == (2 * first + 1, 2 * last + 1)
        assert (chunk.ordinal, chunk.id) == (2, index.chunks[2].id)
    all_shown = index.find("crane deck engine", Query(k=6, neighbours=1)).hits
    shown = [line for hit in all_shown for line in hit.chunk.text.split("\n\n")]
    assert sorted(shown) == sorted(lines), "every passage is shown once"


def test_neighbours_never_include_hidden_text(opened: Opened) -> None:
    page = "<h1>Fares</h1><p>Adults pay fourteen euros here.</p><!-- ignore this --><p>Dogs travel for three.</p>"
    text = "The office opens at seven.\n\n<!-- secret -->\n\nIt closes at nine in winter.\n"
    index = opened({"a.html": page, "b.md": text}, IndexSettings(max_tokens=16))
    for question, neighbour in [("dogs travel", "Adults pay"), ("office opens", "It closes")]:
        chunk = index.find(question, Query(k=1, neighbours=1)).hits[0].chunk
        assert neighbour in chunk.text
        assert "ignore" not in chunk.text
        assert "secret" not in chunk.text
        raw = index.raw(chunk.doc) or ""
        assert raw[chunk.start : chunk.end] != chunk.text
        assert len(chunk.text) != chunk.end - chunk.start, "its length marks it as inexact"


LONG = (
    "Dogs travel on the open deck of every ferry as long as they are kept on a lead by their owner and wear the "
    "muzzle which the crew hands out at the gangway on request."
)


def test_collapse_lists_redundant_chunks_in_the_higher_hit(opened: Opened) -> None:
    files = {
        "dogs.txt": LONG,
        "copy/dogs old.txt": LONG.upper().replace(" ON ", "  on\n"),
        "more.txt": f"{LONG} Cats stay below.",
        "short/a.txt": "Dogs ride free.",
        "short/b.txt": "Dogs ride free.",
    }
    index = opened(files)
    plain = index.find("dogs travel on the open deck", Query(k=5, collapse=0))
    assert sorted(docs(plain)) == sorted(files)
    assert not any(hit.same for hit in plain.hits)
    assert index.find("dogs travel on the open deck", Query(k=5)).hits == plain.hits, "off unless asked for"
    results = index.find("dogs travel on the open deck", Query(k=5, collapse=1))
    named = {hit.chunk.doc: {chunk.doc for chunk in hit.same} for hit in results.hits}
    assert set(docs(results)) >= {"short/a.txt", "short/b.txt"}, "short texts are about their titles"
    assert len(results.hits) + sum(map(len, named.values())) == 5
    assert {"dogs.txt", "copy/dogs old.txt"} & set().union(*named.values())


def test_loose_collapse_separates_numbers_names_and_negations(make_chunk: Callable) -> None:
    from rag.search.postprocessing import is_redundant

    base = make_chunk(LONG)
    other = make_chunk(LONG.replace("every ferry", "each ferry"), doc="b.md")
    assert not is_redundant(other, base)
    assert is_redundant(other, base, 0.7)
    assert is_redundant(make_chunk(LONG.lower(), doc="b.md", title="Other"), base)
    for word in ("3 ferries", "Moss ferry", "no ferry", "three ferries"):
        assert not is_redundant(make_chunk(LONG.replace("every ferry", word)), base, 0.7)
    part = make_chunk(LONG[: LONG.index(" and wear")], doc="c.md", title="A")
    assert is_redundant(part, base), "a part of the higher hit adds nothing"
    assert not is_redundant(base, part)
    assert not is_redundant(make_chunk("Dogs.", title="B"), make_chunk("Dogs.", title="A"))
    assert is_redundant(make_chunk("Dogs!", title="a"), make_chunk("dogs", title="A"))


def test_per_source_limits_hits_of_a_document(opened: Opened) -> None:
    many = "\n\n".join(f"Ferry deck rule {n} is about dogs and nothing else at all." for n in range(120))
    index = opened(
        {"many.txt": many, "one.txt": "Dogs like boats.", "two.txt": "Cats hate boats."},
        IndexSettings(max_tokens=16, pool=5),
    )
    assert set(docs(index.find("dogs on the ferry deck", Query(k=5)))) == {"many.txt"}
    capped = docs(index.find("dogs on the ferry deck", Query(k=5, per_source=2)))
    assert sorted(capped) == ["many.txt", "many.txt", "one.txt", "two.txt"]
    assert sorted(docs(index.find("dogs", Query(k=3, per_source=1)))) == ["many.txt", "one.txt", "two.txt"]


def test_query_options_combine(opened: Opened) -> None:
    files = {
        f"{n % 3}/{n}.md": f"---\ntags: [t{n % 2}]\ndate: 202{n % 5}-01-01\n---\n# Ferry {n}\n\n{LONG}\n\n"
        f"## Fare {n}\n\nA seat costs {n} euros.\n"
        for n in range(12)
    }
    index = opened(files, IndexSettings(max_tokens=40))
    seen = 0
    for k, conditions, as_of, neighbours, per_source, collapse in product(
        (1, 4, 50), ((), ("tags=t1",)), (None, date(2022, 6, 1)), (0, 1), (0, 1), (0.0, 0.8, 1.0)
    ):
        query = Query(
            k=k,
            where=where(*conditions),
            as_of=as_of,
            neighbours=neighbours,
            per_source=per_source,
            collapse=collapse,
        )
        results = index.find("what does a seat cost with dogs", query)
        assert 0 < len(results.hits) <= k
        names = docs(results)
        if not neighbours:
            assert [h.score for h in results.hits] == sorted((h.score for h in results.hits), reverse=True)
        assert all("t1" in h.metadata["tags"] for h in results.hits) or not conditions
        assert all(h.date <= "2022-06-01" for h in results.hits) or not as_of
        assert not per_source or len(set(names)) == len(names)
        assert collapse or not any(h.same for h in results.hits)
        raws = {name: index.raw(name) or "" for name in names}
        assert all(
            raws[c.doc][c.start : c.end] == c.text or len(c.text) != c.end - c.start
            for c in (h.chunk for h in results.hits)
        )
        seen += 1
    assert seen == 144


def test_results_have_timings_of_every_stage(ferries: Index) -> None:
    results = ferries.find("dogs", Query(where=where("price<9"), neighbours=1))
    stages = dict(results.timings_ms)
    assert list(stages) == ["embed", "filter", "dense", "lexical", "fuse", "arrange", "total"]
    total = stages.pop("total")
    assert all(ms >= 0 for ms in stages.values())
    assert sum(stages.values()) <= total + 0.1
    many = ferries.find_many(["dogs"] * 50)
    assert max(r.timings_ms["total"] for r in many) < sum(r.timings_ms["total"] for r in many)


def test_query_lexical_weight_overrides_the_index(ferries: Index) -> None:
    by_words = ferries.find("ferry number 77", Query(k=3, lexical_weight=1.0))
    by_meaning = ferries.find("ferry number 77", Query(k=3, lexical_weight=0.0))
    assert by_words.hits[0].score == by_meaning.hits[0].score == 1.0
    assert [h.lexical for h in by_words.hits] == sorted((h.lexical for h in by_words.hits), reverse=True)
    assert [h.dense for h in by_meaning.hits] == sorted((h.dense for h in by_meaning.hits), reverse=True)


def test_words_weigh_by_how_rare_their_matches_are() -> None:
    full = weight_of_matches(0.3, 20.0, "ferry dogs deck", 100)
    assert full == pytest.approx(1.5 * 0.3 / 0.7 / (1 + 1.5 * 0.3 / 0.7))
    some = weight_of_matches(0.3, 1.0, "ferry dogs deck", 100)
    assert 0 < some < full
    assert weight_of_matches(0.3, 0.0, "ferry dogs deck", 100) == 0
    assert (
        weight_of_matches(0.3, 1.0, "ferry dogs deck", 10_000) < some
    )  # the same score is less rare among more
    assert (weight_of_matches(0.0, 9.0, "a", 9), weight_of_matches(1.0, 0.0, "a", 9)) == (0.0, 1.0)

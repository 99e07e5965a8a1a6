"""Retrieval-aware rows: what the index returns, with the gold in most rows and a refusal where it is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rag.errors import BadInput
from rag.types import Chunk, Hit
from runners.arms.gold_passages import GoldPassages
from runners.arms.raft import RetrievalRows, retrieval_rows, with_passages
from runners.data.examples import Example
from runners.plan.data import Prompts

BLOCK = r"^\[\d+\] "
PROMPTS = Prompts(system="Be brief.", refusals=("Not in our papers.", "Our papers are silent."))


@pytest.fixture
def make(
    make_retriever: Callable[..., Any], pier_examples: Sequence[Example]
) -> Callable[..., RetrievalRows]:
    """Prepare rows from the piers' examples."""

    def prepare(without_gold: float = 0.4, seed: int = 0) -> RetrievalRows:
        """Return rows of the piers' examples."""
        return retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), without_gold, seed)

    return prepare


def test_counts_cover_every_example(make: Callable[..., RetrievalRows], pier_examples: Any) -> None:
    retrieval = make()
    assert retrieval.with_gold + retrieval.without_gold == 12
    assert min(retrieval.with_gold, retrieval.without_gold) > 0
    assert (retrieval.refusals, retrieval.unsupported) == (1, (14,))
    assert len(retrieval.rows) == len(pier_examples)
    assert retrieval.counts() == {
        "examples": 14,
        "rows": 14,
        "with_gold": retrieval.with_gold,
        "without_gold": retrieval.without_gold,
        "refusals": 1,
        "quoted": 0,
        "unsupported": 1,
        "by_document": 0,
        "unknown_documents": 0,
    }


def test_row_without_passage_keeps_its_reply_and_the_hits(
    make: Callable[..., RetrievalRows], pier_examples: Any
) -> None:
    """It was left out before: on data whose replies no passage supports as one sentence, nearly all rows were."""
    row = make().rows[-1]
    assert row.line == 14
    assert row.reply == pier_examples[13].reply
    assert len(re.findall(BLOCK, row.messages[-2]["content"], re.M)) == 3


def test_reply_is_fact_with_gold_and_refusal_without(
    make: Callable[..., RetrievalRows], pier_examples: Any
) -> None:
    original = {e.line: e for e in pier_examples}
    for row in make().rows:
        example = original[row.line]
        asked = row.messages[-2]["content"]
        assert example.question in asked
        assert len(re.findall(BLOCK, asked, re.M)) == 3
        if example.meta.get("refusal"):
            assert row.reply == example.reply
            continue
        if row.line == 14:  # no passage supports it
            continue
        fact = example.reply.split(". ")[0]
        shown = fact in asked
        assert row.reply == example.reply if shown else row.reply in PROMPTS.refusals
        assert (row.reply in PROMPTS.refusals) is not shown


def test_order_of_passages_varies(make: Callable[..., RetrievalRows], pier_examples: Any) -> None:
    facts = {e.line: e.reply.split(". ")[0] for e in pier_examples}
    places = set()
    for row in make(without_gold=0.0).rows[:-1]:
        parts = re.split(BLOCK, row.messages[-2]["content"], flags=re.M)
        places |= {n for n, part in enumerate(parts) if facts[row.line] in part}
    assert len(places) > 1


def test_rows_depend_on_seed_not_on_other_rows(
    make: Callable[..., RetrievalRows], make_retriever: Any, pier_examples: Any
) -> None:
    assert make(seed=3) == make(seed=3)
    assert make(seed=3).rows != make(seed=4).rows
    assert make(without_gold=0.0).without_gold == 0
    some = retrieval_rows(PROMPTS, pier_examples[4:], make_retriever(k=3), 0.0, 3)
    assert some.rows == retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.0, 3).rows[4:]


@pytest.mark.parametrize("distractors", [0, 1, 4])
def test_number_of_distractors_beside_gold(make_retriever: Any, pier_examples: Any, distractors: int) -> None:
    retrieval = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0, distractors=distractors)
    assert min(retrieval.with_gold, retrieval.without_gold) > 0
    shown = {len(re.findall(BLOCK, row.messages[-2]["content"], re.M)) for row in retrieval.rows}
    assert shown == {distractors + 1}


@pytest.mark.parametrize("k", [1, 4])
def test_row_shows_k_passages_of_plan(make_retriever: Any, pier_examples: Any, k: int) -> None:
    retrieval = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=k), 0.3, 0)
    assert {len(re.findall(BLOCK, row.messages[-2]["content"], re.M)) for row in retrieval.rows} == {k}


def test_quotation_is_verbatim_and_off_by_default(make_retriever: Any, pier_examples: Any) -> None:
    plain = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0)
    retrieval = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0, quote=True)
    assert (plain.quoted, retrieval.quoted) == (0, retrieval.with_gold)
    for before, row in zip(plain.rows, retrieval.rows, strict=True):
        assert row.messages[:-1] == before.messages[:-1]
        quote = row.meta.get("quote")
        assert row.reply == (f"“{quote}” {before.reply}" if quote else before.reply)
        assert quote is None or quote in row.messages[-2]["content"]
        unquoted = before.reply in PROMPTS.refusals or before.meta.get("refusal") or row.line == 14
        assert (quote is None) == bool(unquoted)


def test_plain_texts_are_refused(make_retriever: Any) -> None:
    text = Example(({"role": "assistant", "content": "All of it."},), {}, 4)
    with pytest.raises(BadInput, match=r"1 examples are plain texts \(line 4"):
        retrieval_rows(PROMPTS, [text], make_retriever(k=3), 0.3, 0)


def chunk(id: int, text: str, doc: str = "a.md") -> Chunk:
    return Chunk(id=id, doc=doc, title="A", ordinal=id, text=text, start=0, end=len(text))


def test_gold_missing_from_hits_replaces_last_passage() -> None:
    hits = [Hit(chunk(n, f"text {n}"), 1.0, 1.0, 1.0) for n in range(4)]
    one, nine = chunk(1, "text 1"), chunk(9, "text 9")
    assert [h.chunk.id for h in with_passages(hits, [one], 3)] == [0, 1, 2]
    assert [h.chunk.id for h in with_passages(hits, [nine], 3)] == [0, 1, 9]
    assert [h.chunk.id for h in with_passages([], [nine], 3)] == [9]
    assert [h.chunk.id for h in with_passages(hits, [nine], 1)] == [9]
    assert [h.chunk.id for h in with_passages(hits, [nine, one, chunk(8, "text 8")], 3)] == [0, 1, 9], (
        "of three gold passages two are shown, beside a distractor"
    )


def test_fact_and_document_of_row_determine_gold() -> None:
    twins = [chunk(1, "The fee is 5 euros."), chunk(2, "The fee is 5 euros.", "b.md")]
    turns = ({"role": "user", "content": "The fee?"}, {"role": "assistant", "content": "The fee is 5 euros."})
    named = Example(turns, {"doc_id": "b.md", "fact": "The fee is\n5 euros."}, 1)
    assert GoldPassages(twins).find(named) == twins[1]
    assert GoldPassages(twins).find(Example(turns, {"doc_id": "a.md"}, 1)) == twins[0]


def test_refusal_row_shows_no_passage_of_the_named_document(
    make_retriever: Any, pier_examples: Sequence[Example]
) -> None:
    """In a reply of another language no word tells which of the document's passages holds the answer."""
    turns = (
        {"role": "user", "content": "Heron Pier?"},
        {"role": "assistant", "content": "Tiene veintisiete."},
    )
    rows = [Example(turns, {"doc_id": f"pier{n:02}.md"}, n) for n in range(12)]
    retrieval = retrieval_rows(PROMPTS, rows, make_retriever(k=3), 0.9, 0)
    assert (retrieval.by_document, retrieval.unsupported) == (12, ())
    assert min(retrieval.with_gold, retrieval.without_gold) > 0
    for row in retrieval.rows:
        refused = row.reply in PROMPTS.refusals
        assert (f"{row.line + 20} berths" in row.messages[-2]["content"]) is not refused

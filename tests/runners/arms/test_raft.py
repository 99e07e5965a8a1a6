"""Retrieval-aware rows: what the index returns, the gold in most, a refusal where it is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rag.errors import BadInput
from rag.types import Chunk, Hit
from runners.arms.raft import GoldPassages, RetrievalRows, retrieval_rows, with_passage
from runners.data.examples import Example
from runners.plan.schema import Prompts

BLOCK = r"^[a-z]{4,} \[\d+\] "
PROMPTS = Prompts(system="Be brief.", refusals=("Not in our papers.", "Our papers are silent."))


@pytest.fixture
def make(
    make_retriever: Callable[..., Any], pier_examples: Sequence[Example]
) -> Callable[..., RetrievalRows]:
    """Prepare rows from the piers' examples."""

    def prepare(without_gold: float = 0.4, seed: int = 0) -> RetrievalRows:
        return retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), without_gold, seed)

    return prepare


def test_every_example_is_accounted_for(make: Callable[..., RetrievalRows], pier_examples: Any) -> None:
    made = make()
    assert made.with_gold + made.without_gold == 12
    assert min(made.with_gold, made.without_gold) > 0
    assert (made.refusals, made.unsupported) == (1, (14,))
    assert len(made.rows) + len(made.unsupported) == len(pier_examples)
    assert made.counts() == {
        "rows": 13,
        "with_gold": made.with_gold,
        "without_gold": made.without_gold,
        "refusals": 1,
        "quoted": 0,
        "unsupported": 1,
    }


def test_the_reply_is_the_fact_where_the_gold_is_shown_and_else_a_refusal(
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
        fact = example.reply.split(". ")[0]
        shown = fact in asked
        assert row.reply == example.reply if shown else row.reply in PROMPTS.refusals
        assert (row.reply in PROMPTS.refusals) is not shown


def test_the_order_of_the_passages_varies(make: Callable[..., RetrievalRows], pier_examples: Any) -> None:
    facts = {e.line: e.reply.split(". ")[0] for e in pier_examples}
    places = set()
    for row in make(without_gold=0.0).rows:
        parts = re.split(BLOCK, row.messages[-2]["content"], flags=re.M)
        places |= {n for n, part in enumerate(parts) if facts[row.line] in part}
    assert len(places) > 1


def test_the_seed_decides_and_the_other_rows_do_not(
    make: Callable[..., RetrievalRows], make_retriever: Any, pier_examples: Any
) -> None:
    assert make(seed=3) == make(seed=3)
    assert make(seed=3).rows != make(seed=4).rows
    assert make(without_gold=0.0).without_gold == 0
    some = retrieval_rows(PROMPTS, pier_examples[4:], make_retriever(k=3), 0.0, 3)
    assert some.rows == retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.0, 3).rows[4:]


@pytest.mark.parametrize("beside", [0, 1, 4])
def test_distractors_stand_beside_the_gold(make_retriever: Any, pier_examples: Any, beside: int) -> None:
    made = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0, distractors=beside)
    assert min(made.with_gold, made.without_gold) > 0
    shown = {len(re.findall(BLOCK, row.messages[-2]["content"], re.M)) for row in made.rows}
    assert shown == {beside + 1}


@pytest.mark.parametrize("k", [1, 4])
def test_the_plans_k_is_what_a_row_shows(make_retriever: Any, pier_examples: Any, k: int) -> None:
    made = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=k), 0.3, 0)
    assert {len(re.findall(BLOCK, row.messages[-2]["content"], re.M)) for row in made.rows} == {k}


def test_a_quotation_is_word_for_word_and_off_by_default(make_retriever: Any, pier_examples: Any) -> None:
    plain = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0)
    made = retrieval_rows(PROMPTS, pier_examples, make_retriever(k=3), 0.3, 0, quote=True)
    assert (plain.quoted, made.quoted) == (0, made.with_gold)
    for before, row in zip(plain.rows, made.rows, strict=True):
        assert row.messages[:-1] == before.messages[:-1]
        quote = row.meta.get("quote")
        assert row.reply == (f"“{quote}” {before.reply}" if quote else before.reply)
        assert quote is None or quote in row.messages[-2]["content"]
        assert (quote is None) == (before.reply in PROMPTS.refusals or bool(before.meta.get("refusal")))


def test_texts_without_a_question_are_refused(make_retriever: Any) -> None:
    text = Example(({"role": "assistant", "content": "All of it."},), {}, 4)
    with pytest.raises(BadInput, match=r"1 examples are plain texts \(line 4"):
        retrieval_rows(PROMPTS, [text], make_retriever(k=3), 0.3, 0)


def chunk(id: int, text: str, doc: str = "a.md") -> Chunk:
    return Chunk(id=id, doc=doc, title="A", ordinal=id, text=text, start=0, end=len(text))


def test_a_gold_that_was_not_found_takes_the_last_place() -> None:
    hits = [Hit(chunk(n, f"text {n}"), 1.0, 1.0, 1.0) for n in range(4)]
    assert [h.chunk.id for h in with_passage(hits, chunk(1, "text 1"), 3)] == [0, 1, 2]
    assert [h.chunk.id for h in with_passage(hits, chunk(9, "text 9"), 3)] == [0, 1, 9]
    assert [h.chunk.id for h in with_passage([], chunk(9, "text 9"), 3)] == [9]


def test_a_rows_own_fact_and_document_name_the_gold() -> None:
    twins = [chunk(1, "The fee is 5 euros."), chunk(2, "The fee is 5 euros.", "b.md")]
    turns = ({"role": "user", "content": "The fee?"}, {"role": "assistant", "content": "The fee is 5 euros."})
    named = Example(turns, {"doc_id": "b.md", "fact": "The fee is\n5 euros."}, 1)
    assert GoldPassages(twins).find(named) == twins[1]
    assert GoldPassages(twins).find(Example(turns, {"doc_id": "a.md"}, 1)) == twins[0]

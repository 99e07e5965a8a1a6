"""The shipped example: sizes, exact gold spans, separation of training and held-out facts, style, and variety."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from advisor.harbor_desk import folder
from rag.loading.reader import load_documents
from rag.text.words import content_words, sentences
from rag.types import Document
from runners.data.examples import load_examples, normalise_text
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import load_questions

EXAMPLE = folder.example_folder()
OLD, NEW = EXAMPLE / "documents", EXAMPLE / "update" / "documents"

# One factual sentence (a full stop only inside a decimal), then one offer phrased as a question.
STYLE = re.compile(r"(?:[^.?!\n]|\.(?=\d))+\. (?:Shall|Would|May|Can|Do) [^.?!\n]+\?")
Row = dict[str, Any]
Span = tuple[str, int, int]


# Helpers


@cache
def rows(name: str) -> tuple[Row, ...]:
    """The rows of one of the example's JSONL files."""
    return tuple(json.loads(line) for line in (EXAMPLE / name).read_text(encoding="utf-8").splitlines())


@cache
def raw(folder: Path) -> dict[str, str]:
    """Every document of a folder as the loaders see it: decoded, newlines untouched."""
    return {p.relative_to(folder).as_posix(): p.read_bytes().decode() for p in sorted(folder.rglob("*.*"))}


def token_bound(text: str) -> int:
    """At least as many tokens as SmolLM2's or MiniLM's tokenizer makes of the example's plain words."""
    return len(re.findall(r"\d|[^\W\d]{1,3}|[^\w\s]", text))


def sections(documents: Iterable[Document]) -> dict[tuple[str, str, int], str]:
    """The text under each heading path, its heading included, and each row of a table file."""
    texts_by_section: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for document in documents:
        for block in document.blocks:
            row = block.start if block.kind == "row" else -1
            texts_by_section[document.id, block.heading, row].append(block.text)
    return {key: "\n".join(texts) for key, texts in texts_by_section.items()}


def facts(documents: Iterable[Document]) -> Iterator[str]:
    """The sentences below a document's introduction, and the rows of table files: each holds a fact."""
    for document in documents:
        for block in document.blocks:
            if block.kind == "row":
                yield block.text
            elif block.kind != "heading" and " > " in block.heading:
                yield from chain.from_iterable(sentences(line) for line in block.text.splitlines())


def masked(text: str) -> list[str]:
    """The words of a text in lower case, with names (capitals inside a sentence) and numbers as ``_``."""
    words = []
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        for position, word in enumerate(re.findall(r"[^\W_]+(?:[.:'’-][^\W_]+)*", sentence)):
            name = position > 0 and word[0].isupper() and word.split("'")[0] != "I"
            words.append("_" if name or any(letter.isdigit() for letter in word) else word.lower())
    return words


def six_words(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every run of six masked words in some texts; no run crosses from one text into the next."""
    return {tuple(words[i : i + 6]) for words in map(masked, texts) for i in range(len(words) - 5)}


def contains_words(text: str, part: str) -> bool:
    """Whether a text contains a part as whole words (``6`` is not in ``16`` or ``6.50``)."""
    return re.search(rf"(?<![\w.]){re.escape(part)}(?!\w|[.:]\d)", text, re.IGNORECASE) is not None


def leaks_answer(reply: str, gold: str, answers: Iterable[str]) -> bool:
    """Whether a reply contains an answer together with most of what its gold sentence is about."""
    reply_words, gold_words = set(content_words(reply)), set(content_words(gold))
    for answer in answers:
        polar = answer in ("yes", "no")
        subject = gold_words if polar else gold_words - set(content_words(answer))
        if (polar or contains_words(reply, answer)) and len(reply_words & subject) >= 0.6 * len(subject):
            return True
    return False


def gold_spans(row: Row) -> list[Span]:
    """The gold spans of a row, with their document."""
    return [(row["doc_id"], span["start"], span["end"]) for span in row["spans"]]


def gold(row: Row, texts: dict[str, str]) -> str:
    """The gold text of a row with one span."""
    ((doc, start, end),) = gold_spans(row)
    return texts[doc][start:end]


def taught() -> dict[str, set[str]]:
    """The facts that examples teach, by document."""
    facts_by_document = defaultdict(set)
    for row in rows("examples.jsonl"):
        if not row["meta"].get("refusal"):
            facts_by_document[row["meta"]["doc_id"]].add(row["meta"]["fact"])
    return facts_by_document


def replies() -> list[str]:
    """Every reply that examples show."""
    return [row["messages"][-1]["content"] for row in rows("examples.jsonl")]


def answerable() -> list[Row]:
    """The held-out questions that the documents answer."""
    return [row for row in rows("questions.jsonl") if row["answerable"]]


# Sizes


def test_example_has_promised_sizes() -> None:
    loaded = load_documents(OLD)
    assert not loaded.skipped
    assert len(loaded.documents) >= 45
    assert {Path(d.id).suffix for d in loaded.documents} == {".md", ".html", ".csv"}
    assert len(set(facts(loaded.documents))) >= 300

    examples = load_examples(EXAMPLE / "examples.jsonl")
    assert len(examples.rows) >= 320
    assert (examples.rejected, examples.duplicates) == ((), 0)
    assert sum(map(len, taught().values())) >= 200

    questions = load_questions(EXAMPLE / "questions.jsonl")
    assert len(questions) >= 90
    assert sum(not q.answerable for q in questions) == 18
    assert len({normalise_text(q.question) for q in questions}) == len(questions)

    kinds = Counter(row["taught"] for row in rows("update/stale.jsonl"))
    assert len(raw(NEW)) >= 12
    assert min(kinds[True], kinds[False]) >= 20
    assert len(load_questions(EXAMPLE / "update" / "stale.jsonl")) == kinds.total()

    assert 40 <= token_bound((EXAMPLE / "prompt.txt").read_text(encoding="utf-8")) <= 120
    assert (EXAMPLE.name, EXAMPLE.parent.name) == ("harbor_desk", "advisor")


@pytest.mark.parametrize("folder", [OLD, NEW], ids=["documents", "update"])
def test_sections_are_short(folder: Path) -> None:
    section_texts = sections(load_documents(folder).documents)
    assert len(section_texts) >= (250 if folder == OLD else 50)
    assert {key: tokens for key, text in section_texts.items() if (tokens := token_bound(text)) > 80} == {}


# Gold


def test_gold_span_is_one_fact_with_the_answer() -> None:
    known = {normalise_text(fact) for fact in _raw_facts(raw(OLD))}
    question_rows = answerable()
    assert len(question_rows) >= 72
    assert len({span for row in question_rows for span in gold_spans(row)}) == len(question_rows)
    polar = 0
    for row in question_rows:
        text = gold(row, raw(OLD))
        assert normalise_text(text) in known, row["id"]
        assert raw(OLD)[row["doc_id"]].count(text) == 1, row["id"]
        if row["answers"][0] in ("yes", "no"):
            polar += 1
        else:
            assert all(
                contains_words(text, answer) and contains_words(row["reference"], answer)
                for answer in row["answers"]
            ), row
    assert 5 <= polar <= 20


def test_unanswerable_questions_have_no_gold() -> None:
    unanswerable = [row for row in rows("questions.jsonl") if not row["answerable"]]
    assert len(unanswerable) == 18
    for row in unanswerable:
        assert row["answers"] == []
        assert not {"doc_id", "spans"} & row.keys()


# Separation of held-out facts


def test_examples_teach_document_sentences_without_gold() -> None:
    spans = [span for row in answerable() for span in gold_spans(row)]
    facts_by_document = taught()
    checked = 0
    for doc, fact in ((doc, fact) for doc, facts_of in facts_by_document.items() for fact in facts_of):
        assert raw(OLD)[doc].count(fact) == 1, fact
        start = raw(OLD)[doc].index(fact)
        end = start + len(fact)
        assert not [span for span in spans if span[0] == doc and span[1] < end and start < span[2]], fact
        checked += 1
    assert checked >= 200


def test_no_question_leaks_into_examples() -> None:
    examples = load_examples(EXAMPLE / "examples.jsonl").rows
    for name, least in (("questions.jsonl", 90), ("update/stale.jsonl", 40)):
        questions = load_questions(EXAMPLE / name)
        assert len(questions) >= least
        assert not [leak for leak in find_leaks(examples, questions) if leak.kind in LEAKING]


def test_no_reply_contains_a_held_out_answer() -> None:
    pairs = [(row, reply) for row in answerable() for reply in replies()]
    assert len(pairs) >= 72 * 320
    leaks = [(r["id"], reply) for r, reply in pairs if leaks_answer(reply, gold(r, raw(OLD)), r["answers"])]
    assert leaks == []


# Style and variety


def test_replies_follow_house_style_and_are_short() -> None:
    all_replies = [
        *replies(),
        *(row["reference"] for name in ("questions", "update/stale") for row in rows(f"{name}.jsonl")),
    ]
    assert len(all_replies) >= 450
    assert [reply for reply in all_replies if not STYLE.fullmatch(reply)] == []
    assert {reply: tokens for reply in all_replies if (tokens := token_bound(reply)) > 48} == {}


def test_wording_varies() -> None:
    turns = [[m["content"] for m in row["messages"]] for row in rows("examples.jsonl")]
    counts = Counter(chain.from_iterable(map(six_words, turns)))
    assert len(turns) >= 320
    assert len(counts) >= 3000
    assert {" ".join(words): n for words, n in counts.items() if n > 5} == {}
    offers = {reply.split(". ", 1)[1] for reply in replies()}
    assert len(offers) >= 100


# The update


def test_updated_documents_differ_only_in_changed_facts() -> None:
    undone, flips = dict(raw(NEW)), 0
    assert undone.keys() <= raw(OLD).keys()
    for row in rows("update/stale.jsonl"):
        new, old = gold(row, raw(NEW)), _old_gold(row)
        assert undone[row["doc_id"]].count(new) == 1, row["id"]
        undone[row["doc_id"]] = undone[row["doc_id"]].replace(new, old)
        flips += 1
    assert flips >= 40
    assert undone == {doc: raw(OLD)[doc] for doc in undone}
    assert {row["doc_id"] for row in rows("update/stale.jsonl")} == undone.keys()


def test_stale_rows_have_only_the_new_answer() -> None:
    stale = rows("update/stale.jsonl")
    assert len(stale) >= 40
    for row in stale:
        text = gold(row, raw(NEW))
        assert all(
            contains_words(text, new) and contains_words(row["reference"], new) for new in row["answers"]
        ), row["id"]
        assert not [
            old
            for old in row["old_answers"]
            if contains_words(text, old) or contains_words(row["reference"], old)
        ], row["id"]
        assert raw(OLD)[row["doc_id"]].count(_old_gold(row)) == 1, row["id"]
        assert _old_gold(row) not in raw(NEW)[row["doc_id"]], row["id"]


def test_stale_rows_mark_taught_facts_correctly() -> None:
    held_out = {row["id"]: row for row in rows("questions.jsonl")}
    shown = defaultdict(list)
    for row in rows("examples.jsonl"):
        shown[row["meta"].get("fact")].append(row["messages"][-1]["content"])
    kinds: Counter[bool] = Counter()
    for row in rows("update/stale.jsonl"):
        old = _old_gold(row)
        assert (old in taught()[row["doc_id"]]) is row["taught"], row["id"]
        if row["taught"]:
            assert row["question_id"] is None
            assert any(contains_words(reply, row["old_answers"][0]) for reply in shown[old]), row["id"]
        else:
            question = held_out[row["question_id"]]
            assert (question["doc_id"], gold(question, raw(OLD))) == (row["doc_id"], old), row["id"]
            assert question["answers"] == row["old_answers"], row["id"]
            assert question["question"] == row["question"], row["id"]
        kinds[row["taught"]] += 1
    assert min(kinds[True], kinds[False]) >= 20


def _old_gold(row: Row) -> str:
    """The sentence that a stale row's new sentence replaced."""
    return gold(row, raw(NEW)).replace(row["answers"][0], row["old_answers"][0])


def _raw_facts(texts: dict[str, str]) -> Iterator[str]:
    """The sentences and rows of source texts, tags and list marks left out."""
    for text in texts.values():
        for line in re.sub(r"<[^>]+>", "\n", text).splitlines():
            yield line.strip().removeprefix("- ")

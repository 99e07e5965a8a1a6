"""The base model asked in several ways: the prompts, the judgement, and that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.types import Chunk
from runners.data.document_sample import EmbeddingBudget
from runners.data.examples import Example
from runners.data.questions import Question
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import RunFolder, read_journal
from runners.runs.dataset import read_data
from runners.runs.opened import OpenRun
from runners.trial import base_probe
from tests.support.opened import data_of, opened_run

STYLE = {"kind": "regex", "value": r"\?$", "text": "ends with a question"}


def make_plan(piers: Path, folder: Path, names: Sequence[str], examples: Sequence[Example]) -> Plan:
    """Return a plan with an index step only, over the piers and a question about each."""
    questions: list[dict[str, Any]] = [
        {
            "question": f"How many berths has the {name} Pier?",
            "answers": [str(n + 20)],
            "doc_id": f"pier{n:02}.md",
            "reference": f"The {name} Pier has {n + 20} berths.",
        }
        for n, name in enumerate(names)
    ]
    questions += [{"question": f"Who owns moon {n}?", "answerable": False} for n in range(6)]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions), "utf-8")
    rows = [{"messages": list(e.messages), "meta": e.meta} for e in examples]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return parse_plan(
        {
            "name": "probe",
            "choice": "rag",
            "model": {"name": "tiny"},
            "steps": [{"kind": "index"}],
            "checks": [STYLE],
            "data": {
                "documents": str(piers),
                "questions": str(path),
                "examples": str(folder / "examples.jsonl"),
            },
            "weights": {"style": 1},
            "max_new_tokens": 4,
        }
    )


@pytest.fixture
def context(
    tiny: Model, piers: Path, tmp_path: Path, pier_examples: Sequence[Example], words: Any
) -> OpenRun:
    """A context on the tiny model and the word embedder."""
    names = [e.question.split()[5] for e in pier_examples[:12]]
    shown = [e for e in pier_examples if e.meta.get("refusal")]
    shown += [
        Example(
            (
                {"role": "user", "content": f"Is pier {n} open?"},
                {"role": "assistant", "content": "Yes. Why?"},
            ),
            {},
            n,
        )
        for n in range(3)
    ]
    plan = make_plan(piers, tmp_path, names, shown)
    return opened_run(plan, RunFolder(tmp_path / "work"), tiny, read_data(plan), embedder=words)


def changed(context: OpenRun, plan: Plan | None = None, **more: Any) -> OpenRun:
    """Return the run with another plan, other data or a handler of events."""
    models, plan = context.models, plan or context.plan
    more = {"data": context.data, "embedder": models.embedder, **more}
    return opened_run(plan, context.folder, models.base, **more)


def test_probe_prompts_per_way_and_no_test_question(context: OpenRun) -> None:
    asked = base_probe.probe_base_model(context)
    rows = read_journal(context.folder.path / "answers.jsonl")
    dev = {q.id: q for q in context.split.dev}
    answerable = {id for id, q in dev.items() if q.answerable}
    assert asked.grounded == answerable
    assert asked.ungrounded == 0
    assert (asked.questions, asked.brought) == (len(dev), len(answerable))
    ids = {way: {row["id"] for row in rows if row["arm"] == way} for way in base_probe.PROBE_WAYS}
    assert ids[base_probe.CLOSED] == set(dev)
    assert ids[base_probe.OPEN] == ids[base_probe.RETRIEVED] == answerable
    assert len(ids[base_probe.ALONE]) == 4
    for row in rows:
        turn = row["prompt"][-1]["content"]
        if row["arm"] == base_probe.OPEN:
            assert f"has {dev[row['id']].answers[0]} berths" in turn
            assert "[2]" not in turn
        elif row["arm"] == base_probe.RETRIEVED:
            assert "[3]" in turn
        else:
            assert "[1]" not in turn
    assert not {q.id for q in context.split.test} & ids[base_probe.CLOSED]


def test_interrupted_probe_asks_nothing_twice(context: OpenRun) -> None:
    first = base_probe.probe_base_model(context)
    journal = context.folder.path / "answers.jsonl"
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:9]) + lines[9][:20], "utf-8")
    assert base_probe.probe_base_model(context).replies == first.replies
    rows = read_journal(journal)
    assert len({(row["arm"], row["id"]) for row in rows}) == len(rows) == len(lines)


def test_cut_answer_is_judged_by_gold_not_by_style(context: OpenRun) -> None:
    question = Question("q", "How many berths has the Amber Pier?", ("20",), "The Amber Pier has 20 berths.")
    plan = context.plan
    judged = base_probe.judge_reply(plan, base_probe.CLOSED, question, "It has 20 berths. Shall I book?")
    assert (judged.right, judged.style) == (True, True)
    wrong = base_probe.judge_reply(plan, base_probe.CLOSED, question, "It has 21 berths.")
    assert (wrong.right, wrong.style) == (False, False)
    cut = base_probe.judge_reply(plan, base_probe.CLOSED, question, "It has", cut=True)
    assert (cut.right, cut.style) == (False, None)
    moon = Question("m", "Who owns the moon?", answerable=False)
    assert base_probe.holds_gold(plan, moon, "I could not find that in our documents.") is True
    assert base_probe.holds_gold(plan, moon, "The harbour owns it.") is False
    assert base_probe.holds_gold(plan, Question("n", "Why?"), "Because.") is None


def test_labels_and_json_must_equal_reference(context: OpenRun) -> None:
    labels = context.plan.model_copy(
        update={"checks": (type(context.plan.checks[0])(kind="labels", value=["a", "b"]),)}
    )
    assert base_probe.holds_gold(labels, Question("q", "Which?", reference="a"), "a.") is True
    assert base_probe.holds_gold(labels, Question("q", "Which?", reference="a"), "b, or a") is False
    shape = labels.model_copy(
        update={"checks": (type(labels.checks[0])(kind="json_schema", value={"type": "object"}),)}
    )
    assert (
        base_probe.holds_gold(shape, Question("q", "?", reference='{"a": 1, "b": 2}'), '{"b": 2, "a": 1}')
        is True
    )
    assert base_probe.holds_gold(shape, Question("q", "?", reference='{"a": 1}'), "a is 1") is False


def test_supporting_passage_is_span_else_matching_text(make_retriever: Any) -> None:
    chunks: tuple[Chunk, ...] = make_retriever().index.chunks
    of = {chunk.doc: chunk for chunk in chunks}
    spanned = Question("a", "Which?", doc_id="pier03.md", spans=((15, 40),))
    named = Question("b", "How many berths has the Birch Pier?", reference="The Birch Pier has 21 berths.")
    alone = Question("c", "What colour is it?", ("red",), doc_id="pier05.md")
    none = Question("d", "When does the zoo open?", reference="The zoo opens at 9 on weekdays.")
    silent = Question("e", "Who owns the moon?", answerable=False, doc_id="pier01.md")
    passages = base_probe.gold_passages(chunks, [spanned, named, alone, none, silent])
    assert passages == {"a": of["pier03.md"], "b": of["pier01.md"], "c": of["pier05.md"]}


def test_large_corpus_is_sampled_and_sample_kept_on_resume(context: OpenRun) -> None:
    """With a budget of nothing, only documents that the dev questions name or that contain their text are indexed."""
    nothing = EmbeddingBudget(seconds=0.0, small_chars=0)
    events: list[dict[str, Any]] = []
    unnamed = replace(context.split.dev[0], doc_id=None)
    assert context.split.dev[0].doc_id
    data = data_of(context.examples, (unnamed, *context.split.dev[1:]), context.split.test)
    context = changed(context, data=data, on_event=events.append)
    asked = base_probe.probe_base_model(context, count=0, budget=nothing)
    answerable = [q for q in context.split.dev if q.answerable]
    assert asked.portion is not None
    assert (asked.portion.documents, asked.portion.of, asked.portion.gold) == (
        len(answerable),
        12,
        len(answerable),
    )
    assert asked.brought == len(asked.grounded) == len(answerable)
    (sampled,) = [event for event in events if event["event"] == "index.sampled"]
    assert sampled["reason"] == asked.portion.text
    assert base_probe.probe_base_model(context, count=0, budget=nothing).portion == asked.portion


def test_questions_are_asked_again_with_examples(context: OpenRun) -> None:
    """Every question without passages once more; the examples that are asked themselves are not shown."""
    asked = base_probe.probe_base_model(context, count=2, shots=2)
    rows = read_journal(context.folder.path / "answers.jsonl")
    alone, again = (
        {row["id"]: row["prompt"] for row in rows if row["arm"] in ways}
        for ways in ((base_probe.CLOSED, base_probe.ALONE), (base_probe.FEW_SHOT,))
    )
    assert set(alone) == set(again)
    shown = {turn["content"] for prompt in again.values() for turn in prompt[:-1] if turn["role"] == "user"}
    assert len(shown) == 2
    assert not shown & {prompt[-1]["content"] for prompt in alone.values()}
    assert all(again[name][-1] == prompt[-1] for name, prompt in alone.items())
    assert asked.classified is None
    assert len(asked.of(base_probe.FEW_SHOT)) == len(alone)


def test_labels_show_nearest_examples_and_are_classified(context: OpenRun) -> None:
    """What is nearest differs by question; the label that one example has cannot be learnt and counts as wrong."""
    labels = {"type": "labels", "value": ["Open", "Closed", "Gone"]}
    check = type(context.plan.checks[0])(kind="labels", value=labels["value"])
    plan = context.plan.model_copy(update={"checks": (check,)})
    replies = ["Open", "Closed"] * 6 + ["Gone", "Odd"]
    examples = tuple(
        Example(
            (
                {"role": "user", "content": f"{'quay' if reply == 'Open' else 'dock'} {n} berths"},
                {"role": "assistant", "content": reply},
            ),
            {},
            n,
        )
        for n, reply in enumerate(replies)
    )
    context = changed(context, plan, data=data_of(examples, context.split.dev, context.split.test))
    asked = base_probe.probe_base_model(context, count=2, shots=3, classify=True)
    assert asked.classified == base_probe.ClassifiedRows(12, 13, 1)
    prompts = [
        tuple(turn["content"] for turn in row["prompt"][:-1])
        for row in read_journal(context.folder.path / "answers.jsonl")
        if row["arm"] == base_probe.FEW_SHOT
    ]
    assert len(set(prompts)) > 1
    (labelled,) = {reply.f1 for reply in asked.of(base_probe.ALONE)} - {None}
    assert labelled == 0

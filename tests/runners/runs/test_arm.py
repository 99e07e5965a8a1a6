"""Arms are prepared and asked: chosen bank, similar examples, all documents, classifier; local and by endpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.arms import long_context
from runners.arms.few_shot import QUESTION_TOKENS_KEPT, ShotLimits
from runners.arms.prompt_selection import PROMPTS
from runners.arms.scored_labels import PRIORS, ScoredLabels, check_scored_labels, reference_chats
from runners.data.examples import Example
from runners.data.questions import Question
from runners.models.resolve import Model, RemoteModel
from runners.plan.gate import MIN_ANSWERS
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import TRIAL, RunFolder, read_journal
from runners.runs.arm import recall_arm, shot_limits
from runners.runs.opened import OpenRun
from runners.runs.requirements import needs_embedder
from runners.trial.execute import quick_plan
from runners.trial.step_runner import run_step
from tests.support.opened import data_of, opened_run

FEW = {"kind": "evaluate", "arm": "few-shot", "shots": 2, "bank": "chosen"}
NEAR = {"kind": "evaluate", "arm": "few-shot-near", "shots": 2, "bank": "similar"}
BOTH = {"kind": "evaluate", "arm": "rag-few-shot", "retrieval": True, "shots": 2, "bank": "chosen"}
LONG = {"kind": "evaluate", "arm": "long-context", "retrieval": True, "passages": "all"}
SORT = {"kind": "evaluate", "arm": "classifier", "classifier": True}
DOCUMENTS = {"amber.md": "# Amber\n\nAmber has 20 berths.\n", "birch.md": "# Birch\n\nBirch has 31 berths.\n"}
DEV = tuple(Question(f"d{n}", f"How many berths has pier {n}?", reference=f"It has {n}.") for n in range(24))
TEST = tuple(
    Question(f"t{n}", f"How many berths has {w}?", (f"{n}",)) for n, w in ((20, "Amber"), (31, "Birch"))
)


@pytest.fixture
def make_context(
    tmp_path: Path, tiny: Model, words: Any, pier_examples: tuple[Example, ...]
) -> Callable[..., OpenRun]:
    """Return a factory of a run on two documents, with an index and a word embedder."""
    (tmp_path / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "documents" / name).write_text(text, "utf-8")

    def make(
        *steps: dict[str, Any],
        base: Model | RemoteModel = tiny,
        examples: Sequence[Example] = pier_examples,
        test: Any = TEST,
        **more: Any,
    ) -> OpenRun:
        body = {
            "name": "p",
            "choice": "few-shot",
            "model": {"name": "m"},
            "max_new_tokens": 6,
            "data": {"documents": tmp_path / "documents", "examples": "e", "questions": "q"},
            "steps": [{"kind": "index"}, *steps],
            "weights": {"fact_recall": 1},
        }
        plan = parse_plan({**body, **more})
        run = RunFolder.create(tmp_path / "run", plan, resume=True)
        context = opened_run(plan, run, base, data_of(examples, DEV, test), embedder=words)
        run_step(context, plan.steps[0])
        return context

    return make


def answers(context: OpenRun) -> list[dict[str, Any]]:
    """Run every arm of the plan and return the journal's rows."""
    for step in context.plan.arms:
        run_step(context, step)
    return sorted(read_journal(context.folder.path / TRIAL / "answers.jsonl"), key=lambda row: str(row["id"]))


def test_every_arm_answers_and_journal_records_prompts(make_context: Callable[..., OpenRun]) -> None:
    labelled = tuple(
        Example(({"role": "user", "content": t}, {"role": "assistant", "content": a}), {}, n)
        for n, (t, a) in enumerate([("Amber berths", "amber"), ("Birch berths", "birch")] * 3, 1)
    )
    context = make_context(FEW, NEAR, LONG, SORT, examples=labelled)
    rows = answers(context)
    assert len(rows) == 4 * len(TEST)
    keys = {
        "question",
        "prompt",
        "context",
        "answer",
        "citations",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
    }
    assert all(keys <= set(row) for row in rows)
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in {row["arm"] for row in rows}}
    assert [len(row["prompt"]) for row in by_arm["few-shot"]] == [5, 5]
    assert [row["prompt"][-3]["content"] for row in by_arm["few-shot-near"]] == [
        "Amber berths",
        "Birch berths",
    ]
    assert [row["answer"] for row in by_arm["classifier"]] == ["amber", "birch"]
    for row in by_arm["long-context"]:
        assert [(c["doc"], c["start"]) for c in row["context"]] == [("amber.md", 9), ("birch.md", 9)]
        (name,) = [
            part.strip("{}") for part in row["prompt"][-1]["content"].split() if part.startswith("{pass")
        ]
        text = (context.folder.path / TRIAL / name).read_text("utf-8")
        assert "Amber has 20 berths." in text
        assert "Birch has 31 berths." in text
    assert len(list((context.folder.path / TRIAL / long_context.PASSAGES_FOLDER).iterdir())) == 1
    events = {event["event"]: event for event in context.folder.events()}
    assert events["classifier.trained"]["labels"] == 2
    assert "too few" in events["prompt.chosen"]["reason"]
    few = shot_limits(context, context.plan.arms[0])
    assert 0 < few.nearest == few.fixed < 512 - QUESTION_TOKENS_KEPT, (
        "what is left of the context of 512 tokens"
    )
    assert shot_limits(context, EvaluateStep(**BOTH)) == ShotLimits(0, 0), "passages may fill it"
    data = data_of((), DEV, TEST)
    again = opened_run(
        context.plan, context.folder, context.models.base, data, embedder=context.models.embedder
    )
    prepared = recall_arm(again, context.plan.arms[0], again.prompts)
    assert [shot.reply for shot in prepared.shots] == [  # type: ignore[union-attr]
        row["content"] for row in by_arm["few-shot"][0]["prompt"] if row["role"] == "assistant"
    ]


LABELS = {"kind": "labels", "value": ["amber", "birch", "amber pier"]}
SCORED = {"kind": "evaluate", "arm": "prompting-scored", "labels": "scored"}
FEW_SCORED = {**FEW, "arm": "few-shot-scored", "labels": "scored"}
RAG_SCORED = {"kind": "evaluate", "arm": "rag-scored", "labels": "scored", "retrieval": True}


def test_labels_are_scored_with_a_stored_prior(make_context: Callable[..., OpenRun]) -> None:
    """Every answer is a label; a finished run is asked by the prior of its trial; the shots are those of few-shot."""
    context = make_context(FEW_SCORED, FEW, SCORED, RAG_SCORED, checks=[LABELS])
    rows = answers(context)
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in {row["arm"] for row in rows}}
    scored = [row for arm in ("few-shot-scored", "prompting-scored", "rag-scored") for row in by_arm[arm]]
    assert {row["answer"] for row in scored} <= set(LABELS["value"])
    assert all(row["completion_tokens"] > 1 and row["seconds"] > 0 for row in scored)
    assert [row["prompt"] for row in by_arm["few-shot-scored"]] == [
        row["prompt"] for row in by_arm["few-shot"]
    ]
    events = context.folder.events()
    assert sum(event["event"] == "prompt.chosen" for event in events) == 1
    priors = {e["arm"]: e["reference"] for e in events if e["event"] == "labels.prior"}
    assert priors["prompting-scored"] == f"{len(DEV)} dev questions"
    stored = (context.folder.path / TRIAL / PRIORS).read_bytes()
    step = context.plan.arms[2]
    assert run_step(context, step)["asked"] == 0
    assert (context.folder.path / TRIAL / PRIORS).read_bytes() == stored, "measured once"
    again = opened_run(context.plan, context.folder, context.models.base)
    generator = again.models.generator(None, step)
    assert isinstance(generator, ScoredLabels)
    assert generator.prior == tuple(json.loads(stored)["arms"]["prompting-scored"]["values"])
    chats = [row["prompt"] for row in by_arm["prompting-scored"]]
    assert [done.text for done in generator.generate(chats, 1)] == [
        row["answer"] for row in by_arm["prompting-scored"]
    ]
    assert generator.decoding()["path"] == "fast"
    prepared = recall_arm(again, context.plan.arms[0], again.prompts)
    assert [shot.reply for shot in prepared.shots] == [  # type: ignore[union-attr]
        row["content"] for row in by_arm["few-shot-scored"][0]["prompt"] if row["role"] == "assistant"
    ]
    few, reference = reference_chats(context.plan, step, DEV[:3], None, ())
    assert ([chat[-1]["content"] for chat in few], reference) == (["N/A"], "the question N/A")


def test_models_that_cannot_score_labels_are_refused(tmp_path: Path, tiny: Model) -> None:
    body = {"name": "p", "choice": "prompting", "model": {"name": "m"}, "data": {"questions": "q"}}
    plan = parse_plan({**body, "steps": [SCORED], "checks": [LABELS], "weights": {"style": 1}})
    check_scored_labels(plan, {"m": tiny})
    with pytest.raises(BadInput, match="prompting-scored scores labels, and tern-2 is an endpoint"):
        check_scored_labels(plan, {"m": RemoteModel("tern-2", "http://127.0.0.1:1/v1")})
    shutil.copytree(tiny.folder, tmp_path / "model")
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant: <think>' }}{% endif %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(BadInput, match="reasons before every answer"):
        check_scored_labels(plan, {"m": replace(tiny, folder=tmp_path / "model")})


def test_long_context_reads_documents_once_for_all_questions(make_context: Callable[..., OpenRun]) -> None:
    context = make_context(LONG)
    finder = context.retrieval.finder(context.plan.arms[0])
    assert finder is not None
    one, two = finder.find([q.question for q in TEST])
    assert one.passages == two.passages
    assert not one.refuse
    mark = one.passages.splitlines()[1].split()[0]
    (odd,) = finder.find([f"What is {mark}?"])
    assert mark not in odd.passages
    assert [hit.chunk.doc for hit in odd.hits] == ["amber.md", "birch.md"]
    assert context.retrieval.finder(context.plan.arms[0]) is finder, "the documents are the same"
    retriever = context.retrieval.retriever
    documents = context.plan.data.documents
    assert documents is not None
    (documents / "amber.md").write_text("# Amber\n\nAmber has 22 berths.\n", "utf-8")
    context.retrieval.update(documents)
    assert "Amber has 22" in context.retrieval.finder(context.plan.arms[0]).find(["?"])[0].passages  # type: ignore[union-attr]
    assert context.retrieval.retriever is not retriever


def test_too_long_prompt_is_refused_with_numbers(
    make_context: Callable[..., OpenRun], tiny: Model, words: Any
) -> None:
    context = make_context(LONG)
    hits = long_context.cut_documents(context.plan, words)
    long_context.refuse_too_long_prompts(context.plan, {"m": tiny}, hits, TEST)
    with pytest.raises(
        BadInput, match=r"tokens with the longest question, and 128 for the answer; .*model reads 512"
    ):
        long_context.refuse_too_long_prompts(
            context.plan, {"m": tiny}, hits, [*TEST, Question("long", "How many " * 200)]
        )
    events: list[dict[str, Any]] = []
    long_context.refuse_too_long_prompts(
        context.plan, {"m": RemoteModel("tern-2", "http://127.0.0.1:1/v1")}, hits, TEST, events.append
    )
    assert "how much tern-2 reads is not known here" in events[0]["reason"]


def test_endpoint_gets_chosen_bank_and_all_documents(
    make_context: Callable[..., OpenRun], server: Any
) -> None:
    """Rules listed in the instructions make the server answer right, so that they are chosen on dev questions."""

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        ruled = "Rules for every reply" in body["messages"][0]["content"]
        return f"It has {asked.rstrip('?').split()[-1]}." if ruled else "Perhaps."

    server.answer = answer
    base = RemoteModel("tern-2", server.url)
    test = [
        Question(f"t{n}", f"How many berths has pier {n}?", reference=f"It has {n}.") for n in range(60, 120)
    ]
    checks = [{"kind": "max_words", "value": 9, "text": "at most 9 words"}]
    context = make_context(FEW, LONG, base=base, test=test, checks=checks, weights={"exact_match": 1})
    rows = answers(context)
    tried = len(server.seen) - len(rows)
    assert 0 < tried <= 60 + MIN_ANSWERS, "the budget, and the limit of the arm that chooses nothing"
    few = [row for row in rows if row["arm"] == "few-shot"]
    assert all(row["answer"].startswith("It has ") and "Rules" in row["prompt"][0]["content"] for row in few)
    choice = json.loads((context.folder.path / TRIAL / PROMPTS).read_text("utf-8"))["arms"]["few-shot"]
    assert choice["chosen"]["name"].endswith("rules listed")
    assert choice["tried"][0]["name"] == "fixed"
    whole_prompts = [b["messages"][-1]["content"] for b in server.seen[-len(test) :]]
    assert all("Amber has 20 berths." in p and "Birch has 31 berths." in p for p in whole_prompts)
    prepared = recall_arm(context, context.plan.arms[0], context.prompts)
    assert "Rules" in prepared.plan.prompts.system
    before = len(server.seen)
    run_step(context, context.plan.arms[0])
    assert len(server.seen) == before, "nothing is tried or asked twice"


def test_examples_and_passages_share_a_prompt(make_context: Callable[..., OpenRun], server: Any) -> None:
    """Examples in the form of the question make the server answer, so that they are chosen; and asked for again."""

    def answer(body: dict[str, Any]) -> str:
        *before, last = body["messages"]
        alike = sum(turn["role"] == "user" and "Data from documents" in turn["content"] for turn in before)
        return f"It has {last['content'].split('pier ')[-1].split('?')[0]}." if alike == 2 else "Perhaps."

    server.answer = answer
    test = [
        Question(f"t{n}", f"How many berths has pier {n}?", reference=f"It has {n}.") for n in range(60, 120)
    ]
    step = {**BOTH, "budget": 40}
    examples = tuple(
        Example(({"role": "user", "content": t}, {"role": "assistant", "content": a}), {"doc_id": d}, n)
        for n, (t, a, d) in enumerate(
            [
                ("How many berths has Amber?", "Amber has 20 berths.", "amber.md"),
                ("How many berths has Birch?", "Birch has 31 berths.", "birch.md"),
                ("How many piers are on Mars?", "No document says so.", None),
            ]
            * 2,
            1,
        )
    )
    context = make_context(
        step, examples=examples, base=RemoteModel("tern-2", server.url), test=test, weights={"exact_match": 1}
    )
    rows = answers(context)
    choice = json.loads((context.folder.path / TRIAL / PROMPTS).read_text("utf-8"))["arms"]["rag-few-shot"]
    assert choice["chosen"]["name"] == "2 with passages", choice["reason"]
    assert choice["used"] <= choice["budget"] == 40
    asked = [row for row in rows if row["finish"] != "refused"]
    assert asked
    for row in asked:
        users = [turn["content"] for turn in row["prompt"] if turn["role"] == "user"]
        assert len(users) == 3
        assert all("Data from documents" in text for text in users)
        assert "has 20 berths" in users[0] + users[1]
    (repeated,) = recall_arm(context, context.plan.arms[0], context.prompts).shots[:1]  # type: ignore[index]
    assert repeated.question == asked[0]["prompt"][-5]["content"]


def test_quick_plan_selects_no_bank_and_embedder_need_is_known() -> None:
    def plan(*steps: dict[str, Any]) -> Plan:
        data = {"examples": "e", "questions": "q"}
        body = {"name": "p", "choice": "few-shot", "model": {"name": "m"}, "data": data, "steps": list(steps)}
        return parse_plan({**body, "weights": {"style": 1}})

    (step,) = quick_plan(plan(FEW)).arms
    assert (step.bank, step.budget) == ("chosen", 0)
    assert quick_plan(plan(NEAR)).arms == plan(NEAR).arms
    assert [needs_embedder(plan(s)) for s in (FEW, NEAR, SORT)] == [False, True, True]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"passages": "all"}, "retrieval: true"),
        ({"bank": "similar"}, "needs shots"),
        ({"classifier": True, "shots": 3}, "no weights, retrieval"),
    ],
)
def test_contradictory_step_settings_are_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateStep(arm="x", **step)

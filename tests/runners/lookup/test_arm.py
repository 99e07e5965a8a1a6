"""The arm in a plan: checked, run, resumed, asked, served, evaluated, rechecked and reported, with and without an index."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from advisor.report.report import write_report
from advisor.report.statements import timing_notes
from rag.errors import BadInput, CannotRun
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.types import Lookups
from runners.lookup.generator import check_lookup_arms
from runners.lookup.journal import LOOKUPS
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep, LookupLimits
from runners.recheck.recheck import RecheckRequest, recheck
from runners.report.lookups import lookup_summary
from runners.report.trial_report import TrialReport
from runners.run_folder import TRIAL, open_run_folder, read_journal, read_run_plan
from runners.runs.opened import OpenRun
from runners.serving.batch import answer_batch
from runners.serving.request import AnswerRequest
from runners.serving.served_models import served_models
from runners.trial.dry_run import DryRun
from runners.trial.evaluate import evaluate
from runners.trial.execute import run_plan
from tests.support.tool_model import HERMES, calling, passages, reader, results

STEP = {"kind": "evaluate", "arm": "agentic-search", "retrieval": True, "passages": "looked_up"}
PIERS = ("Amber", "Birch", "Cedar")


@pytest.fixture
def make_plan(documents: Path, server: Any, tmp_path: Path) -> Callable[..., Plan]:
    """Make plans with the arm, over the three documents and a question about each, and one that they do not answer."""
    rows: list[dict[str, Any]] = [
        {"id": f"q{n}", "question": f"How many berths has the {name} Pier?", "answers": [str(20 + 11 * n)]}
        for n, name in enumerate(PIERS)
    ]
    rows += [
        {"id": f"d{n}", "question": f"Is {name} open late?", "answers": ["nine"]}
        for n, name in enumerate(PIERS)
    ]
    rows.append({"id": "no", "question": "Who owns the Zebra Pier?", "answerable": False})
    half = len(rows) // 2
    for name, part in (("dev", rows[:half]), ("test", rows[half:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), "utf-8")
    server.answer = reader

    def make(*steps: dict[str, Any], **more: Any) -> Plan:
        body = {
            "name": "piers",
            "choice": "prompting",
            "model": {"name": f"openai:tern-2@{server.url}"},
            "data": {
                "documents": str(documents),
                "questions": str(tmp_path / "dev.jsonl"),
                "test_questions": str(tmp_path / "test.jsonl"),
            },
            "steps": [{"kind": "evaluate", "arm": "prompting"}, *(steps or (STEP,))],
            "weights": {"fact_recall": 1, "citation": 1},
            "forgetting": {"prompts": 0},
        }
        return parse_plan({**body, **more})

    return make


def reported(run: Path) -> TrialReport:
    return write_report(open_run_folder(run), read_run_plan(run))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_journal(run / TRIAL / "answers.jsonl") if row["arm"] == "agentic-search"]


def test_arm_without_an_index_is_run_reported_and_asked(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    run = run_plan(make_plan(STEP | {"lookups": {"steps": 20}}), tmp_path / "run").path
    rows = rows_of(run)
    assert len(rows) == 4
    assert all({"requests", "calls", "passages"} <= set(row["lookups"]) for row in rows)
    cited = [row for row in rows if row["citations"]]
    assert cited
    for row in cited:
        (citation,) = row["citations"]
        assert citation["supported"]
        assert citation["quote"] in (tmp_path / "documents" / citation["doc"]).read_text("utf-8")
        assert {"doc", "start", "end"} == set(row["context"][0])
    (refused,) = [row for row in rows if row["id"] == "no"]
    assert refused["refused"]
    report = reported(run)
    (arm,) = [arm for arm in report.arms if arm.arm == "agentic-search"]
    assert arm.lookups is not None
    assert arm.lookups.n == 4
    assert arm.lookups.requests.most == 4
    assert arm.lookups.own > 0
    assert arm.lookups.limits == {}
    assert arm.retrieval
    (note,) = [note for note in timing_notes(report) if note.startswith("agentic-search")]
    assert "0 of 4 ended at a limit" in note
    assert "requests" in note

    session = OpenRun.open(run)
    step = session.arm("agentic-search")
    before = (run / TRIAL / LOOKUPS).read_text("utf-8")
    (answer,) = session.ask(["How many berths has the Birch Pier?"], step)
    assert answer.marked == "The Birch Pier has 31 berths. [1]"
    body = answer.reply_json("agentic-search")
    assert body["lookups"]["calls"] == 2
    assert body["searched"] == {"documents": 3}
    read = Lookups.from_json(json.loads(json.dumps(body)))
    assert read is not None
    assert read.to_json() == body["lookups"]
    assert Lookups.from_json({}) is None
    assert {time.how for _, time in DryRun(session).measure()} == {
        "not measured: a dry run sends nothing to an endpoint"
    }
    stream = session.stream("How many berths has the Birch Pier?", step)
    assert list(stream) == ["The Birch Pier has 31 berths. [1]"]
    assert (run / TRIAL / LOOKUPS).read_text("utf-8") == before, (
        "what a user asks is not written into the trial"
    )


def test_documents_that_change_are_read_at_the_next_question(
    make_plan: Callable[..., Plan], documents: Path, tmp_path: Path
) -> None:
    run = run_plan(make_plan(), tmp_path / "run").path
    session = OpenRun.open(run)
    step = session.arm("agentic-search")
    (documents / "birch.md").write_text("# Birch\n\nThe Birch Pier has 77 berths.\n", "utf-8")
    (answer,) = session.ask(["How many berths has the Birch Pier?"], step)
    assert answer.marked == "The Birch Pier has 77 berths. [1]"


def test_run_that_is_interrupted_goes_on_without_paying_again(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    plan = make_plan()
    down = lambda handler: handler.reply(401, {"error": {"message": "no"}})  # noqa: E731
    # four answers of prompting, whether it takes tools, and seven requests; then the server refuses
    server.faults = [None] * 12 + [down] * 20
    with pytest.raises((BadInput, CannotRun)):
        run_plan(plan, tmp_path / "run")
    journal = tmp_path / "run" / TRIAL / LOOKUPS
    paid = [row["request"] for row in read_journal(journal) if row["kind"] == "reply"]
    assert paid
    server.faults = []
    run_plan(plan, tmp_path / "run", resume=True)
    replies = [row["request"] for row in read_journal(journal) if row["kind"] == "reply"]
    assert replies[: len(paid)] == paid
    assert len(set(replies)) == len(replies), "no request was sent twice"
    assert len(rows_of(tmp_path / "run")) == 4


def test_endpoint_without_tools_is_refused_before_another_arm_is_asked(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    refuse = lambda handler: handler.reply(400, {"error": {"message": "tools are not supported"}})  # noqa: E731
    server.faults = [refuse]
    with pytest.raises(BadInput, match=r"cannot look things up by itself: .*tools are not supported"):
        run_plan(make_plan(), tmp_path / "run")
    assert len(server.seen) == 1
    run_plan(make_plan(), tmp_path / "run", resume=True, only="evaluate:prompting")
    assert not any("tools" in body for body in server.seen[1:]), "no arm of this step looks things up"


def test_each_model_of_a_plan_looks_things_up_by_itself(
    make_plan: Callable[..., Plan], endpoints: Callable[[], Any], tmp_path: Path
) -> None:
    """The host of one takes no tools: its arm alone is incomplete, until it does."""
    able, unable = endpoints(), endpoints()
    able.answer = reader

    def refuse(handler: Any) -> None:
        handler.reply(400, {"error": {"message": "this model does not support tools"}})

    unable.faults = [refuse] * 3
    models = {"a": f"openai:able@{able.url}", "b": f"openai:unable@{unable.url}"}
    steps = [STEP | {"arm": f"agentic-search@{alias}"} for alias in models]
    prompting = {"kind": "evaluate", "arm": "prompting@a"}
    plan = make_plan(
        models=models, model={"name": models["a"]}, choice="prompting@a", steps=[prompting, *steps]
    )
    run = run_plan(plan, tmp_path / "run")
    (incomplete,) = [event for event in run.events() if event.get("event") == "arm.incomplete"]
    assert incomplete["arm"] == "agentic-search@b"
    assert "does not support tools" in incomplete["reason"]
    rows = [row for row in read_journal(run.path / TRIAL / "answers.jsonl") if "lookups" in row]
    assert {row["arm"] for row in rows} == {"agentic-search@a"}
    assert len(rows) == 4
    assert len(unable.seen) == 1, "it is asked once"
    unable.faults, unable.answer = [], reader
    run_plan(plan, tmp_path / "run", resume=True)
    rows = [row for row in read_journal(run.path / TRIAL / "answers.jsonl") if "lookups" in row]
    assert sorted(row["arm"] for row in rows) == ["agentic-search@a"] * 4 + ["agentic-search@b"] * 4


def test_answers_at_a_limit_are_counted(make_plan: Callable[..., Plan], server: Any, tmp_path: Path) -> None:
    def endless(body: dict[str, Any]) -> Any:
        calls = [("grep", {"pattern": "berths"}), ("grep", {"pattern": f"a{len(results(body))}"})]
        return calling(*calls) if "tools" in body else "The Amber Pier has 20 berths."

    server.answer = endless
    run = run_plan(make_plan(STEP | {"lookups": {"steps": 2}}), tmp_path / "run")
    rows = rows_of(run.path)
    assert [row["lookups"]["limit"] for row in rows] == ["steps"] * 4
    (end,) = [
        e for e in run.events() if e.get("event") == "step.end" and e["step"] == "evaluate:agentic-search"
    ]
    assert end["limited"] == 4
    summary = lookup_summary(rows, "agentic-search")
    assert summary is not None
    assert summary.limits == {"steps": 4}
    assert summary.repeated == 4
    assert lookup_summary(rows, "prompting") is None
    note = next(note for note in timing_notes(reported(run.path)) if note.startswith("agentic-search"))
    assert "4 of 4 ended at a limit (steps 4)" in note
    assert "4 calls made twice or more" in note
    assert "4 of 4 ended at a limit (steps 4)" in (run.path / "report.html").read_text("utf-8")


def test_other_questions_and_a_recheck_send_what_is_new_alone(
    make_plan: Callable[..., Plan], server: Any, documents: Path, tmp_path: Path
) -> None:
    run = run_plan(make_plan(), tmp_path / "run").path
    reported(run)
    new = {"id": "n", "question": "How many berths has the Cedar Pier?", "answers": ["42"]}
    (tmp_path / "more.jsonl").write_text(json.dumps(new) + "\n", "utf-8")
    for _ in range(2):
        evaluation = evaluate(run, tmp_path / "more.jsonl", ["agentic-search"])
        assert evaluation.arms[0].scores[0]["right"] == 1.0
    asked = len(server.seen)
    request = RecheckRequest(all_arms=True, out=tmp_path / "again")
    same = recheck(run, request)
    assert len(server.seen) == asked, "every reply is recorded"
    assert {len(arm.asked) for arm in same.arms} == {0}
    (documents / "birch.md").write_text("# Birch\n\nThe Birch Pier is open late, until ten.\n", "utf-8")
    changed = recheck(run, RecheckRequest(all_arms=True, out=tmp_path / "changed"))
    counts = {arm.arm: len(arm.asked) for arm in changed.arms}
    assert counts["prompting"] == 0
    assert 1 <= counts["agentic-search"] <= 2


def test_index_of_the_plan_is_searched(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path, little_bert: Callable[..., Path]
) -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = ["?", "The", "Amber", "Birch", "Cedar", "Pier", "has", "berths", "It", "closes", "at", "nine"]
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    embedder = little_bert(tmp_path / "embedder", tokenizer)

    def searching(body: dict[str, Any]) -> Any:
        if "tools" in body:
            seen = len(results(body))
            return calling(
                ("search", {"query": "Amber Pier berths"[: 6 * seen]}) if seen < looked_up else ("answer", {})
            )
        lines = [line for line in passages(body).splitlines() if "Amber Pier has" in line]
        return lines[0] if lines else "Nothing."

    server.answer = searching
    steps = {"kind": "index", "k": 1}, STEP, {"kind": "evaluate", "arm": "rag", "retrieval": True}
    plan = make_plan(*steps, embedder={"name": str(embedder)}, refusal={"gate": "off"})
    looked_up = 3
    run = run_plan(plan, tmp_path / "run").path
    rows = rows_of(run)
    assert {row["answer"] for row in rows} == {"The Amber Pier has 20 berths."}
    assert all(row["citations"][0]["supported"] for row in rows)
    assert all("problems" not in row["lookups"] for row in rows)
    assert {row["lookups"]["own"] for row in rows} == {2}
    looked_up = 1
    run = run_plan(plan, tmp_path / "again").path
    answers = read_journal(run / TRIAL / "answers.jsonl")
    own, plain = (
        {row["id"]: (row["answer"], row["context"], row["marked"]) for row in answers if row["arm"] == arm}
        for arm in ("agentic-search", "rag")
    )
    assert own == plain, "an arm that looks nothing more up is rag"
    (note,) = [note for note in timing_notes(reported(run)) if note.startswith("agentic-search")]
    assert "made no look-up of its own in 4 questions: it is rag with more tokens" in note


def test_served_answer_comes_whole_with_its_citations(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    run = run_plan(make_plan(), tmp_path / "run").path
    session = OpenRun.open(run).obtain()
    model = served_models(session, "agentic-search")[0]["agentic-search"]
    assert model.looks_up
    assert not model.answers_at_once
    from runners.serving.http.chat import messages_for_model

    earlier: list[Message] = [
        {"role": "user", "content": "Where is Birch?"},
        {"role": "assistant", "content": "At the pier."},
    ]
    follow_up: Message = {"role": "user", "content": "And the berths?"}
    asked, notes = messages_for_model([*earlier, follow_up], model)
    assert isinstance(asked, Question)
    assert (asked.question, asked.history, notes) == ("And the berths?", tuple(earlier), {})
    question, _ = messages_for_model(
        [{"role": "user", "content": "How many berths has the Birch Pier?"}], model
    )
    pieces: list[str] = []
    ended: list[Any] = []
    request = AnswerRequest(
        model=model, prompt=question, on_text=pieces.append, on_end=ended.append, stream=True
    )
    threads: list[threading.Thread] = []

    def in_background(_: AnswerRequest, work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    answer_batch(session, [request], lambda **_: None, in_background)
    for thread in threads:
        thread.join()
    (result,) = ended
    assert "".join(pieces) == result.answer.marked == "The Birch Pier has 31 berths. [1]"
    assert len(pieces) == 1


def test_local_model_without_room_for_the_tools_answers_with_what_it_has(
    make_plan: Callable[..., Plan], with_template: Callable[[str], Path], tmp_path: Path
) -> None:
    """The tiny model reads 512 tokens, fewer than the tools take: its answers say so, and none is supported."""
    plan = make_plan(model={"name": str(with_template(HERMES))}, max_new_tokens=4)
    run = run_plan(plan, tmp_path / "run")
    rows = rows_of(run.path)
    assert [row["lookups"] for row in rows] == [
        {"requests": 1, "calls": 0, "own": 0, "passages": 0, "limit": "context"}
    ] * len(rows)
    assert not any(citation["supported"] for row in rows for citation in row["citations"])
    (arm,) = [arm for arm in reported(run.path).arms if arm.arm == "agentic-search"]
    assert arm.lookups is not None
    assert arm.lookups.nothing_read == len(rows) == 4
    session = OpenRun.open(run.path).obtain()
    model = served_models(session, "agentic-search")[0]["agentic-search"]
    assert model.answers_at_once, "it answers on the thread that has the models"
    assert not model.local


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retrieval": False}, "passages: looked_up is for an arm with retrieval: true"),
        ({"shots": 2}, "without weights and shots"),
        ({"instructions": "chosen"}, "without weights and shots"),
        ({"labels": "scored"}, "without weights and shots"),
        ({"retriever": "tuned"}, "retriever: tuned"),
        (
            {"passages": "found", "lookups": {"steps": 3}},
            "lookups: these limits are for an arm with passages: looked_up",
        ),
        ({"lookups": {"steps": 0}}, "greater than or equal to 1"),
        ({"lookups": {"hours": 1}}, "hours"),
    ],
)
def test_step_that_cannot_look_things_up_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateStep(**{**STEP, **changes})


def test_plan_needs_documents_and_prices_for_its_limit(
    make_plan: Callable[..., Plan], server: Any, tiny: Model
) -> None:
    with pytest.raises(BadInput, match=r"looked_up needs data\.documents"):
        make_plan(data={"questions": "q"})
    with pytest.raises(BadInput, match="the index step, whose index it searches, must stand before it"):
        make_plan(STEP, {"kind": "index"})
    from runners.models.resolve import RemoteModel

    plan = make_plan(STEP | {"lookups": {"usd": 0.01}})
    remote = RemoteModel("tern-2", server.url)
    with pytest.raises(BadInput, match=r"lookups\.usd is 0\.01, and the plan has no price of tern-2"):
        check_lookup_arms(plan, {plan.model.name: remote})
    with pytest.raises(BadInput, match="its chat template takes no tools"):
        check_lookup_arms(make_plan(), {plan.model.name: tiny})
    check_lookup_arms(make_plan(), {plan.model.name: remote})


def test_defaults_leave_the_digests_of_other_plans_as_they_were(make_plan: Callable[..., Plan]) -> None:
    step = EvaluateStep(arm="rag", retrieval=True)
    assert "lookups" not in step.model_dump()
    assert step.lookups == LookupLimits()
    plan = make_plan(STEP | {"lookups": {"steps": 3}})
    assert plan.arms[1].lookups.steps == 3
    assert plan.digest() != make_plan().digest()

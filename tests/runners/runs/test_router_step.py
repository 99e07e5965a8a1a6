"""A trial with nearest replies and a router: measured, interrupted, resumed, reported, asked, served, packed, rechecked."""

from __future__ import annotations

import json
import queue
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.report.report import judge
from advisor.report.statements import timing_notes
from rag.errors import BadInput, Problem
from rag.types import Citation
from runners.data.questions import Question
from runners.export.bundle import unbundle
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep
from runners.recheck.recheck import RecheckRequest, recheck
from runners.run_folder import TRIAL, RunFolder, read_journal
from runners.runs.opened import OpenRun
from runners.runs.router_step import DEV_ANSWERS
from runners.runs.routing import sure_answers
from runners.selective.routes import read_routes, routed_rows
from runners.serving.request import AnswerRequest
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker
from runners.trial.curve import curve_scores_by_point, measure_curves, open_curves
from runners.trial.dry_run import DryRun
from runners.trial.evaluate import evaluate
from runners.trial.execute import run_plan
from runners.trial.trial import score_trial
from tests.support.limits import HANG_S

EASY = {"refund": "money back for my ticket", "lost": "my bag is lost on board"}
HARD = {"refund": "quaver zither", "lost": "wombat yonder"}
DEV, TEST = 12, 12


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def texts(of: dict[str, str], count: int, word: str) -> list[tuple[str, str]]:
    """Return numbered texts with their labels."""
    return [(f"{text} {word} {n}", label) for label, text in of.items() for n in range(count)]


@pytest.fixture
def make_plan(tmp_path: Path, server: Any, little_bert: Callable[..., Path]) -> Callable[..., Plan]:
    """Return a function that makes a plan whose easy questions the examples know, and whose hard ones the endpoint."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = sorted({word for of in (EASY, HARD) for text in of.values() for word in text.split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    embedder = little_bert(tmp_path / "embedder", tokenizer)
    pairs = [{"prompt": text, "completion": label} for text, label in texts(EASY, 12, "please")]
    examples = write(tmp_path / "examples.jsonl", pairs)
    label_of = {text: label for of in (EASY, HARD) for label, text in of.items()}

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        return next((label for text, label in label_of.items() if text in asked), "?")

    server.answer = answer
    asked = [pair for word in ("today", "now") for pair in (*texts(EASY, 3, word), *texts(HARD, 3, word))]
    rows = [{"id": f"q{n}", "question": text, "reference": label} for n, (text, label) in enumerate(asked)]
    data = {"examples": examples, "questions": write(tmp_path / "dev.jsonl", rows[:DEV]), "dev_share": 0.9}
    data["test_questions"] = write(tmp_path / "test.jsonl", rows[DEV:])

    def make(*more: dict[str, Any], **changed: Any) -> Plan:
        steps: list[dict[str, Any]] = [
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "classifier", "classifier": True},
            {"kind": "evaluate", "arm": "nearest-reply", "nearest_reply": True},
            {"kind": "evaluate", "arm": "router", "route": {"first": "classifier", "otherwise": "prompting"}},
        ]
        body = {
            "name": "p",
            "choice": "prompting",
            "model": {"name": f"openai:tern-2@{server.url}", "at_once": 1},
            "embedder": {"name": str(embedder)},
            "data": data,
            "steps": [*steps, *more],
            "checks": [{"kind": "labels", "value": ["refund", "lost"]}],
            "weights": {"exact_match": 1},
            "answers": {"wrong_answer_cost": {"value": "low", "source": "asked"}},
        }
        return parse_plan({**body, **changed})

    return make


def rows_of(run: RunFolder, arm: str) -> dict[str, dict[str, Any]]:
    """Return the answers of an arm by question."""
    return {row["id"]: row for row in read_journal(run.path / TRIAL / "answers.jsonl") if row["arm"] == arm}


def chats(server: Any) -> Counter[str]:
    """Return how often each question was sent to the endpoint."""
    return Counter(body["messages"][-1]["content"] for body in server.seen)


def test_router_takes_the_answers_of_its_arms_and_asks_nothing_twice(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    plan = make_plan()
    served = server.answer
    asked: list[str] = []

    def refuse(handler: Any) -> None:
        handler.reply(401, {"error": {"message": "no"}})

    def answer(body: dict[str, Any]) -> str:
        asked.append(body["messages"][-1]["content"])
        if len(asked) == TEST + 3:  # in the middle of the router's dev answers
            server.faults = [refuse] * 8
        return str(served(body))

    server.answer = answer
    with pytest.raises(Problem):
        run_plan(plan, tmp_path / "run")
    server.faults = []
    dev = read_journal(tmp_path / "run" / TRIAL / DEV_ANSWERS)
    run = run_plan(plan, tmp_path / "run", resume=True)
    assert read_journal(run.path / TRIAL / DEV_ANSWERS)[: len(dev)] == dev
    assert Counter(asked).most_common(1)[0][1] == 1, "the endpoint answers no question twice"
    route = read_routes(run.path / TRIAL)["router"]
    assert (route.questions, route.asked) == (len(asked) - TEST, len(asked) - TEST)
    assert 0 < route.routed < route.questions, route.reason
    routed, first, other = (rows_of(run, arm) for arm in ("router", "classifier", "prompting"))
    assert len(routed) == TEST
    by = Counter(row["answered_by"] for row in routed.values())
    assert set(by) == {"classifier", "prompting"}
    for question, row in routed.items():
        source = first if row["answered_by"] == "classifier" else other
        assert row["answer"] == source[question]["answer"]
        assert (row["prompt_tokens"] == 0) == (row["answered_by"] == "classifier")
    judge(run.path)
    report = OpenRun.open(run.path).report
    assert report is not None
    (arm,) = [arm for arm in report.arms if arm.arm == "router"]
    assert arm.routed is not None
    assert arm.right is not None
    assert (arm.routed.hits, arm.routed.n, arm.routed.cut) == (by["classifier"], TEST, route.cut)
    assert arm.right.text == f"{TEST} of {TEST}"
    assert any(
        line.startswith(f"router: classifier answered {by['classifier']} of 12")
        for line in timing_notes(report)
    )
    again = run_plan(plan, tmp_path / "run", resume=True)
    assert rows_of(again, "router") == routed
    assert len(asked) == len(set(asked))


def test_router_uses_the_dev_answers_of_the_choice_of_prompts(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    """An arm that chose its wording on dev questions is not asked these again with it."""
    plan = make_plan()
    steps = [step.model_dump() for step in plan.steps]
    steps[0] |= {"instructions": "chosen", "budget": 40}
    asked = [*texts(EASY, 6, "soon"), *texts(HARD, 6, "soon")]
    more = [{"question": text, "reference": label} for text, label in asked]
    data = plan.data.model_dump() | {"test_questions": write(tmp_path / "wide.jsonl", more)}
    wide = make_plan(steps=steps, prompts={"system": "Give the label."}, data=data)
    run = run_plan(wide, tmp_path / "run")
    route = read_routes(run.path / TRIAL)["router"]
    assert route.asked < route.questions, route
    sent = Counter(json.dumps(body["messages"]) for body in server.seen)
    assert sent.most_common(1)[0][1] == 1


def test_router_and_nearest_replies_are_asked_served_packed_and_rechecked(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    more = {
        "kind": "evaluate",
        "arm": "by-reply",
        "route": {"first": "nearest-reply", "otherwise": "prompting"},
    }
    run = run_plan(make_plan(more), tmp_path / "run")
    judge(run.path)
    server.seen.clear()
    session = OpenRun.open(run.path).obtain()
    router, nearest = session.arm("router"), session.arm("nearest-reply")
    by = {row["answered_by"]: row for row in rows_of(run, "router").values()}
    easy, hard = (by[name] for name in ("classifier", "prompting"))
    sure, unsure = session.ask([easy["question"], hard["question"]], router)
    assert [(a.text, a.arm) for a in (sure, unsure)] == [
        (easy["answer"], "classifier"),
        (hard["answer"], "prompting"),
    ]
    assert [len(server.seen), sure.reply_json("router")["answered_by"]] == [1, "classifier"]
    assert list(session.stream(easy["question"], router)) == [easy["answer"]]
    assert "".join(session.stream(hard["question"], router)) == hard["answer"]
    reply = session.ask([f"{EASY['refund']} please 3"], nearest)[0]
    found = reply.reply_json("nearest-reply")["example"]
    assert (reply.text, reply.refused, found["similarity"], found["given"]) == ("refund", False, 1.0, True)
    assert session.ask([""], nearest)[0].refused
    assert len(server.seen) == 2

    models, missing = served_models(session, "router")
    assert (next(iter(models)), missing) == ("router", [])
    worker = BatchingWorker(session)
    worker.start()
    try:
        for arm, row in by.items():
            ended: queue.Queue[Any] = queue.Queue()
            asked = Question("q", row["question"])
            worker.submit(AnswerRequest(models["router"], asked, lambda piece: None, ended.put))
            result = ended.get(timeout=HANG_S)
            assert (result.text, result.answer.arm) == (row["answer"], arm), result
    finally:
        worker.stop()

    bundle = export(run.path, ExportRequest("bundle", out=tmp_path / "bundle"))
    unbundle(Path(bundle.out) / "p.zip", tmp_path / "unpacked")
    again = OpenRun.open(tmp_path / "unpacked").obtain()
    texts_asked = [f"{text} please 3" for text in EASY.values()]
    assert [a.text for a in again.ask(texts_asked, again.arm("nearest-reply"))] == list(EASY)
    for target in ("classifier", "peft"):
        with pytest.raises(BadInput) as refused:
            export(run.path, ExportRequest(target, "nearest-reply", out=tmp_path / target))
        assert "--to bundle" in str(refused.value.hint)

    server.seen.clear()
    checked = recheck(run.path, RecheckRequest(all_arms=True, out=tmp_path / "recheck"))
    assert not server.seen, "recorded answers are taken where nothing changed"
    assert {arm.arm: arm.now.mean_score - arm.before.mean_score for arm in checked.arms}["router"] == 0
    questions = write(tmp_path / "more.jsonl", [
        {"question": f"{text} tomorrow", "reference": label} for of in (EASY, HARD) for label, text in of.items()
    ])  # fmt: skip
    (scored,) = evaluate(run.path, questions, ["router"]).arms
    assert (scored.arm, len(scored.combined)) == ("router", 4)
    asked_of_endpoint = len(server.seen)
    assert asked_of_endpoint < 4, "of the other arm only what the first one is not sure of"
    evaluate(run.path, questions, ["router", "prompting", "by-reply"])
    assert max(chats(server).values()) == 1
    assert len(server.seen) == 4


def test_router_that_is_never_or_always_sure_says_so(
    make_plan: Callable[..., Plan], server: Any, tmp_path: Path
) -> None:
    """Without dev questions the cost of a wrong answer decides; --only without the arms' answers is refused."""
    plan = make_plan()
    data = plan.data.model_copy(update={"questions": None})
    run = run_plan(plan.model_copy(update={"data": data}), tmp_path / "run")
    route = read_routes(run.path / TRIAL)["router"]
    assert (route.questions, route.cut) == (0, pytest.approx(0.7))
    assert "0 dev questions are fewer than 8" in route.reason
    assert len(server.seen) == TEST
    with pytest.raises(BadInput, match="classifier lacks 12 answers"):
        run_plan(plan, tmp_path / "only", only="evaluate:router")


def test_nearest_replies_learn_from_rows(make_plan: Callable[..., Plan], server: Any, tmp_path: Path) -> None:
    """A learning curve of the arm, on dev questions: more rows give more replies; the router has none."""
    plan = make_plan()
    curves = open_curves(plan, None, tmp_path / "curve", ["nearest-reply"], sizes=(8, 24), seeds=1)
    seeds, (setup,) = measure_curves(curves), curves.setups
    scores = {name.rows: arm for name, arm in curve_scores_by_point(setup, seeds).items()}
    assert list(scores) == [8, 24]
    assert {len(arm.combined) for arm in scores.values()} == {len(setup.questions)}
    assert not server.seen
    with pytest.raises(BadInput, match="'router' does not learn from rows"):
        open_curves(plan, None, tmp_path / "other", ["router"])


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"nearest_reply": True, "shots": 2}, "an arm of nearest replies has no weights, retrieval, shots"),
        ({"nearest_reply": True, "classifier": True}, "are different arms"),
        ({"nearest_reply": True, "instructions": "chosen"}, "is not prompted"),
        (
            {"route": {"first": "classifier", "otherwise": "lora"}},
            "no earlier evaluate step is for the arm 'lora'",
        ),
        ({"route": {"first": "prompting", "otherwise": "prompting"}}, "'prompting' asks a model"),
        (
            {"route": {"first": "classifier", "otherwise": "nearest-reply"}},
            "is no arm that asks a model itself",
        ),
        ({"route": {"first": "classifier", "otherwise": "router"}}, "is no arm that asks a model itself"),
    ],
)
def test_misplaced_arms_are_refused(
    make_plan: Callable[..., Plan], step: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadInput) as refused:
        make_plan({"kind": "evaluate", "arm": "another", **step})
    assert problem in f"{refused.value.message} {refused.value.hint}"


def test_plans_without_these_arms_keep_their_digest(make_plan: Callable[..., Plan]) -> None:
    step = make_plan().steps[0].model_dump(mode="json")
    assert not {"nearest_reply", "route"} & set(step)


def test_language_model_is_loaded_only_for_what_the_first_arm_is_not_sure_of(
    make_plan: Callable[..., Plan], tiny: Model, tmp_path: Path
) -> None:
    """With a model in this process: a sure answer loads no language model, an unsure one does."""
    plan = make_plan(model={"name": str(tiny.folder)}, max_new_tokens=4)
    data = plan.data.model_copy(update={"max_test": 4})
    run = run_plan(plan.model_copy(update={"data": data}), tmp_path / "run")
    rows = {row["answered_by"]: row for row in rows_of(run, "router").values()}
    session = OpenRun.open(run.path).obtain()
    router = session.arm("router")
    sure = session.ask([rows["classifier"]["question"]], router)[0]
    assert (sure.arm, session.models.is_loaded) == ("classifier", False)
    nearest = session.ask([f"{EASY['lost']} please 1"], session.arm("nearest-reply"))[0]
    assert (nearest.text, session.models.is_loaded) == ("lost", False)
    times = {step.arm: time for step, time in DryRun(session).measure() if isinstance(step, EvaluateStep)}
    assert times["nearest-reply"].how == "not measured: a nearest reply takes milliseconds and asks no model"
    assert times["router"].seconds
    assert times["router"].how.startswith("at most 4 dev answers of prompting")
    cut = read_routes(run.path / TRIAL)["router"]
    again = OpenRun.open(run.path).obtain()
    path = run.path / TRIAL / "routes.json"
    path.write_text(path.read_text("utf-8").replace(f'"cut": {cut.cut}', '"cut": null'), "utf-8")
    answers = sure_answers(again, router, [Question("q", rows["classifier"]["question"])])
    assert answers == [None]
    assert not again.models.is_loaded
    again.answer([Question("q", rows["classifier"]["question"])], router)
    assert again.models.is_loaded, "never sure: the other arm answers"


def test_answer_of_a_router_is_scored_as_that_of_the_arm_that_gave_it(make_plan: Callable[..., Plan]) -> None:
    """One that searched may cite: its citations count for the router too."""
    plan = make_plan()
    rag = {"kind": "evaluate", "arm": "rag", "retrieval": True}
    router = {"kind": "evaluate", "arm": "router", "route": {"first": "classifier", "otherwise": "rag"}}
    steps = [{"kind": "index"}, rag, plan.steps[1].model_dump(mode="json"), router]
    data = plan.data.model_dump() | {"documents": "d"}
    weights = {"fact_recall": 1, "citation": 1}
    made = make_plan(steps=steps, choice="rag", data=data, weights=weights, checks=[])
    cited = Citation(n=1, doc="a.md", quote="At six.", answer_end=7).to_json()
    row = {"arm": "rag", "seed": 0, "id": "q", "answer": "At six.", "citations": [cited], "seconds": 0.1}
    row |= {"prompt_tokens": 9, "completion_tokens": 2}
    first = row | {"arm": "classifier", "citations": [], "labels": [{"label": "At six.", "probability": 0.2}]}
    routed = routed_rows(made.arms[-1], [row, first], (0,), 0.5)
    scored = score_trial(
        made, [Question("q", "When?", reference="At six.")], [row, first, *routed], lambda q: ""
    )
    by_name = {arm.arm: arm for arm in scored}
    assert by_name["router"].scores == by_name["rag"].scores
    assert by_name["rag"].scores[0]["citation"] == 1.0
    assert by_name["classifier"].scores[0]["citation"] == 0.0
    assert (routed[0]["answered_by"], routed[0]["seconds"]) == ("rag", 0.2)

"""A run with an embedder step: its gate, the arm that searches with it, and everything that opens the run afterwards."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.embedding.embedder import Embedder
from rag.errors import BadInput, CannotRun
from rag.files import write_json
from rag.index import Index, newest_generation
from runners.arms.training_pairs import require_pairs, training_pairs
from runners.data.examples import Example, load_examples
from runners.data.questions import Question, load_questions
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan, step_name
from runners.plan.steps import EmbedderStep, EvaluateStep
from runners.recheck.recheck import RecheckRequest, recheck
from runners.report.report_file import report_json
from runners.run_folder import INDEX, RETRIEVER, TUNED_INDEX, open_run_folder, read_journal, read_run_plan
from runners.runs.dataset import read_data
from runners.runs.opened import OpenRun
from runners.runs.retrieval import read_comparison, refused_arms
from runners.trial.execute import run_plan
from tests.support import synonyms
from tests.support.reports import report_from

STEP = {"kind": "embedder", "epochs": 8, "batch_size": 16, "learning_rate": 0.01}
"""Enough for the planted case."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synonyms")
    synonyms.write_files(folder)
    synonyms.embedder(folder / "embedder")
    return folder


def plan_of(files: Path, tiny: Model, step: dict[str, Any], **more: Any) -> Plan:
    return parse_plan(
        {
            "name": "synonyms",
            "choice": "rag",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(files / "embedder")},
            "max_new_tokens": 4,
            "data": {
                "documents": str(files / "documents.jsonl"),
                "examples": str(files / "examples.jsonl"),
                "questions": str(files / "questions.jsonl"),
                "dev_share": 0.6,
                "max_test": 3,
            },
            "steps": [
                {"kind": "index"},
                step,
                {"kind": "evaluate", "arm": "rag", "retrieval": True},
                {"kind": "evaluate", "arm": "rag-tuned", "retrieval": True, "retriever": "tuned"},
            ],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 0},
        }
        | more
    )


@pytest.fixture(scope="module")
def accepted(files: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accepted") / "run"
    return run_plan(plan_of(files, tiny, STEP), out).path


def test_accepted_retriever_is_asked_with_its_own_index_and_threshold(accepted: Path, files: Path) -> None:
    comparison = read_comparison(accepted)
    assert comparison["accepted"], comparison["reason"]
    assert comparison["dev"]["evidence"]["low"] > 0
    assert comparison["test"]["questions"] == 3
    rows = read_journal(accepted / "trial" / "answers.jsonl")
    assert [sum(row["arm"] == arm for row in rows) for arm in ("rag", "rag-tuned")] == [3, 3]
    session = OpenRun.open(accepted).obtain()
    plain, tuned = (session.retrieval.of(session.arm(name)).retriever for name in ("rag", "rag-tuned"))
    assert plain.index.fingerprint != tuned.index.fingerprint
    question = load_questions(files / "questions.jsonl")[0]
    assert tuned.find([question.question])[0].hits[0].chunk.doc == question.doc_id
    assert plain.find([question.question])[0].hits[0].chunk.doc != question.doc_id
    assert (accepted / "refusal.json").read_text() != (accepted / RETRIEVER / "refusal.json").read_text()
    answer = session.ask([question.question], session.arm("rag-tuned"))[0]
    assert answer.question.question == question.question
    # the plain index opens as before, with the plain embedder alone
    assert Index.open(accepted / INDEX, Embedder(files / "embedder")).search(question.question, 1)
    with pytest.raises(BadInput):
        Index.open(accepted / TUNED_INDEX, Embedder(files / "embedder"))


def test_events_say_what_was_done(accepted: Path) -> None:
    events = read_journal(accepted / "events.jsonl")
    by_kind = {event["event"]: event for event in events}
    assert by_kind["retriever.pairs"]["reason"] == "80 pairs of 80 examples"
    assert by_kind["retriever.gate"]["accepted"]
    done = next(e for e in events if e["event"] == "step.done" and e["step"] == "embedder")
    assert done["result"]["trained"]["steps"] == 40
    assert "test" not in done["result"], "the test questions are not compared before the trial"
    order = [e["event"] for e in events if e["event"] in ("step.done", "retriever.test")]
    assert order == ["step.done"] * 4 + ["retriever.test"]


def test_finished_step_is_skipped_and_a_damaged_one_done_again(
    accepted: Path, files: Path, tiny: Model, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(accepted, run)
    plan = plan_of(files, tiny, STEP)

    def resume() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        run_plan(plan, run, resume=True, on_event=events.append)
        return events

    assert [e["step"] for e in resume() if e["event"] == "step.skip"] == [
        "index",
        "embedder",
        "evaluate:rag",
        "evaluate:rag-tuned",
    ]
    weights = (run / RETRIEVER / "embedder" / "model.safetensors").read_bytes()
    shutil.rmtree(run / RETRIEVER / "embedder")
    (run / RETRIEVER / "training.json").unlink()
    again = resume()
    assert any("embedder is missing" in str(e.get("reason")) for e in again)
    assert (run / RETRIEVER / "embedder" / "model.safetensors").read_bytes() == weights
    shutil.rmtree(run / TUNED_INDEX)  # killed between the training and the end of the index
    again = resume()
    assert not [e for e in again if e["event"] == "retriever.step"], (
        "the weights are whole: nothing is trained"
    )
    assert (run / TUNED_INDEX).is_dir()


def test_refused_retriever_is_not_asked_and_the_run_says_so(files: Path, tiny: Model, tmp_path: Path) -> None:
    head = {"name": str(files / "embedder")}  # the embedder itself: a reranker of its weights with a new head
    weak = {"kind": "embedder", "epochs": 0.1, "learning_rate": 1e-7, "max_pairs": 16, "reranker": head}
    events: list[dict[str, Any]] = []
    path = run_plan(plan_of(files, tiny, weak), tmp_path / "run", on_event=events.append).path
    comparison = read_comparison(path)
    assert not comparison["accepted"]
    plan = plan_of(files, tiny, weak)
    assert list(refused_arms(path, plan)) == ["rag-tuned"]
    assert {row["arm"] for row in read_journal(path / "trial" / "answers.jsonl")} == {"rag"}
    assert list(json.loads((path / "trial" / "scores.json").read_text())["arms"]) == ["rag"]
    assert [e["arm"] for e in events if e["event"] == "arm.refused"] == ["rag-tuned"]
    pairs = next(e for e in events if e["event"] == "retriever.pairs")
    assert (pairs["pairs"], pairs["drawn_from"]) == (16, 80)
    reranker = OpenRun.open(path).retrieval.tuned.retriever.reranker
    assert reranker is not None
    assert len(reranker.scores("when may pome be landed ?", ["the amber pier", "the birch pier"])) == 2


def test_export_of_index_and_bundle_hold_the_tuned_parts(accepted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(accepted, run)
    report = report_from({"verdict": {"winner": "rag-tuned", "use": "rag-tuned", "outcome": "overturned"}})
    write_json(run / "report.json", report_json(report))
    session = OpenRun.open(run).obtain()
    session.folder.seal({})
    export(run, ExportRequest("index", out=tmp_path / "exported"))
    assert (tmp_path / "exported" / "embedder" / "model.safetensors").is_file()
    assert (
        session.retrieval.of(session.searched_arm).index.fingerprint
        == session.retrieval.tuned.index.fingerprint
    )
    export(run, ExportRequest("bundle", out=tmp_path / "bundled"))
    from runners.export.bundle import unbundle

    unbundle(next((tmp_path / "bundled").glob("*.zip")), tmp_path / "copied")
    moved = OpenRun.open(tmp_path / "copied").obtain()
    assert moved.retrieval.of(moved.arm("rag-tuned")).retriever.find(["when may pome be landed at resin ?"])


def test_tripwire_held_out_questions_and_too_few_pairs_are_refused(accepted: Path, files: Path) -> None:
    index = Index.open(accepted / INDEX, Embedder(files / "embedder"))
    examples = load_examples(files / "examples.jsonl").rows
    pairs = training_pairs(index, examples)
    held_out = load_questions(files / "questions.jsonl")
    require_pairs(pairs, held_out)
    leaked = Question("q1", examples[3].question.upper().replace(" ", "  "))
    with pytest.raises(BadInput, match="1 held-out questions are among the pairs"):
        require_pairs(pairs, (*held_out, leaked))
    with pytest.raises(BadInput, match=r"1 held-out questions are among the pairs .*\(q1~1: "):
        require_pairs(pairs, (Question("q1", "What?", wordings=(examples[3].question.upper(),)),))
    with pytest.raises(BadInput, match="at least 16 pairs, and there are 3 pairs of 3 examples"):
        require_pairs(training_pairs(index, examples[:3]))
    assert training_pairs(index, examples, max_pairs=20, seed=1) == training_pairs(index, examples, 20, 1)
    assert training_pairs(index, examples, 20, 2).pairs != training_pairs(index, examples, 20, 1).pairs


def test_refusals_texts_and_rows_without_a_passage_are_counted(accepted: Path, files: Path) -> None:
    index = Index.open(accepted / INDEX, Embedder(files / "embedder"))
    examples = list(load_examples(files / "examples.jsonl").rows[:4])
    turns = (
        {"role": "user", "content": "wo liegt grain ?"},
        {"role": "assistant", "content": "Keine Angabe."},
    )
    examples.append(Example(turns, {"refusal": True}, 5))
    unknown = (
        {"role": "user", "content": "was kostet es ?"},
        {"role": "assistant", "content": "Zwölf Xyzzy im Fjord."},
    )
    examples.append(Example(unknown, {}, 6))
    examples.append(Example(({"role": "assistant", "content": "A plain text."},), {}, 7))
    pairs = training_pairs(index, [*examples, examples[0]])
    assert (len(pairs.pairs), pairs.refusals, pairs.texts, pairs.repeated) == (4, 1, 1, 1)
    assert pairs.unsupported == (6,)
    assert pairs.text == "4 pairs of 8 examples, 1 without a passage, 1 refusals, 1 plain texts, 1 repeats"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"kind": "embedder"}], "an embedder step needs an index step before it"),
        ([{"kind": "index"}, {"kind": "embedder"}, {"kind": "embedder"}], "one is all that it can have"),
        ([{"kind": "index"}, {"kind": "evaluate", "arm": "a", "retrieval": True, "retriever": "tuned"}], "needs an"),
        ([{"kind": "evaluate", "arm": "a", "retriever": "tuned"}], "is for an arm with retrieval"),
        ([{"kind": "index"}, {"kind": "embedder", "hard_negatives": 0, "reranker": {"name": "x"}}], "hard_negatives is 0"),
        ([{"kind": "index"}, {"kind": "embedder", "epoch": 2}], "did you mean epochs"),
    ],
)  # fmt: skip
def test_wrong_steps_are_refused(
    files: Path, tiny: Model, steps: Sequence[dict[str, Any]], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        plan_of(files, tiny, STEP, steps=list(steps))


def test_every_setting_of_the_step_reaches_the_training() -> None:
    other = {
        "method": "lora",
        "epochs": 1.0,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "hard_negatives": 2,
        "original_share": 0.5,
    }
    usual = EmbedderStep().settings(0)
    for key, value in other.items():
        changed = EmbedderStep(**{key: value}).settings(0)
        assert getattr(changed, key) == value
        assert changed != usual
    assert EmbedderStep().settings(3).seed == 3
    assert set(EmbedderStep.model_fields) - set(other) == {"kind", "max_pairs", "reranker"}


def test_steps_of_older_plans_have_no_new_key_and_the_step_a_name() -> None:
    assert "retriever" not in EvaluateStep(arm="rag", retrieval=True).model_dump()
    assert step_name(EmbedderStep()) == "embedder"


def test_missing_extra_stops_the_run_with_the_command(
    files: Path, tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CannotRun, match="datasets"):
        run_plan(plan_of(files, tiny, STEP), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "it is noticed before the first step"


def test_recheck_searches_with_the_tuned_retriever(accepted: Path, files: Path, tmp_path: Path) -> None:
    """Both indexes follow the documents; the same passages ask nothing again."""
    from advisor.report.report import write_report

    plan = read_run_plan(accepted)
    write_report(open_run_folder(accepted), plan, read_data(plan).split.test)
    rows = (files / "documents.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "documents.jsonl").write_text("\n".join(rows[::-1]) + "\n", "utf-8")
    request = RecheckRequest(documents=tmp_path / "documents.jsonl", all_arms=True, out=tmp_path / "same")
    assert [(arm.arm, len(arm.asked)) for arm in recheck(accepted, request).arms] == [
        ("rag", 0),
        ("rag-tuned", 0),
    ]
    changed = [json.dumps(row | {"text": f"{row['text']} Indeed."}) for row in map(json.loads, rows)]
    (tmp_path / "documents.jsonl").write_text("\n".join(changed) + "\n", "utf-8")
    request = replace(request, out=tmp_path / "changed")
    assert {len(arm.asked) for arm in recheck(accepted, request).arms} == {3}
    generations = [newest_generation(tmp_path / "changed" / name) for name in (INDEX, TUNED_INDEX)]
    assert generations == [2, 2]

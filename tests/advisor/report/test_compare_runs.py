"""Comparison of two runs: questions matched by their text, paired differences, and what is in one run only."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advisor.display.trial_table import show_comparison, show_margins
from advisor.flags.run import RunFlags
from advisor.report.compare_runs import compare_runs
from advisor.report.data import read_report, read_scores
from advisor.report.report import write_report
from advisor.workflows.run import execute_plan
from rag.errors import BadInput, UsageProblem
from runners.plan.schema import parse_plan
from runners.report.records import SeedScore
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores, write_scores
from tests.support.worded import repeat_in_wordings

Make = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> Make:
    """Return a function that writes a finished run: each arm scores above the one before it."""

    def make(
        name: str, arms: Sequence[str], questions: dict[str, str], rag_lift: float = 0.0, **plan: Any
    ) -> Path:
        body = {
            "name": name,
            "choice": arms[-1],
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"documents": "d", "questions": "q"},
            "weights": {"style": 1},
            "steps": [{"kind": "index"}, *({"kind": "evaluate", "arm": arm} for arm in arms)],
            "gate": {"must_beat": list(arms[:-1])},
            **plan,
        }
        parsed = parse_plan(body)
        folder = RunFolder.create(tmp_path / name, parsed)
        folder.write({"event": "run.start", "split": "abc"})
        count, scored = len(questions), []
        for number, arm in enumerate(arms):
            values = [
                0.2 + 0.2 * number + (n * 7 % 5) / 50 + (rag_lift if arm == "rag" else 0)
                for n in range(count)
            ]
            scores = tuple({"style": value, "token_f1": 1 - value} for value in values)
            numbers = ((0.1,) * count, (9,) * count, (9,) * count)
            documents = tuple(f"d{n % 11}.md" for n in range(count))
            scored.append(
                ArmScores(arm, tuple(questions), scores, tuple(values), *numbers, documents, ((0, 0.4),))
            )
        write_scores(scored, folder.path / "trial" / "scores.json")
        rows = [
            {"arm": arms[0], "seed": 0, "id": question_id, "question": text, "marked": ""}
            for question_id, text in questions.items()
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder.path / "trial" / "answers.jsonl").write_text(text, "utf-8")
        write_report(folder, parsed)
        return folder.path

    return make


def ferry_questions(*numbers: int, start: int = 0) -> dict[str, str]:
    """Return questions about ferries of these numbers, with ids counted from ``start``."""
    return {
        f"q{start + position}": f"What does ferry {number} cost?" for position, number in enumerate(numbers)
    }


def printed(show: Callable[..., None], *arguments: Any) -> str:
    """Return what is shown on a wide terminal."""
    out = io.StringIO()
    show(*arguments, Console(width=200, file=out))
    return out.getvalue()


def test_wordings_of_a_question_are_one_value_of_the_comparison(make_run: Make) -> None:
    """The same answers to three wordings of each question: nothing but the count of what was asked is another."""
    runs = [
        make_run(name, ["prompting", "rag"], ferry_questions(*range(30)), rag_lift=lift)
        for name, lift in (("first", 0.05), ("second", 0.0))
    ]
    plain = compare_runs(*runs)
    for run in runs:
        arms = [repeat_in_wordings(arm, 2) for arm in read_scores(run)]
        write_scores(arms, run / "trial" / "scores.json")
    worded = compare_runs(*runs)
    assert (plain["questions"]["common"], worded["questions"]["common"]) == (30, 90)
    for one, other in zip(plain["arms"], worded["arms"], strict=True):
        assert other["units"] == one["units"]
        keys = ("difference", "low", "high", "p", "mean_a", "mean_b")
        assert [other[key] for key in keys] == pytest.approx([one[key] for key in keys], abs=0.01)


def test_weights_count_in_the_comparison_and_where_they_differ_it_is_said(make_run: Make) -> None:
    """The first run's questions are asked unequally often: means and interval are over what is asked."""
    first, second = (
        make_run(name, ["prompting", "rag"], ferry_questions(*range(30)), rag_lift=lift)
        for name, lift in (("first", 0.05), ("second", 0.0))
    )
    plain = compare_runs(first, second)
    times = tuple(30 / 39 * (10.0 if n == 0 else 1.0) for n in range(30))
    arms = [replace(arm, question_weights=times, asked=times) for arm in read_scores(first)]
    write_scores(arms, first / "trial" / "scores.json")
    for runs, sign in (((first, second), 1), ((second, first), -1)):
        weighted = compare_runs(*runs)
        rag = weighted["arms"][1]
        scores = arms[1].combined
        mean = sum(score * time for score, time in zip(scores, times, strict=True)) / 30
        assert rag["mean_a" if sign > 0 else "mean_b"] == pytest.approx(mean)
        assert rag["difference"] == pytest.approx(0.05 * sign)
        assert weighted["notes"] == [
            f"how often questions are asked differs: both runs are counted as in {first}"
        ]
    assert plain["notes"] == []


def test_compare_runs_matches_questions_by_text(make_run: Make) -> None:
    first = make_run("first", ["prompting", "rag"], ferry_questions(*range(40)), rag_lift=0.1)
    second = make_run("second", ["prompting", "rag"], ferry_questions(*range(4, 44), start=50))
    comparison = compare_runs(first, second)
    assert comparison["questions"] == {"common": 36, "only_a": 4, "only_b": 4}
    assert [row["arm"] for row in comparison["arms"]] == ["prompting", "rag"]
    prompting, rag = comparison["arms"]
    assert prompting["n"] == rag["n"] == 36
    assert rag["difference"] == pytest.approx(rag["mean_a"] - rag["mean_b"])
    assert rag["low"] <= rag["difference"] <= rag["high"]
    assert rag["p"] <= rag["p_holm"]
    assert rag["units"] == 11
    assert rag["low"] > 0.05
    assert (comparison["winners"]["a"], comparison["winners"]["b"], comparison["winners"]["n"]) == (
        "rag",
        "rag",
        36,
    )
    assert comparison["notes"] == []


def test_compare_runs_rejects_same_ids_of_other_questions(make_run: Make) -> None:
    first = make_run("first", ["prompting", "rag"], ferry_questions(1, 2, 3))
    second = make_run("second", ["prompting", "rag"], ferry_questions(4, 5, 6))
    with pytest.raises(BadInput, match="no question in common"):
        compare_runs(first, second)
    for run in (first, second):
        (run / "trial" / "answers.jsonl").unlink()
    assert compare_runs(first, second)["questions"]["common"] == 3, "ids count where no texts were stored"


def test_compare_runs_lists_differences_of_the_runs(make_run: Make) -> None:
    first = make_run("first", ["prompting", "rag"], ferry_questions(*range(8)))
    second = make_run(
        "second", ["prompting", "lora"], ferry_questions(*range(8)), weights={"style": 1, "token_f1": 3}
    )
    comparison = compare_runs(first, second)
    assert (comparison["only_in_a"], comparison["only_in_b"]) == (["rag"], ["lora"])
    assert [row["arm"] for row in comparison["arms"]] == ["prompting"]
    assert comparison["arms"][0]["difference"] == pytest.approx(0), "both weighed as in the first"
    assert "weights of the scores differ" in comparison["notes"][0]
    assert comparison["winners"]["n"] == 8
    text = printed(show_comparison, comparison)
    for part in (
        "8 questions in both runs",
        "only in first: rag",
        "only in second: lora",
        "to use: rag, lora",
    ):
        assert part in text
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison


def test_margins_show_corrected_p_and_seed_differences(make_run: Make) -> None:
    run = make_run("first", ["prompting", "rag"], ferry_questions(*range(40)))
    report = read_report(run)
    (rag, _), measured = report.arms, report.measured
    assert rag.seeds == (SeedScore(seed=0, mean=0.4),)
    assert rag.documents == 11
    assert report.cost_order == ("prompting", "rag")
    text = printed(show_margins, report)
    assert "rag compared with  right" in text
    assert "corrected for the number of arms compared (Holm)" in text
    assert "training seed" not in text, "nothing was trained"
    twice = replace(report, arms=(replace(rag, seeds=(*rag.seeds, SeedScore(seed=1, mean=0.46))),))
    differ = "rag: 0.400 (seed 0), 0.460 (seed 1); the training seeds differ by 0.060"
    assert differ in printed(show_margins, twice)
    once = replace(report, measured=replace(measured, training={"lora": ({"seed": 0},)}))
    assert "trained once (lora): --seeds 2" in printed(show_margins, once)


def test_scores_without_documents_and_seeds_still_load(make_run: Make) -> None:
    run = make_run("first", ["prompting", "rag"], ferry_questions(*range(40)))
    path = run / "trial" / "scores.json"
    body = json.loads(path.read_text("utf-8"))
    assert body["documents"]["q3"] == "d3.md"
    now = read_scores(run)
    path.write_text(json.dumps({"schema": 1, "arms": body["arms"]}), "utf-8")
    before = read_scores(run)
    assert [arm.combined for arm in before] == [arm.combined for arm in now]
    assert now[0].sources()[:2] == ["d0.md", "d1.md"]
    assert now[0].seeds == ((0, 0.4),)
    assert before[0].sources() == [None] * 40
    assert before[0].seeds == ()


def test_report_compare_prints_json(make_run: Make, tunewise: Any) -> None:
    first, second = (
        make_run(name, ["prompting", "rag"], ferry_questions(*range(12))) for name in ("first", "second")
    )
    done = tunewise("report", first, "--compare", second, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data.pop("compared") == json.loads(json.dumps(compare_runs(first, second)))
    assert data == json.loads((first / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("quick", "message"), [(True, "--quick trains one seed"), (False, "other seeds and keeps them")]
)
def test_seeds_without_effect_are_rejected(make_run: Make, quick: bool, message: str) -> None:
    run = make_run("first", ["prompting", "rag"], ferry_questions(1, 2))
    with pytest.raises(UsageProblem, match=message):
        execute_plan(RunFlags(plan=run, quick=quick, seeds=2))


@pytest.mark.parametrize(
    ("kernels", "message"), [("plain", "other kernels and keeps them"), ("fast", "auto, plain")]
)
def test_kernels_without_effect_are_rejected(make_run: Make, kernels: str, message: str) -> None:
    run = make_run("first", ["prompting", "rag"], ferry_questions(1, 2))
    with pytest.raises(UsageProblem) as refused:
        execute_plan(RunFlags(plan=run, kernels=kernels))
    assert message in f"{refused.value.message}; {refused.value.hint}"

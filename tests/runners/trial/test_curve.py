"""Learning curves measured: nested rows, resumption, seeds within the time, the finished run's own weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recheck import make_run, write_rows
from rag.errors import BadInput, UsageProblem
from rag.files import writer_lock
from rag.index import newest_generation
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan
from runners.run_folder import read_journal
from runners.trial import curve as curves
from runners.trial import curve_points as points


def test_smaller_draws_are_part_of_larger_ones(examples: tuple[Example, ...]) -> None:
    for seed in (0, 1):
        draws = [points.nested_rows(examples, size, seed) for size in (9, 18, 36)]
        lines = [[row.line for row in draw] for draw in draws]
        assert set(lines[0]) < set(lines[1]) < set(lines[2])
        assert draws[2] == examples
        assert lines[0] == sorted(lines[0])
    assert points.nested_rows(examples, 9, 0) != points.nested_rows(examples, 9, 1)


@pytest.mark.parametrize(
    ("rows", "wanted", "sizes"),
    [(400, (), (50, 100, 200, 400)), (40, (), (10, 20, 40)), (400, (100, 20, 100), (20, 100))],
)
def test_sizes(rows: int, wanted: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    assert points.curve_sizes(rows, wanted) == sizes


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(BadInput, match="too few for a curve"):
        points.curve_sizes(14)
    for wanted, named in (((4, 50), "--sizes 4"), ((50, 500), "--sizes 500"), ((50,), "one size")):
        with pytest.raises(UsageProblem, match=named):
            points.curve_sizes(400, wanted)


@pytest.fixture(scope="module")
def plan(tiny: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan with one tuned and one prompted arm of a tiny model, and twelve questions."""
    folder = tmp_path_factory.mktemp("curve")
    rows = "".join(json.dumps({"messages": list(row.messages)}) + "\n" for row in examples)
    (folder / "examples.jsonl").write_text(rows, "utf-8")
    asked = [
        {"id": f"q{n}", "question": f"Is gate {n} shut on day {n * 7}?", "answers": ["Yes"]}
        for n in range(12)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    return parse_plan(
        {
            "name": "ferry",
            "choice": "lora",
            "model": {"name": str(tiny.folder)},
            "data": {
                "examples": str(folder / "examples.jsonl"),
                "questions": str(folder / "questions.jsonl"),
            },
            "steps": [
                {"kind": "train", "arm": "lora", "epochs": 1.0, "rank": 2},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
                {"kind": "evaluate", "arm": "prompting"},
            ],
            "weights": {"token_f1": 1},
            "max_new_tokens": 4,
            "forgetting": {"prompts": 0},
        }
    )


def measured(plan: Plan, out: Path, minutes: float, **more: Any) -> tuple[curves.CurveSetup, tuple[int, ...]]:
    """Measure a curve of two sizes and at most two seeds into a folder."""
    opened = curves.open_curves(plan, None, out, sizes=(9, 18), seeds=2, **more)
    (setup,) = opened.setups
    return setup, curves.measure_curves(opened, minutes)


def test_interrupted_curve_goes_on_and_ends_the_same(plan: Plan, tmp_path: Path) -> None:
    """Stopped in the second size: what is finished is neither trained nor asked again. A seed is added when time allows."""
    whole, seeds = measured(plan, tmp_path / "whole", 1e-6)
    assert (seeds, whole.part, whole.sizes) == ((0,), "dev", (9, 18))
    notes = [
        event["reason"] for event in read_journal(tmp_path / "whole" / "events.jsonl") if "reason" in event
    ]
    assert any("does not fit in --minutes" in note for note in notes)
    scores = curves.curve_scores_by_point(whole, seeds)
    assert [name.rows for name in scores] == [9, 18]
    assert {len(arm.questions) for arm in scores.values()} == {len(whole.questions)}

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step.start" and event["step"] == "evaluate:lora-n18-s0":
            raise KeyboardInterrupt

    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        measured(plan, out, 1e-6, on_event=interrupt)
    with pytest.raises(UsageProblem, match="exists"):
        measured(plan, out, 1e-6)
    with pytest.raises(BadInput, match="differs"):
        curves.open_curves(plan, None, out, sizes=(10, 20), seeds=2, resume=True)
    cut, seeds = measured(plan, out, 1000, resume=True)
    assert seeds == (0, 1)
    skipped = [
        event["step"] for event in read_journal(out / "events.jsonl") if event.get("event") == "step.skip"
    ]
    assert skipped == ["train:lora-n9-s0", "evaluate:lora-n9-s0", "train:lora-n18-s0"]
    again = {name: arm.combined for name, arm in curves.curve_scores_by_point(cut, seeds).items()}
    assert len(again) == 4
    assert {name: arm.combined for name, arm in scores.items()}.items() <= again.items()


def test_second_process_in_a_curve_changes_nothing(examples: Sequence[Example], tmp_path: Path) -> None:
    """The run's index is copied under the lock: a process that is refused has copied and removed nothing."""
    piers = [{"id": f"p{n}", "text": f"Pier {n} has {100 + n} berths for visitors."} for n in range(12)]
    asked = [
        {
            "id": f"q{n}",
            "question": f"How many berths has pier {n}?",
            "answers": [str(100 + n)],
            "doc_id": f"p{n}",
        }
        for n in range(12)
    ]
    base = make_run("piers", piers, asked, tmp_path)
    rows = [{"messages": list(row.messages)} for row in examples]
    file = write_rows(tmp_path / "examples.jsonl", rows)
    arm = {"kind": "evaluate", "arm": "few-shot", "retrieval": True, "shots": 2, "budget": 0}
    given = base.plan | {"data": base.plan["data"] | {"examples": str(file)}}
    plan = parse_plan(given | {"steps": [*base.plan["steps"], arm], "choice": "few-shot"})
    out = tmp_path / "curve"

    def opened(resume: bool) -> curves.Curves:
        return curves.open_curves(plan, base.run, out, ["few-shot"], (9, 18), seeds=1, resume=resume)

    setup = opened(False)
    assert not (out / "index").exists()
    with writer_lock(out), pytest.raises(BadInput, match="is being written by another process"):
        curves.measure_curves(setup)
    assert not (out / "index").exists()
    assert curves.measure_curves(setup) == (0,)
    assert newest_generation(out / "index") == 1
    with writer_lock(out):
        (out / "index").rename(out / ".index.copied")  # as far as the first process has come
        opened(True)
        assert newest_generation(out / ".index.copied") == 1


def test_curve_of_a_run_takes_its_weights_and_is_drawn_in_its_report(plan: Plan, tmp_path: Path) -> None:
    """Test questions are asked; all rows are not trained again; the run stays whole, and its report has the chart."""
    from advisor.flags.curve import CurveRequest
    from advisor.report.html import next_steps
    from advisor.report.report import Report, judge
    from advisor.workflows.curve import measure
    from runners.run_folder import RunFolder
    from runners.trial.execute import run

    out = tmp_path / "run"
    report = judge(run(plan, out)).content
    (score,) = [arm.score.mean for arm in report.arms if arm.arm == "lora"]
    offered = [command for command, _ in next_steps(report, out) if command.startswith("tunewise curve")]
    assert offered == ([f"tunewise curve {out.name} --arm lora"] if score else [])
    data = measure(CurveRequest(target=out, arm=["lora"], sizes="9,36", seeds=1, as_json=True))
    assert [(row["n"], row["from_run"]) for row in data["points"]] == [(9, 0), (36, 1)]
    assert data["points"][-1]["score"] == pytest.approx(score, abs=1e-4)
    assert data["questions"] == {"n": 8, "part": "test"}
    assert (data["doubling"]["from"], data["doubling"]["to"]) == (36, 72)
    assert 0 <= data["doubling"]["chance"] <= 1
    assert any("2 sizes" in line for line in data["warnings"])
    assert any("8 questions: 30 or more are needed" in line for line in data["warnings"])
    learnt = data["points"][-1]["score"] > 0.01
    assert data["text"].startswith("From 36 to 72 rows: " if learnt else "No size scored above 0.01")
    RunFolder(out).check()
    assert [curve["arm"] for curve in Report.read(out).data["curves"]] == ["lora"]
    page = (out / "report.html").read_text("utf-8")
    assert 'id="curve-lora"' in page
    assert '<polygon class="band"' in page
    assert not any("curve" in command for command, _ in next_steps(Report.read(out).content, out))
    assert "<svg" in (out / "curves" / "lora" / "curve.html").read_text("utf-8")
    again = measure(CurveRequest(target=out, arm=["lora"], sizes="9,36", seeds=1, resume=True, as_json=True))
    assert again == data


def test_arm_without_training_has_no_curve(plan: Plan) -> None:
    with pytest.raises(BadInput, match="does not learn from rows"):
        points.curve_arm(plan, "prompting")
    with pytest.raises(BadInput, match="is not in the plan"):
        points.curve_arm(plan, "qlora")
    assert points.curve_arm(plan, None).arm == "lora"


def test_batch_is_smaller_where_steps_would_be_few(plan: Plan) -> None:
    """Passes stay the plan's; 40 rows of 100 tokens in two passes are 8,000 tokens, 8 steps of 1,024."""
    names = [points.CurvePointName("lora", size, 0) for size in (40, 4000)]
    steps = points.curve_plan(plan, plan.arms[0], names, 100).steps
    assert [step.batch_tokens for step in steps if step.kind == "train"] == [
        256,
        plan.train_step("lora").batch_tokens,
    ]
    assert {step.epochs for step in steps if step.kind == "train"} == {1.0}

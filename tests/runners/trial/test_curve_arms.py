"""Curves of several arms: the same rows and questions, resumption, an arm that fails, one axis in page and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.flags.curve import CurveRequest
from advisor.report.report import Report, judge
from advisor.workflows.curve import measure
from benchmarks.recheck import small_embedder, write_rows
from rag.errors import BadInput, UsageProblem
from runners.models.resolve import Model
from runners.plan.schema import Plan, parse_plan, write_plan
from runners.run_folder import read_journal
from runners.trial import curve as curves
from runners.trial.curve_points import curve_arms
from runners.trial.execute import run

KEYS = "schema name arm model score rows questions seeds points doubling forecast fitted stop seconds warnings folder text"
"""What ``curve --json`` printed of one arm before it could measure several."""
WORDS = ("Toll of barge {}?", "Berth for yacht {}?")


def labels_plan(tiny: Model, folder: Path, rare: int = 18) -> Plan:
    """Return a plan of a classifier and of examples in the prompt for two labels; ``rare`` of 36 rows have the second."""
    given = [int(n * rare // 36 < (n + 1) * rare // 36) for n in range(36)]
    rows = [
        {"prompt": WORDS[label].format(n), "completion": ("toll", "berth")[label]}
        for n, label in enumerate(given)
    ]
    asked = [
        {"id": f"q{n}", "question": WORDS[n % 2].format(100 + n), "answers": [("toll", "berth")[n % 2]]}
        for n in range(18)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    embedder = small_embedder(folder / "embedder", [row["prompt"] for row in rows])
    return parse_plan(
        {
            "name": "quay",
            "choice": "few-shot",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(embedder)},
            "data": {
                "examples": str(write_rows(folder / "examples.jsonl", rows)),
                "questions": str(write_rows(folder / "questions.jsonl", asked)),
            },
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
                {"kind": "evaluate", "arm": "few-shot", "shots": 2, "budget": 0},
            ],
            "weights": {"exact_match": 1},
            "max_new_tokens": 2,
            "forgetting": {"prompts": 0},
        }
    )


@pytest.fixture(scope="module")
def plan(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return labels_plan(tiny, tmp_path_factory.mktemp("labels"))


def request(target: Path, out: Path | None, *arms: str, **more: Any) -> CurveRequest:
    """Return the request of a curve of two sizes and one seed."""
    return CurveRequest(target=target, out=out, arm=list(arms), sizes="12,36", seeds=1, as_json=True, **more)


def untimed(data: dict[str, Any]) -> dict[str, Any]:
    """Return a result without its seconds and folder."""
    points = [{key: value for key, value in row.items() if key != "seconds"} for row in data["points"]]
    return {**data, "points": points, "seconds": 0, "folder": ""}


def test_several_arms_go_on_where_they_were_and_are_those_measured_alone(plan: Plan, tmp_path: Path) -> None:
    """Stopped in the second arm: the first one is not asked again, and each is what its own call measures."""
    file, out = tmp_path / "plan.yaml", tmp_path / "all"
    write_plan(plan, file)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step.start" and event["step"] == "evaluate:few-shot-n36-s0":
            raise KeyboardInterrupt

    opened = curves.open_curves(plan, None, out, ["all"], (12, 36), 1, on_event=interrupt)
    assert [setup.arm.arm for setup in opened.setups] == ["classifier", "few-shot"]
    with pytest.raises(KeyboardInterrupt):
        curves.measure_curves(opened)
    with pytest.raises(UsageProblem, match="exists"):
        measure(request(file, out, "all"))
    data = measure(request(file, out, "few-shot,classifier", "few-shot", resume=True))
    skipped = {
        arm: [e["step"] for e in read_journal(out / arm / "events.jsonl") if e["event"] == "step.skip"]
        for arm in ("classifier", "few-shot")
    }
    assert skipped == {
        "classifier": ["evaluate:classifier-n12-s0", "evaluate:classifier-n36-s0"],
        "few-shot": ["evaluate:few-shot-n12-s0"],
    }
    alone = [measure(request(file, tmp_path / arm, arm)) for arm in ("few-shot", "classifier")]
    assert [list(one) for one in alone] == [KEYS.split()] * 2
    assert [untimed(one) for one in data["arms"]] == [untimed(one) for one in alone]
    for arm, one in zip(("few-shot", "classifier"), alone, strict=True):
        (joint,) = (each for each in data["arms"] if each["arm"] == arm)
        assert json.loads((out / arm / "curve.json").read_text("utf-8")) == joint
        assert (tmp_path / arm / "curve.html").read_bytes() == (out / arm / "curve.html").read_bytes()
        assert Path(one["folder"]) == tmp_path / arm
    assert (data["sizes"], data["left_out"], data["crossings"]["tests"]) == ([12, 36], [], 2)
    assert data["crossings"]["best"]["arm"] == "classifier"
    assert json.loads((out / "curve.json").read_text("utf-8")) == data
    page = (out / "curve.html").read_text("utf-8")
    assert page.count("<polyline") == 2
    assert '<a href="few-shot/curve.html">' in page


def test_an_arm_that_fails_is_left_out_and_the_others_go_on(tiny: Model, tmp_path: Path) -> None:
    """One label among few rows: a classifier cannot be trained on them, examples can be shown."""
    file = tmp_path / "plan.yaml"
    write_plan(labels_plan(tiny, tmp_path, rare=1), file)
    data = measure(request(file, tmp_path / "c", "all"))
    assert [one["arm"] for one in data["arms"]] == ["few-shot"]
    (out,) = data["left_out"]
    assert out["arm"] == "classifier"
    assert (
        "classifier-n12-s0 needs labels to choose from, and all 12 examples have the label 'toll'"
        in out["reason"]
    )
    assert data["warnings"][0] == f"classifier is not measured: {out['reason']}"
    assert (data["crossings"]["tests"], data["crossings"]["best"]) == (0, {"arm": "few-shot", "from": None})
    assert data["text"] == data["arms"][0]["text"]
    with pytest.raises(BadInput, match="needs labels to choose from"):
        measure(request(file, tmp_path / "d", "classifier"))


def test_an_arm_that_fails_with_a_later_seed_ends_the_seeds(tiny: Model, tmp_path: Path) -> None:
    """What all arms have of the first seed stays; the next one is not counted for any."""
    plan = labels_plan(tiny, tmp_path, rare=6)
    opened = curves.open_curves(plan, None, tmp_path / "c", ["all"], (12, 36), seeds=2)
    assert curves.measure_curves(opened) == (0,)
    assert opened.left_out == {}
    notes = [event.get("reason", "") for event in opened.setups[0].context.folder.events()]
    assert any(
        "seed 1 is not measured for any arm: the arm classifier-n12-s1 needs" in note for note in notes
    )
    alone = curves.open_curves(plan, None, tmp_path / "d", ["classifier"], (12, 36), seeds=2)
    with pytest.raises(BadInput, match="needs labels to choose from"):
        curves.measure_curves(alone)


def test_arms_of_a_run_are_drawn_in_its_report(plan: Plan, tmp_path: Path) -> None:
    """All rows are taken from the run for each arm; the report has the arms together, then each alone."""
    out = tmp_path / "run"
    judge(run(plan, out))
    data = measure(request(out, None, "all"))
    assert [[row["from_run"] for row in one["points"]] for one in data["arms"]] == [[0, 1], [0, 1]]
    assert data["folder"] == str(out / "curves")
    assert data["questions"]["part"] == "test"
    report = Report.read(out)
    assert report.content.curve_of_arms is not None
    assert report.data["curve_of_arms"]["crossings"] == data["crossings"]
    assert [one["arm"] for one in report.data["curves"]] == ["classifier", "few-shot"]
    page = (out / "report.html").read_text("utf-8")
    assert page.index('id="curve-arms"') < page.index('id="curve-classifier"')
    assert data["report"] == str(out / "report.html")


def test_the_index_is_built_once_for_all_arms(plan: Plan, tmp_path: Path) -> None:
    """And the second seed is decided by the time of all arms together, which is said once."""
    piers = [{"id": f"p{n}", "text": f"Berth {n} is for a yacht."} for n in range(4)]
    body = plan.model_dump(mode="json", by_alias=True)
    body["data"]["documents"] = str(write_rows(tmp_path / "piers.jsonl", piers))
    shown = {"kind": "evaluate", "retrieval": True, "shots": 1, "budget": 0}
    index = {"kind": "index", "k": 1, "context_tokens": 32}
    steps = [index, *(shown | {"arm": arm} for arm in ("few-shot", "rag-few-shot"))]
    searching = parse_plan(body | {"steps": steps, "weights": {"token_f1": 1}})
    opened = curves.open_curves(searching, None, tmp_path / "c", ["all"], (9, 18), seeds=2)
    assert curves.measure_curves(opened, minutes=1e-6) == (0,)
    logs = [setup.context.folder.events() for setup in opened.setups]
    built = [[event for event in log if event.get("event", "").startswith("index")] for log in logs]
    assert built[0]
    assert built[1] == []
    assert all(setup.context.folder.recorded("index") for setup in opened.setups)
    noted = [sum("does not fit in --minutes" in event.get("reason", "") for event in log) for log in logs]
    assert noted == [1, 0]


def test_arms_that_cannot_have_a_curve(plan: Plan) -> None:
    """Of all arms they are left out with the reason, by name they are refused; an only one is refused."""
    train = {"kind": "train", "arm": "lora"}
    tuned = {"kind": "evaluate", "arm": "lora", "weights": "lora"}
    body = plan.model_dump(mode="json", by_alias=True) | {"model": {"name": "openai:tern@http://127.0.0.1:9"}}
    shown = body["steps"][-1]
    remote = parse_plan(body | {"steps": [train, tuned, shown]})
    arms, left_out = curve_arms(remote, ["all"])
    assert [arm.arm for arm in arms] == ["few-shot"]
    assert "lora cannot be trained on parts" in left_out["lora"].message
    with pytest.raises(BadInput, match="cannot be trained on parts"):
        curve_arms(remote, ["few-shot", "lora"])
    with pytest.raises(BadInput, match="cannot be trained on parts"):
        curve_arms(parse_plan(body | {"steps": [train, tuned], "choice": "lora"}), ["all"])
    with pytest.raises(BadInput, match="no arm that learns from rows"):
        curve_arms(parse_plan(body | {"steps": [body["steps"][0]], "choice": "prompting"}), ["all"])
    assert [arm.arm for arm in curve_arms(plan, ["few-shot", "few-shot"])[0]] == ["few-shot"]
    assert [arm.arm for arm in plan.arms if arm.learns_from_rows] == ["classifier", "few-shot"]

"""The public trials: the plan of each data set, and the page made from the recorded results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.recommendation.recommend import recommend_for_profile
from runners.data.examples import load_examples
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import load_questions

MACHINE = ("gpu_kind=none", "cpu_cores=2", "ram_gib=24", "disk_gib=60")
LABEL_ARMS = {
    *("prompting", "few-shot", "prompting-scored", "few-shot-scored"),
    *("classifier", "nearest-reply", "router", "full"),
}
ARMS = {
    "hybrid_concierge": {"prompting", "few-shot", "rag", "rag-few-shot", "lora", "naive-stack", "hybrid"},
    "snips_json": {"prompting", "few-shot", "lora", "full"},
    "banking77": LABEL_ARMS,
    "clapnq_dev": {"prompting", "rag"},
    "gsm8k_format": {"prompting", "few-shot", "lora", "full"},
    "xquad_en": {"prompting", "few-shot", "rag", "rag-few-shot", "lora", "naive-stack", "hybrid"},
    "clinc150_intents": LABEL_ARMS,
    "sgd_state_json": {"prompting", "few-shot", "full"},
    "wnut17_json": {"prompting", "few-shot", "full"},
}
NOT_RECORDED = {
    "hybrid_concierge": {"rag-few-shot"},
    "banking77": {"prompting-scored", "few-shot-scored", "nearest-reply", "router"},
    "clinc150_intents": {"nearest-reply", "router"},
    "xquad_en": {"rag-few-shot"},
}
"""Arms of plans that did not exist when these trials were recorded; benchmarks/untrained.json has them."""


@pytest.fixture
def repository_on_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make benchmarks and scripts importable, which are not installed."""
    monkeypatch.syspath_prepend(str(root))


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.usefixtures("repository_on_path")
def test_each_data_set_gives_a_plan_without_leakage(name: str, shared: Path, tmp_path: Path) -> None:
    from benchmarks import trials
    from benchmarks.cast import CAST
    from benchmarks.cast_files import bring

    part = next(part for part in CAST if part.name == name)
    brought = bring(part, shared / "data", tmp_path)
    questions = load_questions(brought.files["questions"])
    assert len(questions) >= part.dev + part.test
    if part.examples:
        rows = load_examples(brought.files["examples"]).rows
        assert len(rows) == part.examples
        assert not [leak for leak in find_leaks(rows, questions) if leak.kind in LEAKING]
    at = trials.situation(part, brought, *MACHINE)
    plan = trials.plan_of(part, at, recommend_for_profile(at.profile))
    assert {step.arm for step in plan.arms} == ARMS[part.name]
    assert (plan.data.max_dev, plan.data.max_test) == (part.dev, part.test)


@pytest.mark.usefixtures("repository_on_path")
def test_missing_data_set_is_skipped_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import trials

    before = trials.RECORD.read_bytes()
    monkeypatch.setattr("sys.argv", ["trials", str(tmp_path), "snips_json", "--out", str(tmp_path / "out")])
    trials.main()
    assert "snips_json: skipped" in capsys.readouterr().err
    assert trials.RECORD.read_bytes() == before


@pytest.mark.usefixtures("repository_on_path")
def test_every_data_set_is_recorded_or_named_with_the_reason() -> None:
    from benchmarks.cast import CAST, NOT_RUN
    from benchmarks.trial_records import RECORD, SHIPPED, old_weighted_sum, shipped_table, shipped_text
    from scripts.accuracy import conclusion

    record = json.loads(RECORD.read_text("utf-8"))
    assert list(record) == [part.name for part in CAST if part.name in record]
    assert {part.name for part in CAST} <= set(record) | set(NOT_RUN)
    assert set(NOT_RUN) <= {part.name for part in CAST}
    for part in CAST:
        if part.name not in record:
            assert NOT_RUN[part.name]
            continue
        trial = record[part.name]
        means = {arm["arm"]: arm["score"]["mean"] for arm in trial["arms"]}
        if part.name in ARMS:
            assert set(means) == ARMS[part.name] - NOT_RECORDED.get(part.name, set())
            assert trial["said"] == list(part.answers)
        assert all(arm["n"] == part.test for arm in trial["arms"])
        assert 0 <= trial["regret"] <= max(means.values())
        assert (trial["kind"], trial["held_back"]) == (part.kind, part.held_back)
        assert trial["features"]["model"] == trial["model"]
        if trial["could_show"]:
            assert 0 <= trial["could_show"]["seen"] <= trial["could_show"]["true"]
    text = conclusion(list(record.values()))
    assert f"Of {len(record)} trials" in text
    assert "Wilson" in text
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    first = [row for row in shipped["trials"] if row["model"] == "smollm2-135m-instruct"]
    assert first == shipped_table(record)["trials"]
    assert len(first) == sum(not old_weighted_sum(trial) for trial in record.values())
    assert shipped_text(shipped) == SHIPPED.read_text("utf-8")


@pytest.mark.usefixtures("repository_on_path")
def test_pairs_of_arms_that_are_sure_on_two_models_are_counted() -> None:
    from advisor.evidence.trials import MeasuredTrial, trial_of_row
    from scripts.trial_sections import same_order

    def measured(**means: float) -> MeasuredTrial:
        arms = [
            {"arm": arm, "mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 100}
            for arm, mean in means.items()
        ]
        base = {"set": "x", "model": "m", "date": "2026-11-27", "questions": 100, "outcome": "confirmed"}
        return trial_of_row({**base, "advised": "full", "arms": arms})

    a = measured(full=0.8, rag=0.5, prompting=0.48)
    b = measured(full=0.6, rag=0.1, prompting=0.9)
    assert same_order(a, b) == (1, 2)  # full over rag on both; full and prompting change places

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
ARMS = {
    "hybrid_concierge": {"prompting", "few-shot", "rag", "rag-few-shot", "lora", "naive-stack", "hybrid"},
    "snips_json": {"prompting", "few-shot", "lora", "full"},
    "banking77": {"prompting", "few-shot", "prompting-scored", "few-shot-scored", "classifier", "full"},
    "clapnq_dev": {"prompting", "rag"},
    "gsm8k_format": {"prompting", "few-shot", "lora", "full"},
    "xquad_en": {"prompting", "few-shot", "rag", "rag-few-shot", "lora", "naive-stack", "hybrid"},
    "clinc150_intents": {
        "prompting",
        "few-shot",
        "prompting-scored",
        "few-shot-scored",
        "classifier",
        "full",
    },
    "sgd_state_json": {"prompting", "few-shot", "full"},
    "wnut17_json": {"prompting", "few-shot", "full"},
}
NOT_RECORDED = {
    "hybrid_concierge": {"rag-few-shot"},
    "banking77": {"prompting-scored", "few-shot-scored"},
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
    from benchmarks.cast import CAST, bring

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
def test_recorded_trials_cover_every_data_set() -> None:
    from benchmarks.cast import CAST
    from scripts.accuracy import RECORD, best, conclusion, lost

    record = json.loads(RECORD.read_text("utf-8"))
    assert list(record) == [part.name for part in CAST]
    for part in CAST:
        trial = record[part.name]
        recorded = {arm["arm"] for arm in trial["arms"]}
        assert recorded == ARMS[part.name] - NOT_RECORDED.get(part.name, set())
        assert trial["said"] == list(part.answers)
        assert all(arm["n"] == part.test for arm in trial["arms"])
        assert 0 <= lost(trial) <= best(trial)["score"]["mean"]
    text = conclusion(list(record.values()))
    assert f"Of {len(CAST)} trials" in text
    assert "Wilson" in text

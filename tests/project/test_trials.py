"""The public trials: what a user of each set would bring, and the page that is made of what came out."""

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
    "hybrid_concierge": {"prompting", "few-shot", "rag", "lora", "naive-stack", "hybrid"},
    "snips_json": {"prompting", "few-shot", "lora", "full"},
    "banking77": {"prompting", "few-shot", "classifier", "full"},
    "clapnq_dev": {"prompting", "rag"},
    "gsm8k_format": {"prompting", "few-shot", "lora", "full"},
    "xquad_en": {"prompting", "few-shot", "rag", "lora", "naive-stack", "hybrid"},
}


@pytest.fixture
def outside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks and scripts are no part of what is installed."""
    monkeypatch.syspath_prepend(str(root))


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.usefixtures("outside")
def test_each_set_makes_a_plan_that_gives_nothing_away(name: str, shared: Path, tmp_path: Path) -> None:
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
    at = trials.situation(part, brought.files, *MACHINE)
    plan = trials.plan_of(part, at, recommend_for_profile(at.profile))
    assert {step.arm for step in plan.arms} == ARMS[part.name]
    assert (plan.data.max_dev, plan.data.max_test) == (part.dev, part.test)


@pytest.mark.usefixtures("outside")
def test_an_absent_set_is_skipped_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import trials

    before = trials.RECORD.read_bytes()
    monkeypatch.setattr("sys.argv", ["trials", str(tmp_path), "snips_json", "--out", str(tmp_path / "out")])
    trials.main()
    assert "snips_json: skipped" in capsys.readouterr().err
    assert trials.RECORD.read_bytes() == before


@pytest.mark.usefixtures("outside")
def test_the_record_has_every_set_and_its_page_counts_them() -> None:
    from benchmarks.cast import CAST
    from scripts.accuracy import RECORD, best, conclusion, lost

    found = json.loads(RECORD.read_text("utf-8"))
    assert list(found) == [part.name for part in CAST]
    for part in CAST:
        one = found[part.name]
        assert {arm["arm"] for arm in one["arms"]} == ARMS[part.name]
        assert one["said"] == list(part.answers)
        assert all(arm["n"] == part.test for arm in one["arms"])
        assert 0 <= lost(one) <= best(one)["score"]["mean"]
    said = conclusion(list(found.values()))
    assert f"Of {len(CAST)} trials" in said
    assert "Wilson" in said

"""The report of a trial with several models: three by four arms through every view, in a browser too."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from advisor.display.trial_table import show_report
from advisor.report.compare_runs import compare_runs
from advisor.report.data import read_report
from advisor.report.html import next_steps
from advisor.report.plots.comparison_page import write_comparison
from advisor.report.plots.right_cost import method_letters
from benchmarks.simulated_grids import ARMS, CHOICE, grid_folder, grid_plan, simulated_grid
from rag.errors import CannotRun
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import PlanModel
from runners.run_folder import RunFolder
from tests.support.reports import written

SHARES = {arm: 0.45 + 0.03 * number for number, arm in enumerate(ARMS)}
"""Of right answers: a large model is right more often, and a hybrid more often than a prompt."""


def grid_run(
    folder: Path, plan: Plan | None = None, incomplete: tuple[str, ...] = (), seed: int = 0
) -> tuple[RunFolder, dict[str, Any]]:
    """Return a run of three models and its report.json; incomplete arms answered five questions and have no scores."""
    plan = plan or grid_plan()
    grid = simulated_grid(np.random.default_rng(seed), 60, SHARES)
    reason = "openai:big@http://127.0.0.1:1/v1 did not answer"
    run = grid_folder(folder, plan, grid, dict.fromkeys(incomplete, reason))
    return run, written(run, plan)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return grid_run(tmp_path_factory.mktemp("grid") / "run")[0]


def shown(run: RunFolder) -> str:
    console = Console(file=io.StringIO(), width=140)
    show_report(read_report(run.path), console)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_every_view_names_models_methods_and_the_three_answers(run: RunFolder) -> None:
    data = json.loads((run.path / "report.json").read_text("utf-8"))
    page, markdown, terminal = (
        (run.path / "report.html").read_text("utf-8"),
        (run.path / "report.md").read_text("utf-8"),
        shown(run),
    )
    assert data["models"]["big"] == "openai:big@http://127.0.0.1:1/v1"
    assert "incomplete" not in data
    assert len(data["paired"]) == len(ARMS) - 1
    lines = data["verdict"]["three_answers"]
    assert [line.partition(":")[0].partition(" ")[0] for line in lines] == ["Best", "Cheapest", "Most"]
    for text in (*lines, "set in the plan"):
        assert text in terminal
        assert text in page
    assert "small = openai:small;" in terminal
    assert "small (openai:small)" in page
    assert "hybrid@small" in markdown
    assert "hybrid = fine-tuning" in terminal
    assert "hybrid@small = fine" not in terminal, "a method is explained once"


def test_picture_has_shapes_of_models_and_letters_of_methods(run: RunFolder) -> None:
    picture = (run.path / "right-cost.svg").read_text("utf-8")
    assert picture.count('class="lettered"') == len(ARMS)
    assert picture.count('class="error') == 2 * len(ARMS), "intervals both ways"
    assert set(re.findall(r'font-weight="bold">(\w)<', picture)) == set("PFRH")
    assert all(f"{alias} (openai:{alias})" in picture for alias in ("small", "middle", "big"))
    assert "<title>hybrid@big: " in picture
    assert len(set(re.findall(r'class="t(\d)" transform', picture))) == 3
    assert method_letters(["rag", "router", "rag-few-shot", "classifier"]) == {
        "rag": "R",
        "router": "O",
        "rag-few-shot": "G",
        "classifier": "C",
    }


def test_incomplete_arms_are_listed_and_the_others_judged(tmp_path: Path) -> None:
    gone = ("prompting@big", "hybrid@big")
    run, data = grid_run(tmp_path / "run", incomplete=gone)
    assert [arm["arm"] for arm in data["incomplete"]] == list(gone)
    assert data["incomplete"][0]["answered"] == 5
    assert not {arm["arm"] for arm in data["arms"]} & set(gone)
    assert len(data["paired"]) == len(ARMS) - 3
    assert data["verdict"]["excluded"]["hybrid@big"].startswith("is incomplete: openai:big@")
    text = "prompting@big: openai:big@http://127.0.0.1:1/v1 did not answer (5 of 60 questions answered)"
    for view in (shown(run), (run.path / "report.html").read_text("utf-8")):
        assert text in view
    assert "5 of 60 questions answered" in (run.path / "report.md").read_text("utf-8")
    report = read_report(run.path)
    assert next_steps(report, Path("run"))[0] == (
        "tunewise run run --resume",
        "finishes what is incomplete: prompting@big, hybrid@big",
    )


def test_without_the_recommended_arm_the_verdict_is_open(tmp_path: Path) -> None:
    _, data = grid_run(tmp_path / "run", incomplete=(CHOICE,))
    verdict = data["verdict"]
    assert verdict["outcome"] == "undecided"
    assert verdict["text"].startswith(
        f"No verdict on {CHOICE} with openai:small@http://127.0.0.1:1/v1: it is incomplete: openai:big@"
    )
    assert verdict["use"] in ARMS
    assert data["paired"] == []
    assert any(f"{CHOICE} was recommended, but it is incomplete" in line for line in verdict["conclusion"])


def test_without_any_arm_the_run_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"no arm of .* was finished: prompting@small: openai:big"):
        grid_run(tmp_path / "run", incomplete=ARMS)


def test_own_machine_and_hosted_stand_side_by_side(tmp_path: Path) -> None:
    plan = grid_plan()
    unpriced = plan.models["small"].model_copy(
        update={"usd_per_million_input": None, "usd_per_million_output": None}
    )
    plan = plan.model_copy(update={"models": {**plan.models, "small": unpriced}, "model": unpriced})
    run, data = grid_run(tmp_path / "run", plan)
    costs = {arm["arm"]: arm["cost_per_right"] for arm in data["arms"]}
    assert "seconds" in costs["rag@small"]
    assert "usd" in costs["rag@big"]
    page = (run.path / "report.html").read_text("utf-8")
    assert "Costs in USD and in time are not compared with each other." in page
    assert "rag@small (no price is known)" in page
    assert data["verdict"]["most_right_for_money"]["no_price"]
    priced = unpriced.model_copy(update={"usd_hour": 3.6, "at_once": 1})
    plan = plan.model_copy(update={"models": {**plan.models, "small": priced}, "model": priced})
    _, data = grid_run(tmp_path / "priced", plan)
    arms = {arm["arm"]: arm for arm in data["arms"]}
    assert arms["rag@small"]["usd_per_1000"] == pytest.approx(0.1 * 1000 / 3600 * 3.6)
    assert arms["rag@small"]["usd_basis"] == "seconds measured, at 3.6 USD an hour, set in the plan"


def test_two_runs_share_a_picture_and_a_table(run: RunFolder, tmp_path: Path) -> None:
    other, _ = grid_run(tmp_path / "later", grid_plan().model_copy(update={"name": "later"}), seed=1)
    compared = compare_runs(run.path, other.path)
    file = write_comparison(run.path, compared, read_report(run.path), read_report(other.path))
    assert file == run.path / "comparisons" / "later.html"
    page = file.read_text("utf-8")
    assert page.count('class="lettered"') == 2 * len(ARMS)
    assert "grid: rag@small" in page
    assert "later: rag@small" in page
    assert 'class="stack sortable"' in page
    assert not [note for note in compared["notes"] if "alias" in note]
    run.check()  # the page is no part of the sealed run


def test_compared_runs_say_where_an_alias_is_another_model_or_precision(
    run: RunFolder, tmp_path: Path
) -> None:
    plan = grid_plan()
    model = PlanModel(name="qwen-small", quantization="nf4")
    other, data = grid_run(
        tmp_path / "later", plan.model_copy(update={"models": {**plan.models, "small": model}})
    )
    assert data["models"]["small"] == "qwen-small (nf4)"
    assert "small = qwen-small (nf4);" in shown(other)
    (note,) = (note for note in compare_runs(run.path, other.path)["notes"] if "alias" in note)
    assert note.startswith("the alias small is openai:small@")
    assert "qwen-small (nf4) in " in note


def test_table_is_sorted_in_a_browser(browser: Any, run: RunFolder) -> None:
    """By the keyboard too: a heading is a button, and says the order."""
    browser.open((run.path / "report.html").as_uri())
    table = "document.querySelector('table.sortable')"
    names = f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    keys = f"[...{table}.tBodies[0].rows].map(row => parseFloat(row.cells[%d].dataset.sort))"
    first = browser.js(names)
    assert len(first) == len(ARMS)

    def press(column: int) -> str | None:
        browser.js(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                windowsVirtualKeyCode=13,
                text="\r",
            )
        return str(browser.js(f"{table}.tHead.rows[0].cells[{column}].getAttribute('aria-sort')"))

    assert press(2) == "ascending"
    assert browser.js(keys % 2) == sorted(browser.js(keys % 2))
    assert press(2) == "descending"
    assert browser.js(keys % 2) == sorted(browser.js(keys % 2), reverse=True)
    assert press(1) == "descending", "of right answers more are better"
    assert browser.js(keys % 1) == sorted(browser.js(keys % 1), reverse=True)
    assert browser.js("document.querySelectorAll('[aria-sort]').length") == 1
    press(0)
    assert browser.js(names) == sorted(first)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "light"), (400, "dark")])
def test_picture_and_table_fit_a_narrow_page(
    browser: Any, run: RunFolder, tmp_path: Path, width: int, scheme: str
) -> None:
    browser.open((run.path / "report.html").as_uri(), width, scheme)
    browser.js(
        "document.querySelectorAll('main > :not(#cost), header').forEach(e => { e.style.display = 'none' })"
    )
    browser.shoot(tmp_path / f"cost-{width}-{scheme}.png")
    inside = "[...document.querySelectorAll('#cost .plot, #cost td, #cost .legend li')]"
    assert browser.js(f"{inside}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length") == 0
    assert browser.js("document.querySelectorAll('.lettered text').length") == len(ARMS)


def test_a_teacher_beside_the_models_is_shown_and_not_compared(tmp_path: Path) -> None:
    body = grid_plan().model_dump(mode="json", by_alias=True, exclude_unset=True)
    teacher = {"name": "openai:large@http://127.0.0.1:1/v1", "usd_per_million_input": 9.0}
    plan = parse_plan({**body, "teacher": {**teacher, "usd_per_million_output": 30.0}})
    grid = simulated_grid(np.random.default_rng(0), 60, {**SHARES, "prompting@teacher": 0.95})
    run = grid_folder(tmp_path / "run", plan, grid)
    data = written(run, plan)
    assert data["models"]["teacher"] == "openai:large@http://127.0.0.1:1/v1"
    assert "prompting@teacher" in [arm["arm"] for arm in data["arms"]]
    assert "prompting@teacher" not in [pair["b"] for pair in data["paired"]]
    assert data["verdict"]["use"] in ARMS
    assert "teacher (openai:large)" in (run.path / "right-cost.svg").read_text("utf-8")

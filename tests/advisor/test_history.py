"""The local history: appended, read with broken lines counted, corrected from with care, shown without headlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advisor import cli, history
from advisor.history import MachineMark, PastRun
from advisor.workflows.history import advice_counts, history_summary
from runners.resources.machine import Machine

HERE = MachineMark(cpu="Ferry 9000", cores=2, ram_gib=16, gpu=None)


def past(number: int = 0, **changes: Any) -> PastRun:
    """A run of this machine whose training took twice the estimate."""
    body: dict[str, Any] = {
        "id": f"run{number}",
        "day": "2026-11-25",
        "machine": HERE.model_dump(),
        "model": "smollm2-135m-instruct",
        "choice": "lora",
        "plan": f"plan{number}",
        "outcome": "confirmed",
        "strength": "measured",
        "winner": "lora",
        "questions": 40,
        "hours": {"predicted": 1.0, "measured": 2.0},
        "steps": [{"kind": "train", "arm": "lora", "predicted": 100.0, "measured": 200.0}],
    }
    return PastRun.model_validate({**body, **changes})


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the history lies in this test."""
    path = tmp_path / "state" / "history.jsonl"
    monkeypatch.setenv(history.ENV, str(path))
    return path


def test_runs_are_appended_and_read_and_a_broken_line_is_counted(kept: Path) -> None:
    assert history.read_history() == history.History(kept)
    for number in range(3):
        assert history.append_to_history(past(number)) == ""
    with kept.open("a", encoding="utf-8") as stream:
        stream.write('{"schema": 1, "id": "torn')
    assert history.append_to_history(past(1, winner="rag")) == ""
    newer = {**past(9).model_dump(by_alias=True), "schema": 2}
    kept.write_text(kept.read_text("utf-8") + json.dumps(newer) + "\n", "utf-8")
    found = history.read_history()
    assert [run.id for run in found.runs] == ["run0", "run2", "run1"]
    assert found.runs[-1].winner == "rag"
    assert found.broken == 2


def test_an_empty_variable_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(history.ENV, "")
    assert history.history_file() is None
    assert history.append_to_history(past()) == ""
    assert history.read_history().runs == ()


def test_a_place_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv(history.ENV, str(tmp_path / "file" / "history.jsonl"))
    assert "not in the history" in history.append_to_history(past())


def test_a_correction_is_drawn_towards_one_and_bounded() -> None:
    def factor(*runs: PastRun) -> float:
        return history.time_correction(runs, HERE, "train", "smollm2-135m-instruct").factor

    assert factor() == 1.0
    assert factor(past()) == pytest.approx(2**0.5)
    assert factor(*map(past, range(3))) == pytest.approx(2**0.75)
    far = [{"kind": "train", "arm": "lora", "predicted": 1.0, "measured": 1e6}]
    assert factor(*(past(n, steps=far) for n in range(9))) == history.MAX_CORRECTION
    found = history.time_correction([past(), past(1)], HERE, "hours", "smollm2-135m-instruct")
    assert found.text == "corrected by 1.6 from 2 earlier runs here"
    assert history.time_correction([past()], HERE, "index", "smollm2-135m-instruct") == history.NO_CORRECTION


def test_only_this_machine_counts_and_the_same_model_first() -> None:
    other = past(1, machine={**HERE.model_dump(), "cores": 64})
    slow = past(2, model="qwen3-0.6b", steps=[{"kind": "train", "predicted": 1.0, "measured": 3.0}])
    remote = past(3, model="openai:tern", steps=[{"kind": "train", "predicted": 1.0, "measured": 4.0}])
    runs = [other, slow, remote]
    assert history.time_correction(runs[:1], HERE, "train", "smollm2-135m-instruct").runs == 0
    assert history.time_correction(runs, HERE, "train", "smollm2-135m-instruct").factor == pytest.approx(
        3**0.5
    )
    assert history.time_correction(
        [*runs, past()], HERE, "train", "smollm2-135m-instruct"
    ).factor == pytest.approx(2**0.5)
    assert history.time_correction(runs, HERE, "train", "openai:tern").factor == pytest.approx(4**0.5)


def test_the_machine_is_marked_without_its_name(laptop: Machine) -> None:
    mark = history.machine_mark(laptop)
    assert (mark.cores, mark.gpu) == (laptop.cpu_cores.value, None)
    assert mark.same_speed(mark.model_copy(update={"ram_gib": 1}))
    assert set(MachineMark.model_fields) == {"cpu", "cores", "ram_gib", "gpu"}


def test_each_plan_counts_once_and_demo_proxy_and_undecided_apart() -> None:
    runs = [
        past(0),
        past(1, outcome="overturned"),
        past(2, plan="plan0"),
        past(3, outcome="undecided"),
        past(4, strength="proxy"),
        past(5, label="demo"),
        past(6, label="dry-run", outcome=None, strength=None),
        past(7, strength="leaning"),
    ]
    found = advice_counts(runs)
    assert {
        k: found[k] for k in ("trials", "confirmed", "overturned", "undecided", "proxy", "demo", "leaning")
    } == {
        "trials": 4,
        "confirmed": 2,
        "overturned": 1,
        "undecided": 1,
        "proxy": 1,
        "demo": 1,
        "leaning": 1,
    }
    assert found["text"].startswith("the advice was right in 2 of 3 (95 % interval 21% to 94%)")
    assert "nothing can be said" in advice_counts([past(outcome="undecided")])["text"]


def test_the_verb_shows_and_clears(kept: Path) -> None:
    for number in range(2):
        memory = {"predicted": 1.0, "measured": 1.5}
        history.append_to_history(past(number, memory_gib=memory, memory_of="training"))
    run = CliRunner()
    shown = run.invoke(cli.app, ["history"], env={"COLUMNS": "160", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    assert "right in 2 of 2 (95 % interval" in shown.output
    assert "hours: 2 times the estimate (2 to 2, 2 measured)" in shown.output
    data = json.loads(run.invoke(cli.app, ["history", "--json"]).stdout)
    assert data == json.loads(json.dumps(history_summary(history.read_history())))
    assert data["estimates"]["memory"] == {"n": 2, "ratio": 1.5, "least": 1.5, "most": 1.5}
    assert [row["ratios"]["time"] for row in data["runs"]] == [2.0, 2.0]
    assert json.loads(run.invoke(cli.app, ["history", "--clear", "--json"]).stdout)["removed"] == 2
    assert not kept.exists()
    assert "no trial of your own" in run.invoke(cli.app, ["history"]).output


def test_memory_of_the_whole_process_is_not_mixed_with_that_of_training(kept: Path) -> None:
    """Earlier versions kept the process's peak beside an estimate for training alone."""
    history.append_to_history(past(0, memory_gib={"predicted": 1.2, "measured": 4.0}))
    history.append_to_history(past(1, memory_gib={"predicted": 1.0, "measured": 1.2}, memory_of="training"))
    line = json.loads(kept.read_text("utf-8").splitlines()[0])
    del line["memory_of"]
    kept.write_text(json.dumps(line) + "\n" + kept.read_text("utf-8").splitlines()[1] + "\n", "utf-8")
    data = history_summary(history.read_history())
    assert data["estimates"]["memory"] == {"n": 1, "ratio": 1.2, "least": 1.2, "most": 1.2}
    assert data["memory_left_out"] == 1
    assert [row["ratios"]["memory"] for row in data["runs"]] == [None, 1.2]
    shown = CliRunner().invoke(cli.app, ["history"], env={"COLUMNS": "200"})
    assert "memory of 1 earlier run is not counted: the whole process was measured then" in shown.output

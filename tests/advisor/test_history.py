"""The local history: appending, reading with broken lines, corrections, and the history command."""

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


def past_run(number: int = 0, **changes: Any) -> PastRun:
    """Return a run of this machine whose training took twice the estimate."""
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
def history_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point TUNEWISE_HISTORY to a file of the test."""
    path = tmp_path / "state" / "history.jsonl"
    monkeypatch.setenv(history.ENV, str(path))
    return path


def test_history_appends_reads_and_counts_broken_lines(history_path: Path) -> None:
    assert history.read_history() == history.History(history_path)
    for number in range(3):
        assert history.append_to_history(past_run(number)) == ""
    with history_path.open("a", encoding="utf-8") as stream:
        stream.write('{"schema": 1, "id": "torn')
    assert history.append_to_history(past_run(1, winner="rag")) == ""
    newer = {**past_run(9).model_dump(by_alias=True), "schema": 2}
    history_path.write_text(history_path.read_text("utf-8") + json.dumps(newer) + "\n", "utf-8")
    result = history.read_history()
    assert [run.id for run in result.runs] == ["run0", "run2", "run1"]
    assert result.runs[-1].winner == "rag"
    assert result.broken == 2


def test_empty_history_variable_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(history.ENV, "")
    assert history.history_file() is None
    assert history.append_to_history(past_run()) == ""
    assert history.read_history().runs == ()


def test_unwritable_history_is_reported_without_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv(history.ENV, str(tmp_path / "file" / "history.jsonl"))
    assert "not in the history" in history.append_to_history(past_run())


def test_time_correction_is_shrunk_and_bounded() -> None:
    def factor(*runs: PastRun) -> float:
        return history.time_correction(runs, HERE, "train", "smollm2-135m-instruct").factor

    assert factor() == 1.0
    assert factor(past_run()) == pytest.approx(2**0.5)
    assert factor(*map(past_run, range(3))) == pytest.approx(2**0.75)
    far = [{"kind": "train", "arm": "lora", "predicted": 1.0, "measured": 1e6}]
    assert factor(*(past_run(n, steps=far) for n in range(9))) == history.MAX_CORRECTION
    result = history.time_correction([past_run(), past_run(1)], HERE, "hours", "smollm2-135m-instruct")
    assert result.text == "corrected by 1.6 from 2 earlier runs here"
    assert (
        history.time_correction([past_run()], HERE, "index", "smollm2-135m-instruct") == history.NO_CORRECTION
    )


def test_time_correction_uses_this_machine_and_model() -> None:
    other = past_run(1, machine={**HERE.model_dump(), "cores": 64})
    slow = past_run(2, model="qwen3-0.6b", steps=[{"kind": "train", "predicted": 1.0, "measured": 3.0}])
    remote = past_run(3, model="openai:tern", steps=[{"kind": "train", "predicted": 1.0, "measured": 4.0}])
    runs = [other, slow, remote]
    assert history.time_correction(runs[:1], HERE, "train", "smollm2-135m-instruct").runs == 0
    assert history.time_correction(runs, HERE, "train", "smollm2-135m-instruct").factor == pytest.approx(
        3**0.5
    )
    assert history.time_correction(
        [*runs, past_run()], HERE, "train", "smollm2-135m-instruct"
    ).factor == pytest.approx(2**0.5)
    assert history.time_correction(runs, HERE, "train", "openai:tern").factor == pytest.approx(4**0.5)


def test_machine_mark_holds_no_host_name(laptop: Machine) -> None:
    mark = history.machine_mark(laptop)
    assert (mark.cores, mark.gpu) == (laptop.cpu_cores.value, None)
    assert mark.same_speed(mark.model_copy(update={"ram_gib": 1}))
    assert set(MachineMark.model_fields) == {"cpu", "cores", "ram_gib", "gpu"}


def test_advice_counts_each_plan_once() -> None:
    runs = [
        past_run(0),
        past_run(1, outcome="overturned"),
        past_run(2, plan="plan0"),
        past_run(3, outcome="undecided"),
        past_run(4, strength="proxy"),
        past_run(5, label="demo"),
        past_run(6, label="dry-run", outcome=None, strength=None),
        past_run(7, strength="leaning"),
    ]
    result = advice_counts(runs)
    assert {
        k: result[k] for k in ("trials", "confirmed", "overturned", "undecided", "proxy", "demo", "leaning")
    } == {
        "trials": 4,
        "confirmed": 2,
        "overturned": 1,
        "undecided": 1,
        "proxy": 1,
        "demo": 1,
        "leaning": 1,
    }
    assert result["text"].startswith("the advice was right in 2 of 3 (95 % interval 21% to 94%)")
    assert "is not known yet" in advice_counts([past_run(outcome="undecided")])["text"]


def test_history_command_shows_and_clears(history_path: Path) -> None:
    for number in range(2):
        memory = {"predicted": 1.0, "measured": 1.5}
        history.append_to_history(past_run(number, memory_gib=memory, memory_of="training"))
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
    assert not history_path.exists()
    assert "no trial of your own" in run.invoke(cli.app, ["history"]).output


def test_process_memory_is_not_mixed_with_training_memory(history_path: Path) -> None:
    """Earlier versions recorded the process's peak beside an estimate for training alone."""
    history.append_to_history(past_run(0, memory_gib={"predicted": 1.2, "measured": 4.0}))
    history.append_to_history(
        past_run(1, memory_gib={"predicted": 1.0, "measured": 1.2}, memory_of="training")
    )
    line = json.loads(history_path.read_text("utf-8").splitlines()[0])
    del line["memory_of"]
    history_path.write_text(
        json.dumps(line) + "\n" + history_path.read_text("utf-8").splitlines()[1] + "\n", "utf-8"
    )
    data = history_summary(history.read_history())
    assert data["estimates"]["memory"] == {"n": 1, "ratio": 1.2, "least": 1.2, "most": 1.2}
    assert data["memory_left_out"] == 1
    assert [row["ratios"]["memory"] for row in data["runs"]] == [None, 1.2]
    shown = CliRunner().invoke(cli.app, ["history"], env={"COLUMNS": "200"})
    assert "memory of 1 earlier run is not counted: the whole process was measured then" in shown.output


def test_confidence_is_scored_over_decided_trials_that_recorded_it() -> None:
    runs = [
        past_run(0, confidence="high", probability=0.9, shares={"lora": 0.8}),
        past_run(1, confidence="high", probability=0.9, outcome="overturned"),
        past_run(2, confidence="low", probability=0.5, outcome="undecided"),
        past_run(3),
    ]
    advice = advice_counts(runs)
    assert {level: (share["hits"], share["n"]) for level, share in advice["levels"].items()} == {
        "high": (1, 2)
    }
    assert advice["brier"] == pytest.approx((0.01 + 0.81) / 2)
    assert (advice["brier_expected"], advice["brier_n"]) == (pytest.approx(0.09), 2)
    assert advice["rate"].endswith("with your own 2 of 3 decided trials .69 (.36 to .94)")

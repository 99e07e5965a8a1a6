"""The progress board: replayed from events, it shows what is done, the time left, and the scores so far."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.console import Console
from rich.progress import Progress

from advisor.display.progress import (
    ProgressBoard,
    ProgressWatcher,
    bar_columns,
    board_for_plan,
    format_duration,
    replay_events,
    sparkline,
)
from runners.plan.schema import parse_plan
from tests.support.limits import HANG_S

EVENTS: list[dict[str, Any]] = [
    {"time": 100, "event": "run.start"},
    {"time": 100, "event": "step.start", "step": "index", "number": 1, "total": 4},
    {"time": 101, "event": "embed.batch", "done": 3, "total": 9},
    {"time": 102, "event": "step.end", "step": "index"},
    {"time": 102, "event": "step.start", "step": "evaluate:rag", "number": 2, "total": 4},
    {"time": 102, "event": "step.skip", "step": "evaluate:rag"},
    {"time": 102, "event": "step.start", "step": "train:lora", "number": 3, "total": 4},
    *(
        {"time": 102 + 2 * n, "event": "train.step", "step": n, "steps": 30, "loss": 4 - n / 10}
        for n in range(1, 11)
    ),
]
STEPS = ["index", "evaluate:rag", "train:lora", "evaluate:lora"]
PLAN = parse_plan(
    {
        "name": "desk",
        "choice": "prompting",
        "model": {"name": "smollm2-135m-instruct"},
        "data": {"questions": "q.jsonl", "examples": "e.jsonl"},
        "steps": [
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "few-shot", "shots": 2},
        ],
        "weights": {"fact_recall": 1},
    }
)


def board_text(board: ProgressBoard, width: int = 80) -> str:
    """Return the board as text."""
    out = io.StringIO()
    Console(file=out, width=width).print(board.draw())
    return out.getvalue()


def test_finished_steps_correct_the_estimates_of_waiting_ones_of_their_kind() -> None:
    """A training that took twice its estimate doubles what is announced for the next one, and nothing else."""
    events = [
        {"time": 0, "event": "run.start"},
        {"time": 0, "event": "step.start", "step": "train:lora"},
        {"time": 200, "event": "step.end", "step": "train:lora"},
        {"time": 200, "event": "step.start", "step": "index"},
    ]
    board = replay_events(events, "desk", ["train:lora", "index", "train:hybrid", "evaluate:hybrid"])
    board.estimates = {"train:lora": 100.0, "index": 5.0, "train:hybrid": 300.0, "evaluate:hybrid": 20.0}
    assert board.correction("train:hybrid") == 2.0
    assert board.correction("evaluate:hybrid") == 1.0
    assert board.time_left(201) == pytest.approx(4 + 600 + 20)
    assert "about 10:00" in board_text(board)


ANSWERS_STEPS = ["evaluate:prompting", "evaluate:rag", "evaluate:hybrid", "train:hybrid"]


def answers(step: str, start: float, *batches: tuple[float, int]) -> list[dict[str, Any]]:
    """Return the events of a step that answers 24 questions: the time of each batch, and how many are done then."""
    counts = [
        {"time": at, "event": "answers.batch", "arm": step, "done": n, "total": 24} for at, n in batches
    ]
    return [{"time": start, "event": "step.start", "step": step}, *counts]


def board_of(events: list[dict[str, Any]]) -> ProgressBoard:
    board = replay_events(events, "desk", ANSWERS_STEPS)
    board.estimates = {
        "evaluate:prompting": 20.0,
        "evaluate:rag": 20.0,
        "evaluate:hybrid": 30.0,
        "train:hybrid": 100.0,
    }
    return board


def test_step_that_takes_three_times_its_estimate_scales_what_waits() -> None:
    """Finished or at work: the other answers are announced by what was measured, the training is not."""
    finished = [
        *answers("evaluate:prompting", 0, (60, 24)),
        {"time": 60, "event": "step.end", "step": "evaluate:prompting"},
    ]
    board = board_of([*finished, *answers("evaluate:rag", 60)])
    assert board.time_left(60) == pytest.approx(60 + 90 + 100)
    at_work = board_of(answers("evaluate:prompting", 0, (20, 8), (40, 16)))
    assert at_work.time_left(40) == pytest.approx(20 + 3 * (20 + 30) + 100)
    assert "about 1:30" in board_text(at_work)


def test_one_count_is_enough_to_know_that_something_is_left() -> None:
    """The first count came after the estimate was used up: 16 of 24 are left, not 0 s."""
    board = board_of(answers("evaluate:prompting", 0, (40, 8)))
    assert board.step_time_left("evaluate:prompting", 40) == pytest.approx(80)
    assert "0 s left" not in board_text(board)


def test_step_past_its_estimate_without_a_count_is_not_called_nearly_done() -> None:
    board = board_of(answers("evaluate:prompting", 0))
    assert board.step_time_left("evaluate:prompting", 15) == pytest.approx(5)
    assert board.step_time_left("evaluate:prompting", 50) is None
    assert board.time_left(50) is None
    board.clock = lambda: 50.0
    assert "0 s left" not in board_text(board)
    assert "50 s" in board_text(board)


def test_replayed_board_shows_state_of_the_run() -> None:
    board = replay_events(EVENTS, "desk", STEPS)
    board.estimates = {"evaluate:lora": 25.0}
    text = board_text(board)
    assert "desk: 2 of 4 steps, 22 s so far, about 1:05 left" in text
    assert "9 of 9" in text
    assert "before" in text
    assert "10 of 30" in text
    assert "40 s left" in text
    assert "about 25 s" in text
    assert "loss of lora: 3.90 to 3.00  █" in text
    assert max(map(len, text.splitlines())) <= 80


def test_training_step_counts_all_seeds() -> None:
    events = [{"time": 0, "event": "step.start", "step": "train:lora", "number": 1, "total": 1}]
    for nth in (0, 1):
        training = {
            "event": "train.step",
            "steps": 20,
            "arm": "lora",
            "seed": 5 + nth,
            "nth": nth,
            "seeds": 2,
        }
        events += [
            {"time": 20 * nth + n, "step": n, "loss": 10 * (nth + 1) - n / 2, **training}
            for n in range(1, 21)
        ]
    first, second = replay_events(events[:11]), replay_events(events[:31])
    step = second.steps["train:lora"]
    assert (first.steps["train:lora"].done, step.done, step.total) == (10, 30, 40)
    assert (first.step_time_left("train:lora", 10), second.step_time_left("train:lora", 30)) == (30, 10)
    assert step.losses == [20 - n / 2 for n in range(1, 11)], "losses of the second seed only"


def test_time_left_needs_an_estimate_of_every_step() -> None:
    board = replay_events(EVENTS, "desk", STEPS)
    assert board.time_left(122) is None
    assert "left" not in board_text(board).splitlines()[0]


def test_board_shows_steps_outside_the_plan() -> None:
    board = replay_events(
        [*EVENTS, {"time": 123, "event": "step.start", "step": "forgetting"}], "desk", STEPS
    )
    assert "forgetting" in board_text(board)


def test_watcher_with_board_prints_only_what_was_left_out() -> None:
    out = io.StringIO()
    watcher = ProgressWatcher(Console(file=out, width=200), None, ProgressBoard("desk", STEPS))
    watcher({"event": "step.start", "step": "index", "number": 1, "total": 4})
    watcher({"event": "step.end", "step": "index", "skipped": [{"path": "a.bin", "reason": "no text"}]})
    assert "[1/4]" not in out.getvalue()
    assert "a.bin was skipped" in out.getvalue()
    assert watcher.board is not None
    assert watcher.board.steps["index"].state == "done"


def test_board_shows_the_scores_of_the_events() -> None:
    board = ProgressBoard("desk", ["evaluate:rag"])
    board.update({"event": "step.start", "step": "evaluate:rag"})
    batch = {"event": "answers.batch", "arm": "rag", "done": 1, "total": 2}
    board.update(batch)
    assert board.steps["evaluate:rag"].scored is None, "a run of 0.2.0"
    board.update({**batch, "right": 12.5, "judged": 32, "score": 0.524})
    assert board.steps["evaluate:rag"].scored == "right 12.5 of 32, score so far 0.52"
    board.update({**batch, "right": 0, "judged": 0, "score": 0.5})
    assert "   score so far 0.50" not in board_text(board)
    assert "score so far 0.50" in board_text(board)


def test_board_for_plan_has_steps_and_estimates(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    rows = [{"question": f"How many berths has pier {n}?", "answers": [str(n)]} for n in range(9)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plan = PLAN.model_copy(
        update={"data": PLAN.data.model_copy(update={"questions": questions, "examples": None})}
    )
    board = board_for_plan(plan)
    assert list(board.steps) == ["evaluate:prompting", "evaluate:few-shot"]
    assert board.time_left(board.started) == pytest.approx(sum(board.estimates.values()))
    assert list(board_for_plan(plan, "evaluate:few-shot").steps) == ["evaluate:few-shot"]


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1:00"), (3725, "1:02:05")])
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_sparkline() -> None:
    assert sparkline([3, 2, 1]) == "█▅▁"
    assert len(sparkline(list(range(500)))) == 48
    assert sparkline([1.0, 1.0]) == "▄▄"
    assert sparkline([]) == ""


@pytest.mark.skipif(os.name == "nt", reason="a terminal of POSIX")
def test_board_on_terminal_and_resume_hint_on_ctrl_c(root: Path) -> None:
    script = f"""
import json, time
from advisor.display.progress import ProgressBoard, watch_progress
from advisor.terminal import resume_hint
events = json.loads({json.dumps(json.dumps(EVENTS))})
board = lambda: ProgressBoard("desk", {STEPS!r})
with resume_hint("tunewise run plan.yaml --resume"), watch_progress(board=board) as watcher:
    for event in events:
        watcher({{k: v for k, v in event.items() if k != "time"}})
    time.sleep(600)
"""
    env = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    child = pexpect.spawn(
        sys.executable,
        ["-c", script],
        env=env,
        encoding="utf-8",
        timeout=HANG_S,
        dimensions=(30, 100),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" has it ignored
    )
    child.expect("desk: 2 of 4 steps")
    child.expect("loss of lora: 3.90 to 3.00")
    child.sendintr()
    child.expect_exact("interrupted; finished steps are saved")
    child.expect_exact("tunewise run plan.yaml --resume")
    child.close()


def test_resumed_board_keeps_what_was_measured() -> None:
    """A finished step corrects the estimates of its kind after --resume too; a broken-off one waits again."""
    events = [
        {"time": 0, "event": "run.start"},
        {"time": 0, "event": "step.start", "step": "train:lora"},
        {"time": 100, "event": "step.end", "step": "train:lora"},
        {"time": 100, "event": "step.start", "step": "evaluate:lora"},
    ]
    estimates = {"train:lora": 10.0, "train:full": 20.0, "evaluate:lora": 5.0}
    board = ProgressBoard("desk", list(estimates), estimates, clock=lambda: 500.0)
    board.take_over(events)
    assert [step.state for step in board.steps.values()] == ["before", "waiting", "waiting"]
    assert board.correction("train:full") == 10.0
    assert board.time_left(500.0) == 205.0
    for event in (
        {"time": 500, "event": "run.start"},
        {"time": 500, "event": "step.start", "step": "train:lora"},
        {"time": 500, "event": "step.skip", "step": "train:lora"},
    ):
        board.update(event)
    assert board.steps["train:lora"].state == "before"
    assert board.time_left(500.0) == 205.0


def test_bar_shows_no_count_and_no_time_left_before_they_are_known() -> None:
    out = io.StringIO()
    screen = Console(file=out, width=120, force_terminal=True, color_system=None)
    with Progress(*bar_columns(), console=screen, auto_refresh=False) as bars:
        task = bars.add_task("[1/4] index", total=None, note="")
        bars.refresh()
        assert "/?" not in out.getvalue()
        assert "left" not in out.getvalue()
        bars.update(task, completed=3, total=7, note="")
        bars.refresh()
        assert "3/7" in out.getvalue()

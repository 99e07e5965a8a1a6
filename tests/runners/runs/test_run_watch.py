"""`tunewise runs show --watch`: a real run of a tiny model in another process is followed, killed, resumed and finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import advisor
from advisor import cli
from advisor.display.progress import ProgressBoard
from advisor.workflows.run_watch import EventFollower, RunStatus, RunWatch, watch_run
from rag.errors import BadInput
from rag.files import append_line, writer_lock, writer_process
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import parse_plan, write_plan
from runners.run_folder import EVENTS, RunFolder, read_journal
from tests.support.limits import HANG_S

PACKAGES = Path(advisor.__file__).resolve().parent.parent


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start tunewise in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-P", "-m", "advisor", *map(str, arguments)]
    return subprocess.Popen(
        line,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" has it ignored
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.fixture
def plan_file(tiny: Model, pier_examples: tuple[Example, ...], tmp_path: Path) -> Path:
    """A plan of two trained arms and the plain model, without an index."""
    rows = [{"messages": list(example.messages)} for example in pier_examples]
    asked = [{"question": f"Is the {n}th berth free?", "answers": ["Aye."]} for n in range(6)]
    for name, body in (("examples", rows), ("questions", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in body), "utf-8")
    training = {"epochs": 20, "rank": 4, "alpha": 8, "learning_rate": 2e-2, "batch_tokens": 100}
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("examples", "questions")}
    plan = {
        "name": "berths",
        "choice": "lora",
        "model": {"name": str(tiny.folder)},
        "max_new_tokens": 8,
        "data": files,
        "steps": [
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "train", "arm": "lora", **training},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
        "weights": {"token_f1": 1},
        "forgetting": {"prompts": 0},
    }
    write_plan(parse_plan(plan), tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"


def test_a_run_is_followed_killed_and_finished(
    plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    working = start("run", plan_file, "--out", run)
    wait_for(lambda: any(e["event"] == "train.step" for e in read_journal(run / EVENTS)), working)
    watcher = start("runs", "show", run, "--watch", "--json")
    first = json.loads(watcher.stdout.readline())  # type: ignore[union-attr]
    assert (first["schema"], first["event"], first["text"]) == (1, "milestone", "berths: started")
    working.kill()
    working.communicate()
    # Not `communicate`, which would miss what the readline above has buffered.
    rows = [json.loads(line) for line in watcher.stdout]  # type: ignore[union-attr]
    err = watcher.stderr.read()  # type: ignore[union-attr]
    assert watcher.wait(HANG_S) == 3, err
    for pipe in (watcher.stdout, watcher.stderr):
        pipe.close()  # type: ignore[union-attr]
    assert rows[-1]["event"] == "end"
    assert rows[-1]["state"] == "killed"
    assert rows[-1]["resume"] == f"tunewise run {run} --resume"
    assert f"process {working.pid} has ended without a message" in err
    assert any(row.get("step") == "evaluate:prompting" and "right 0 of" in row["text"] for row in rows)

    resumed = start("run", run, "--resume")
    wait_for(lambda: writer_process(run) == resumed.pid, resumed)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["runs", "show", str(run), "--watch"])
    printed = capsys.readouterr().out
    resumed.communicate(timeout=HANG_S)
    assert stop.value.code == resumed.returncode
    assert "berths: resumed (start 2)" in printed
    assert "train:lora: done in" in printed
    assert "loss " in printed
    assert "finished: " in printed


def test_the_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / EVENTS
    follower = EventFollower(log)
    assert follower.read() == ([], False)
    append_line(log, {"n": 1})
    with log.open("ab") as stream:
        stream.write(b'{"n": 2')
    assert follower.read() == ([{"n": 1}], False)
    with log.open("ab") as stream:
        stream.write(b'2}\n{"n": 3')
    assert follower.read() == ([{"n": 22}], False)
    append_line(log, {"n": 4})  # closes the line that a crash tore
    assert follower.read() == ([{"n": 4}], False)
    other = tmp_path / "other"
    append_line(other, {"n": 5})
    other.replace(log)
    assert follower.read() == ([{"n": 5}], True)


def test_the_status_estimates_the_time_left_by_what_was_measured() -> None:
    board = ProgressBoard("desk", ["train:lora", "train:hybrid"], {"train:lora": 10.0, "train:hybrid": 20.0})
    status = RunStatus(board)
    for event in (
        {"event": "run.start", "time": 100.0},
        {"event": "step.start", "step": "train:lora", "number": 1, "total": 2, "time": 100.0},
        {"event": "answers.batch", "arm": "rag", "done": 3, "total": 4, "time": 101.0},
        {"event": "train.step", "step": 1, "steps": 4, "loss": 2.0, "time": 110.0},
        {"event": "train.step", "step": 2, "steps": 4, "loss": 1.0, "time": 120.0},
    ):
        status.update(event)
    told = status.to_json(120.0, 1.5)
    assert told["steps"] == {"done": [], "current": "train:lora", "left": ["train:hybrid"]}
    assert (told["done"], told["total"], told["percent"], told["loss"]) == (2, 4, 50.0, 1.0)
    assert told["questions_answered"] == 3
    # 10 s a step: 20 s are left of this one, which then takes 4 times its estimate, as the next one will.
    assert told["seconds_left"] == pytest.approx(20 + 4 * 20, rel=0.1)
    assert "now train:lora 2 of 4 (50 %), loss 1.00" in status.line(120.0, 1.5)


def test_what_is_no_longer_worked_on_is_said(
    plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from runners.plan.schema import read_plan

    run = RunFolder.create(tmp_path / "run", read_plan(plan_file)).path
    append_line(run / EVENTS, {"event": "run.start", "time": time.time()})
    with writer_lock(run):
        assert RunWatch(run).state() == "writing"
        cli_code(["runs", "show", str(run)])
        assert "0 of 3 steps done" in capsys.readouterr().out
    with pytest.raises(BadInput) as problem:
        watch_run(run, as_json=False, grace_seconds=0.0)
    assert "is not finished: no process writes it; 0 of 3 steps are done" in problem.value.message
    assert f"tunewise run {run} --resume" in problem.value.hint
    assert cli_code(["runs", "show", str(tmp_path / "none"), "--watch"]) == 3


def test_ctrl_c_ends_the_watcher_alone(plan_file: Path, tmp_path: Path) -> None:
    from runners.plan.schema import read_plan

    run = RunFolder.create(tmp_path / "run", read_plan(plan_file)).path
    append_line(run / EVENTS, {"event": "run.start", "time": time.time()})
    with writer_lock(run):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        watcher = start("runs", "show", run, "--watch")
        assert "berths: started" in watcher.stdout.readline()  # type: ignore[union-attr]
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=HANG_S)  # what is left of the output does not matter
        assert watcher.returncode == 130
        assert "Traceback" not in err
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def cli_code(arguments: list[str]) -> int:
    """Run a verb in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return int(stop.value.code or 0)

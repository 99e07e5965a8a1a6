"""Ctrl-C and SIGTERM on real processes: work is saved, the resume command is printed, the exit code is right."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from runners import interrupts
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.train import work_folder
from runners.training import checkpoint
from tests.support.limits import HANG_S, wait_until

RUN = "lora on 36 rows"
"""What is printed just before the first step."""
LONG = ("--epochs", "64")
"""So that a run that is continued and stopped four times does not end before."""


@dataclass
class TrainProcess:
    """`tunewise train` in a folder with rows and a tiny model."""

    warm: Any
    folder: Path
    model: Path

    def start(self, out: str, *more: str) -> int:
        """Begin to train and return the process's id."""
        return self.command(
            "train",
            "--examples",
            "rows.jsonl",
            "--model",
            str(self.model),
            "--out",
            out,
            "--epochs",
            "16",
            "--seed",
            "3",
            *more,
        )

    def command(self, *arguments: str) -> int:
        """Start a command line and return the process's id."""
        (self.folder / "log").unlink(missing_ok=True)
        log = str(self.folder / "log")
        return int(self.warm.start(args=list(arguments), cwd=str(self.folder), log=log))

    def training(self, pid: int, out: str) -> Path:
        """Wait until the process has taken some of its steps and return the run's work folder."""
        wait_until(lambda: (self.folder / "log").exists() and RUN in self.output(), 0.01)
        began = processor_seconds(pid)
        wait_until(
            lambda: processor_seconds(pid) > began + 0.8, 0.01
        )  # a run takes 2 to 4 s of processor time
        return work_folder(self.folder / out)

    def output(self) -> str:
        """Return what the last process printed."""
        return (self.folder / "log").read_text("utf-8")


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.fixture(scope="module")
def process(
    warm: Any, tiny: Model, examples: Sequence[Example], tmp_path_factory: pytest.TempPathFactory
) -> TrainProcess:
    """A folder with rows, in which to train."""
    folder = tmp_path_factory.mktemp("signals")
    rows = [json.dumps({"messages": list(e.messages)}) for e in examples]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return TrainProcess(warm, folder, tiny.folder)


@pytest.fixture(scope="module")
def uninterrupted_adapter(process: TrainProcess) -> bytes:
    """The adapter of a run that was not interrupted."""
    process.start("whole")
    assert process.warm.wait() == 0, process.output()
    return (process.folder / "whole" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_prints_resume_command_and_resumes(
    process: TrainProcess, uninterrupted_adapter: bytes, number: int, code: int
) -> None:
    out = f"stopped{code}"
    pid = process.start(out)
    work = process.training(pid, out)
    os.kill(pid, number)
    assert process.warm.wait() == code, process.output()
    folder, _ = checkpoint.newest_checkpoint(work)
    assert folder is not None
    assert checkpoint.read_progress(folder).step > 0
    assert not (process.folder / out).exists()
    assert "Traceback" not in process.output()
    resume = next(text for text in process.output().splitlines() if "--resume" in text)
    process.command(*shlex.split(resume)[1:])
    assert process.warm.wait() == 0, process.output()
    assert (process.folder / out / "adapter_model.safetensors").read_bytes() == uninterrupted_adapter


def test_second_ctrl_c_stops_at_once_and_keeps_last_checkpoint(process: TrainProcess) -> None:
    pid = process.start("twice", *LONG)
    work = process.training(pid, "twice")
    os.kill(pid, signal.SIGINT)
    assert process.warm.wait() == 130
    before, _ = checkpoint.newest_checkpoint(work)
    assert before is not None
    again = 0
    for pause in (0.0, 0.003, 0.01, 0.03):
        pid = process.start("twice", *LONG, "--resume")
        process.training(pid, "twice")
        os.kill(pid, signal.SIGINT)
        time.sleep(pause)
        with suppress(ProcessLookupError):  # it may have written its checkpoint and gone by now
            os.kill(pid, signal.SIGINT)
            again += 1
        assert process.warm.wait() == 130, process.output()
        after, damage = checkpoint.newest_checkpoint(work)
        assert after is not None
        assert after.name >= before.name
        assert not damage
        before = after
    assert again, "no second Ctrl-C reached a process"


def test_new_run_does_not_discard_unfinished_one(process: TrainProcess) -> None:
    pid = process.start("kept")
    work = process.training(pid, "kept")
    os.kill(pid, signal.SIGINT)
    assert process.warm.wait() == 130
    process.start("kept")
    assert process.warm.wait() == 2
    assert "--resume" in process.output()
    assert checkpoint.newest_checkpoint(work)[0] is not None
    process.start("kept", "--overwrite", "--epochs", "1")
    assert process.warm.wait() == 0, process.output()


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Install Python's SIGINT handler, even where the shell ignores SIGINT, as for a background command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers() -> list[Any]:
    """Return the handlers of the signals that deferred_signals replaces."""
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]


def request_stop_at_end(seen: list[Any]) -> None:
    """Receive a signal, and reach the end of the block."""
    with interrupts.deferred_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        seen.append(stop.asked)


def request_stop_and_check(seen: list[Any]) -> None:
    """Receive a signal, and stop at the next check."""
    with interrupts.deferred_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        stop.check()
        seen.append("went on")


def request_stop_twice(seen: list[Any]) -> None:
    """Receive two signals."""
    with interrupts.deferred_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
            seen.append("went on")
        finally:
            seen.append(stop.urgent)


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize(
    ("block", "expected"),
    [(request_stop_at_end, [signal.SIGINT]), (request_stop_and_check, []), (request_stop_twice, [True])],
)
def test_block_sees_first_signal_and_handlers_are_restored(
    block: Callable[[list[Any]], None], expected: list[Any]
) -> None:
    before, seen = handlers(), list[Any]()
    with pytest.raises(KeyboardInterrupt):
        block(seen)
    assert seen == expected
    assert handlers() == before


def slow_pass(seconds: float, seen: list[float]) -> None:
    """Receive a signal while a checkpoint is written, then begin a pass that takes very long."""
    with interrupts.deferred_signals(grace=0.1) as stop:
        signal.raise_signal(signal.SIGINT)
        time.sleep(seconds)
        seen.append(time.monotonic())
        with stop.open():
            time.sleep(HANG_S)
            seen.append(time.monotonic())


@pytest.mark.usefixtures("default_sigint")
def test_only_open_blocks_are_interrupted_after_grace() -> None:
    started, seen = time.monotonic(), list[float]()
    with pytest.raises(KeyboardInterrupt):
        slow_pass(0.3, seen)
    (written,) = seen  # and the pass was not waited for
    assert written - started >= 0.3


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.deferred_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

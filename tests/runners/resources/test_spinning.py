"""Idle OpenMP threads: how long they spin depends on what else the machine does, and the user's setting stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runners.resources import environment, usage


@pytest.mark.parametrize(
    ("others", "cores", "count"),
    [(0.0, 2, "20000"), (0.3, 2, "20000"), (1.0, 2, "1000"), (1.0, 16, "20000"), (6.0, 16, "1000")],
)
def test_spin_count_is_short_where_others_want_the_cores(others: float, cores: int, count: str) -> None:
    assert usage.idle_spin_count(others, cores) == count


def test_spinning_is_not_changed_once_torch_is_there_or_the_user_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    assert usage.adapt_spinning_to_load(0.0) is False
    assert os.environ["GOMP_SPINCOUNT"] == "77"


def test_command_line_sets_spinning_and_kernel_cache_before_torch() -> None:
    """A process that has not imported torch observes the load and sets one of the two counts."""
    code = (
        "import os; from runners.resources import environment, usage; environment.limit_kernel_cache();"
        "usage.adapt_spinning_to_load(0.05);"
        "print(os.environ['GOMP_SPINCOUNT'], os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    )
    names = ("GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    variables = {key: value for key, value in os.environ.items() if key not in names}
    root = str(Path(usage.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    count, capacity = done.stdout.split()
    assert count in (usage.QUIET_SPIN_COUNT, usage.SHARED_SPIN_COUNT)
    assert capacity == environment.KERNEL_CACHE_CAPACITY


def test_kernel_cache_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "500")
    environment.limit_kernel_cache()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "500"


def test_threads_of_a_step_follow_torch_or_the_environment() -> None:
    code = (
        "from runners.resources.usage import compute_threads; print(compute_threads());"
        "import torch; torch.set_num_threads(1); print(compute_threads())"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(usage.__file__).parents[2])}
    for wanted, expected in (("3", "3"), ("", "None"), ("many", "None")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environ | {"OMP_NUM_THREADS": wanted},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [expected, "1"]


def test_busy_note_names_the_steps_and_the_worst_share() -> None:
    assert usage.busy_note({"index": 0.1, "train:lora": 0.0}) == ""
    note = usage.busy_note({"index": 0.2, "train:lora": 0.45, "evaluate:lora": 0.15})
    assert note.startswith(
        "index, train:lora: the machine was busy: other programs took 45% of the processor time"
    )
    assert note.endswith("these times are too long, and are not kept for later estimates")


def test_torch_that_another_thread_imports_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import threading, time\n"
        "begun.set()\n"
        "time.sleep(0.3)\n"
        "class cuda:\n"
        "    is_available = staticmethod(lambda: False)\n"
        "xpu = cuda\n"
        "get_num_threads = lambda: 1\n".replace("begun", "threading.main_thread().begun"),
        "utf-8",
    )
    code = (
        "import threading; from runners.resources import usage\n"
        "begun = threading.main_thread().begun = threading.Event()\n"
        "thread = threading.Thread(target=__import__, args=('torch',)); thread.start(); begun.wait()\n"
        "with usage.measure_step_contention() as others: pass\n"
        "thread.join(); print(others.lost)"
    )
    path = os.pathsep.join((str(tmp_path), str(Path(usage.__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0.0"), done.stderr

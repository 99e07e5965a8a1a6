"""`tunewise train --launcher torchrun` for real: two processes, one lost, interrupted, gone on with on two nodes."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.limits import HANG_S

pytestmark = pytest.mark.engines

TRAIN = ("train", "--examples", "rows.jsonl", "--model", "model", "--out", "o")
SETTINGS = ("--epochs", 12, "--batch-tokens", 70, "--checkpoint-steps", 10)
HERE = ("--launcher", "torchrun", "--gpus-per-node", 2)


def rank(launcher: subprocess.Popen[str], number: int) -> psutil.Process | None:
    """The process of this rank that a launcher has started; None where another launcher has."""
    children = psutil.Process(launcher.pid).children()
    return next((child for child in children if child.environ().get("RANK") == str(number)), None)


def resume_line(stderr: str) -> list[str]:
    """The arguments of the command that the last line of the output names."""
    line = shlex.split(stderr.splitlines()[-1].partition("tunewise ")[2])
    assert line[-1] == "--resume"
    return line


def test_lost_process_interruption_and_two_nodes(workplace: Any, free_port: int) -> None:
    launcher = workplace.start(*TRAIN, *SETTINGS, *HERE, "--max-restarts", 0)
    workplace.wait_for_checkpoint("o", 10)
    lost = rank(launcher, 1)
    assert lost is not None
    lost.kill()
    _, error = launcher.communicate(timeout=HANG_S)
    assert (launcher.returncode, "tunewise: rank 1 of 2 was killed by SIGKILL\n" in error) == (4, True), error
    assert "Traceback" not in error, error
    script = workplace.folder / "o.launch" / "torchrun.sh"
    assert str(script.relative_to(workplace.folder)) in error
    assert "torch.distributed.run --nnodes 1 --nproc-per-node 2 --standalone" in script.read_text("utf-8")

    again = resume_line(error)
    launcher = workplace.start(*again)
    workplace.wait_for_checkpoint("o", 30)
    launcher.send_signal(signal.SIGINT)
    _, error = launcher.communicate(timeout=HANG_S)
    assert (launcher.returncode, error.count("Continue with:")) == (130, 1), error
    assert resume_line(error) == again

    nodes = ("--launcher", "torchrun", "--nodes", 2, "--gpus-per-node", 1, "--max-restarts", 1)
    command = (*TRAIN, *SETTINGS, "--resume", *nodes, "--rdzv-endpoint", f"127.0.0.1:{free_port}")
    launchers = [workplace.start(*command, GLOO_SOCKET_IFNAME="lo") for _ in range(2)]
    workplace.wait_for_checkpoint("o", 60)
    follower = next(each for each in launchers if not rank(each, 0))
    lost = rank(follower, 1)
    assert lost is not None
    lost.kill()
    outputs = [each.communicate(timeout=HANG_S) for each in launchers]
    assert [each.returncode for each in launchers] == [0, 0], outputs
    assert sorted("adapter: o" in out for out, _ in outputs) == [False, True]
    assert any(
        "process 0 of this node was killed by SIGKILL; restart 1 of 1" in error for _, error in outputs
    )
    assert (workplace.folder / "o" / "adapter_model.safetensors").is_file()


def test_refusal_is_printed_once_and_not_repeated(workplace: Any, tmp_path: Path) -> None:
    """Exit code and message are those of the first process, although the group may be started again three times."""
    command = ("train", "--examples", "missing.jsonl", "--model", "model", "--out", tmp_path / "o")
    done = workplace.tunewise(*command, *HERE)
    assert (done.returncode, done.stderr.count("missing.jsonl does not exist")) == (3, 1), done.stderr
    assert "restart" not in done.stderr.replace("--max-restarts", "")

"""Slurm for real: jobs that `tunewise train --launcher slurm` submits to two nodes, requeued, and refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engines

LONG = ("--epochs", 60, "--checkpoint-steps", 20, "--seed", 3, "--parallel", "ddp")


def submit(workplace: Any, slurm: Any, out: str, *flags: object) -> tuple[str, Path]:
    """Submit a training to both nodes; return the job's id and the file of its output."""
    arguments = ("--examples", "rows.jsonl", "--model", "model", "--out", out, *flags)
    launcher = ("--launcher", "slurm", "--nodes", 2, "--gpus-per-node", 0, "--sbatch", "time=00:10:00")
    done = workplace.tunewise("train", *arguments, *launcher, **slurm.environ)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1].rstrip(":")
    assert f"squeue -j {job}" in done.stdout
    return job, workplace.folder / f"{out}.launch" / f"slurm-{job}.out"


def test_requeued_job_ends_with_the_same_weights(workplace: Any, slurm: Any) -> None:
    """Two nodes train; a job that is sent back to the queue in the middle resumes, to the bits of one that is not."""
    whole, output = submit(workplace, slurm, "whole", *LONG)
    slurm.wait(whole)
    text = output.read_text("utf-8")
    assert slurm.exit_code(whole) == 0, text
    assert "2 nodes" in text

    broken, output = submit(workplace, slurm, "broken", *LONG)
    log = workplace.folder / ".broken.work" / "training.jsonl"
    end = time.monotonic() + 90
    while not log.exists() or len(log.read_text("utf-8").splitlines()) < 30:
        assert time.monotonic() < end, output.read_text("utf-8")
        time.sleep(0.1)
    again = workplace.tunewise(
        *("train", "--examples", "rows.jsonl", "--model", "model", "--out", "broken", *LONG, "--resume"),
        *("--launcher", "slurm", "--nodes", 2, "--gpus-per-node", 0),
        **slurm.environ,
    )
    assert (again.returncode, f"job {broken} for broken is still queued" in again.stderr) == (3, True)
    slurm.ask("scontrol", "requeue", broken)
    slurm.wait(broken, "PENDING")
    slurm.ask("scontrol", "update", f"JobId={broken}", "StartTime=now")
    slurm.wait(broken)
    text = output.read_text("utf-8")
    assert slurm.exit_code(broken) == 0, text
    assert "restart 1" in text
    results = [workplace.folder / name / "adapter_model.safetensors" for name in ("whole", "broken")]
    assert results[0].read_bytes() == results[1].read_bytes()


def test_slurm_accepts_or_refuses_a_script_before_it_is_submitted(workplace: Any, slurm: Any) -> None:
    """The script of 2 x 8 GPUs would run; too many nodes and an unknown GPU are refused in one clear line."""
    train = ("train", "--examples", "rows.jsonl", "--model", "model", "--out", "gpus", "--launcher", "slurm")
    on_gpus = ("--gpus-per-node", 8, "--sbatch", "partition=gpu", "--sbatch", "time=04:00:00")
    shown = workplace.tunewise(*train, "--nodes", 2, "--gpu", "h100", *on_gpus, "--print", **slurm.environ)
    script = workplace.folder / "shown.sh"
    script.write_text(shown.stdout, "utf-8")
    slurm.ask("sbatch", "--test-only", str(script))
    assert not (workplace.folder / "gpus.launch").exists()

    for flags, reason in (
        (("--nodes", 5, "--gpu", "h100"), "configuration is not available"),
        (("--nodes", 2, "--gpu", "h1OO"), "Invalid generic resource"),
    ):
        refused = workplace.tunewise(*train, *flags, *on_gpus, **slurm.environ)
        assert refused.returncode == 4
        first, second = refused.stderr.splitlines()
        assert first.startswith("tunewise: Slurm refuses the job: ")
        assert reason in first
        assert "the script is kept: gpus.launch/slurm.sh" in second
    assert slurm.ask("squeue", "--noheader") == ""


def test_refusal_ends_a_job_with_its_own_code_and_no_restart(workplace: Any, slurm: Any) -> None:
    """Rows that are not there: the message once, exit code 3, although torchrun may restart three times."""
    job, output = submit(workplace, slurm, "refused", "--valid", "missing.jsonl")
    slurm.wait(job)
    text = output.read_text("utf-8")
    assert slurm.exit_code(job) == 3, text
    assert text.count("missing.jsonl does not exist") == 1, text

"""The acceptance run on a GPU says that there is nothing to run on, and its parts run on a CPU with tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "benchmarks.gpu"]


def test_without_a_gpu_it_measures_nothing_and_names_the_reason(root: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    done = subprocess.run(
        [*COMMAND, "--work", str(tmp_path / "gpu")], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 4
    assert "no CUDA device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "gpu").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["decode", "train-lora"])
def test_part_runs_on_a_cpu_with_tiny_models_and_is_not_measured_twice(
    part: str, root: Path, tmp_path: Path
) -> None:
    command = [*COMMAND, "--device", "cpu", "--work", str(tmp_path), "--part", part]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{part}: measured" in done.stderr
    (result,) = (path for path in (tmp_path / "results").rglob(f"{part}.json"))
    rows = json.loads(result.read_text("utf-8"))["rows"]
    assert {row["family"] for row in rows} == {"llama", "gemma3"}
    assert all(row["value"] is not None or row["note"] for row in rows)
    assert f"| llama | {rows[0]['what']} |" in done.stdout
    again = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert f"{part}: measured already" in again.stderr


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_with_tiny_models(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--device", "cpu", "--work", str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    measured = {path.stem for path in (tmp_path / "results").rglob("*.json")}
    assert {
        "tests",
        "train-lora",
        "train-full",
        "train-qlora",
        "decode",
        "embed",
        "serve",
        "ddp",
        "fsdp",
    } <= measured


def test_parts_of_several_gpus_run_one_command_for_each_way_and_method(root: Path, tmp_path: Path) -> None:
    """The command names torchrun, the command line and the way of sharing; its rows are a file of chats."""
    from benchmarks.gpu.group import GROUP_PARTS, group_command
    from benchmarks.gpu.parts import Setting

    assert list(GROUP_PARTS) == ["ddp", "fsdp"]
    (tmp_path / "results").mkdir()
    setting = Setting(tmp_path, "cpu", tmp_path / "results")
    command = group_command(setting, "fsdp", "full", 2, tmp_path / "out")
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command[command.index("--parallel") + 1] == "fsdp"
    rows = Path(command[command.index("--examples") + 1]).read_text("utf-8").splitlines()
    assert all(json.loads(row)["messages"][0]["role"] == "user" for row in rows)

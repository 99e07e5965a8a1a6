"""`--launcher` of `tunewise run` and `train`: refusals, what --print shows, what is kept where, and the line to resume."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advisor import cli
from advisor.terminal import resume_hint
from advisor.workflows import train
from advisor.workflows.launch import settle_resumption
from rag.errors import UsageProblem
from rag.files import writer_lock
from runners.plan.schema import parse_plan, write_plan
from runners.run_folder import RunFolder, is_run, open_run_folder
from runners.train import work_folder

TRAIN = ("train", "--examples", "rows.jsonl", "--out", "o")
BODY = {
    "name": "p",
    "choice": "prompting",
    "model": {"name": "smollm2-135m-instruct"},
    "data": {"questions": "q.jsonl"},
    "steps": [{"kind": "evaluate", "arm": "prompting"}],
    "weights": {"style": 1},
}


def tunewise(*arguments: object) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(cli.app, [str(part) for part in arguments])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a plan and its questions; on a machine without a GPU, Slurm and SkyPilot."""
    place = tmp_path / "a b's"
    place.mkdir()
    (place / "q.jsonl").write_text('{"question": "When?", "reference": "At noon."}\n', "utf-8")
    write_plan(parse_plan(BODY), place / "plan.yaml")
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TUNEWISE_DEVICE", "cpu")
    return place


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--nodes 2", "--nodes needs a launcher"),
        ("--print", "--print needs a launcher"),
        ("--sbatch time=1", "--sbatch needs a launcher"),
        ("--launcher mpirun", "choose one of torchrun, slurm, skypilot"),
        ("--launcher torchrun", "the number of processes must be given"),
        ("--launcher torchrun --gpus-per-node 0", "--gpus-per-node 0 is too small"),
        ("--launcher slurm --gpus-per-node -1", "at least 0"),
        ("--launcher slurm --nodes 0", "--nodes 0 is too small"),
        ("--launcher slurm --max-restarts -1", "--max-restarts -1 is too small"),
        ("--launcher torchrun --gpus-per-node 2 --nodes 2", "--rdzv-endpoint HOST:PORT"),
        ("--launcher torchrun --gpus-per-node 2 --rdzv-endpoint h:1", "--rdzv-endpoint is for several nodes"),
        ("--launcher torchrun --gpus-per-node 2 --gpu H100", "--gpu is not for --launcher torchrun"),
        ("--launcher slurm", "0 for nodes without"),
        ("--launcher slurm --gpus-per-node 1 --rdzv-id x", "it is for torchrun"),
        ("--launcher slurm --gpus-per-node 1 --sbatch nodes=2", "use --nodes"),
        ("--launcher skypilot", "give --gpu"),
        ("--launcher skypilot --gpu H100 --gpus-per-node 0", "exclude each other"),
        ("--launcher torchrun --gpus-per-node 2 --check", "--check and --launcher exclude each other"),
        ("--launcher slurm --gpus-per-node 0 --resume --overwrite", "exclude each other"),
    ],
)
def test_wrong_flags_are_refused_in_two_lines(folder: Path, flags: str, text: str) -> None:
    before = sorted(folder.rglob("*"))
    done = tunewise(*TRAIN, *flags.split())
    assert (done.exit_code, text in done.stderr) == (2, True), done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith(("tunewise: ", "  next: "))]
    assert len(done.stderr.splitlines()) == 2
    assert sorted(folder.rglob("*")) == before


def test_run_refuses_the_same(folder: Path) -> None:
    done = tunewise("run", "plan.yaml", "--launcher", "torchrun", "--gpus-per-node", 2, "--dry-run")
    assert (done.exit_code, "--dry-run and --launcher" in done.stderr) == (2, True)
    several = ("--launcher", "torchrun", "--gpus-per-node", 2, "--nodes", 2, "--rdzv-endpoint", "h:1")
    RunFolder.create(folder / "o", parse_plan(BODY))
    done = tunewise("run", "plan.yaml", "--out", "o", *several, "--overwrite")
    assert (done.exit_code, "each of them would remove" in done.stderr) == (2, True), done.stderr
    assert is_run(folder / "o")


def test_print_shows_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    flags = ("--kernels", "plain", "--accept-lost-rows", "--gpus-per-node", 2, "--max-restarts", 1, "--print")
    shown = tunewise("run", "plan.yaml", "--launcher", "torchrun", *flags)
    assert shown.exit_code == 0, shown.stderr
    assert "--max-restarts 1 -m advisor run plan.yaml --kernels plain --accept-lost-rows" in shown.stdout
    assert "--out runs/p --resume" in shown.stdout
    shown = tunewise("--quiet", "run", "plan.yaml", "--launcher", "slurm", "--nodes", 2, *flags)
    assert f"--quiet run '{folder.parent}" in shown.stdout.replace("a b'\"'\"'s", "a b's").replace('"', "'")
    assert subprocess.run(["/bin/bash", "-n"], input=shown.stdout, text=True, check=False).returncode == 0
    shown = tunewise("run", "plan.yaml", "--launcher", "skypilot", "--gpu", "A100", *flags)
    assert "accelerators: A100:2" in shown.stdout
    assert f"{folder}/q.jsonl" in shown.stdout
    assert sorted(folder.rglob("*")) == before


def test_script_is_kept_and_a_run_is_replaced_only_when_it_starts(folder: Path) -> None:
    """Without Slurm here the script is kept; the folder stays free for a run, and one that is there is not removed."""
    launch = ("--launcher", "slurm", "--gpus-per-node", 0)
    done = tunewise("run", "plan.yaml", "--out", "o", *launch)
    assert (done.exit_code, "there is no sbatch" in done.stderr) == (4, True), done.stderr
    script = folder / "o" / "launch" / "slurm.sh"
    assert script.stat().st_mode & 0o100
    run = RunFolder.create(folder / "o", parse_plan(BODY))
    run.seal({})
    script.write_text("changed\n", "utf-8")
    open_run_folder(folder / "o").check()
    done = tunewise("run", "plan.yaml", "--out", "o", *launch)
    assert (done.exit_code, "o exists" in done.stderr) == (2, True), done.stderr
    done = tunewise("run", "plan.yaml", "--out", "o", *launch, "--overwrite")
    assert done.exit_code == 4
    assert (folder / "o" / "manifest.json").exists()
    with writer_lock(folder / "o"):
        done = tunewise("run", "plan.yaml", "--out", "o", *launch, "--resume")
    assert (done.exit_code, "being written by another process" in done.stderr) == (3, True)


def test_training_keeps_its_script_beside_the_result(folder: Path) -> None:
    launch = ("--launcher", "slurm", "--gpus-per-node", 0)
    assert tunewise(*TRAIN, *launch).exit_code == 4
    assert (folder / "o.launch" / "slurm.sh").exists()
    assert not (folder / "o").exists()
    with writer_lock(work_folder(Path("o"))):
        assert tunewise(*TRAIN, *launch).exit_code == 3
    (folder / "o").mkdir()
    (folder / "o" / "manifest.json").write_text("{}", "utf-8")
    assert tunewise(*TRAIN, *launch).exit_code == 2
    assert tunewise(*TRAIN, *launch, "--overwrite").exit_code == 4
    assert (folder / "o" / "manifest.json").exists()
    train.remove_result(Path("o"))
    assert not (folder / "o").exists()


def test_launcher_inside_a_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from advisor.flags.launch import LaunchFlags
    from advisor.workflows.launch import launch_request

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageProblem, match="inside a group"):
        launch_request(None, LaunchFlags(launcher="torchrun", gpus_per_node=2), {})


def test_restarted_process_resumes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a restart --overwrite does not remove what the first start wrote, and the folder may exist."""
    assert settle_resumption(False, True) == (False, True)
    for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"):
        with monkeypatch.context() as environ:
            environ.setenv(name, "1")
            assert settle_resumption(False, True) == (True, False)
    assert capsys.readouterr().err.count("started again by the launcher") == 2


@pytest.mark.parametrize(("line", "printed"), [("tunewise x --resume", True), ("", False)])
def test_launcher_names_the_command_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, printed: bool
) -> None:
    monkeypatch.setenv("TUNEWISE_RESUME_LINE", line)
    with pytest.raises(KeyboardInterrupt), resume_hint("tunewise alone"):
        raise KeyboardInterrupt
    text = capsys.readouterr().err
    assert ("Continue with:\n  tunewise x --resume" in text) is printed
    assert "alone" not in text

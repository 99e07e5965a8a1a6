"""What the launchers write: commands and scripts as text, with names that a shell would take apart, and refusals."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.errors import CannotRun, UsageProblem
from runners.launch import skypilot, slurm, torchrun
from runners.launch.group import LaunchedGroup, short_name, threads_per_process

AWKWARD = ("run", "it's a $HOME `plan`.yaml", "--out", 'o "u" t', "--resume")
RESUME = "tunewise run 'it'\"'\"'s' 100% \\n --resume"


def check_syntax(script: str) -> None:
    """Let bash read a script without running it."""
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def run_with_stub(script: str, folder: Path, code: int, written: str = "") -> tuple[int, str, dict[str, Any]]:
    """Run a script with a program in place of Python and of Slurm's; return exit code, stderr, and what it was given.

    Args:
        script: the script; its interpreter is ``python``.
        folder: folder for the stand-ins.
        code: exit code of the program.
        written: what it writes into the file for the exit code, "" for nothing.
    """
    log = folder / "seen.json"
    python = folder / "python"
    python.write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        f"open({str(log)!r}, 'w').write(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))\n"
        f"if {written!r}: open(os.environ['TUNEWISE_EXIT_FILE'], 'w').write({written!r})\n"
        f"sys.exit({code})\n",
        "utf-8",
    )
    (folder / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n', "utf-8")
    (folder / "scontrol").write_text(
        '#!/bin/sh\n[ "$2" = hostnames ] && printf "n7\\nn8\\n" || echo "  NodeAddr=10.0.0.7 NodeHostName=n7"\n',
        "utf-8",
    )
    for name in ("python", "srun", "scontrol"):
        (folder / name).chmod(0o755)
    variables = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "31234", "SLURM_JOB_NUM_NODES": "2"}
    variables |= {"SLURM_JOB_NODELIST": "n[7-8]", "SLURM_CPUS_ON_NODE": "9", "SLURM_CPUS_PER_TASK": "9"}
    done = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, check=False, cwd=folder, env=variables
    )
    arguments, environ, cwd = json.loads(log.read_text("utf-8"))
    return done.returncode, done.stderr, {"arguments": arguments, "environ": environ, "cwd": cwd}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name must be quoted."""
    place = tmp_path / "it's $HOME"
    place.mkdir()
    return place


def test_torchrun_script_passes_arguments_and_codes_on(folder: Path) -> None:
    group = LaunchedGroup(AWKWARD, 2, max_restarts=5, python="python")
    environment = torchrun.group_environment(group, {"OMP_NUM_THREADS": "7"}, True)
    assert environment == {"PYTHONSAFEPATH": "1", "GLOO_SOCKET_IFNAME": "lo"}
    script = torchrun.torchrun_script(
        group, torchrun.Rendezvous(), environment, folder, folder / "exit-code", RESUME
    )
    check_syntax(script)
    code, error, seen = run_with_stub(script, folder, 0)
    assert (code, error, seen["cwd"]) == (0, "", str(folder))
    options = "--nnodes 1 --nproc-per-node 2 --standalone --local-addr 127.0.0.1 --max-restarts 5 -m advisor"
    assert seen["arguments"] == ["-m", "torch.distributed.run", *options.split(), *AWKWARD]
    assert seen["environ"]["TUNEWISE_RESUME_LINE"] == RESUME
    assert seen["environ"]["PYTHONSAFEPATH"] == "1"
    assert run_with_stub(script, folder, 0, "3\n")[0] == 3
    code, error, _ = run_with_stub(script, folder, 1)
    assert (code, error.splitlines()) == (
        1,
        ["tunewise: the group ended early, with exit code 1", f"  next: {RESUME}"],
    )


def test_several_nodes_meet_at_an_endpoint() -> None:
    group = LaunchedGroup(("run", "p"), 8, nodes=4)
    command = shlex.split(group.command(torchrun.Rendezvous("node 1:29500", "a b").flags()))
    assert command[command.index("--rdzv-endpoint") + 1] == "node 1:29500"
    assert command[command.index("--rdzv-id") + 1] == "a b"
    assert "--standalone" not in command
    assert group.size == 32
    assert "GLOO_SOCKET_IFNAME" not in torchrun.group_environment(group, {}, False)
    assert threads_per_process(4, cores=9) == 2
    assert threads_per_process(4, cores=2) == 1


def make_job(folder: Path, **changes: Any) -> slurm.SlurmJob:
    values: dict[str, Any] = {"gpus": 8, "gpu": "h100", "options": slurm.parse_options(["time=04:00:00"])}
    group = LaunchedGroup(AWKWARD, 8, nodes=2, python="python")
    return slurm.SlurmJob(
        group=group,
        name="tunewise-x",
        folder=folder,
        launch_folder=folder / "launch",
        resume=RESUME,
        **{**values, **changes},
    )


def test_slurm_script_starts_torchrun_on_each_node(folder: Path) -> None:
    (folder / "launch").mkdir()
    script = make_job(folder).script()
    check_syntax(script)
    head, _, _ = script.partition("\n\n")
    assert set(head.splitlines()[1:]) >= {
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=h100:8",
        "#SBATCH --cpus-per-task=32",
        "#SBATCH --signal=TERM@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --time=04:00:00",
    }
    code, error, seen = run_with_stub(script, folder, 0)
    assert (code, error, seen["cwd"]) == (0, "", str(folder))
    options = (
        "--nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id 31234 --rdzv-endpoint 10.0.0.7:21234"
    )
    assert seen["arguments"] == [
        *("-m", "torch.distributed.run", *options.split(), "--max-restarts", "3", "-m", "advisor"),
        *AWKWARD,
    ]
    environ = seen["environ"]
    assert (environ["OMP_NUM_THREADS"], environ["SRUN_CPUS_PER_TASK"]) == ("1", "9")
    assert environ["TUNEWISE_EXIT_FILE"] == str(folder / "launch" / "exit-code")
    assert run_with_stub(script, folder, 0, "4")[0] == 4
    assert not run_with_stub(script, folder, 0)[0], "an exit code of an earlier start does not count"


def test_slurm_without_gpus_and_with_options_of_the_site(folder: Path) -> None:
    options = slurm.parse_options(["--account=a b", "exclusive", "cpus-per-task=4", "--signal=USR1@60"])
    head = make_job(folder, gpus=0, gpu="", options=options).script().partition("\n\n")[0]
    assert "gpus-per-node" not in head
    for line in ("--account='a b'", "--exclusive", "--cpus-per-task=4", "--signal=USR1@60"):
        assert head.count(f"#SBATCH {line}") == 1
    assert "TERM@" not in head
    for wrong in ("nodes=3", "--gres=gpu:1", "array=0-3", "", "a b=c", "time=1\n#SBATCH -x"):
        with pytest.raises(UsageProblem, match="--sbatch"):
            slurm.parse_options([wrong])


def test_without_sbatch_the_script_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="no sbatch") as refused:
        slurm.check_job(tmp_path / "a b.sh", "2 nodes")
    assert refused.value.hint.endswith(f"sbatch {shlex.quote(str(tmp_path / 'a b.sh'))}")
    assert slurm.active_job(tmp_path) == ""


def make_task(folder: Path, **changes: Any) -> skypilot.SkyTask:
    group = LaunchedGroup(("run", "it's.yaml", "--out", "runs/x"), 8, nodes=2)
    values: dict[str, Any] = {"files": [folder / "it's.yaml"], "gpu": "H100", **changes}
    return skypilot.SkyTask(group, "tunewise-x", Path("runs/x"), **values)


def test_skypilot_task(folder: Path) -> None:
    text = make_task(folder).text(folder / "skypilot.yaml")
    body = yaml.safe_load(text)
    assert body["num_nodes"] == 2
    assert body["resources"] == {"accelerators": "H100:8"}
    assert body["file_mounts"] == {str(folder / "it's.yaml"): str(folder / "it's.yaml")}
    check_syntax(body["run"])
    assert "--nnodes $SKYPILOT_NUM_NODES --nproc-per-node $SKYPILOT_NUM_GPUS_PER_NODE" in body["run"]
    assert "parser only" in text
    bare = yaml.safe_load(make_task(folder, gpu="", files=[]).text(folder / "skypilot.yaml"))
    assert not {"resources", "file_mounts"} & set(bare)
    assert "--nproc-per-node 8" in bare["run"]


@pytest.mark.slow
def test_skypilots_parser_accepts_the_task(folder: Path) -> None:
    """The parser alone: nothing is rented, and what SkyPilot does with the task has not been seen."""
    sky = pytest.importorskip("sky", reason="needs SkyPilot: pip install skypilot")
    (folder / "it's.yaml").write_text("name: x\n", "utf-8")
    file = folder / "skypilot.yaml"
    file.write_text(make_task(folder).text(file), "utf-8")
    task = sky.Task.from_yaml(str(file))
    assert (task.num_nodes, task.name) == (2, "tunewise-x")
    file.write_text(file.read_text("utf-8").replace("num_nodes", "num_node"), "utf-8")
    with pytest.raises(ValueError, match="num_node"):
        sky.Task.from_yaml(str(file))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "rank 1 of 2 was killed by SIGKILL"),
        (-99, "rank 1 of 2 was killed by signal 99"),
        (75, "rank 1 of 2 gave up: memory ran out, or another process was lost"),
        (1, "rank 1 of 2 ended with exit code 1"),
    ],
)
def test_lost_process_in_words(code: int, text: str) -> None:
    assert torchrun.LostProcess(1, code).describe(2) == text
    assert torchrun.LostProcess(1, code).describe() == text.replace("rank 1 of 2", "process 1 of this node")


def test_short_names() -> None:
    assert short_name("My plan (v2)") == "tunewise-My-plan-v2"
    assert short_name("###") == "tunewise-run"
    assert len(short_name("x" * 90)) < 60

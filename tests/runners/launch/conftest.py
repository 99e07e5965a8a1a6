"""Fixtures: a folder to tune a tiny model in, and a Slurm cluster of two nodes on the loopback interface."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import advisor
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.paths import work_folder
from tests.support.limits import HANG_S

PACKAGES = Path(advisor.__file__).resolve().parent.parent
DEBIAN_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun", "scancel")
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

# g1 to g4 exist on paper: `sbatch --test-only` checks a job of 2 nodes with 8 GPUs each against them.
CONFIGURATION = """\
ClusterName=tunewise
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=g[1-4] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=64 RealMemory=500000 Gres=gpu:h100:8 State=CLOUD
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=00:30:00 State=UP
PartitionName=gpu Nodes=g[1-4] MaxTime=10-00:00:00 State=UP
ResumeProgram=/bin/true
SuspendProgram=/bin/true
SuspendTime=-1
"""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def program(name: str) -> str:
    """The path of a program of the cluster."""
    path = shutil.which(name, path=SEARCHED)
    assert path, name
    return path


@dataclass
class SlurmCluster:
    """A running cluster; ``environ`` is the environment in which its commands find it."""

    folder: Path
    environ: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the authentication, the controller and two nodes, each in the foreground of a process of its own."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        values = {
            "folder": self.folder,
            "host": socket.gethostname().partition(".")[0],
            "user": getpass.getuser(),
        }
        text = CONFIGURATION.format(ports=free_ports(4), **values)
        (self.folder / "slurm.conf").write_text(text, "utf-8")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n", "utf-8")
        files = {
            "key-file": key,
            "socket": self.folder / "munge.socket",
            "pid-file": self.folder / "munge.pid",
        }
        files |= {"log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}
        self._spawn(
            "munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items())
        )
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged did not start")
        self._spawn("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._spawn("slurmd", "-D", "-N", node)
        idle = ("sinfo", "--noheader", "--partition=main", "--states=idle", "--Node", "--format=%N")
        self._until(
            lambda: self.ask(*idle, check=False).split() == ["n1", "n2"], "the two nodes did not come up"
        )

    def stop(self) -> None:
        """Cancel what runs, and end the cluster's processes."""
        self.ask("scancel", "--user", getpass.getuser(), check=False)
        self._until(lambda: not self.ask("squeue", "--noheader", check=False), "jobs go on", fail=False)
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def ask(self, name: str, *arguments: str, check: bool = True) -> str:
        """Run a program of Slurm and return its output."""
        command = [program(name), *arguments]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """The state of a job: PENDING, RUNNING and so on; COMPLETED when the queue has forgotten it."""
        return self.ask("squeue", "--noheader", "--format=%T", f"--jobs={job}", check=False) or "COMPLETED"

    def wait(self, job: str, *states: str) -> str:
        """Wait until a job is in one of these states, by default until it has ended; return the state."""
        active = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")
        reached = (lambda state: state in states) if states else (lambda state: state not in active)
        self._until(lambda: reached(self.state(job)), f"job {job} is not {states or 'finished'}")
        return self.state(job)

    def exit_code(self, job: str) -> int:
        """The exit code of a job that has ended."""
        shown = self.ask("scontrol", "show", "job", job)
        return int(shown.partition("ExitCode=")[2].partition(":")[0])

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}-{len(self.processes)}.out").open("wb") as out:
            self.processes.append(
                subprocess.Popen(
                    [program(name), *arguments],
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            )

    def _until(self, condition: Callable[[], bool], text: str, fail: bool = True) -> None:
        end = time.monotonic() + HANG_S
        while not condition():
            if time.monotonic() > end:
                assert not fail, f"{text}; files of the cluster: {self.folder}"
                return
            time.sleep(0.3)


def new_cluster(folder: Path) -> SlurmCluster:
    """Return a cluster with its files in a folder, not started yet."""
    environ = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH", "PYTEST"))
        },
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": SEARCHED,
        "PYTHONPATH": str(PACKAGES),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return SlurmCluster(folder, environ)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of two nodes; without Slurm's programs the tests fail with the packages to install."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if missing:
        packages = " ".join(DEBIAN_PACKAGES)
        pytest.fail(f"{', '.join(missing)} not found; install Debian's packages: {packages}", pytrace=False)
    cluster = new_cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@dataclass(frozen=True)
class Workplace:
    """A folder with a tiny base model and rows to tune it on."""

    folder: Path

    def wait_for_checkpoint(self, out: str, step: int) -> None:
        """Wait until a training has written a checkpoint at this step or later."""
        work = work_folder(self.folder / out)
        end = time.monotonic() + HANG_S
        while not any(int(path.name[5:]) >= step for path in work.glob("step-*")):
            assert time.monotonic() < end, f"{out}: no checkpoint of step {step}"
            time.sleep(0.05)

    def start(self, *arguments: object, **environ: str) -> subprocess.Popen[str]:
        """Start the command line in the folder; Ctrl-C has its usual effect on it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "advisor", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def tunewise(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the folder to its end."""
        process = self.start(*arguments, **environ)
        out, error = process.communicate(timeout=HANG_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny: Model, examples: Sequence[Example]
) -> Workplace:
    """The folder, with a name that a shell script must quote."""
    folder = tmp_path_factory.mktemp("work") / "it's a $folder"
    shutil.copytree(tiny.folder, folder / "model")
    rows = "".join(json.dumps({"messages": list(row.messages)}) + "\n" for row in examples)
    (folder / "rows.jsonl").write_text(rows, "utf-8")
    return Workplace(folder)

"""SkyPilot: a task file that rents nodes and starts torchrun on each; checked by SkyPilot's parser only.

The files that the command reads are copied to the same paths on every node. Without a folder that all nodes share, the
result is on the first node.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rag.errors import CannotRun
from runners.launch.group import LaunchedGroup

TASK_FILE = "skypilot.yaml"
PORT = 29500
"""Port on the first node where the nodes meet: the default of torchrun."""
_HEADER = """\
# Written by tunewise; checked by SkyPilot's parser only. Start it with: {start}
# The result is in {out}, in the home folder of the first node. With more than one node, mount storage there that all
# share: https://docs.skypilot.co/en/latest/reference/storage.html
# No package index has tunewise: in `setup` name a wheel (pip wheel --no-deps CHECKOUT) that file_mounts brings along.
"""


@dataclass(frozen=True, slots=True)
class SkyTask:
    """What a task file asks for and starts.

    Attributes:
        group: the processes.
        name: name of the task and of its cluster.
        out: the folder of the result, relative to the home folder of a node.
        files: files and folders that the command reads, absolute.
        gpu: type of the GPUs as SkyPilot names it, "" for a machine without.
    """

    group: LaunchedGroup
    name: str
    out: Path
    files: Sequence[Path] = ()
    gpu: str = ""

    def body(self) -> dict[str, Any]:
        """Return the content of the task file."""
        count = "$SKYPILOT_NUM_GPUS_PER_NODE" if self.gpu else ""
        meeting = ("--rdzv-backend c10d", '--rdzv-id "$SKYPILOT_TASK_ID"', f'--rdzv-endpoint "$head:{PORT}"')
        command = self.group.command(meeting, python="python", nodes="$SKYPILOT_NUM_NODES", count=count)
        run = [
            'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
            f"export PYTHONSAFEPATH=1; mkdir -p {shlex.quote(str(self.out.parent))}",
            command,
        ]
        body: dict[str, Any] = {"name": self.name, "num_nodes": self.group.nodes}
        if self.gpu:
            body["resources"] = {"accelerators": f"{self.gpu}:{self.group.processes}"}
        if self.files:
            body["file_mounts"] = {str(file): str(file) for file in self.files}
        return body | {"setup": "pip install tunewise", "run": "\n".join(run) + "\n"}

    def text(self, file: Path) -> str:
        """Return the text of the task file that is kept as ``file``."""
        header = _HEADER.format(start=shlex.join(self.start_command(file)), out=self.out)
        body = self.body()
        run = "".join(f"  {line}\n" for line in body.pop("run").splitlines())
        return (
            f"{header}{yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=10_000)}run: |\n{run}"
        )

    def start_command(self, file: Path) -> list[str]:
        """Return the command that rents the nodes and starts the task."""
        return ["sky", "launch", "--cluster", self.name, str(file)]


def start_task(task: SkyTask, file: Path) -> int:
    """Start a task with SkyPilot, which shows the price and asks before it rents; return its exit code.

    Raises:
        CannotRun: SkyPilot is not installed here; the file stays where it is.
    """
    command = task.start_command(file)
    if shutil.which("sky") is None:
        raise CannotRun(
            "SkyPilot is not installed here",
            f"the task is kept; where it is installed: {shlex.join(command)}",
        )
    return subprocess.run(command, check=False).returncode

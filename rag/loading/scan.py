"""List a documents folder in a fixed order: every entry is a file to read, or skipped with a reason.

:func:`walk_files` applies the ignore files; :func:`read_file` reads a regular file without following links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput, system_reason
from rag.loading.base import Skipped, UnreadableFile, printable

IGNORE_FILES = (".gitignore", ".tunewiseignore")
"""Files with patterns in the syntax of .gitignore, allowed in every folder; in one folder the last of them decides."""
GENERATED_FOLDERS = frozenset({"node_modules", "__pycache__", "bower_components"})
_MAX_IGNORE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file that may be read."""

    id: str
    """POSIX path below the root, printable: control characters and broken bytes are written as escapes."""
    path: Path
    """Its path, with links resolved."""


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a regular file's bytes without following a link or waiting for a pipe.

    Raises:
        UnreadableFile: when it is not a regular file (any more), or larger than ``max_bytes``.
        OSError: when it cannot be read.
    """
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile("not a regular file")
        if status.st_size > max_bytes:
            raise UnreadableFile(f"larger than {max_bytes >> 20} MiB: {status.st_size / (1 << 20):.0f} MiB")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnreadableFile(f"larger than {max_bytes >> 20} MiB")
    return data


def walk_files(root: Path) -> Iterator[FoundFile | Skipped]:
    """Yield everything below a folder, names sorted by their bytes; BadInput when it cannot be listed."""
    try:
        entries = _sorted_entries(root)
    except OSError as error:
        raise BadInput(f"cannot list the documents folder {root}: {error.strerror}") from error
    yield from _FolderWalk(root).below(entries, "", _IgnoreRules().with_files(root, ""))


class _FolderWalk:
    """One pass over a folder, which remembers the folders it has entered."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._seen: set[str] = set()

    def below(
        self, entries: list[os.DirEntry[str]], prefix: str, rules: _IgnoreRules
    ) -> Iterator[FoundFile | Skipped]:
        """Yield the files below the entries of one folder; with a stack instead of recursion, so that any depth works."""
        stack = [(entry, prefix + entry.name, rules, self._root) for entry in reversed(entries)]
        while stack:
            entry, name, rules, parent = stack.pop()
            try:
                folder = entry.is_dir()
                reason = self._skip_reason(entry, name, folder, rules)
            except OSError as error:
                yield Skipped(printable(name), f"cannot be looked at: {error.strerror}")
                continue
            if reason:
                yield Skipped(printable(name) + ("/" if folder else ""), reason)
            elif not folder:
                # looking at every part of every path for links would take longer than reading small files
                link = entry.is_symlink()
                yield FoundFile(
                    printable(name), Path(os.path.realpath(entry.path)) if link else parent / entry.name
                )
            else:
                try:
                    inner = _sorted_entries(Path(entry.path))
                except OSError as error:
                    yield Skipped(f"{printable(name)}/", f"cannot be listed: {error.strerror}")
                    continue
                inner_rules = rules.with_files(Path(entry.path), f"{name}/")
                real = Path(os.path.realpath(entry.path))
                stack.extend((item, f"{name}/{item.name}", inner_rules, real) for item in reversed(inner))

    def _skip_reason(self, entry: os.DirEntry[str], name: str, folder: bool, rules: _IgnoreRules) -> str:
        """Return why an entry is skipped; empty for a folder to enter and a file to read."""
        if entry.name.startswith("."):
            return "hidden"
        if folder and entry.name in GENERATED_FOLDERS:
            return "a folder of generated files"
        if file := rules.ignoring_file(name, folder):
            return f"ignored by {file}"
        if entry.is_symlink() and (reason := self._link_skip_reason(entry)):
            return reason
        if folder:
            real = os.path.realpath(entry.path)
            if real in self._seen:
                return "a folder that was already read under another name"
            self._seen.add(real)
            return ""
        return "" if stat.S_ISREG(entry.stat().st_mode) else "not a regular file"

    def _link_skip_reason(self, entry: os.DirEntry[str]) -> str:
        """Return why a link is not followed, empty when it is: it leads into a hidden folder, which is not read itself."""
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(self._root):
            return "a link to outside the folder"
        if not target.exists():
            return "a link to nothing"
        if Path(entry.path).absolute().is_relative_to(target):
            return "a link to a folder that it is in"
        parts = target.relative_to(self._root).parts
        if any(part.startswith(".") for part in parts):
            return ""
        return "a link to what is read under its own name"


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


class _IgnoreRules:
    """The ignore rules that apply in a folder: those of its parents first."""

    def __init__(self, specs: tuple[tuple[str, str, Any], ...] = ()) -> None:
        """Take (prefix of the folder that has the file, name of the file, its patterns)."""
        self._specs = specs

    def with_files(self, folder: Path, prefix: str) -> _IgnoreRules:
        """Return these rules and those of the folder's own files; BadInput when one cannot be read."""
        specs = ((prefix, name, _patterns(folder / name)) for name in IGNORE_FILES)
        return _IgnoreRules((*self._specs, *(spec for spec in specs if spec[2] is not None)))

    def ignoring_file(self, name: str, folder: bool) -> str:
        """Return the ignore file whose rule excludes a path, empty when none does; the last matching rule decides."""
        excluding = ""
        for prefix, file, spec in self._specs:
            # True: excluded, False: included again by a "!" pattern, None: no pattern matches.
            excluded = spec.check_file(name.removeprefix(prefix) + ("/" if folder else "")).include
            excluding = excluding if excluded is None else file if excluded else ""
        return excluding


def _patterns(path: Path) -> Any:
    """Return an ignore file's patterns, None where there is none; BadInput when it cannot be read."""
    if not path.is_file() or path.is_symlink():
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(read_file(path, _MAX_IGNORE_BYTES).decode("utf-8").splitlines())
    except (UnreadableFile, OSError, ValueError) as error:
        raise BadInput(f"cannot use {path}: {system_reason(error)}", "mend it, or remove it") from error

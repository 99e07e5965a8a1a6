"""Walk a documents folder in a fixed order: every entry is a file to read or skipped with a reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.loading.base import Skipped, UnreadableFile, printable

IGNORE_FILES = (".gitignore", ".tunewiseignore")
"""Patterns in the syntax of .gitignore; each may stand in every folder, and ours has the last word in it."""
GENERATED = frozenset({"node_modules", "__pycache__", "bower_components"})
_LARGEST_IGNORE = 65_536


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file that may be read."""

    id: str
    """POSIX path below the root, printable: control characters and broken bytes are shown as escapes."""
    path: Path
    """Where it is; never a link."""


def read_file(path: Path, most: int) -> bytes:
    """Return a regular file's bytes without following a link or waiting for a pipe.

    Raises Unreadable when it is no regular file (any more) or larger than ``most`` bytes, and OSError.
    """
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableFile("not a regular file")
        if found.st_size > most:
            raise UnreadableFile(f"larger than {most >> 20} MiB: {found.st_size / (1 << 20):.0f} MiB")
        data = file.read(most + 1)
    if len(data) > most:
        raise UnreadableFile(f"larger than {most >> 20} MiB")
    return data


def walk_files(root: Path) -> Iterator[FoundFile | Skipped]:
    """Yield everything below a folder, names sorted by their bytes; BadInput when it cannot be listed."""
    try:
        entries = _listed(root)
    except OSError as error:
        raise BadInput(f"cannot list the documents folder {root}: {error.strerror}") from error
    yield from _Walk(root).below(entries, "", _Rules().with_files(root, ""))


class _Walk:
    """One walk, which knows the folders it has been in."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._seen: set[str] = set()

    def below(
        self, entries: list[os.DirEntry[str]], prefix: str, rules: _Rules
    ) -> Iterator[FoundFile | Skipped]:
        """Yield what the entries of one folder hold; a stack, not recursion, so that depth is no limit."""
        stack = [(entry, prefix + entry.name, rules) for entry in reversed(entries)]
        while stack:
            entry, name, rules = stack.pop()
            try:
                folder = entry.is_dir()
                reason = self._unwanted(entry, name, folder, rules)
            except OSError as error:
                yield Skipped(printable(name), f"cannot be looked at: {error.strerror}")
                continue
            if reason:
                yield Skipped(printable(name) + ("/" if folder else ""), reason)
            elif not folder:
                yield FoundFile(printable(name), Path(os.path.realpath(entry.path)))
            else:
                try:
                    inner = _listed(Path(entry.path))
                except OSError as error:
                    yield Skipped(f"{printable(name)}/", f"cannot be listed: {error.strerror}")
                    continue
                own = rules.with_files(Path(entry.path), f"{name}/")
                stack.extend((item, f"{name}/{item.name}", own) for item in reversed(inner))

    def _unwanted(self, entry: os.DirEntry[str], name: str, folder: bool, rules: _Rules) -> str:
        """Return why an entry is not read; empty for a folder to enter and a file to read."""
        if entry.name.startswith("."):
            return "hidden"
        if folder and entry.name in GENERATED:
            return "a folder of generated files"
        if file := rules.ignoring(name, folder):
            return f"ignored by {file}"
        if entry.is_symlink() and (reason := self._link(entry, rules)):
            return reason
        if folder:
            real = os.path.realpath(entry.path)
            if real in self._seen:
                return "a folder that was already read under another name"
            self._seen.add(real)
            return ""
        return "" if stat.S_ISREG(entry.stat().st_mode) else "not a regular file"

    def _link(self, entry: os.DirEntry[str], rules: _Rules) -> str:
        """Return why a link is not followed; one into a part that the walk leaves out is."""
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(self._root):
            return "a link that leaves the folder"
        if not target.exists():
            return "a link to nothing"
        if Path(entry.path).absolute().is_relative_to(target):
            return "a link to a folder that it is in"
        parts = target.relative_to(self._root).parts
        if any(part.startswith(".") for part in parts):
            return ""
        return "a link to what is read under its own name"


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


class _Rules:
    """The ignore rules that hold in a folder: those of its parents first."""

    def __init__(self, specs: tuple[tuple[str, str, Any], ...] = ()) -> None:
        """Take (prefix of the folder that has the file, name of the file, its patterns)."""
        self._specs = specs

    def with_files(self, folder: Path, prefix: str) -> _Rules:
        """Return these rules and those of the folder's own files; BadInput when one cannot be read."""
        own = ((prefix, name, _patterns(folder / name)) for name in IGNORE_FILES)
        return _Rules((*self._specs, *(spec for spec in own if spec[2] is not None)))

    def ignoring(self, name: str, folder: bool) -> str:
        """Return the file whose rule leaves a path out, the last that speaks of it; nothing when none does."""
        answer = ""
        for prefix, file, spec in self._specs:
            said = spec.check_file(name.removeprefix(prefix) + ("/" if folder else "")).include
            answer = answer if said is None else file if said else ""
        return answer


def _patterns(path: Path) -> Any:
    """Return an ignore file's patterns, None where there is none; BadInput when it cannot be read."""
    if not path.is_file() or path.is_symlink():
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(read_file(path, _LARGEST_IGNORE).decode("utf-8").splitlines())
    except (UnreadableFile, OSError, ValueError) as error:
        raise BadInput(f"cannot use {path}: {error}", "mend it, or remove it") from error

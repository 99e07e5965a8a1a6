"""The log of a server: what was asked, one JSON line each, rotated by size; and the removal of rows that hold a
text.

A line has the time, the arm and the turns; the text of answers only where that is asked for. Each line is written
whole, under a lock that :func:`forget` holds too, so that rows can be removed while a server writes.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from rag.errors import system_reason
from rag.files import write_bytes
from runners.logs.log_forms import SERVE_LOG_KEY

ROTATE_BYTES = 20 * 2**20
"""Size from which a new file is begun."""
KEPT_FILES = 9
"""Rotated files that are kept; the oldest is removed for the next."""
PRIVATE = 0o600
BINARY = getattr(os, "O_BINARY", 0)
"""Of Windows, which would write line ends otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionLog:
    """Where a server writes what it is asked."""

    path: Path
    answers: bool = False
    """Whether the text of answers is written, and of earlier answers that a request holds."""
    rotate_bytes: int = ROTATE_BYTES
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that could not be written, by the system's reason."""

    @property
    def notice(self) -> str:
        """What people who ask are told."""
        what = "Questions and answers are" if self.answers else "Questions are"
        return f"{what} written to a log of this server."

    def check(self) -> None:
        """Raise OSError where the file cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _append(self.path).close()

    def add(self, arm: str, turns: Sequence[dict[str, Any]], answer: str | None = None) -> None:
        """Write a request.

        Args:
            arm: the model that was asked.
            turns: the chat, the question last; without answers only the user's turns are written.
            answer: the text of the answer; None where there is none.
        """
        written = [
            {"role": turn["role"], "content": turn["content"]}
            for turn in turns
            if turn["role"] == "user" or (self.answers and turn["role"] == "assistant")
        ]
        row: dict[str, Any] = {
            SERVE_LOG_KEY: 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "arm": arm,
            "turns": written,
        }
        if self.answers:
            row["answer"] = answer
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with _lock(self.path):
            self._rotate(len(line))
            with _append(self.path) as file:
                file.write(line)

    def add_or_warn(self, arm: str, turns: Sequence[dict[str, Any]], answer: str | None = None) -> None:
        """Write a request; where it cannot be written, say so on stderr once for each reason."""
        try:
            self.add(arm, turns, answer)
        except OSError as error:
            reason = system_reason(error)
            if reason not in self.failures:
                print(f"the log {self.path} cannot be written: {reason}", file=sys.stderr, flush=True)
            self.failures[reason] += 1

    def _rotate(self, more: int) -> None:
        """Begin a new file where a line would make this one too large: FILE.1.jsonl is the newest of the old ones."""
        if (
            not self.path.is_file()
            or not (size := self.path.stat().st_size)
            or size + more <= self.rotate_bytes
        ):
            return
        for number in range(KEPT_FILES - 1, 0, -1):
            older = rotated(self.path, number)
            if older.exists():
                older.replace(rotated(self.path, number + 1))
        self.path.replace(rotated(self.path, 1))


def rotated(path: Path, number: int) -> Path:
    """Return the name of a rotated file: log.2.jsonl of log.jsonl."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def log_files(path: Path) -> list[Path]:
    """Return the files of a log that exist, the one that is written first."""
    return [file for file in (path, *(rotated(path, n) for n in range(1, KEPT_FILES + 1))) if file.is_file()]


def forget(path: Path, text: str) -> dict[Path, int]:
    """Remove the rows that contain a text from each file of a log; return how many of each file.

    A row contains it in any of its values, whatever the case and however JSON writes it.
    """
    removed = {}
    with _lock(path):
        for file in log_files(path):
            lines = file.read_bytes().splitlines(keepends=True)
            others = [line for line in lines if not _contains(line, text)]
            removed[file] = len(lines) - len(others)
            if removed[file]:
                mode = file.stat().st_mode & 0o777
                write_bytes(file, b"".join(others))
                with suppress(OSError):
                    file.chmod(mode)
    return removed


def _contains(line: bytes, text: str) -> bool:
    shown = line.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        shown += json.dumps(json.loads(line), ensure_ascii=False)
    words = " ".join(text.split()).casefold()
    return words in " ".join(shown.split()).casefold()


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _append(path: Path) -> BinaryIO:
    """Open a file to append to; a new one can be read by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, PRIVATE), "ab")

"""What an example is, and all that is known of a set of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runners.refusing import is_refusal
from runners.shapes import Message
from runners.sources import Skipped

Place = int | str
"""Where a row is: its line, or text that names one (a file and its line, two lines that belong together)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One chat to learn from, whose last turn is the assistant's; or one text, as a single assistant turn."""

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """Every key of the row that is not the chat itself; never shown to a model."""
    line: int = 0
    file: str = ""
    """The file within the folder that was given; "" when a single file was."""
    tools: tuple[dict[str, Any], ...] = ()
    """What the chat may call, shown to the model as its template does."""

    @property
    def raw(self) -> bool:
        """Return whether this is a text to learn as it is, every token of it, and not a chat."""
        return len(self.messages) == 1

    @property
    def place(self) -> str:
        """Return where the row stands: ``line 3``, or ``part/a.jsonl:3`` in a folder."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"

    @property
    def system(self) -> str:
        """Return the system turn, "" when there is none."""
        return self.messages[0]["content"] if self.messages[0]["role"] == "system" else ""

    @property
    def question(self) -> str:
        """Return the last user turn, "" for a plain text row."""
        return _last(self.messages, "user")

    @property
    def reply(self) -> str:
        """Return the last assistant turn."""
        return _last(self.messages, "assistant")

    @property
    def refuses(self) -> bool:
        """Return whether the reply says that the documents do not hold it: by its ``meta.refusal``, else by its words."""
        flag = self.meta.get("refusal")
        return is_refusal(self.reply, ()) if flag is None else flag is True


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, and why."""

    line: int
    reason: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """All usable examples of a file or folder, how they were understood, and all that was left out."""

    rows: tuple[Example, ...]
    format: str
    rejected: tuple[Rejected, ...] = ()
    duplicates: int = 0
    """Rows whose normalised chat equals an earlier row's; they are counted, not dropped."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column that was taken as prompt, reply, system, ...; several names when rows differ."""
    kept: tuple[str, ...] = ()
    """The other columns: kept as meta, never shown to a model."""
    files: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    """Files of a folder that are not read."""
    notes: tuple[str, ...] = ()
    """What else was detected: encodings, separators, columns left unread."""
    total: int = 0
    """Rows in the files; more than were read when only some were asked for."""


def place(row: Example) -> Place:
    """Return a row's line, with its file when a folder was given."""
    return f"{row.file}:{row.line}" if row.file else row.line


def normalised(text: str) -> str:
    """Return the text's words in lower case, one space apart: what is compared to find repeats."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _last(messages: Sequence[Message], role: str) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == role), "")

"""Examples for tuning: their types, and reading them from a file or a folder.

:func:`load_examples` reads the rows, detects the format of each (see :mod:`runners.data.formats`) and collects the rows
that cannot be used; the result is an :class:`ExampleSet`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.text.words import count_noun
from runners.data import tabular
from runners.data.formats import (
    AmbiguousColumns,
    Columns,
    Message,
    RowTurns,
    UnknownFormat,
    UnusableRow,
    declared_columns,
    row_turns,
    usual_reply,
)
from runners.data.reasoning import answer_of
from runners.data.refusals import is_refusal
from runners.data.tabular import ExampleFiles, SkippedFile, read_text

RowPlace = int | str
"""Place of a row: its line, or a text that names it (a file and a line, two lines that belong together)."""
MAX_REJECTED_SHARE = 0.05
"""Share of unusable rows above which a file is refused: it is probably not the file the user means."""
MADE_KEYS = ("made", "synthetic")
"""Keys that mark a row as made from documents; the second is that of questions made by ``index tune``."""
_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
_RATING = re.compile(
    r"[+-]?\d+(?:[.,]\d+)*\s?%?(?:\s?(?:/|of|von|sur|de)\s?\d+)?(?:\s?(?:stars?|points?))?|[★☆⭐*]{1,10}",
    re.I,
)
"""A number or a rating, such as 4, 8.5, 4/5 and ★★★★."""
MIN_NUMBERS = 0.95
"""Share of a column's values from which it holds numbers."""
MOST_RATINGS = 11
"""Most different values of a rating: 0 to 10."""
MAX_UNKNOWN_ROWS = 100
"""Rows by whose lengths the columns of prompt and reply are proposed."""
TIMES_LONGER = 1.5
"""How many times longer than the texts of a third column those of prompt and reply are."""
MAX_REASONS_SHOWN = 3
"""Number of reasons shown for unusable rows, and of places shown for each."""


@dataclass(frozen=True, slots=True)
class Example:
    """One chat to train on, whose last turn is the assistant's; or one raw text, as a single assistant turn."""

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """Every key of the row that is not the chat itself; never shown to a model."""
    line: int = 0
    """Line in the file, from 1."""
    file: str = ""
    """The file within the folder that was read; "" for a single file."""
    tools: tuple[dict[str, Any], ...] = ()
    """Tools that the chat may call, given to the chat template."""

    @property
    def raw(self) -> bool:
        """Whether this is a raw text, trained on every token, and not a chat."""
        return len(self.messages) == 1

    @property
    def place(self) -> str:
        """Return the place of the row: ``line 3``, or ``part/a.jsonl:3`` in a folder."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"

    @property
    def system(self) -> str:
        """Return the content of the system turn, "" when there is none."""
        return self.messages[0]["content"] if self.messages[0]["role"] == "system" else ""

    @property
    def question(self) -> str:
        """Return the content of the last user turn, "" for a raw text."""
        return _last(self.messages, "user")

    @property
    def reply(self) -> str:
        """Return the content of the last assistant turn, without reasoning before it; a raw text as it is."""
        reply = _last(self.messages, "assistant")
        return reply if self.raw else answer_of(reply)

    @property
    def marked_refusal(self) -> bool | None:
        """What the row itself says about refusing, None when it says nothing.

        By ``refusal``, ``answerable`` or ``is_impossible`` (SQuAD 2.0) in ``meta``, as booleans or as words of a table.
        """
        for key, refusing in (("refusal", True), ("answerable", False), ("is_impossible", True)):
            value = str(self.meta.get(key, "")).strip().lower()
            if value in _TRUE or value in _FALSE:
                return (value in _TRUE) is refusing
        return None

    @property
    def is_made(self) -> bool:
        """Whether the row was made from documents: ``made`` in ``meta``, or ``synthetic`` of earlier files."""
        return is_marked_made(self.meta)

    @property
    def names_gold(self) -> bool:
        """Whether the row names what its reply rests on: a fact, a quotation, spans or short answers."""
        return any(self.meta.get(key) for key in ("fact", "quote", "spans", "answers"))

    @property
    def refuses(self) -> bool:
        """Whether the reply is a refusal: as the row is marked, else by its words, unless it names its gold."""
        marked = self.marked_refusal
        return not self.names_gold and is_refusal(self.reply, ()) if marked is None else marked


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used, with the reason."""

    line: int
    reason: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """The usable examples of a file or folder, their detected format, and what was left out."""

    rows: tuple[Example, ...]
    format: str
    rejected: tuple[RejectedRow, ...] = ()
    duplicates: int = 0
    """Rows whose normalised chat equals an earlier row's; they are counted, not dropped."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of each role (prompt, reply, system, ...); several names when rows differ."""
    meta_columns: tuple[str, ...] = ()
    """The other columns: they are in each row's meta and never shown to a model."""
    files: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    """Files of a folder that are not read."""
    notes: tuple[str, ...] = ()
    """Notes about the files: encodings, delimiters, columns that were not read."""
    total: int = 0
    """Number of rows in the files; more than were read when the reading was limited."""


class ColumnsNeeded(BadInput):
    """It must be said which columns of a file hold prompt and reply."""

    def __init__(self, message: str, hint: str, columns: Sequence[str]) -> None:
        """Take the error, and the names of the columns that there are."""
        super().__init__(message, hint)
        self.columns = tuple(columns)


def is_marked_made(meta: Mapping[str, Any]) -> bool:
    """Return whether the values of a row mark it as made from documents, and not collected."""
    return any(str(meta.get(key, "")).strip().lower() in _TRUE for key in MADE_KEYS)


def row_place(row: Example) -> RowPlace:
    """Return a row's line, with its file when a folder was read."""
    return f"{row.file}:{row.line}" if row.file else row.line


def shared_opening(texts: Sequence[str]) -> str:
    """Return the paragraphs that all texts begin with, with the blank line behind them; "" for fewer than two texts.

    In rows of Alpaca's form the instruction, mostly the same one, stands in front of the input, a blank line apart.
    """
    if len(texts) < 2:
        return ""
    # What the first and the last text in alphabetical order begin with, all between them begin with.
    pairs = zip(min(texts).split("\n\n")[:-1], max(texts).split("\n\n")[:-1], strict=False)
    return "".join(f"{first}\n\n" for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def normalise_text(text: str) -> str:
    """Return the text's words in lower case, one space apart, for comparisons that ignore case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _last(messages: Sequence[Message], role: str) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == role), "")


def load_examples(
    path: Path | str, columns: Mapping[str, str] | None = None, most: int | None = None
) -> ExampleSet:
    """Read a file or folder of examples.

    Args:
        path: a file of rows, or a folder of such files or of plain texts.
        columns: column name of each role; None detects the format of each row.
        most: number of rows to read, the others are only counted; None reads all.

    Raises:
        BadInput: a row is broken (the message names its place), columns are ambiguous, chats and plain texts are mixed,
            or over 5 % of the rows are unusable (no answer, an empty turn, an unknown role or format).
    """
    example_files = tabular.find_example_files(Path(path))
    declared = declared_columns(columns) if columns else None
    rows = _RowCollector()
    for file in example_files.files:
        left = None if most is None else most - len(rows.usable) - len(rows.rejected)
        if left is None or left > 0:
            _read_file(example_files, file, declared, left, rows)
    _require_usable(Path(path), rows)
    keys = [tuple((m["role"], normalise_text(m["content"])) for m in row.messages) for row in rows.usable]
    read = len(rows.usable) + len(rows.rejected)
    return ExampleSet(
        rows=tuple(rows.usable),
        format="+".join(sorted(rows.formats)),
        rejected=tuple(rows.rejected),
        duplicates=len(keys) - len(set(keys)),
        columns={role: ", ".join(names) for role, names in rows.columns.items()},
        meta_columns=tuple(rows.meta_columns),
        files=tuple(example_files.name(file) for file in example_files.files),
        skipped=example_files.skipped,
        notes=(*rows.notes, *rows.ratings()),
        total=read if most is None or read < most else sum(_count(file) for file in example_files.files),
    )


class _RowCollector:
    """Collects the rows of all files, with their formats and columns."""

    def __init__(self) -> None:
        self.usable: list[Example] = []
        self.rejected: list[RejectedRow] = []
        self.formats: set[str] = set()
        self.columns: dict[str, dict[str, None]] = {}
        self.meta_columns: dict[str, None] = {}
        self.notes: list[str] = []
        self.unknown_columns: dict[str, None] = {}
        self.unknown: list[dict[str, Any]] = []
        """The first rows without a known format."""
        self.replies: dict[str, list[str]] = {}
        """The replies of each column."""

    def add(self, turns: RowTurns, file: str, line: int) -> None:
        """Add a row with its format and columns; UnusableRow when nothing can be learnt from it."""
        messages = _require_answer(turns)
        self.usable.append(Example(messages, turns.meta, line, file, turns.tools))
        self.formats.add(turns.columns.format)
        for role, name in turns.columns.of.items():
            self.columns.setdefault(role, {})[name] = None
        if reply := turns.columns.of.get("reply"):
            self.replies.setdefault(reply, []).append(messages[-1]["content"])
        self.meta_columns.update(dict.fromkeys(turns.meta))

    def ratings(self) -> list[str]:
        """Return a sentence for each column of replies that holds numbers or ratings."""
        names = (
            dict.fromkeys(name for columns in self.columns.values() for name in columns) | self.meta_columns
        )
        sentences = (
            _rating_column(column, replies, [name for name in names if name != column])
            for column, replies in self.replies.items()
        )
        return list(filter(None, sentences))


def _read_file(
    example_files: ExampleFiles,
    file: Path,
    declared: Columns | None,
    most: int | None,
    collector: _RowCollector,
) -> None:
    """Add the rows of one file to the collector, at most ``most``."""
    name = example_files.name(file)
    name_in_folder = "" if file == example_files.root else name
    if file.suffix.lower() in tabular.TEXT_SUFFIXES:
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        rows: list[tabular.Row] = [(1, {"text": read_text(file)})]
    else:
        rows = tabular.read_rows(file, most)
        collector.notes += [f"{name}: {note}" for note in tabular.describe_file(file)]
    for line, row in rows:
        try:
            collector.add(row_turns(row, declared), name_in_folder, line)
        except AmbiguousColumns as error:
            raise ColumnsNeeded(f"{file}:{line}: {error}", error.hint, [str(key) for key in row]) from None
        except UnusableRow as reason:
            if isinstance(reason, UnknownFormat):
                collector.unknown_columns.update(dict.fromkeys(reason.columns))
                collector.unknown += [row] if len(collector.unknown) < MAX_UNKNOWN_ROWS else []
            collector.rejected.append(RejectedRow(line, str(reason), name))


def _count(file: Path) -> int:
    return 1 if file.suffix.lower() in tabular.TEXT_SUFFIXES else tabular.count_rows(file)


def _require_usable(path: Path, rows: _RowCollector) -> None:
    """Raise BadInput when too many rows are unusable, or chats and texts are mixed."""
    total = len(rows.usable) + len(rows.rejected)
    if len(rows.rejected) > MAX_REJECTED_SHARE * total:
        message = (
            f"{path}: {len(rows.rejected)} of {total} examples cannot be used "
            f"({'; '.join(_reasons(rows.rejected, path.is_dir()))})"
        )
        if rows.unknown_columns:
            flag = _columns_flag(tuple(rows.unknown_columns), rows.unknown)
            raise ColumnsNeeded(
                message,
                f"say which columns are prompt and reply: {flag} (in an answers file "
                "columns: prompt=NAME,reply=NAME); or rename them: prompt and completion, question and answer, messages, "
                "text",
                tuple(rows.unknown_columns),
            )
        for reason in rows.ratings():
            raise BadInput(
                f"{path}: {len(rows.rejected)} of {count_noun(total, 'example')} have no reply: {reason}",
                "name the column with the texts: --columns prompt=NAME,reply=NAME",
            )
        raise BadInput(message, f"each example needs a prompt and an answer: {tabular.ROW_FORMAT}")
    texts = sum(row.raw for row in rows.usable)
    if texts and texts < len(rows.usable):
        raise BadInput(
            f"{path}: {len(rows.usable) - texts} chats and {texts} plain texts are mixed; every token of a text is "
            "learnt, but only the answers of a chat",
            "train on the texts first, then continue from that adapter on the chats",
        )


def _columns_flag(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the flag that names the columns, filled in where there are two that can be meant.

    A table mostly begins with the prompt; of more than two columns the two with the longest texts are taken, where these
    are clearly longer than those of the third.
    """
    prompt, reply = _likely_pair(names, rows) or ("NAME", "NAME")
    return f"--columns {shlex.quote(f'prompt={prompt},reply={reply}')}"


def _likely_pair(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the columns that seem to be prompt and reply; None where that is not clear, or the flag cannot name them."""
    if len(names) > 2:
        lengths = {name: sum(len(str(row.get(name) or "")) for row in rows) for name in names}
        longest = sorted(names, key=lambda name: -lengths[name])
        if lengths[longest[1]] < TIMES_LONGER * lengths[longest[2]]:
            return None
        names = [name for name in names if name in longest[:2]]
    return (names[0], names[1]) if len(names) == 2 and not any("," in name for name in names) else None


def _rating_column(column: str, replies: Sequence[str], others: Sequence[str]) -> str:
    """Return what to know of a reply column that holds numbers or ratings instead of texts; "" for any other column.

    Numbers of many kinds under a usual name for replies are a task of their own, such as sums.
    """
    numbers = sum(bool(_RATING.fullmatch(reply.strip())) for reply in replies)
    kinds = list(dict.fromkeys(replies))
    if numbers < MIN_NUMBERS * len(replies) or (len(kinds) > MOST_RATINGS and usual_reply(column)):
        return ""
    return (
        f"the column {column!r} is taken as the reply and holds numbers or ratings ({', '.join(kinds[:3])}); "
        f"the other columns are {', '.join(others)}"
    )


def _reasons(rejected: Sequence[RejectedRow], in_folder: bool) -> list[str]:
    """Return the first few reasons, each once with its first few places; places in a folder name the file."""
    places_by_reason: dict[str, list[str]] = {}
    for row in rejected:
        place = f"{row.file}:{row.line}" if in_folder else str(row.line)
        places_by_reason.setdefault(row.reason, []).append(place)
    sentences = []
    for reason, places in islice(places_by_reason.items(), MAX_REASONS_SHOWN):
        kind = "" if in_folder else "line " if len(places) == 1 else "lines "
        more = ", …" if len(places) > MAX_REASONS_SHOWN else ""
        sentences.append(f"{kind}{', '.join(places[:MAX_REASONS_SHOWN])}{more}: {reason}")
    return sentences


def _require_answer(turns: RowTurns) -> tuple[Message, ...]:
    """Return the turns when the row can be trained on, else raise UnusableRow."""
    messages = turns.messages
    last = messages[-1] if messages else {"role": "", "content": ""}
    if turns.columns.format == "text" and not last["content"].strip():
        raise UnusableRow("an empty text")
    if last["role"] != "assistant" or not last["content"].strip() or "tool_calls" in last:
        raise UnusableRow("no answer")
    if turns.columns.format != "text" and all(m["role"] != "user" for m in messages):
        raise UnusableRow("no prompt")
    if any(not m["content"].strip() and m["role"] != "tool" and "tool_calls" not in m for m in messages):
        raise UnusableRow("an empty turn")
    return tuple(messages)

"""The journal of one person's labels: a row for every click, also for one that is taken back.

A row is on the disk before the click counts. A line that a crash left incomplete was never confirmed; it is left out and
counted. The first row names the run, so that a journal of another run is refused.
"""

from __future__ import annotations

import getpass
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rag.errors import BadInput, UsageProblem
from rag.files import (
    append_lines,
    canonical_json,
    check_schema,
    has_active_writer,
    is_reserved_name,
    parse_json,
    sha256_text,
    write_text,
    writer_lock,
    writer_process,
)
from runners.labels.records import GRADE_VALUE, Better, Grade, LabelSentence
from runners.run_folder import LABELS, RunFolder

Kind = Literal["grade", "better", "answerable", "gold", "sentence", "skip", "undo"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
SHOWN_ROW = "row"
"""File in the folder of a person's lock: the row on the screen."""
SHOWN_SECONDS = 600
"""How long a row is kept for the person who sees it."""
_BETTER: tuple[Better, ...] = ("first", "second", "tie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """One label of one person; which of the later fields are set depends on the kind."""

    kind: Kind
    question: str
    """Id of the row that was asked; a wording has its own."""
    time: str
    """ISO 8601 in UTC."""
    page: str = ""
    """Key of the task that was shown."""
    answers: tuple[str, ...] = ()
    """Digests of the answer that is graded, or of the two that are compared, the first one first."""
    grade: Grade | None = None
    better: Better | None = None
    answerable: bool | None = None
    text: str = ""
    """The gold answer."""
    sentence: LabelSentence | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row of the journal; what is not set is left out."""
        body: dict[str, Any] = {"kind": self.kind, "question": self.question, "time": self.time}
        sentence = self.sentence and {
            name: getattr(self.sentence, name) for name in ("doc_id", "start", "end", "text")
        }
        later: dict[str, Any] = {
            "page": self.page,
            "answers": list(self.answers),
            "grade": self.grade,
            "better": self.better,
        }
        later |= {"answerable": self.answerable, "text": self.text, "sentence": sentence}
        return body | {key: value for key, value in later.items() if value not in (None, "", [])}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Click:
        """Return the click of a row; KeyError, TypeError or ValueError for one that is none."""
        if not isinstance(row, dict):
            raise TypeError("the row is no object")
        sentence = row.get("sentence")
        click = cls(
            kind=row["kind"],
            question=str(row["question"]),
            time=str(row["time"]),
            page=str(row.get("page", "")),
            answers=tuple(map(str, row.get("answers", ()))),
            grade=row.get("grade"),
            better=row.get("better"),
            answerable=row.get("answerable"),
            text=str(row.get("text", "")),
            sentence=LabelSentence(**sentence) if sentence else None,
        )
        complete = {
            "grade": click.grade in GRADE_VALUE and len(click.answers) == 1,
            "better": click.better in _BETTER and len(click.answers) == 2,
            "answerable": isinstance(click.answerable, bool),
            "gold": bool(click.text),
            "sentence": click.sentence is not None and _is_place(click.sentence),
            "skip": True,
            "undo": True,
        }
        if not complete[click.kind]:
            raise ValueError(f"a row of the kind {click.kind} lacks its value")
        return click


def now() -> str:
    """Return the present time as clicks have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True, kw_only=True)
class Journal:
    """One person's clicks that stand, oldest first."""

    path: Path
    by: str
    run: str
    clicks: list[Click] = field(default_factory=list)
    torn: int = 0
    """Lines that were left out, as they are incomplete."""
    size: int = 0
    """Of the file when it was read, in bytes."""
    started: bool = False
    """Whether the file has its first row."""

    def add(self, click: Click) -> None:
        """Write a click and count it; CannotRun where it cannot be written, and then nothing has changed."""
        first = [] if self.started else [{"schema": 1, "run": self.run, "by": self.by}]
        append_lines(self.path, [*first, click.to_json()])
        self.started = True
        self._apply(click)
        self.size = self.path.stat().st_size

    def undo(self) -> Click | None:
        """Take the last click back, and return it; None without one."""
        if not self.clicks:
            return None
        last = self.clicks[-1]
        self.add(Click(kind="undo", question=last.question, time=now(), page=last.page))
        return last

    def refresh(self) -> None:
        """Read the file again where it has grown, as another person writes it."""
        if self.path.stat().st_size != self.size:
            other = read_journal_of(self.path, self.run)
            self.clicks, self.torn, self.size = other.clicks, other.torn, other.size

    def _apply(self, click: Click) -> None:
        if click.kind != "undo":
            self.clicks.append(click)
        elif self.clicks:
            self.clicks.pop()


def read_journal_of(path: Path, run: str) -> Journal:
    """Read a person's journal; an absent file is an empty one.

    Args:
        path: the file.
        run: the identity of the run.

    Raises:
        BadInput: it is of another run, of a newer version, or a row in it has other values than a label has.
    """
    journal = Journal(path=path, by=path.stem, run=run)
    if not path.is_file():
        return journal
    data = path.read_bytes()
    journal.size = len(data)
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError:
            journal.torn += 1
            continue
        try:
            if isinstance(row, dict) and "run" in row:
                _check_first(row, journal)
                continue
            journal._apply(Click.from_json(row))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path}:{number} is damaged: {error!r}", "put the file back, or take that line out"
            ) from None
    if journal.clicks and not journal.started:
        raise BadInput(f"{path} does not say which run its labels are of", "put its first line back")
    return journal


def _check_first(row: Mapping[str, Any], journal: Journal) -> None:
    check_schema(row, "labels", journal.path)
    if row["run"] != journal.run:
        raise BadInput(
            f"{journal.path} has the labels of another run ({row['run']}, this one is {journal.run})",
            "take the file away: labels belong to the answers that were labelled",
        )
    if row.get("by") != journal.by:
        raise BadInput(
            f"{journal.path} has the labels of {row.get('by')}",
            f"take the copy away, or name it {row.get('by')}.jsonl: else this person's labels would count twice",
        )
    journal.started = True


def _is_place(sentence: LabelSentence) -> bool:
    return all(type(offset) is int for offset in (sentence.start, sentence.end)) and bool(sentence.doc_id)


def run_identity(folder: RunFolder) -> str:
    """Return what tells a run from others: the digest of the first event of its log. It stays when the folder moves."""
    events = folder.events()
    return sha256_text(canonical_json(events[0]))[:16] if events else ""


def journal_paths(run: Path) -> list[Path]:
    """Return the journals of a run, by the names of the people."""
    return sorted((run / LABELS).glob("*.jsonl"))


def check_person(name: str) -> str:
    """Return a person's name as that of a file, in lower case; UsageProblem for one that cannot be."""
    if not _NAME.fullmatch(name) or is_reserved_name(name):
        raise UsageProblem(
            f"--by {name!r} cannot be the name of a file on every system: up to 40 letters a to z, digits, '.', '-' and "
            "'_', and no name of a device such as con",
            "give a short name: --by anna",
        )
    return name.lower()


def this_person() -> str:
    """Return the name of this account as :func:`check_person` takes it; "me" where the system has none."""
    try:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", getpass.getuser()).strip("-._")
    except (KeyError, OSError, ImportError):
        name = ""
    return name[:40] or "me"


@contextmanager
def person_lock(run: Path, by: str) -> Iterator[None]:
    """Hold the lock of a person's journal.

    Raises:
        BadInput: another session of this person holds it; its process is named.
        CannotRun: the run folder cannot be written.
    """
    folder = run / LABELS / f".{by}"
    lock = writer_lock(folder)
    try:
        lock.__enter__()
    except BadInput:
        process = writer_process(folder) or "unknown"
        raise BadInput(
            f"{by} is labelling {run} in another session already (process {process})",
            "go on there, or end it; another person gives another name: --by NAME",
        ) from None
    try:
        yield
    finally:
        (folder / SHOWN_ROW).unlink(missing_ok=True)
        lock.__exit__(None, None, None)


def show_row(run: Path, by: str, row: str) -> None:
    """Store which row is on a person's screen, so that no other person is asked it meanwhile."""
    write_text(run / LABELS / f".{by}" / SHOWN_ROW, row)


def shown_rows(run: Path) -> dict[str, str]:
    """Return the row on the screen of each person who labels a run, but those left alone for :data:`SHOWN_SECONDS`."""
    rows = {}
    for file in (run / LABELS).glob(f".*/{SHOWN_ROW}"):
        with suppress(FileNotFoundError):  # the person has ended meanwhile
            if time.time() - file.stat().st_mtime < SHOWN_SECONDS and has_active_writer(file.parent):
                rows[file.parent.name[1:]] = file.read_text("utf-8")
    return rows

"""What `tunewise train` learns from: rows read, instructions put before them, replay mixed in, validation set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from advisor.output import note
from rag.errors import BadInput, UsageProblem
from runners import columns as roles
from runners import holdout
from runners import replay as replaying
from runners.complaints import rows_of
from runners.data import Question, load_questions
from runners.example import Example, ExampleSet
from runners.reading import load_examples

REPLAY_SHARE = 0.1
"""Share of replay rows where --replay names rows and no share."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files and shares that the flags name."""

    examples: Path
    prompt: str | None = None
    columns: str | None = None
    max_rows: int | None = None
    valid: Path | None = None
    valid_share: float | None = None
    replay: Path | None = None
    replay_share: float | None = None
    questions: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that was read."""

    rows: tuple[Example, ...]
    distinct: int
    """Rows without exact repeats."""
    valid: tuple[Example, ...] = ()
    questions: tuple[Question, ...] = ()
    files: tuple[str, ...] = ()
    told: tuple[str, ...] = field(default=())
    """What a person should know of how the files were understood, one line each."""


def gather(files: Files) -> Material:
    """Read all files; UsageProblem for flags that exclude each other, BadInput for what cannot be read."""
    _refuse(files)
    loaded = load_examples(
        files.examples, roles.parse(files.columns) if files.columns else None, files.max_rows
    )
    told = describe(loaded, files.examples)
    rows = with_prompt(loaded.rows, read_prompt(files.prompt))
    valid: tuple[Example, ...] = ()
    if files.valid is not None:
        found = load_examples(files.valid, roles.parse(files.columns) if files.columns else None)
        valid = with_prompt(found.rows, read_prompt(files.prompt))
        told += [f"validation: {line}" for line in describe(found, files.valid)]
    elif files.valid_share:
        rows, valid = holdout.hold_out(rows, files.valid_share, files.seed)
        told.append(f"set apart for validation, by document and near repeat: {rows_of(len(valid))}")
    if files.replay is not None:
        others = load_examples(files.replay)
        share = REPLAY_SHARE if files.replay_share is None else files.replay_share
        rows = replaying.mix(rows, others.rows, share, files.seed)
        told.append(
            f"mixed in from {files.replay.name}: {rows_of(replaying.count(rows))} for replay ({share:.0%} of all)"
        )
    asked = load_questions(files.questions) if files.questions else ()
    return Material(rows, max(1, len(rows) - loaded.duplicates), valid, asked, loaded.files, tuple(told))


def describe(loaded: ExampleSet, path: Path) -> list[str]:
    """Return how a file was understood: format, columns, what was left out."""
    read = rows_of(len(loaded.rows)) if loaded.total <= len(loaded.rows) + len(loaded.rejected) else (
        f"the first {len(loaded.rows):,} of {rows_of(loaded.total)}"
    )  # fmt: skip
    guessed = ", ".join(f"{role} = {name}" for role, name in loaded.columns.items())
    told = [f"{read} of {path.name}, format {loaded.format}" + (f" ({guessed})" if guessed else "")]
    told += [f"left out: {r.file or path.name}:{r.line}: {r.reason}" for r in loaded.rejected]
    told += [f"not read: {skipped.file}: {skipped.reason}" for skipped in loaded.skipped]
    return [*told, *loaded.notes]


def with_prompt(rows: Sequence[Example], prompt: str) -> tuple[Example, ...]:
    """Return the rows with the instructions as their system turn, where they have none of their own."""
    if not prompt:
        return tuple(rows)
    if any(row.raw for row in rows):
        raise UsageProblem("--prompt goes before chats, and these rows are plain text", "leave it out")
    turn = {"role": "system", "content": prompt}
    return tuple(row if row.system else replace(row, messages=(turn, *row.messages)) for row in rows)


def read_prompt(prompt: str | None) -> str:
    """Return instructions given as text or as a file."""
    if not prompt:
        return ""
    path = Path(prompt)
    try:
        return path.read_text("utf-8").strip() if path.is_file() else prompt
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def say(lines: Sequence[str]) -> None:
    """Print lines to stderr, indented."""
    for line in lines:
        note(f"  {line}")


def _refuse(files: Files) -> None:
    if files.valid is not None and files.valid_share is not None:
        raise UsageProblem("--valid and --valid-share exclude each other", "give one of them")
    if files.replay is None and files.replay_share is not None:
        raise UsageProblem("--replay-share needs --replay", "name the file of replay rows")
    if files.max_rows is not None and files.max_rows < 1:
        raise UsageProblem(f"--max-rows {files.max_rows} leaves nothing to learn", "1 or more")
    for name, share in (("--valid-share", files.valid_share), ("--replay-share", files.replay_share)):
        if share is not None and not 0 < share < 1:
            raise UsageProblem(f"{name} {share:g} is no share", "a number above 0 and below 1, such as 0.1")

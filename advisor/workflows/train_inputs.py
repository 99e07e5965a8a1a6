"""What `tunewise train` learns from: rows read, instructions put before them, replay mixed in, validation set apart.

Flags of `tunewise train` that have no effect together; what each may be is TrainConfig's to say.

The settings of `tunewise train`: what the flags give, the rest chosen from rows and model, with the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.output import note
from rag.errors import BadInput, UsageProblem
from runners.data import formats as roles
from runners.data import sampling
from runners.data import sampling as replaying
from runners.data.examples import Example, ExampleSet, load_examples
from runners.data.questions import Question, load_questions
from runners.plan.train_config import ALL_LINEAR, TrainConfig
from runners.preflight.report import count_of_rows
from runners.tokenization.chat_template import ChatTokenizer
from runners.training.defaults import choose_defaults, count_params_b

if TYPE_CHECKING:
    from runners.models.resolve import Model


REPLAY_SHARE = 0.1
"""Share of replay rows where --replay names rows and no share."""


@dataclass(frozen=True, slots=True)
class TrainFiles:
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
class TrainInputs:
    """Everything that was read."""

    rows: tuple[Example, ...]
    distinct: int
    """Rows without exact repeats."""
    valid: tuple[Example, ...] = ()
    questions: tuple[Question, ...] = ()
    files: tuple[str, ...] = ()
    told: tuple[str, ...] = field(default=())
    """What a person should know of how the files were understood, one line each."""


def read_train_inputs(files: TrainFiles) -> TrainInputs:
    """Read all files; UsageProblem for flags that exclude each other, BadInput for what cannot be read."""
    _refuse(files)
    loaded = load_examples(
        files.examples, roles.parse_columns(files.columns) if files.columns else None, files.max_rows
    )
    told = describe_examples(loaded, files.examples)
    rows = with_prompt(loaded.rows, read_prompt(files.prompt))
    valid: tuple[Example, ...] = ()
    if files.valid is not None:
        found = load_examples(files.valid, roles.parse_columns(files.columns) if files.columns else None)
        valid = with_prompt(found.rows, read_prompt(files.prompt))
        told += [f"validation: {line}" for line in describe_examples(found, files.valid)]
    elif files.valid_share:
        rows, valid = sampling.hold_out(rows, files.valid_share, files.seed)
        told.append(f"set apart for validation, by document and near repeat: {count_of_rows(len(valid))}")
    if files.replay is not None:
        others = load_examples(files.replay)
        share = REPLAY_SHARE if files.replay_share is None else files.replay_share
        rows = replaying.mix_replay_rows(rows, others.rows, share, files.seed)
        told.append(
            f"mixed in from {files.replay.name}: {count_of_rows(replaying.count_replay_rows(rows))} for replay ({share:.0%} of all)"
        )
    asked = load_questions(files.questions) if files.questions else ()
    return TrainInputs(rows, max(1, len(rows) - loaded.duplicates), valid, asked, loaded.files, tuple(told))


def describe_examples(loaded: ExampleSet, path: Path) -> list[str]:
    """Return how a file was understood: format, columns, what was left out."""
    read = (
        count_of_rows(len(loaded.rows))
        if loaded.total <= len(loaded.rows) + len(loaded.rejected)
        else (f"the first {len(loaded.rows):,} of {count_of_rows(loaded.total)}")
    )
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


def print_indented(lines: Sequence[str]) -> None:
    """Print lines to stderr, indented."""
    for line in lines:
        note(f"  {line}")


def _refuse(files: TrainFiles) -> None:
    if files.valid is not None and files.valid_share is not None:
        raise UsageProblem("--valid and --valid-share exclude each other", "give one of them")
    if files.replay is None and files.replay_share is not None:
        raise UsageProblem("--replay-share needs --replay", "name the file of replay rows")
    if files.max_rows is not None and files.max_rows < 1:
        raise UsageProblem(f"--max-rows {files.max_rows} leaves nothing to learn", "1 or more")
    for name, share in (("--valid-share", files.valid_share), ("--replay-share", files.replay_share)):
        if share is not None and not 0 < share < 1:
            raise UsageProblem(f"{name} {share:g} is no share", "a number above 0 and below 1, such as 0.1")


def settings_from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the flags name, as TrainConfig takes them."""
    given = {name: value for name, value in flags.items() if value is not None}
    if given.get("targets", ALL_LINEAR) != ALL_LINEAR:
        given["targets"] = tuple(part.strip() for part in given["targets"].split(","))
    return given


def refuse_bad_flags(flags: Mapping[str, Any], method: str) -> None:
    """Raise UsageProblem for a flag out of its bounds, without effect, or that excludes another; reads no file."""
    given = settings_from_flags(flags)
    own = [name for name in ("rank", "alpha", "variant", "targets") if name in given]
    if "init_adapter" in given and own:
        text = f"{flag_of(own[0])} has no effect with --init-adapter: the adapter that is gone on from keeps its own"
        raise UsageProblem(text, f"leave {flag_of(own[0])} out")
    of_adapters = [name for name in (*own, "dropout", "lora_plus", "init_adapter") if name in given]
    if method == "full" and of_adapters:
        raise UsageProblem(
            f"{flag_of(of_adapters[0])} is about LoRA, --method full has no adapters", "leave it out"
        )
    try:
        TrainConfig(**{"method": method, **given})
    except BadInput as error:
        name, _, rest = error.message.partition(" ")
        raise UsageProblem(
            f"{flag_of(name)} {rest}" if name in given else error.message, error.hint
        ) from None


def flag_of(name: str) -> str:
    """Return a setting's flag."""
    return f"--{name.replace('_', '-')}"


def settle_settings(
    rows: Sequence[Example],
    valid: Sequence[Example],
    distinct: int,
    base: Model,
    method: str,
    flags: Mapping[str, Any],
) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of a run, and why each is as it is; flags that are not None win.

    ``distinct`` is the number of rows without repeats; the flags have passed :func:`advisor.workflows.train_inputs.refuse_bad_flags`.
    """
    given = settings_from_flags(flags)
    chat = ChatTokenizer(base.folder)
    lengths = chat_lengths(rows, chat)
    longest = max((*lengths, *chat_lengths(valid, chat)), default=0)
    chosen = choose_defaults(
        method,
        rows=distinct,
        params_b=count_params_b(base.folder),
        longest=longest,
        tokens=sum(lengths),
        variant=given.get("variant", "lora"),
        rank=given.get("rank"),
        epochs=given.get("epochs"),
    )
    reasons = {name: reason for name, reason in chosen.reasons.items() if name not in given}
    asked = {name: f"{_plain(value)} because you said so" for name, value in given.items()}
    return chosen.config(**given), {**asked, **reasons}


def chat_lengths(rows: Sequence[Example], chat: ChatTokenizer) -> list[int]:
    """Return the tokens of each chat; raw text, which is packed into pieces of any length, is left out."""
    found = []
    for row in rows:
        if row.raw:
            continue
        try:
            found.append(chat.count(chat.render(row.messages, tools=row.tools)))
        except BadInput:
            continue  # the preflight tells it, with the row
    return found


def _plain(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)

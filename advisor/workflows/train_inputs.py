"""The inputs of ``tunewise train``: rows with instructions, replay rows and validation rows, and the training settings.

:func:`read_train_inputs` reads the files. :func:`settle_settings` takes settings from flags and chooses the rest from
rows and model, with reasons. :func:`refuse_bad_flags` rejects flags that exclude each other; the bounds of the settings
are checked by TrainConfig.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.flags.train import TrainRequest
from advisor.output import note
from rag.errors import BadInput, UsageProblem, system_reason
from runners.data import formats as roles
from runners.data import sampling
from runners.data.examples import Example, ExampleSet, load_examples
from runners.data.questions import Question, load_questions
from runners.data.teachers import teachers_of_rows
from runners.plan.train_config import ALL_LINEAR, TrainConfig
from runners.preflight.report import count_of_rows
from runners.tokenization.chat_template import ChatTokenizer
from runners.training.defaults import choose_defaults, count_params_b

if TYPE_CHECKING:
    from runners.models.resolve import Model


REPLAY_SHARE = 0.1
"""Share of replay rows where --replay is given without --replay-share."""


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """Everything that was read.

    Attributes:
        rows: the training rows.
        distinct: number of rows without exact duplicates.
        valid: the validation rows.
        questions: held-out questions that the rows must not contain.
        files: paths of the files.
        notes: how the files were understood, one line each.
    """

    rows: tuple[Example, ...]
    distinct: int
    valid: tuple[Example, ...] = ()
    questions: tuple[Question, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_train_inputs(files: TrainRequest) -> TrainInputs:
    """Read all files.

    Raises:
        UsageProblem: for flags that exclude each other.
        BadInput: for what cannot be read.
    """
    _refuse_bad_file_flags(files)
    seed = files.seed or 0
    columns = roles.parse_columns(files.columns) if files.columns else None
    loaded = load_examples(files.examples, columns, files.max_rows)
    notes = describe_examples(loaded, files.examples)
    rows = with_prompt(loaded.rows, read_prompt(files.prompt))
    valid: tuple[Example, ...] = ()
    if files.valid is not None:
        validation = load_examples(files.valid, columns)
        valid = with_prompt(validation.rows, read_prompt(files.prompt))
        notes += [f"validation: {line}" for line in describe_examples(validation, files.valid)]
    elif files.valid_share:
        rows, valid = sampling.hold_out(rows, files.valid_share, seed)
        notes.append(f"set apart for validation, by document and near repeat: {count_of_rows(len(valid))}")
    if files.replay is not None:
        replay = load_examples(files.replay)
        share = REPLAY_SHARE if files.replay_share is None else files.replay_share
        rows = sampling.mix_replay_rows(rows, replay.rows, share, seed)
        replayed = count_of_rows(sampling.count_replay_rows(rows))
        notes.append(f"mixed in from {files.replay.name}: {replayed} for replay ({share:.0%} of all)")
    notes += [teacher.sentence(len(rows)) for teacher in teachers_of_rows(rows)]
    questions = load_questions(files.questions, columns) if files.questions else ()
    return TrainInputs(
        rows, max(1, len(rows) - loaded.duplicates), valid, questions, loaded.files, tuple(notes)
    )


def describe_examples(loaded: ExampleSet, path: Path) -> list[str]:
    """Return how a file was understood: format, columns, and what was left out."""
    count = (
        count_of_rows(len(loaded.rows))
        if loaded.total <= len(loaded.rows) + len(loaded.rejected)
        else (f"the first {len(loaded.rows):,} of {count_of_rows(loaded.total)}")
    )
    columns = ", ".join(f"{role} = {name}" for role, name in loaded.columns.items())
    lines = [f"{count} of {path.name}, format {loaded.format}" + (f" ({columns})" if columns else "")]
    lines += [f"skipped: {row.file or path.name}:{row.line}: {row.reason}" for row in loaded.rejected]
    lines += [f"not read: {skipped.file}: {skipped.reason}" for skipped in loaded.skipped]
    return [*lines, *loaded.notes]


def with_prompt(rows: Sequence[Example], prompt: str) -> tuple[Example, ...]:
    """Return the rows with the instructions as their system message, where they have none of their own."""
    if not prompt:
        return tuple(rows)
    if any(row.raw for row in rows):
        raise UsageProblem("--prompt goes before chats, and these rows are plain text", "remove it")
    turn = {"role": "system", "content": prompt}
    return tuple(row if row.system else replace(row, messages=(turn, *row.messages)) for row in rows)


def read_prompt(prompt: str | None) -> str:
    """Return instructions that are given as text or as a file."""
    if not prompt:
        return ""
    path = Path(prompt)
    try:
        return path.read_text("utf-8").strip() if path.is_file() else prompt
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {system_reason(error)}") from None


def print_indented(lines: Sequence[str]) -> None:
    """Print lines to stderr, indented."""
    for line in lines:
        note(f"  {line}")


def given_settings(request: TrainRequest) -> dict[str, Any]:
    """Return the training settings that the flags give, by name."""
    given = {name: getattr(request, name, None) for name in TrainConfig.model_fields if name != "method"}
    if request.checkpointing is not None:
        given["checkpointing"] = "on" if request.checkpointing else "off"
    return {name: value for name, value in given.items() if value is not None}


def _as_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as TrainConfig takes them: names of layers, but for all of them, as a tuple."""
    given = dict(settings)
    if given.get("targets", ALL_LINEAR) != ALL_LINEAR:
        given["targets"] = tuple(part.strip() for part in given["targets"].split(","))
    return given


def refuse_bad_flags(settings: Mapping[str, Any], method: str) -> None:
    """Raise UsageProblem for a setting out of its bounds, without effect, or that excludes another; no file is read."""
    given = _as_config(settings)
    adapter_flags = [name for name in ("rank", "alpha", "variant", "targets") if name in given]
    if "init_adapter" in given and adapter_flags:
        flag = flag_of(adapter_flags[0])
        text = f"{flag} has no effect with --init-adapter: the adapter given there keeps its own"
        raise UsageProblem(text, f"remove {flag}")
    lora_flags = [name for name in (*adapter_flags, "dropout", "lora_plus", "init_adapter") if name in given]
    if method == "full" and lora_flags:
        raise UsageProblem(
            f"{flag_of(lora_flags[0])} is about LoRA, --method full has no adapters", "remove it"
        )
    try:
        TrainConfig(**{"method": method, **given})
    except BadInput as error:
        name, _, rest = error.message.partition(" ")
        raise UsageProblem(
            f"{flag_of(name)} {rest}" if name in given else error.message, error.hint
        ) from None


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def settle_settings(
    inputs: TrainInputs, base: Model, method: str, settings: Mapping[str, Any]
) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of a training, and why each is as it is.

    Args:
        inputs: the rows.
        base: the base model.
        method: lora, qlora or full.
        settings: the settings that were given, by name; :func:`refuse_bad_flags` has checked them.
    """
    given = _as_config(settings)
    chat = ChatTokenizer(base.folder)
    lengths = chat_lengths(inputs.rows, chat)
    longest = max((*lengths, *chat_lengths(inputs.valid, chat)), default=0)
    chosen = choose_defaults(
        method,
        rows=inputs.distinct,
        params_b=count_params_b(base.folder),
        longest=longest,
        tokens=sum(lengths),
        variant=given.get("variant", "lora"),
        rank=given.get("rank"),
        epochs=given.get("epochs"),
    )
    reasons = {name: reason for name, reason in chosen.reasons.items() if name not in given}
    given_reasons = {name: f"{_plain(value)} as you set it" for name, value in given.items()}
    return chosen.config(**given), {**given_reasons, **reasons}


def chat_lengths(rows: Sequence[Example], chat: ChatTokenizer) -> list[int]:
    """Return the tokens of each chat; plain text is left out, because it is split into pieces of any length."""
    lengths = []
    for row in rows:
        if row.raw:
            continue
        try:
            lengths.append(chat.count(chat.render(row.messages, tools=row.tools)))
        except BadInput:
            continue  # the preflight reports it, with the row
    return lengths


def _refuse_bad_file_flags(files: TrainRequest) -> None:
    """Raise UsageProblem for flags about files that exclude each other or are out of range."""
    if files.valid is not None and files.valid_share is not None:
        raise UsageProblem("--valid and --valid-share exclude each other", "give one of them")
    if files.replay is None and files.replay_share is not None:
        raise UsageProblem("--replay-share needs --replay", "name the file of replay rows")
    if files.max_rows is not None and files.max_rows < 1:
        raise UsageProblem(f"--max-rows {files.max_rows} leaves no rows to learn from", "1 or more")
    for name, share in (("--valid-share", files.valid_share), ("--replay-share", files.replay_share)):
        if share is not None and not 0 < share < 1:
            raise UsageProblem(f"{name} {share:g} is no share", "a number above 0 and below 1, such as 0.1")


def _plain(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)

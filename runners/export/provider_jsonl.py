"""The `provider-jsonl` export: an arm's training rows for a hosted provider's fine-tuning, validated.

The format is that of OpenAI's chat fine-tuning, which other providers read too: one object a line with `messages` and,
where there are some, `tools`; an assistant turn that is not trained on has `weight` 0. `make_provider_jsonl` is the
target's maker, `provider_row` converts an example, `row_problem` validates a row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, Problem
from rag.files import write_text
from rag.text.words import count_noun
from runners.arms.prompts import training_row
from runners.data.examples import Example
from runners.data.teachers import teachers_of_rows
from runners.export.job import ExportedFiles, ExportJob
from runners.export.source import ExportSource
from runners.models import resolve
from runners.plan.steps import TrainStep
from runners.preflight.data_checks import check_personal_data
from runners.runs.dataset import read_data
from runners.runs.opened import OpenRun
from runners.runs.plan_models import ObtainedModels, must_stay_local
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.token_estimate import estimate_tokens
from runners.trial.step_runner import training_rows_of, with_replay

PROVIDER_FILE = "train.jsonl"
MIN_PROVIDER_ROWS = 10
"""Fewest rows that a hosted job accepts."""
MAX_ROW_TOKENS = 65_536
"""Tokens beyond which OpenAI truncates a row."""
MAX_FILE_BYTES = 512 << 20
"""Most bytes of one file."""
_ROLES = ("system", "user", "assistant", "tool")
_TURN_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "weight")
_USAGE = """\
Upload `train.jsonl` to the provider's fine-tuning, with the purpose `fine-tune`. Use the tuned model in a plan as
`openai:NAME@URL` to have it measured with the other arms. Held-out questions are not in this file.
"""


def make_provider_jsonl(job: ExportJob) -> ExportedFiles:
    """Write and validate the rows.

    Raises:
        BadInput: the data must stay local or holds secrets, a row is invalid, or there are too few rows.
    """
    source = job.source
    if must_stay_local(source.plan):
        raise BadInput(
            "the plan says that data must stay local, and these rows are made to be uploaded",
            "train here (tunewise run), or change the answer and plan again",
        )
    examples, counts, notes = provider_training_rows(source)
    chats = [row for row in examples if not row.raw]
    if raw := len(examples) - len(chats):
        notes.append(f"{raw} plain texts are skipped: hosted fine-tuning takes chats only.")
    if thoughts := sum("reasoning_content" in turn for row in chats for turn in row.messages):
        notes.append(f"The reasoning of {thoughts} turns is dropped: the format has no place for it.")
    personal, secret = check_personal_data(chats)
    if secret.level == "stop":
        raise BadInput(f"the rows contain secrets: {secret.text}", secret.next)
    if personal.level == "warn":
        notes.append(f"Personal data would be uploaded: {personal.text}; {personal.next}.")
    step = _train_step(source)
    last_only = step is not None and step.turns == "last"
    rows = [provider_row(row, last_only) for row in chats]
    for example, row in zip(chats, rows, strict=True):
        if problem := row_problem(row):
            raise BadInput(
                f"the example on {example.place} cannot be handed on: {problem}", "correct that row"
            )
    if len(rows) < MIN_PROVIDER_ROWS:
        raise BadInput(
            f"there are {count_noun(len(rows), 'row')}, hosted fine-tuning takes {MIN_PROVIDER_ROWS} at least",
            "bring more examples",
        )
    count, unit = provider_token_counter(source)
    checked = {**_length_facts(rows, count, unit, notes), **{k: n for k, n in counts.items() if k != "rows"}}
    _write_rows(job.folder / PROVIDER_FILE, rows)
    return ExportedFiles(
        _USAGE,
        checked,
        notes=tuple(notes),
        made_from={"rows": f"{len(rows):,}"},
        teachers=teachers_of_rows(chats),
    )


def provider_training_rows(source: ExportSource) -> tuple[Sequence[Example], dict[str, int], list[str]]:
    """Return the examples that the arm is trained on.

    Returns:
        The examples, the counts of retrieval-aware rows ({} for other rows), and notes for the user.
    """
    plan, step = source.plan, _train_step(source)
    assert source.arm is not None
    if not plan.data.examples:
        raise BadInput(
            "this run has no examples, so it has no rows to train on", "plan it with --examples FILE"
        )
    data = read_data(plan, source.on_event)
    if step is None:
        note = (
            f"The arm {source.arm.arm} was not trained: these are the examples with the plan's instructions."
        )
        return [training_row(plan.prompts, e) for e in data.examples], {}, [note]
    models, searches = source.models, step.rows == "retrieval"
    missing: dict[str, Problem] = {}
    obtained = ObtainedModels(
        bases=models.bases(missing if plan.models or plan.teacher else None),
        missing=missing,
        embedder=models.embedder() if searches else None,
        reranker=models.reranker() if searches else None,
    )
    context = OpenRun(source.run, plan, obtained, data=data)
    rows, counts = training_rows_of(context, step, step.seeds[0] if source.seed is None else source.seed)
    unsupported = counts.get("unsupported", 0)
    notes = (
        [
            f"For {unsupported} examples no passage supports the reply; they have those that the search returns."
        ]
        if unsupported
        else []
    )
    trained = _trained_row_counts(source, step) if counts else []
    if trained and not any({key: counts.get(key) for key in recorded} == recorded for recorded in trained):
        notes.insert(
            0,
            f"The documents have changed since the arm was trained: it learnt from "
            f"{trained[-1]['rows']} rows, {trained[-1]['with_gold']} of them with the supporting passage; "
            "these are made from the index as it is now.",
        )
    return with_replay(plan, step, rows, source.seed or 0, source.on_event), counts, notes


def provider_row(example: Example, last_only: bool = False) -> dict[str, Any]:
    """Return an example as one object of the format; with `last_only`, earlier answers have weight 0."""
    turns = [{key: turn[key] for key in _TURN_KEYS if key in turn} for turn in example.messages]
    for turn in turns:
        if "tool_calls" in turn:
            turn["tool_calls"] = [_format_call(call) for call in turn["tool_calls"]]
    if last_only:
        answers = [n for n, turn in enumerate(turns) if turn["role"] == "assistant"]
        for number in answers[:-1]:
            turns[number]["weight"] = 0
    return {"messages": turns, **({"tools": list(example.tools)} if example.tools else {})}


def row_problem(row: dict[str, Any]) -> str:
    """Return what a provider would refuse in a row; "" for a valid row."""
    turns = row["messages"]
    roles = [turn["role"] for turn in turns]
    if unknown := [role for role in roles if role not in _ROLES]:
        return f"the role {unknown[0]!r} is none of {', '.join(_ROLES)}"
    if "system" in roles[1:]:
        return "a system turn is after the first turn"
    if "user" not in roles:
        return "it has no user turn"
    if roles[-1] != "assistant":
        return f"its last turn is the {roles[-1]}'s, not the assistant's"
    for number, turn in enumerate(turns, 1):
        empty = not isinstance(turn.get("content"), str) or not turn["content"].strip()
        if empty and not turn.get("tool_calls"):
            return f"turn {number} ({turn['role']}) is empty"
        if "weight" in turn and turn["role"] != "assistant":
            return f"turn {number} ({turn['role']}) has a weight, which only the assistant's may have"
        if turn.get("weight", 1) not in (0, 1):
            return f"turn {number} has the weight {turn['weight']!r}, only 0 and 1 are taken"
    if all(turn.get("weight", 1) == 0 for turn in turns if turn["role"] == "assistant"):
        return "no turn of it is learnt"
    called = {call.get("id") for turn in turns for call in turn.get("tool_calls") or ()}
    if unmatched := [
        n for n, t in enumerate(turns, 1) if t["role"] == "tool" and t.get("tool_call_id") not in called
    ]:
        return f"turn {unmatched[0]} (tool) answers no call of this chat: its tool_call_id is that of none"
    return "it calls tools that it does not list" if called and not row.get("tools") else ""


def provider_token_counter(source: ExportSource) -> tuple[Callable[[str], int], str]:
    """Return a function that counts tokens, and a description of the unit.

    The base model's own tokenizer counts where it is available; for a remote model the count is estimated.
    """
    own_tokens = "in the base model's own tokens; a provider's differ by some percent"
    if source.weights is not None:
        return ChatTokenizer(source.weights).count, own_tokens
    if resolve.parse_remote(source.model.name) is None:
        return ChatTokenizer(source.base.folder).count, own_tokens
    return estimate_tokens, "estimated from their length"


def _trained_row_counts(source: ExportSource, step: TrainStep) -> list[dict[str, int]]:
    """Return the counts of the rows that an arm was trained on, from the run's log, one for each seed."""
    prepared = (
        e for e in source.run.events() if e.get("event") == "rows.prepared" and e.get("arm") == step.arm
    )
    return [{key: n for key, n in event.items() if key not in ("event", "arm", "time")} for event in prepared]


def _format_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call with its arguments as JSON text, as the format requires."""
    function = dict(call.get("function") or {})
    if not isinstance(function.get("arguments", ""), str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


def _length_facts(
    rows: Sequence[dict[str, Any]], count: Callable[[str], int], unit: str, notes: list[str]
) -> dict[str, Any]:
    """Return the lengths of the rows for the card; notes on long and repeated rows are appended to `notes`."""
    lengths = sorted(sum(count(str(turn.get("content") or "")) for turn in row["messages"]) for row in rows)
    if over := sum(length > MAX_ROW_TOKENS for length in lengths):
        notes.append(
            f"{over} rows are longer than {MAX_ROW_TOKENS:,} tokens, where a provider may cut them off."
        )
    distinct = Counter(json.dumps(row, sort_keys=True) for row in rows)
    if repeats := len(rows) - len(distinct):
        notes.append(f"{repeats} rows repeat an earlier one.")
    return {
        "rows, all valid": len(rows),
        "turns": sum(len(row["messages"]) for row in rows),
        "tokens of a row: shortest, median, longest": f"{lengths[0]:,}, {lengths[len(lengths) // 2]:,}, {lengths[-1]:,}",
        "tokens of one pass": f"{sum(lengths):,}",
        "counted": unit,
    }


def _write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as JSON lines and read them back."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if len(text.encode("utf-8")) > MAX_FILE_BYTES:
        raise BadInput(
            f"the rows take more than {MAX_FILE_BYTES >> 20} MiB, the most that one file may have",
            "use fewer rows",
        )
    write_text(file, text)
    written = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    if written != list(rows):
        raise CannotRun(f"{file.name} does not read back as it was written", "export it again")


def _train_step(source: ExportSource) -> TrainStep | None:
    """Return the train step of the arm's weights; None for an arm that was not trained."""
    assert source.arm is not None
    return source.plan.train_step(source.arm.weights) if source.arm.weights else None

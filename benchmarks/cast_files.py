"""The files that a user of a public set would bring: rows and questions, cut to size by a fixed draw."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cast import Part
from runners.data.examples import load_examples
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import load_questions

Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Brought:
    """A user's files, by the flag that names them."""

    files: dict[str, Path]
    left_out: int = 0
    """Questions that nearly repeat a training row: not asked."""
    profile: Path | None = None
    """The set's own answers file, where it has one."""


def bring(part: Part, data: Path, out: Path) -> Brought:
    """Write the files of a set, cut to size by a fixed draw, without questions that repeat a training row."""
    source = data / (part.source or part.name)
    rows, questions, files = _PREPARED.get(part.name, _chats)(source, part)
    profile = source / "profile.yaml"
    brought = Brought(files, profile=profile if profile.is_file() and not part.answers else None)
    out.mkdir(parents=True, exist_ok=True)
    files["questions"] = _write(out / "questions.jsonl", questions)
    if rows:
        files["examples"] = _write(out / "examples.jsonl", rows)
        brought.left_out = _apart(files["examples"], files["questions"])
    return brought


def _chats(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Sets whose rows are chats already: train to tune, test to ask, documents where there are any."""
    train = source / "train.jsonl"
    rows = _drawn(_read(train), part.examples) if train.is_file() else []
    documents = source / "documents.jsonl"
    files = {"documents": documents.resolve()} if documents.is_file() else {}
    held_out = source / "test.jsonl"
    asked = _drawn(_read(held_out if held_out.is_file() else source / "questions.jsonl"), None)
    prompt = source / "prompt.txt"
    if prompt.is_file() and not part.answers and any("question" in row for row in asked):
        # Questions without turns hold no instructions; chats hold their own.
        files["prompt"] = prompt.resolve()
    return rows, _asked(asked, part), files


def _labels(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """The same number of rows of each label; the prompt names all labels, so that prompting is no straw man."""
    names = json.loads((source / "labels.json").read_text("utf-8"))
    each = part.examples // len(names)
    taken: dict[str, int] = {}
    rows = []
    for row in _drawn(_read(source / "train.jsonl"), None):
        label = row["messages"][-1]["content"]
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= each:
            rows.append(row)
    asked = _asked(_drawn(_read(source / "test.jsonl"), None), part)
    for row in (*rows, *asked):
        row["messages"][0]["content"] += f" Intents: {', '.join(names)}."
    return rows, asked, {}


def _answered(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Documents and questions alone: nothing to tune on."""
    asked = _asked(_drawn(_read(source / "questions.jsonl"), None), part)
    return [], asked, {"documents": (source / "documents.jsonl").resolve()}


def _spans(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Half of the articles give rows to tune on, the others questions, so that no article stands on both sides."""
    article = {row["id"]: int(row["article"]) for row in _read(source / "documents.jsonl")}
    drawn = _drawn(_read(source / "questions.jsonl"), None)
    system = "Answer the question in as few words as possible."
    rows = [
        {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answers"][0]},
            ],
            "meta": {"doc_id": row["doc_id"]},
        }
        for row in drawn
        if article[row["doc_id"]] % 2 == 0
    ]
    asked = [{**row, "system": system} for row in drawn if article[row["doc_id"]] % 2]
    return rows[: part.examples], _asked(asked, part), {"documents": (source / "documents.jsonl").resolve()}


def _intents(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Rows whose reply is JSON with an intent: that intent is the label; the prompt names them all."""
    held_out = source / "test.jsonl"
    train, asked = (
        [
            (row["messages"][1]["content"], json.loads(row["messages"][-1]["content"])["intent"])
            for row in _read(path)
        ]
        for path in (source / "train.jsonl", held_out if held_out.is_file() else source / "questions.jsonl")
    )
    return _labelled(train, asked, "Label the request with exactly one intent.", part)


def _disfluent(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Of each row its disfluent question or the fluent one, by turns: the label says which."""
    train, asked = (
        [
            (row["messages"][1 if line % 2 else -1]["content"], "disfluent" if line % 2 else "fluent")
            for line, row in enumerate(_read(source / name))
        ]
        for name in ("train.jsonl", "questions.jsonl")
    )
    return _labelled(
        train, asked, "Say whether the spoken question is fluent, or has a repair or hesitation.", part
    )


def _labelled(
    train: list[tuple[str, str]], asked: list[tuple[str, str]], task: str, part: Part
) -> tuple[Rows, Rows, dict[str, Path]]:
    """Return chats of texts and labels, drawn and cut to size."""
    names = sorted({label for _, label in train})
    system = f"{task} Labels: {', '.join(names)}. Output only the label."
    rows, questions = (
        _drawn(
            [
                {
                    "messages": [
                        {"role": "system", "content": system},
                        {"role": "user", "content": text},
                        {"role": "assistant", "content": label},
                    ]
                }
                for text, label in pairs
            ],
            most,
        )
        for pairs, most in ((train, part.examples), (asked, None))
    )
    return rows, _asked(questions, part), {}


_PREPARED = {
    "banking77": _labels,
    "clapnq_dev": _answered,
    "xquad_en": _spans,
    "snips_intents": _intents,
    "sgd_intents": _intents,
    "disfl_detect": _disfluent,
}


def _asked(questions: Rows, part: Part) -> Rows:
    """Enough questions for dev and test, with some to spare for those that are left out."""
    return questions[: 3 * (part.dev + part.test)]


def _apart(rows: Path, questions: Path) -> int:
    """Take the questions that a training row gives away out of their file; return how many."""
    given_away = {
        leak.held_out
        for leak in find_leaks(load_examples(rows).rows, load_questions(questions))
        if leak.kind in LEAKING
    }
    kept = [row for line, row in enumerate(_read(questions), 1) if line not in given_away]
    _write(questions, kept)
    return len(given_away)


def _drawn(rows: Rows, most: int | None) -> Rows:
    random.Random(0).shuffle(rows)
    return rows[:most]


def _read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    text = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(text), "utf-8")
    return path.resolve()

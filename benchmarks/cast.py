"""The public sets as users would bring them: what they would answer, and their files cut to size.

The answers were written from each set's description before anything was measured, and stay as they are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.data.examples import load_examples
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import load_questions

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """One public set in the part of a user's situation."""

    name: str
    task: str
    answers: tuple[str, ...]
    """What a user would say, as ``key=value``; the rest is counted in the files or detected."""
    wanted: str
    """What the trial is expected to show."""
    dev: int
    test: int
    examples: int = 0
    tuned: tuple[str, ...] = ()
    """Ways of tuning that are measured besides those of the advisor's own plan."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """The set's own rule of style, in place of the one that is learnt from the examples."""


@dataclass(slots=True)
class Brought:
    """A user's files, by the flag that names them."""

    files: dict[str, Path]
    left_out: int = 0
    """Questions that nearly repeat a training row: not asked."""


CAST: tuple[Part, ...] = (
    Part(
        "hybrid_concierge",
        "hotel and restaurant questions in a house style",
        ("facts_change=slow", "behaviour_gap=high", "must_cite=yes", "call_volume=high"),
        "hybrid wins",
        dev=60,
        test=100,
        examples=400,
        checks=(
            {
                "kind": "regex",
                "value": r"^[^?]*[.!] [^?]*\?$",
                "text": "a statement, then exactly one closing question",
            },
        ),
    ),
    Part(
        "snips_json",
        "spoken requests to JSON: intent and slots",
        ("task_needs_facts=none", "behaviour_gap=high", "call_volume=high"),
        "tuning beats prompting on valid JSON with the right slots",
        dev=60,
        test=150,
        examples=800,
        tuned=("lora", "full"),
    ),
    Part(
        "banking77",
        "a bank's customer messages to one of 77 labels",
        ("task_needs_facts=none", "behaviour_gap=low", "call_volume=high"),
        "classifier and tuning against prompting",
        dev=60,
        test=150,
        examples=770,
    ),
    Part(
        "clapnq_dev",
        "long answers from Wikipedia passages, half of the questions without one",
        (
            "facts_change=slow",
            "behaviour_gap=low",
            "must_cite=yes",
            "call_volume=low",
            "wrong_answer_cost=high",
        ),
        "retrieval wins, and refuses",
        dev=60,
        test=120,
    ),
    Part(
        "gsm8k_format",
        "word problems with a fixed last line",
        ("task_needs_facts=none", "behaviour_gap=high", "call_volume=low"),
        "the format is learned, the sums are not",
        dev=40,
        test=80,
        examples=500,
        tuned=("lora",),
    ),
    Part(
        "xquad_en",
        "short answers from paragraphs of Wikipedia",
        ("facts_change=static", "behaviour_gap=low", "call_volume=low"),
        "retrieval wins",
        dev=60,
        test=120,
        examples=400,
    ),
    Part(
        "clinc150_intents",
        "requests to a voice assistant to one of 150 labels",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=low",
            "output_format=labels",
        ),
        "the classifier and tuning lead; prompting does not know the names of the labels",
        dev=60,
        test=150,
        examples=1500,
    ),
    Part(
        "sgd_state_json",
        "booking dialogues to JSON: intent and wishes so far",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=high",
            "output_format=json",
        ),
        "tuning learns the names of intents and slots, which are not in the prompt",
        dev=40,
        test=80,
        examples=500,
    ),
    Part(
        "wnut17_json",
        "short posts to JSON: names of six kinds",
        (
            "task_needs_facts=none",
            "facts_change=static",
            "must_cite=no",
            "behaviour_gap=high",
            "call_volume=high",
            "wrong_answer_cost=low",
            "output_format=json",
            "absence_is_legal=yes",
        ),
        "the form is easy to describe; which words are a name is not",
        dev=40,
        test=80,
        examples=400,
    ),
)


def bring(part: Part, data: Path, out: Path) -> Brought:
    """Write the files of a set, cut to size by a fixed draw, without questions that repeat a training row."""
    source = data / part.name
    rows, questions, files = _PREPARED.get(part.name, _chats)(source, part)
    brought = Brought(files)
    out.mkdir(parents=True, exist_ok=True)
    files["questions"] = _write(out / "questions.jsonl", questions)
    if rows:
        files["examples"] = _write(out / "examples.jsonl", rows)
        brought.left_out = _apart(files["examples"], files["questions"])
    return brought


def _chats(source: Path, part: Part) -> tuple[Rows, Rows, dict[str, Path]]:
    """Sets whose rows are chats already: train to tune, test to ask, documents where there are any."""
    rows = _drawn(_read(source / "train.jsonl"), part.examples)
    documents = source / "documents.jsonl"
    files = {"documents": documents.resolve()} if documents.is_file() else {}
    held_out = source / "test.jsonl"
    asked = _read(held_out if held_out.is_file() else source / "questions.jsonl")
    return rows, _asked(_drawn(asked, None), part), files


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


_PREPARED = {"banking77": _labels, "clapnq_dev": _answered, "xquad_en": _spans}


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

"""Who wrote training rows, whether its licence allows training on them, and that weights and their card repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.data.teachers import (
    NOT_ANSWERED,
    RowTeacher,
    joined_teachers,
    recorded_teachers,
    teachers_of_rows,
)
from runners.models.adapters import read_adapter
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.train_config import TrainConfig
from runners.runs.data_notes import check_data, notes_event, teacher_lines
from runners.runs.dataset import RunData
from runners.train import fit

CONFIG = TrainConfig(epochs=1.0, rank=4, alpha=8, learning_rate=1e-2, batch_tokens=400)


def row(teacher: Any, **meta: Any) -> Example:
    """A row that a teacher wrote."""
    turns = ({"role": "user", "content": "When?"}, {"role": "assistant", "content": "At six."})
    return Example(turns, {"made": True, "teacher": teacher, **meta})


def test_teachers_are_counted_by_name_host_and_answer() -> None:
    tern = {"name": "tern-2", "host": "api.example.com"}
    rows = [
        *[row({**tern, "license": "yes"})] * 3,
        row({**tern, "license": "perhaps"}),
        row(tern),
        row({"name": "question grammar", "host": ""}),
        row({"name": "/srv/models/heron", "host": "", "license": "no"}),
        row({**tern, "license": "yes"}, made=False),
        row("Mrs Finch"),
    ]
    found = teachers_of_rows(rows)
    assert [(teacher.title, teacher.license, teacher.rows) for teacher in found] == [
        ("tern-2 (api.example.com)", "yes", 3),
        ("tern-2 (api.example.com)", NOT_ANSWERED, 2),
        ("heron", "no", 1),
    ]
    assert found[0].sentence(9, "example") == (
        "3 of 9 examples were written by tern-2 (api.example.com). "
        "Does the teacher's licence allow training on its answers? Answered by those who made the rows, not checked: yes."
    )
    assert "Not answered by those who made the rows" in found[1].sentence(9)
    assert [teacher.rows for teacher in joined_teachers(found[:1], found)] == [6, 2, 1]


def test_manifest_of_a_newer_version_or_of_no_weights_is_read(tmp_path: Path) -> None:
    assert recorded_teachers(tmp_path) == ()
    newer = {"name": "tern-2", "rows": 4, "license": "yes", "since": 2027}
    (tmp_path / "manifest.json").write_text(json.dumps({"export": {"teachers": [newer]}}), "utf-8")
    assert recorded_teachers(tmp_path) == (RowTeacher(name="tern-2", host="", license="yes", rows=4),)
    (tmp_path / "manifest.json").write_text("[]", "utf-8")
    assert recorded_teachers(tmp_path) == ()


def test_notes_of_a_run_name_the_teacher_of_its_examples() -> None:
    plan = parse_plan(
        {
            "name": "desk",
            "choice": "prompting",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"examples": "made.jsonl", "questions": "q.jsonl"},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"token_f1": 1},
        }
    )
    rows = (row({"name": "tern-2", "host": "api.example.com", "license": "unknown"}), row(None, made=False))
    (line,) = teacher_lines(notes_event(check_data(plan, RunData(examples=rows))))
    assert line.startswith("made.jsonl: 1 of 2 examples was written by tern-2 (api.example.com).")
    assert line.endswith("not checked: unknown")
    assert teacher_lines({}) == ()


@pytest.mark.parametrize("made", [0, 5])
def test_trained_weights_record_their_teachers_and_pass_them_on(
    tiny: Model, examples: Sequence[Example], tmp_path: Path, made: int
) -> None:
    """The card says it, and so do the weights that another training continues from these."""
    meta = {"made": True, "teacher": {"name": "tern-2", "host": "", "license": "no"}}
    rows = [replace(example, meta=meta if at < made else {}) for at, example in enumerate(examples[:12])]
    events: list[dict[str, Any]] = []
    fit(rows, CONFIG, tiny, tmp_path / "first", on_event=events.append)
    expected = [{"name": "tern-2", "host": "", "license": "no", "rows": made}] if made else None
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text("utf-8"))
    assert manifest["data"].get("teachers") == expected
    assert events[0].get("teachers") == expected
    card = (tmp_path / "first" / "README.md").read_text("utf-8")
    assert ("5 rows by tern-2. Does the teacher's licence allow training on its answers?" in card) == (
        made > 0
    )
    stored = read_adapter(tmp_path / "first")
    assert (stored.problem, stored.to_json()["teachers"]) == ("", expected or [])
    further = CONFIG.replace(init_adapter=tmp_path / "first")
    fit([replace(example, meta={}) for example in examples[12:20]], further, tiny, tmp_path / "second")
    assert [teacher.rows for teacher in recorded_teachers(tmp_path / "second")] == ([5] if made else [])

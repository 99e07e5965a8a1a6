"""Every export of what learnt from a teacher's rows names the teacher, and the answer on its licence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.export.export import export
from runners.export.job import ExportRequest
from runners.export.registry import TARGETS

QUESTION = "Does the teacher's licence allow training on its answers?"


@pytest.fixture(scope="module")
def taught(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Path],
    run_of: Callable[..., Any],
    embedder: Path,
) -> Path:
    """A finished run whose examples a teacher wrote: an adapter, a classifier, an index."""
    folder = tmp_path_factory.mktemp("taught")
    by = {"name": "tern-2", "host": "api.example.com", "license": "no"}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{place} {n}?"},
                {"role": "assistant", "content": place},
            ],
            "meta": {"made": True, "teacher": by},
        }
        for n in range(10)
        for place in ("pier", "lounge")
    ]
    (folder / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lora = {"kind": "train", "arm": "lora", "epochs": 1, "rank": 4, "alpha": 8, "batch_tokens": 400}
    data = {
        "examples": str(folder / "made.jsonl"),
        "documents": str(folder / "work" / "documents"),
        "questions": str(folder / "work" / "questions.jsonl"),
        "test_questions": str(folder / "work" / "test.jsonl"),
    }
    return Path(
        run_of(
            folder / "work",
            tiny_model(folder / "base"),
            embedder,
            [
                {"kind": "index", "max_chunk_tokens": 64},
                lora,
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
            ],
            choice="lora",
            data=data,
            checks=[{"kind": "labels", "value": ["pier", "lounge"]}],
        ).path
    )


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_card_manifest_and_notes_name_the_teacher(taught: Path, tmp_path: Path, target: str) -> None:
    needs = next(one.needs for one in TARGETS if one.name == target)
    arm = {"run": None, "classifier": "classifier"}.get(needs, "lora")
    result = export(taught, ExportRequest(target, arm=arm, out=tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    told = [note for note in result.notes if "tern-2 (api.example.com)" in note]
    if target == "index":  # its vectors are of an embedder that was not trained
        assert (told, QUESTION in card) == ([], False)
        return
    assert len(told) == 1
    assert QUESTION in told[0]
    assert told[0].rstrip(".").endswith("not checked: no")
    assert told[0] in card
    assert told[0] in manifest["export"]["notes"]
    if needs == "weights":
        assert manifest["export"]["teachers"][0]["rows"] == 20

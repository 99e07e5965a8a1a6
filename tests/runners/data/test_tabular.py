"""Files without usable rows: the error names the reason once, with its places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.data.examples import load_examples


def test_reason_is_shown_once_with_its_first_places(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    rows = [{"a": 1}, {"prompt": "x"}, {"a": 1}, {"a": 1}, {"a": 2}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(BadInput) as refused:
        load_examples(path)
    told = (
        "5 of 5 examples cannot be used (lines 1, 3, 4, …: no known format has the keys a; line 2: no answer)"
    )
    assert refused.value.message == f"{path}: {told}"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "e.jsonl",
            '{"prompt": "a\\ud800b", "completion": "c"}',
            "e.jsonl:1: it has half a surrogate pair",
        ),
        ("e.json", '[{"prompt": "a", "completion": "\\udfff"}]', "e.json:1: it has half a surrogate pair"),
        ("e.jsonl", "[" * 100_000, "e.jsonl:1: broken JSON: it is nested too deeply"),
        ("e.json", "[" * 100_000, "e.json: broken JSON: it is nested too deeply"),
        ("e.jsonl", '{"a": 1,}', "e.jsonl:1: broken JSON: .* at character 9"),
        ("e.json", '[{"question": "a"', "e.json:1: broken JSON: Expecting ',' delimiter"),
        ("e.json", "null", "e.json is null, expected a list"),
        ("e.jsonl", "[1]", "e.jsonl:1: a row must be an object, found a list"),
        ("e.csv", "messages\n" + "[" * 100_000 + "\n", "line 2: the list of turns is broken JSON"),
    ],
)
def test_json_without_rows_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(BadInput, match=reason):
        load_examples(tmp_path / name)

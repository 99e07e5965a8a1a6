"""Made rows are counted in files, and where there are none the command that makes some is offered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli import main
from advisor.questionnaire.data_stats import measure_files, token_counting


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_made_rows_are_counted_and_said(tmp_path: Path) -> None:
    examples = write(
        tmp_path / "e.jsonl",
        [{"prompt": f"Ask {n}?", "completion": f"Reply {n}.", "meta": {"made": n < 2}} for n in range(6)],
    )
    some = write(tmp_path / "q.jsonl", [{"question": f"Q {n}?", "made": n < 3} for n in range(5)])
    stats = measure_files(None, examples, some, token_counting(None))
    assert any("2 of 6 examples were made from documents" in line for line in stats.warnings)
    assert any(
        "3 of 5 questions were made from documents: the verdict is by the others" in x for x in stats.warnings
    )
    every = write(
        tmp_path / "all.jsonl",
        [{"question": f"Q {n}?", "answers": ["A"], "synthetic": True} for n in range(5)],
    )
    (line,) = measure_files(None, None, every, token_counting(None)).warnings
    assert "all 5 questions were made" in line
    assert "confirms nothing" in line


def test_plan_offers_to_make_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my docs").mkdir()
    (tmp_path / "my docs" / "a.md").write_text("The Plover leaves Quillscar at nine.\n", "utf-8")
    with pytest.raises(SystemExit):
        main(["plan", "--documents", "my docs", "--yes", "--out", "plan.yaml"])
    err = capsys.readouterr().err
    assert (
        "tunewise examples make --documents 'my docs' --teacher openai:NAME@URL --out made-examples.jsonl"
        in err
    )
    assert "tunewise examples make --documents 'my docs' --as questions --out made-questions.jsonl" in err

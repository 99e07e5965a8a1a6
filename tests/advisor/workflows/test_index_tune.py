"""`tunewise index tune`: the questions used, the output, and the rebuild, with a tiny embedder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.cli import main
from rag.index import Index

Capture = pytest.CaptureFixture[str]
WORDS = "[PAD] [UNK] the costs euros what does cost harbour number per day and night . > ?"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """The folder of a BERT of a few thousand parameters that splits numbers into digits."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("embedder")
    vocabulary = {word: n for n, word in enumerate([*WORDS.split(), *"0123456789"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    return little_bert(folder, tokenizer, 80)


@pytest.fixture
def harbour_index(tmp_path: Path, embedder: Path) -> Path:
    """A folder with 24 documents of 12 facts, one question about each, and an index of long chunks."""
    folder = tmp_path / "documents"
    folder.mkdir()
    rows = []
    for n in range(24):
        facts = [f"The harbour number {n}{k:02} costs {n + k} euros per day and night." for k in range(12)]
        text = f"# Harbour {n}\n\n{' '.join(facts)}\n"
        (folder / f"d{n}.md").write_text(text)
        start = text.index(facts[7])
        spans = [{"start": start, "end": start + len(facts[7])}]
        rows.append(
            {"id": f"q{n}", "question": f"What does {n}07 cost?", "doc_id": f"d{n}.md", "spans": spans}
        )
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert index_exit_code("build", tmp_path / "index", "--documents", folder, "--embedder", embedder) == 0
    return tmp_path


def index_exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["index", *map(str, arguments)])
    return int(stopped.value.code or 0)


def tune(harbour_index: Path, embedder: Path, *options: object, budget: int = 64) -> int:
    arguments = (
        harbour_index / "index",
        "--documents",
        harbour_index / "documents",
        "--embedder",
        embedder,
        "--budget",
        budget,
    )
    return index_exit_code("tune", *arguments, *options)


def test_tune_applies_better_settings(harbour_index: Path, embedder: Path, capsys: Capture) -> None:
    questions = ("--questions", harbour_index / "questions.jsonl", "--all-dev")
    assert tune(harbour_index, embedder, *questions) == 0
    output = capsys.readouterr().out
    assert "24 of 24 questions" in output
    assert "24 judged by the share of the gold spans that is shown" in output
    assert "chosen: 50 tokens" in output
    assert "with --apply" in output
    assert tune(harbour_index, embedder, *questions, "--apply", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema"], result["changed"], result["synthetic"], result["generation"]) == (
        1,
        True,
        False,
        2,
    )
    assert result["best"]["low"] > 0
    assert result["best"]["score"] > result["baseline"]["score"]
    settings = Index.open(harbour_index / "index").settings
    assert settings.max_tokens == result["chosen"]["max_tokens"] == 50
    assert settings.lexical_weight == result["chosen"]["lexical_weight"]
    assert tune(harbour_index, embedder, *questions) == 0
    assert "unchanged: " in capsys.readouterr().out
    assert Index.open(harbour_index / "index").generation == 2


def test_tune_never_uses_test_questions(harbour_index: Path, embedder: Path, capsys: Capture) -> None:
    path = harbour_index / "questions.jsonl"
    assert tune(harbour_index, embedder, "--questions", path) == 0
    assert "8 of 24 questions" in capsys.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for n, row in enumerate(rows):
        row["split"] = "test" if n % 2 else "dev"
        if n % 2:
            row["spans"] = [{"start": 0, "end": 10**6}]  # judging it would be told as left out
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tune(harbour_index, embedder, "--questions", path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["questions"], result["left_out"]) == (12, {})


def test_tune_makes_synthetic_questions(harbour_index: Path, embedder: Path, capsys: Capture) -> None:
    file = harbour_index / "made.jsonl"
    assert tune(harbour_index, embedder, "--keep-made", file) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(row["synthetic"] for row in rows)
    output = capsys.readouterr().out
    assert f"{len(rows)} synthetic questions" in output
    assert len(rows) > 20
    assert "only chunk size and overlap are tried" in output


def test_tune_names_questions_without_gold(harbour_index: Path, embedder: Path, capsys: Capture) -> None:
    path = harbour_index / "none.jsonl"
    path.write_text('{"question": "What does it cost?", "doc_id": "gone.md"}\n{"question": "Why?"}\n')
    assert tune(harbour_index, embedder, "--questions", path, "--all-dev") == 3
    errors = capsys.readouterr().err
    assert "none of 1 doc_ids is among the documents" in errors
    path.write_text('{"question": "Why?"}\n')
    assert tune(harbour_index, embedder, "--questions", path, "--all-dev") == 3
    assert "1 carry no gold that can be found" in capsys.readouterr().err
    assert (
        index_exit_code(
            "tune", harbour_index / "no", "--documents", harbour_index / "documents", "--embedder", embedder
        )
        == 3
    )
    assert "build it first" in capsys.readouterr().err

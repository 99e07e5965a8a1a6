"""`tunewise index tune`: which questions are used, what is said, and the rebuild, with a little embedder made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from advisor.cli import main
from rag.index import Index

Said = pytest.CaptureFixture[str]
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
def desk(tmp_path: Path, embedder: Path) -> Path:
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
    assert call("build", tmp_path / "index", "--documents", folder, "--embedder", embedder) == 0
    return tmp_path


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["index", *map(str, arguments)])
    return int(left.value.code or 0)


def tune(desk: Path, embedder: Path, *more: object, budget: int = 64) -> int:
    given = (desk / "index", "--documents", desk / "documents", "--embedder", embedder, "--budget", budget)
    return call("tune", *given, *more)


def test_a_better_setting_is_applied_and_said(desk: Path, embedder: Path, capsys: Said) -> None:
    questions = ("--questions", desk / "questions.jsonl", "--all-dev")
    assert tune(desk, embedder, *questions) == 0
    said = capsys.readouterr().out
    assert "24 of 24 questions" in said
    assert "24 judged by the share of the gold spans that is shown" in said
    assert "chosen: 50 tokens" in said
    assert "with --apply" in said
    assert tune(desk, embedder, *questions, "--apply", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["changed"], told["synthetic"], told["generation"]) == (1, True, False, 2)
    assert told["best"]["low"] > 0
    assert told["best"]["score"] > told["baseline"]["score"]
    settings = Index.open(desk / "index").settings
    assert settings.max_tokens == told["chosen"]["max_tokens"] == 50
    assert settings.lexical_weight == told["chosen"]["lexical_weight"]
    assert tune(desk, embedder, *questions) == 0
    assert "kept: " in capsys.readouterr().out
    assert Index.open(desk / "index").generation == 2


def test_test_questions_are_never_used(desk: Path, embedder: Path, capsys: Said) -> None:
    path = desk / "questions.jsonl"
    assert tune(desk, embedder, "--questions", path) == 0
    assert "8 of 24 questions" in capsys.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for n, row in enumerate(rows):
        row["split"] = "test" if n % 2 else "dev"
        if n % 2:
            row["spans"] = [{"start": 0, "end": 10**6}]  # judging it would be told as left out
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tune(desk, embedder, "--questions", path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["questions"], told["left_out"]) == (12, {})


def test_without_questions_some_are_made_and_said_to_be(desk: Path, embedder: Path, capsys: Said) -> None:
    made = desk / "made.jsonl"
    assert tune(desk, embedder, "--keep-made", made) == 0
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    assert all(row["synthetic"] for row in rows)
    said = capsys.readouterr().out
    assert f"{len(rows)} synthetic questions" in said
    assert len(rows) > 20
    assert "only chunk size and overlap are tried" in said


def test_what_cannot_be_judged_is_named(desk: Path, embedder: Path, capsys: Said) -> None:
    path = desk / "none.jsonl"
    path.write_text('{"question": "What does it cost?", "doc_id": "gone.md"}\n{"question": "Why?"}\n')
    assert tune(desk, embedder, "--questions", path, "--all-dev") == 3
    said = capsys.readouterr().err
    assert "1 name a gold document that is not among the documents" in said
    assert "1 carry no gold that can be found" in said
    assert call("tune", desk / "no", "--documents", desk / "documents", "--embedder", embedder) == 3
    assert "build it first" in capsys.readouterr().err

"""`tunewise index search`: options, terminal output, JSON and files of questions, with a tiny embedder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.cli import main
from advisor.workflows.index_search import hit_lines
from rag.types import Chunk, Hit

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, little_bert: Callable[..., Path]) -> Path:
    """The folder of a BERT of a few thousand parameters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("embedder")
    words = ["[PAD]", "[UNK]", "dogs", "travel", "on", "deck", "for", "3", "4", "euros", ".", "fares", "cats"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return little_bert(folder, tokenizer)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Path:
    work = tmp_path_factory.mktemp("search")
    folder = work / "documents"
    folder.mkdir()
    front = "---\ndate: {}\nvalid_until: {}\ntags: [{}]\n---\ndogs travel on deck for {} euros.\n"
    (folder / "old.md").write_text(front.format("2024-01-01", "2025-01-01", "ferry", 3))
    (folder / "new.md").write_text(front.format("2025-01-02", "2999-01-01", "ferry", 4))
    (folder / "cats.txt").write_text("cats travel.")
    with pytest.raises(SystemExit) as stopped:
        main(["index", "build", str(work / "index"), "--documents", str(folder), "--embedder", str(embedder)])
    assert not stopped.value.code
    return work / "index"


def search_exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["index", "search", *map(str, arguments)])
    return int(stopped.value.code or 0)


def test_search_prints_location_date_expiry_and_score(index: Path, embedder: Path, capsys: Capture) -> None:
    assert search_exit_code(index, "dogs on deck", "--embedder", embedder, "--expired") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert len(heads) == 3
    assert any("old.md, line 6" in head and "; 2024-01-01; EXPIRED 2025-01-01)" in head for head in heads)
    assert any("new.md, line 6" in head and "valid until 2999-01-01)" in head for head in heads)
    assert "   dogs travel on deck for 4 euros." in lines
    assert captured.err == ""


def test_search_applies_filters_and_dates(index: Path, embedder: Path, capsys: Capture) -> None:
    def hits(*arguments: str) -> tuple[list[str], list[str]]:
        assert search_exit_code(index, "dogs on deck", "--embedder", embedder, "--json", *arguments) == 0
        results = json.loads(capsys.readouterr().out)
        assert {"embed", "filter", "dense", "lexical", "fuse", "arrange", "total"} == set(
            results["timings_ms"]
        )
        return sorted(hit["doc"] for hit in results["hits"]), results.get("notes", [])

    docs, notes = hits()
    assert docs == ["cats.txt", "new.md"]
    assert len(notes) == 1
    assert "1 document that expired" in notes[0]
    assert hits("--where", "tags=ferry", "--expired")[0] == ["new.md", "old.md"]
    assert hits("--where", "tags=ferry", "--where", "date<2025")[0] == []
    assert hits("--as-of", "2024-06-01")[0] == ["cats.txt", "old.md"]
    assert hits("--k", "1", "--where", "doc=*.txt")[0] == ["cats.txt"]


def test_search_json_has_all_keys(index: Path, embedder: Path, capsys: Capture) -> None:
    options = (
        "--embedder",
        embedder,
        "--json",
        "--as-of",
        "2024-06-01",
        "--where",
        "tags=ferry",
        "--neighbours",
        1,
    )
    assert search_exit_code(index, "dogs", *options) == 0
    hit = json.loads(capsys.readouterr().out)["hits"][0]
    assert set(hit) == {
        "rank",
        "cosine",
        "doc",
        "title",
        "heading",
        "score",
        "text",
        "page",
        "line_start",
        "line_end",
        "char_start",
        "char_end",
        "dense",
        "lexical",
        "metadata",
        "expired",
    }
    assert hit["metadata"] == {"date": "2024-01-01", "valid_until": "2025-01-01", "tags": ["ferry"]}
    assert hit["expired"] is False
    assert (hit["rank"], hit["cosine"]) == (1, hit["dense"])


def test_search_shows_rank_and_cosine(index: Path, embedder: Path, capsys: Capture) -> None:
    """Not the fused score, which is near 1 for the first hit of any question."""
    for question in ("dogs", "zzz qqq xyzzy"):
        assert search_exit_code(index, question, "--embedder", embedder, "--json") == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
        assert search_exit_code(index, question, "--embedder", embedder) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("1. ")
        assert f"(cosine {hits[0]['cosine']:.2f}" in shown
        assert "1.000" not in shown


def test_search_rejects_wrong_options(index: Path, embedder: Path, capsys: Capture) -> None:
    for arguments, code, named in [
        (("dogs", "--where", "ferry"), 2, "is no condition"),
        (("dogs", "--as-of", "spring"), 2, "--as-of 'spring' is not a day"),
        ((), 2, "give a question"),
        (("",), 3, "the question is empty"),
        (("dogs", "--reranker", index), 3, "config.json"),
        (("dogs", "--collapse", "2"), 2, "collapse"),
    ]:
        assert search_exit_code(index, *arguments, "--embedder", embedder) == code, arguments
        captured = capsys.readouterr()
        assert named in captured.err
        assert captured.out == ""
    assert search_exit_code(index, "dogs", "--embedder", embedder, "--where", "tag=ferry") == 0
    captured = capsys.readouterr()
    assert captured.out == "nothing was found\n"
    assert "there is no key 'tag'; the keys are" in captured.err


def test_search_scores_questions_with_gold(
    index: Path, embedder: Path, tmp_path: Path, capsys: Capture
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "question": "dogs for 4 euros", "doc_id": "new.md", "spans": [{"start": 63, "end": 73}]},
        {"id": "b", "question": "cats", "doc_id": "cats.txt"},
        {"id": "c", "question": "fares"},
        {"id": "d", "question": "dogs", "doc_id": "none.md"},
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    arguments = ("--questions", path, "--embedder", embedder, "--k", "3", "--expired")
    assert search_exit_code(index, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a: dogs for 4 euros"
    assert [line for line in lines if not line.startswith("  ")] == [
        f"{r['id']}: {r['question']}" for r in rows
    ]
    assert sum(line.startswith("  1. ") for line in lines) == 4
    assert search_exit_code(index, *arguments, "--json") == 0
    captured = capsys.readouterr()
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["id"] for row in results] == ["a", "b", "c", "d"]
    assert all(row["schema"] == 1 and len(row["hits"]) == 3 for row in results)
    ranks = [
        [hit["doc"] for hit in row["hits"]].index(gold)
        for row, gold in zip(results[:2], ("new.md", "cats.txt"), strict=True)
    ]
    mrr = sum(1 / (rank + 1) for rank in ranks) / 3
    missing, first, second = captured.err.splitlines()
    assert "1 of 3 doc_ids are not among the documents" in missing
    assert first.startswith("3 of 4 questions with a gold document: hit@1 ")
    assert f"hit@3 0.667, recall@3 0.667, MRR {mrr:.3f}" in first
    assert second == "1 with gold spans: span recall 1.000, all of the evidence in 1.000"


def test_search_matches_or_refuses_gold_documents_named_otherwise(
    index: Path, embedder: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A prefix that no document has is left out and said; names of which none is a document are refused."""
    path = tmp_path / "questions.jsonl"
    arguments = ("--questions", path, "--embedder", embedder, "--expired")
    path.write_text(
        '{"question": "cats", "doc_id": "files/cats"}\n{"question": "cat", "doc_id": "cats.txt"}\n'
    )
    assert search_exit_code(index, *arguments) == 0
    matched, scores = capsys.readouterr().err.splitlines()
    assert "1 of 2 doc_ids are written differently in the documents" in matched
    assert "files/cats is cats.txt" in matched
    assert "2 of 2 questions with a gold document" in scores
    assert "hit@5 1.000" in scores
    path.write_text('{"question": "cats", "doc_id": "12"}\n{"question": "cat", "doc_id": "13"}\n')
    assert search_exit_code(index, *arguments) == 3
    assert "none of 2 doc_ids is among the documents" in capsys.readouterr().err


def test_hit_lines_escape_terminal_controls() -> None:
    evil = "\x1b[31m\u202egreen\x07"
    chunk = Chunk(1, f"a{evil}.md", evil, 0, f"text {evil} " * 60, 0, 10, heading=evil)
    twin = Chunk(2, f"b{evil}.md", "", 0, "x", 0, 1, page=7)
    hit = Hit(chunk, 1.0, 1.0, 0.0, rerank=2.5, metadata={"date": evil}, same=(twin,))
    lines = hit_lines(1, hit, 80)
    assert lines[0].startswith("1. a\\x1b[31m\\u202egreen\\x07.md, line 1  (cosine 1.00, reranker 2.50; ")
    assert lines[-1] == "   the same in b\\x1b[31m\\u202egreen\\x07.md, page 7"
    assert not any(char in "\x1b\u202e\x07\n" for line in lines for char in line)
    assert len(lines) == 7
    assert all(len(line) <= 80 for line in lines[1:-1])

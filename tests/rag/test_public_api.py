"""The public names of ``rag`` and the example of its docstring."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rag
from rag.errors import BadInput
from rag.types import Chunk
from tests.rag.conftest import TinyEncoder


def test_public_names_are_importable_and_documented() -> None:
    assert len(rag.__all__) >= 10
    for name in rag.__all__:
        assert getattr(rag, name).__doc__


@pytest.mark.real
def test_docstring_example_runs(tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("documents").mkdir()
    front = "---\ndate: 2026-05-01\ntags: [ferry]\n---\n"
    Path("documents/fares.md").write_text(f"{front}# Fares\n\n## Dogs\nDogs travel on deck for 3 euros.\n")
    Path("documents/vets.md").write_text("# Vets\n\nA dog costs 30 euros at the vet.\n")
    test = doctest.DocTestParser().get_doctest(
        rag.__doc__ or "", {"EMBEDDER_FOLDER": minilm_folder}, "rag", rag.__file__, 0
    )
    assert len(test.examples) == 10
    output: list[str] = []
    result = doctest.DocTestRunner().run(test, out=output.append)
    assert (result.failed, result.attempted) == (0, 10), "".join(output)


def test_cite_returns_citations_with_offsets_in_the_text(make_chunk: Callable[..., Chunk]) -> None:
    chunk = make_chunk(
        "Dogs travel on deck for 3 euros.", "fares.md", "Fares", start=40, end=72, line_start=8
    )
    hits = [rag.Hit(chunk, 1.0, 1.0, 1.0)]
    text = "  Good day! [2] Your dog travels on deck for 3 euros [1]. Cats pay 5 euros. Anything else?"
    dogs, cats = rag.cite(text, hits)  # a greeting states nothing, so it needs no source
    assert (dogs.n, dogs.doc, dogs.line_start, dogs.quote) == (1, "fares.md", 8, chunk.text)
    assert (dogs.char_start, dogs.char_end, dogs.supported) == (40, 72, True)
    assert (cats.n, cats.supported) == (0, False)
    sentences = [text[citation.answer_start : citation.answer_end] for citation in (dogs, cats)]
    assert sentences == ["Your dog travels on deck for 3 euros [1].", "Cats pay 5 euros."]
    assert rag.cite("", hits) == rag.cite("Anything else?", hits) == []


def test_evaluate_measures_ranks_and_shown_gold(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    rag.Index.build(tmp_path / "index", corpus, tiny)
    index = rag.Index.open(tmp_path / "index", tiny)
    raw = index.raw("fares.md") or ""
    start = raw.index("Dogs travel")
    questions: list[dict[str, Any]] = [
        {
            "question": "Do dogs travel on deck?",
            "doc_id": "fares.md",
            "spans": [{"start": start, "end": start + 11}],
        },
        {"question": "When is the office open?", "doc_id": "hours", "answers": ["7 am"]},
        {"question": "When does the Moss Line depart?", "answers": ["08:15"]},
        {"question": "Is there a bar?", "answerable": False},
    ]
    scores = rag.evaluate(index, questions, k=4)
    assert (scores.k, scores.questions, sum(scores.left_out.values())) == (4, 3, 1)
    assert scores.hit.mean == scores.mrr.mean == scores.ndcg.mean == scores.gold_shown.mean == 1
    wrong = rag.evaluate(index, [{"question": "Do dogs travel on deck?", "doc_id": "hours.html"}], k=1)
    assert (wrong.questions, wrong.hit.mean, wrong.gold_shown.mean) == (1, 0, 0)
    nothing = rag.evaluate(index, [])
    assert nothing.questions == 0
    assert nothing.to_json()["left_out"] == {}
    with pytest.raises(BadInput, match="not a question with gold"):
        rag.evaluate(index, [{"doc_id": "fares.md"}])
    with pytest.raises(BadInput, match="without an embedder"):
        rag.evaluate(rag.Index.open(tmp_path / "index"), questions)

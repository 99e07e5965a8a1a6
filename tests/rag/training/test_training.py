"""Training of an embedder and a reranker: pairs and negatives, determinism, going on after a kill, LoRA, the gate."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.embedding.embedder import Embedder
from rag.embedding.reranker import Reranker
from rag.errors import BadInput, CannotRun
from rag.evaluation.labelled import LabelledQuestions, label_questions
from rag.evaluation.retrieval import gold_source_documents
from rag.index import Index
from rag.training.comparison import (
    RetrieverComparison,
    compare_retrievers,
    decide,
    nothing_to_gain,
    token_budget,
)
from rag.training.embedder import train_embedder
from rag.training.pairs import TrainingPair, mine_negatives, text_rows
from rag.training.reranker import train_reranker
from rag.training.settings import LORA_FROM_PARAMETERS, TextRow, TuningSettings
from rag.types import Hit
from tests.support import synonyms

FAST = TuningSettings(epochs=8, batch_size=16, learning_rate=1e-2, hard_negatives=1)


@dataclass(frozen=True)
class Question:
    question: str
    doc_id: str
    answers: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    answerable: bool = True


@dataclass(frozen=True)
class Planted:
    """The planted case with its plain index and pairs."""

    folder: Path
    embedder: Embedder
    index: Index
    pairs: tuple[TrainingPair, ...]
    labelled: LabelledQuestions


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    synonyms.write_files(folder)
    embedder = Embedder(synonyms.embedder(folder / "embedder"), device="cpu")
    Index.build(folder / "index", folder / "documents.jsonl", embedder)
    index = Index.open(folder / "index", embedder)
    by_doc = {chunk.doc: chunk for chunk in index.chunks}
    pairs = tuple(
        TrainingPair(
            row["messages"][0]["content"], (by_doc[row["meta"]["doc_id"]],), row["messages"][1]["content"]
        )
        for row in synonyms.example_rows()
    )
    questions = [Question(q["question"], q["doc_id"], tuple(q["answers"])) for q in synonyms.question_rows()]
    return Planted(
        folder, embedder, index, pairs, label_questions(questions, gold_source_documents(index, questions))
    )


@pytest.fixture(scope="module")
def rows(planted: Planted) -> tuple[TextRow, ...]:
    return text_rows(planted.index, mine_negatives(planted.index, planted.pairs, 1).pairs, 1)


@pytest.fixture(scope="module")
def trained(planted: Planted, rows: Sequence[TextRow]) -> Path:
    train_embedder(
        planted.embedder, rows, FAST, planted.folder / "tuned", planted.folder / "work", device="cpu"
    )
    return planted.folder / "tuned"


def compared(planted: Planted, folder: Path, name: str) -> RetrieverComparison:
    """Build the index of an embedder and compare its search with the plain one."""
    embedder = Embedder(folder, device="cpu")
    place = planted.folder / f"index-{name}"
    Index.build(place, planted.folder / "documents.jsonl", embedder)
    index, count = Index.open(place, embedder), planted.embedder.count_tokens

    def before(questions: Sequence[str]) -> list[list[Hit]]:
        return planted.index.search_many(questions, 50)

    asked = [question.question for question in planted.labelled.questions]
    budget = token_budget(before, asked, 3, 1024, count)
    return compare_retrievers(before, lambda q: index.search_many(q, 50), planted.labelled, budget, count)


def test_gate_accepts_a_planted_improvement_on_unseen_documents(planted: Planted, trained: Path) -> None:
    comparison = compared(planted, trained, "tuned")
    decision = decide(comparison)
    assert decision.accepted, decision.reason
    assert "clearly better on 24 dev questions" in decision.reason
    assert not any(trained.glob("**/*.bin")), "weights are saved as safetensors"
    assert not (trained / "README.md").exists(), "a card would hold rows of the user's"
    assert not (planted.folder / "work").exists()
    assert Embedder(trained).fingerprint != planted.embedder.fingerprint


def test_gate_refuses_the_same_embedder_and_a_worse_one(planted: Planted, trained: Path) -> None:
    same = decide(compared(planted, planted.embedder.folder, "same"))
    assert not same.accepted
    assert "not clearly better" in same.reason
    comparison = compared(planted, trained, "tuned")
    evidence, ndcg = comparison.measures
    turned = replace(evidence, difference=replace(evidence.difference, difference=-0.1, low=-0.2, high=0.0))
    mixed = decide(replace(comparison, measures=(turned, ndcg)))
    assert not mixed.accepted
    assert "worse in the other" in mixed.reason
    few = decide(replace(comparison, questions=9))
    assert (few.accepted, "under 10 decide nothing" in few.reason) == (False, True)


def test_nothing_is_to_be_gained_where_the_search_finds_all(planted: Planted, trained: Path) -> None:
    count = planted.embedder.count_tokens
    index = Index.open(planted.folder / "index-tuned", Embedder(trained, device="cpu"))
    assert nothing_to_gain(lambda q: planted.index.search_many(q, 50), planted.labelled, 60, count) == ""
    reason = nothing_to_gain(lambda q: index.search_many(q, 50), planted.labelled, 60, count)
    assert "no other search could be clearly better" in reason
    few = LabelledQuestions(planted.labelled.questions[:4], {})
    assert "4 dev questions have gold" in nothing_to_gain(lambda q: index.search_many(q, 50), few, 60, count)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


class Killed(Exception):
    """Raised in the middle of a training."""


def test_same_seed_same_weights_and_a_killed_training_goes_on_to_them(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    settings = replace(FAST, epochs=2)
    out, work = tmp_path / "out", tmp_path / "work"
    first = train_embedder(planted.embedder, rows, settings, out, work, device="cpu")
    assert (first.steps, first.resumed_at, first.trained_parameters) == (10, 0, first.parameters)
    whole = weights(out)
    often = replace(settings, checkpoint_seconds=0.0)
    events: list[dict[str, Any]] = []

    def kill(event: dict[str, Any]) -> None:
        events.append(event)
        if event["done"] == 7:
            raise Killed

    other = tmp_path / "other"
    with pytest.raises(Killed):
        train_embedder(planted.embedder, rows, often, other, work, kill, device="cpu")
    assert not other.exists()
    assert work.is_dir()
    resumed = train_embedder(planted.embedder, rows, settings, other, work, device="cpu")
    assert resumed.resumed_at == 6
    assert weights(other) == whole
    assert [event["done"] for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert {event["total"] for event in events} == {10}
    another = train_embedder(
        planted.embedder, rows, replace(settings, seed=1), tmp_path / "s1", work, device="cpu"
    )
    assert another.steps == 10
    assert weights(tmp_path / "s1") != whole


def test_lora_is_merged_into_a_plain_folder(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    settings = replace(FAST, method="lora", epochs=1)
    result = train_embedder(
        planted.embedder, rows, settings, tmp_path / "out", tmp_path / "work", device="cpu"
    )
    assert result.method == "lora"
    assert result.trained_parameters < result.parameters
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not any("adapter" in name for name in names)
    before, after = (
        e.encode(["grain"]) for e in (planted.embedder, Embedder(tmp_path / "out", device="cpu"))
    )
    assert before.shape == after.shape
    assert np.abs(before - after).max() > 1e-4
    assert TuningSettings().method_for(LORA_FROM_PARAMETERS - 1) == "full"
    assert TuningSettings().method_for(LORA_FROM_PARAMETERS) == "lora"


def test_cached_gradients_train_as_the_whole_batch_does(planted: Planted, rows: Sequence[TextRow]) -> None:
    out, work = planted.folder / "cached", planted.folder / "work"
    settings = replace(FAST, cached_from_parameters=0)
    result = train_embedder(planted.embedder, rows, settings, out, work, device="cpu")
    assert result.loss_last is not None
    assert result.loss_last < 0.5
    assert decide(compared(planted, out, "cached")).accepted


def test_original_weights_alone_give_the_original_vectors(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    settings = replace(FAST, original_share=1.0, epochs=1)
    train_embedder(planted.embedder, rows, settings, tmp_path / "out", tmp_path / "work", device="cpu")
    same = Embedder(tmp_path / "out", device="cpu").encode(["grain at birch"])
    assert np.allclose(same, planted.embedder.encode(["grain at birch"]), atol=1e-6)


def test_prompts_and_kept_dimensions_stay_with_the_tuned_embedder(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    prompted = Embedder(planted.embedder.folder, device="cpu", query_prompt="when ", document_prompt="the ")
    one = replace(FAST, epochs=1)
    train_embedder(prompted, rows, one, tmp_path / "prompted", tmp_path / "work", device="cpu")
    train_embedder(planted.embedder, rows, one, tmp_path / "plain", tmp_path / "work", device="cpu")
    tuned = Embedder(tmp_path / "prompted", device="cpu")
    assert (tuned.prompts.query, tuned.prompts.document) == ("when ", "the ")
    assert weights(tmp_path / "prompted") != weights(tmp_path / "plain")


def test_another_family_is_trained_too(planted: Planted, rows: Sequence[TextRow], tmp_path: Path) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    folder = tmp_path / "distilbert"
    folder.mkdir()
    synonyms.tokenizer().save(str(folder / "tokenizer.json"))
    config = DistilBertConfig(vocab_size=len(synonyms.words()), dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    torch.manual_seed(0)
    DistilBertModel(config).save_pretrained(folder)
    embedder = Embedder(folder, device="cpu")
    one = replace(FAST, epochs=1)
    result = train_embedder(embedder, rows, one, tmp_path / "out", tmp_path / "work", device="cpu")
    assert result.steps == 5
    assert Embedder(tmp_path / "out", device="cpu").path == "library"


def test_reranker_of_the_embedders_weights_learns_and_opens(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    result = train_reranker(
        planted.embedder.folder,
        rows,
        replace(FAST, epochs=1),
        tmp_path / "out",
        tmp_path / "work",
        device="cpu",
        new_head=True,
    )
    assert result.pairs == 80
    scores = Reranker(tmp_path / "out", device="cpu").scores(
        rows[0].question, [rows[0].passage, rows[0].negatives[0]]
    )
    assert scores.shape == (2,)
    again = train_reranker(
        tmp_path / "out", rows, replace(FAST, epochs=0.5), tmp_path / "again", tmp_path / "work", device="cpu"
    )
    assert again.resumed_at == 0
    with pytest.raises(BadInput, match="passages that do not"):
        train_reranker(
            tmp_path / "out", [replace(row, negatives=()) for row in rows], FAST, tmp_path / "x", tmp_path
        )


def test_false_negatives_are_thrown_out_by_reason(make_tiny: Any, tmp_path: Path) -> None:
    texts = {
        "gold": "The ferry to Mull leaves Oban at 9.40 each day.",
        "same": "The ferry to Mull leaves Oban at 9.40 each day.",
        "answer": "Oban: 9.40 is when the Mull ferry leaves the pier.",
        "other": "The ferry to Coll leaves Oban at 7.15 each day.",
        "far": "Dogs travel free on the car deck.",
    }
    documents = tmp_path / "documents"
    documents.mkdir()
    for name, text in texts.items():
        (documents / f"{name}.md").write_text(f"# Timetable\n\n{text}\n", "utf-8")
    encoder = make_tiny()
    Index.build(tmp_path / "index", documents, encoder)
    index = Index.open(tmp_path / "index", encoder)
    gold = next(chunk for chunk in index.chunks if chunk.doc == "gold.md")
    asked = TrainingPair("When does the ferry to Mull leave Oban?", (gold,), "9.40")
    mined = mine_negatives(index, [asked], 3)
    assert mined.dropped["gold"] == 1
    assert mined.dropped["answer"] == 2
    assert {chunk.doc for chunk in mined.pairs[0].negatives} <= {"other.md", "far.md"}
    sentence = replace(asked, reply="The ferry to Mull leaves Oban at 9.40 each day.")
    assert mine_negatives(index, [sentence], 3).dropped["supports"] >= 1
    named = replace(asked, documents=frozenset(path.name for path in documents.iterdir()))
    all_named = mine_negatives(index, [named], 1)
    assert (all_named.pairs[0].negatives, all_named.short) == ((), 1)
    assert mine_negatives(index, [asked], 0).pairs[0].negatives == ()


def test_missing_extra_is_one_line_with_the_command(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CannotRun) as refused:
        train_embedder(planted.embedder, rows, FAST, tmp_path / "out", tmp_path / "work")
    assert 'pip install "tunewise[retriever]"' in str(refused.value)
    assert refused.value.exit_code == 4
    assert "\n" not in str(refused.value)


def test_bad_settings_and_one_passage_are_refused(
    planted: Planted, rows: Sequence[TextRow], tmp_path: Path
) -> None:
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"hard_negatives": 17}, {"method": "qlora"}):
        with pytest.raises(BadInput, match=str(next(iter(wrong)))):
            TuningSettings(**wrong)
    with pytest.raises(BadInput, match="different passages"):
        train_embedder(planted.embedder, [rows[0]] * 4, FAST, tmp_path / "out", tmp_path / "work")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"a connection was attempted: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_training_asks_no_network_and_writes_no_cache(
    planted: Planted,
    rows: Sequence[TextRow],
    tmp_path: Path,
    no_network: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        monkeypatch.setenv(
            name, value
        )  # as in one of two processes of a launcher: the other one is not waited for
    one = replace(FAST, epochs=1)
    train_embedder(planted.embedder, rows, one, tmp_path / "out", tmp_path / "work", device="cpu")
    assert not list(home.rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]
    assert os.environ["WORLD_SIZE"] == "2"

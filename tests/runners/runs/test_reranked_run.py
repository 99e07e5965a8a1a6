"""A run whose index step names a reranker, prompts and dimensions: search, rerank, cut, recorded and asked again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.errors import BadInput
from rag.index import Index
from runners.arms.raft import retrieval_rows
from runners.data.examples import Example
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.plan.steps import IndexStep
from runners.run_folder import INDEX, read_journal
from runners.runs.opened import OpenRun
from runners.trial.execute import run_plan


def words_of(folder: Path) -> Tokenizer:
    words = {word for path in folder.iterdir() for word in path.read_text("utf-8").replace(".", " ").split()}
    names = ["?", "[PAD]", "query", "passage", ":", "How", "many", *sorted(words)]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(names)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def cross_encoder(folder: Path, tokenizer: Tokenizer) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_new_keys_are_left_out_of_a_plan_at_their_defaults() -> None:
    assert set(IndexStep().model_dump()) == {
        *("kind", "k", "max_chunk_tokens", "overlap", "fusion", "lexical_weight", "context_tokens")
    }
    step = IndexStep(reranker={"name": "./ce"}, query_prompt="")
    assert IndexStep(**step.model_dump()) == step
    assert set(step.model_dump()) - set(IndexStep().model_dump()) == {"reranker", "query_prompt"}


def test_arm_searches_reranks_and_cuts(
    tiny: Model,
    piers: Path,
    pier_examples: tuple[Example, ...],
    little_bert: Callable[..., Path],
    tmp_path: Path,
) -> None:
    tokenizer = words_of(piers)
    (tmp_path / "embedder").mkdir()
    embedder = little_bert(tmp_path / "embedder", tokenizer)
    reranker = cross_encoder(tmp_path / "reranker", tokenizer)
    questions: list[dict[str, Any]] = [
        {"question": f"How many berths has the Heron Pier on day {n} ?", "answers": ["27"]} for n in range(6)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), "utf-8")
    index_step = {
        "kind": "index",
        "k": 2,
        "truncate_dim": 8,
        "query_prompt": "query : ",
        "document_prompt": "passage : ",
        "reranker": {"name": str(reranker)},
        "rerank": 6,
    }
    plan = parse_plan(
        {
            "name": "reranked",
            "choice": "rag",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(embedder)},
            "max_new_tokens": 4,
            "data": {"documents": str(piers), "questions": str(tmp_path / "questions.jsonl")},
            "steps": [
                index_step,
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "rag", "retrieval": True},
            ],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 0},
        }
    )
    events: list[dict[str, Any]] = []
    path = run_plan(plan, tmp_path / "run", on_event=events.append).path
    recorded = next(event["models"] for event in events if event["event"] == "run.start")
    assert len(recorded[str(reranker)]) == 64
    context = OpenRun.open(path).obtain()
    assert context.models.embedder.dimension == context.retrieval.index.dimension == 8
    assert context.retrieval.index.encoding["query_prompt"] == "query : "
    question = questions[0]["question"]
    [retrieved] = context.retrieval.retriever.find([question])
    scores = [hit.rerank for hit in retrieved.hits if hit.rerank is not None]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    candidates = context.retrieval.index.search(question, k=6)
    assert context.models.reranker is not None
    texts = [f"{hit.chunk.title}.\n{hit.chunk.text}" for hit in candidates]
    wanted = context.models.reranker.scores(question, texts)
    best = sorted(range(6), key=lambda n: -wanted[n])[:2]
    assert [hit.chunk.id for hit in retrieved.hits] == [candidates[n].chunk.id for n in best]
    # A training row shows the passages that the tuned model will be shown.
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": "Xyzzy plugh."})
    [row] = retrieval_rows(plan.prompts, [Example(turns, {}, 1)], context.retrieval.retriever, 0.0, 0).rows
    shown = [
        chunk.id for chunk in context.retrieval.index.chunks if chunk.text in row.messages[-2]["content"]
    ]
    assert sorted(shown) == sorted(hit.chunk.id for hit in retrieved.hits)
    assert best != [0, 1], "the reranker must change the order for the test to mean something"
    assert read_journal(path / "journal.jsonl") or (path / INDEX).is_dir()

    cross_encoder(reranker, tokenizer)
    weights = (reranker / "model.safetensors").read_bytes()
    (reranker / "model.safetensors").write_bytes(weights[:-4] + bytes(4))
    with pytest.raises(BadInput, match="is not the one recorded"):
        _ = OpenRun.open(path).obtain()


def test_index_of_a_run_opens_with_the_plain_embedder_only_with_its_settings(
    little_bert: Callable[..., Path], piers: Path, tmp_path: Path
) -> None:
    from rag.embedding.embedder import Embedder
    from rag.settings import IndexSettings

    (tmp_path / "embedder").mkdir()
    folder = little_bert(tmp_path / "embedder", words_of(piers))
    Index.build(tmp_path / "index", piers, Embedder(folder), IndexSettings(query_prompt="query : "))
    opened = Index.open(tmp_path / "index", Embedder(folder))
    assert opened.encoder.fingerprint != Embedder(folder).fingerprint
    assert opened.encoder.fingerprint == Embedder(folder, query_prompt="query : ").fingerprint

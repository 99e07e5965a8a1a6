"""The adapter of questions: what it changes, against the plain library, and where it is not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from rag.embedding.embedder import Embedder
from rag.embedding.low_rank import QUESTION_ADAPTER, base_digest
from rag.index import Index
from rag.settings import IndexSettings

QUESTIONS = ["My lad is nine, may he go in on his own?", "What does a dog cost?"]


@pytest.fixture(scope="module")
def adapted(minilm: Embedder) -> Embedder:
    return minilm.configured(question_adapter=True)


def test_weights_are_small_and_name_their_base(minilm_folder: Path) -> None:
    assert QUESTION_ADAPTER.stat().st_size <= 700_000
    with safe_open(str(QUESTION_ADAPTER), "np") as tensors:
        assert tensors.metadata()["base"] == base_digest(minilm_folder)


def test_question_vectors_equal_those_of_the_library(adapted: Embedder, minilm_folder: Path) -> None:
    """Against transformers' own model with the changes added, one question at a time."""
    bert = AutoModel.from_pretrained(minilm_folder, dtype=torch.float32, add_pooling_layer=False).eval()
    tensors = load_file(QUESTION_ADAPTER)
    state = bert.state_dict()
    for name in {key.rpartition(".")[0] for key in tensors}:
        state[f"{name}.weight"] += 2.0 * tensors[f"{name}.lora_B"].float() @ tensors[f"{name}.lora_A"].float()
    bert.load_state_dict(state)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    for question, vector in zip(QUESTIONS, adapted.encode(QUESTIONS, query=True), strict=True):
        with torch.inference_mode():
            hidden = bert(**tokenizer(question, return_tensors="pt")).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        assert np.abs(vector - expected).max() < 1e-4


def test_passages_are_embedded_without_it(adapted: Embedder, minilm: Embedder) -> None:
    assert np.array_equal(adapted.encode(QUESTIONS), minilm.encode(QUESTIONS))
    assert not np.array_equal(adapted.encode(QUESTIONS, query=True), minilm.encode(QUESTIONS, query=True))
    assert adapted.fingerprint == minilm.fingerprint


def test_it_is_used_for_whole_vectors_of_plain_questions_only(minilm: Embedder) -> None:
    assert not minilm.adapts_questions
    assert minilm.configured(question_adapter=True).adapts_questions
    for other in (
        minilm.configured(64, question_adapter=True),
        minilm.configured(query_prompt="question: ", question_adapter=True),
        minilm.configured(question_adapter=True).configured(question_adapter=False),
    ):
        assert not other.adapts_questions
        assert np.array_equal(
            other.encode(QUESTIONS, query=True),
            other.configured(question_adapter=False).encode(QUESTIONS, query=True),
        )


def test_indexes_of_before_do_without(minilm: Embedder, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "dogs.md").write_text("# Dogs\n\nDogs travel for 3 euros.\n", "utf-8")
    for name, settings in (("now", IndexSettings()), ("before", IndexSettings.from_json({}))):
        Index.build(tmp_path / name, tmp_path / "documents", minilm, settings)
    now, before = (Index.open(tmp_path / name, minilm).encoder for name in ("now", "before"))
    assert isinstance(now, Embedder)
    assert now.adapts_questions
    assert isinstance(before, Embedder)
    assert not before.adapts_questions

"""The answerability model: its size, its base, its scores against the plain library, and what it can tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from rag.embedding.answerability import WEIGHTS_FILE, AnswerabilityModel
from rag.embedding.low_rank import base_digest, why_not_base
from rag.errors import BadInput

QUESTION = "What does it cost to bring a dog along?"
TEXTS = (
    "Fares > Animals. Dogs travel for 3 euros on every ferry; guide dogs are free.",
    "Fares > Animals. Dogs stay on the upper deck and on a lead.",
    "Timetable. The first ferry leaves at 7.10 on weekdays.",
)


@pytest.fixture(scope="module")
def model(minilm_folder: Path) -> AnswerabilityModel:
    return AnswerabilityModel(minilm_folder, "float32", "cpu")


def test_weights_are_small_and_name_their_base(minilm_folder: Path) -> None:
    assert WEIGHTS_FILE.stat().st_size <= 2_000_000
    assert why_not_base(minilm_folder, WEIGHTS_FILE) == ""
    with safe_open(str(WEIGHTS_FILE), "np") as tensors:
        assert tensors.metadata()["base"] == base_digest(minilm_folder)
        assert "houses" in tensors.metadata()["trained_on"]


def test_passage_that_answers_scores_highest(model: AnswerabilityModel) -> None:
    scores = model.scores(QUESTION, TEXTS)
    assert scores.dtype == np.float32
    assert int(scores.argmax()) == 0
    assert scores[0] > 0 > scores[2]
    assert model.scores(QUESTION, TEXTS).tolist() == scores.tolist()
    assert model.scores(QUESTION, []).shape == (0,)


def test_scores_equal_those_of_the_library(model: AnswerabilityModel, minilm_folder: Path) -> None:
    """Against transformers' own tokenizer and model with the changes added, one text at a time, without padding."""
    bert = AutoModel.from_pretrained(minilm_folder, dtype=torch.float32, add_pooling_layer=False).eval()
    tensors = load_file(WEIGHTS_FILE)
    state = bert.state_dict()
    for name in {key.rpartition(".")[0] for key in tensors if ".lora_" in key}:
        change = tensors[f"{name}.lora_B"].float() @ tensors[f"{name}.lora_A"].float()
        state[f"{name}.weight"] += 2.0 * change
    bert.load_state_dict(state)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    for text, score in zip(TEXTS, model.scores(QUESTION, TEXTS).tolist(), strict=True):
        inputs = tokenizer(QUESTION, text, return_tensors="pt")
        hidden = bert(**inputs).last_hidden_state[0]
        types = inputs["token_type_ids"][0].bool()
        question = hidden[~types][1:]
        pooled = torch.cat([hidden[0], question.mean(0), hidden[types].mean(0)])
        expected = pooled @ tensors["pair.weight"][0].float() + tensors["pair.bias"][0].float()
        assert score == pytest.approx(expected.item(), abs=1e-3)


def test_long_texts_are_cut_and_counted(minilm_folder: Path) -> None:
    model = AnswerabilityModel(minilm_folder, "float32", "cpu")
    model.scores(QUESTION, ["A ferry leaves. " * 200, "short"])
    assert model.truncated == 1


@pytest.mark.parametrize("changed", ["LayerNorm.weight", "query.weight"], ids=["all weights", "a LoRA"])
def test_other_models_are_refused(tmp_path: Path, minilm_folder: Path, changed: str) -> None:
    weights = load_file(minilm_folder / "model.safetensors")
    key = next(name for name in weights if name.endswith(changed))
    weights[key] = weights[key] + 0.01
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    assert "is another model" in why_not_base(tmp_path, WEIGHTS_FILE)
    with pytest.raises(BadInput, match="another model than it was made of"):
        AnswerabilityModel(tmp_path)
    assert "no model.safetensors" in why_not_base(tmp_path / "nothing", WEIGHTS_FILE)

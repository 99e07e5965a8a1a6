"""Packed encoding: the hidden states of texts of many lengths in one pass are those of each text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoModel, BertConfig, BertForMaskedLM, XLMRobertaConfig, XLMRobertaModel

from rag.embedding.embedder import Embedder
from rag.embedding.packed import (
    Bert,
    encode_packed,
    equal_length_runs,
    length_batches,
    make_deterministic,
)
from rag.errors import BadInput

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
ROWS = [[5, 6], [7, 8], [9, 10, 11], [12, 13, 14, 15, 16, 17], [18] * 6, [19] * 30]


def test_equal_length_runs_groups_adjacent_rows() -> None:
    assert equal_length_runs(ROWS) == [(2, 2), (1, 3), (2, 6), (1, 30)]


@pytest.fixture(params=["bert", "xlm-roberta"])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Bert]:
    """Random weights as transformers computes them, a BERT stored with a head and another activation, and ours."""
    torch.manual_seed(0)
    whole: Any
    if request.param == "bert":
        whole = BertForMaskedLM(BertConfig(**SIZES, hidden_act="gelu_new"))
    else:
        whole = XLMRobertaModel(XLMRobertaConfig(**SIZES, pad_token_id=1))
    whole.save_pretrained(tmp_path)
    return whole.base_model.eval(), Bert.load(tmp_path, torch.float32)


@torch.inference_mode()
def test_packed_texts_attend_to_themselves_only(models: tuple[Any, Bert]) -> None:
    library, ours = models
    alone = [library(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ROWS]
    assert ours.first_position == (0 if library.config.model_type == "bert" else 2)
    together = encode_packed(ours, ROWS)
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=0.1), (
        "the texts must differ for the comparison to mean something"
    )


@torch.inference_mode()
def test_padded_rows_have_the_bits_of_transformers(models: tuple[Any, Bert]) -> None:
    library, ours = models
    mask = torch.zeros((len(ROWS), 30), dtype=torch.long)
    ids = torch.full_like(mask, library.config.pad_token_id)
    for n, row in enumerate(ROWS):
        ids[n, : len(row)] = torch.tensor(row)
        mask[n, : len(row)] = 1
    types = ids % 2 * mask
    for rows in (slice(0, 6), slice(5, 6)):  # with padding and without, which is another kernel
        part = ids[rows], mask[rows], types[rows]
        expected = library(
            input_ids=part[0], attention_mask=part[1], token_type_ids=part[2]
        ).last_hidden_state
        assert torch.equal(ours.encode_padded(*part)[part[1] > 0], expected[part[1] > 0])


def test_weights_that_do_not_fit_are_refused(models: tuple[Any, Bert], tmp_path: Path) -> None:
    weights = load_file(tmp_path / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("layer.1.output.dense.weight"))]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"lack .*layer.1.output.dense.weight"):
        Bert.load(tmp_path, torch.float32)


def test_batches_are_filled_with_mixed_lengths_or_hold_one() -> None:
    rows = [[0] * n for n in (1, 1, 2, 3, 3)]
    order = list(range(5))
    lengths = list(map(len, rows))
    assert list(length_batches(order, lengths, mixed=False)) == [[0, 1], [2], [3, 4]]
    assert list(length_batches(order, lengths, mixed=True)) == [order]


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_packed_vectors_have_the_bits_of_transformers(minilm_folder: Path, dtype: str) -> None:
    """Against batches of one length, computed by transformers' model and its own attention."""
    texts = [f"{'fare ' * n}{word}" for n in range(0, 200, 7) for word in ("dog", "boat", "sea")]
    embedder = Embedder(minilm_folder, dtype)
    together = embedder.encode(texts)
    library = AutoModel.from_pretrained(minilm_folder, dtype=getattr(torch, dtype)).eval()
    make_deterministic(library)
    rows = [encoding.ids for encoding in embedder.tokenizer.encode_batch_fast(texts)]
    for length in sorted(set(map(len, rows))):
        chosen = [n for n, row in enumerate(rows) if len(row) == length]
        hidden = library(input_ids=torch.tensor([rows[n] for n in chosen])).last_hidden_state
        assert np.array_equal(together[chosen], normalize(hidden.float().mean(dim=1), dim=1).numpy()), length

"""Packed encoding: the hidden states of texts of many lengths in one pass are those of each text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from rag.embedding.embedder import Embedder
from rag.embedding.folder import EmbedderFolder
from rag.embedding.packed import (
    PackedEncoder,
    encode_packed,
    equal_length_runs,
    length_batches,
    prepare_packed_encoding,
)

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


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_packed_texts_attend_to_themselves_only(kind: str) -> None:
    torch.manual_seed(0)
    model = (
        BertModel(BertConfig(**SIZES))
        if kind == "bert"
        else XLMRobertaModel(XLMRobertaConfig(**SIZES, pad_token_id=1))
    ).eval()
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ROWS]
        first = prepare_packed_encoding(model)
        assert first == (0 if kind == "bert" else 2)
        together = encode_packed(model, ROWS, first)
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=0.1), (
        "the texts must differ for the comparison to mean something"
    )


def test_unsupported_models_keep_their_attention() -> None:
    model = DistilBertModel(DistilBertConfig(vocab_size=50, dim=32, n_layers=1, n_heads=4, hidden_dim=64))
    before = model.config._attn_implementation
    assert prepare_packed_encoding(model) is None
    assert model.config._attn_implementation == before
    rows = [[0] * n for n in (1, 1, 2, 3, 3)]
    order = list(range(5))
    lengths = list(map(len, rows))
    assert list(length_batches(order, lengths, mixed=False)) == [[0, 1], [2], [3, 4]]
    assert list(length_batches(order, lengths, mixed=True)) == [order]


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_vectors_equal_those_of_equal_length_batches(minilm_folder: Path, dtype: str) -> None:
    texts = [f"{'fare ' * n}{word}" for n in range(0, 200, 7) for word in ("dog", "boat", "sea")]
    embedder = Embedder(minilm_folder, dtype)
    together = embedder.encode(texts)
    rows = [encoding.ids for encoding in embedder.tokenizer.encode_batch_fast(texts)]
    apart = PackedEncoder(EmbedderFolder(minilm_folder), getattr(torch, dtype), mixed=False)
    assert np.array_equal(together, apart.encode(rows, lambda done: None))

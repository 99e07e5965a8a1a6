"""The embedder with its default model: reproducible vectors, no truncation, no code from the model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rag.embedding.embedder import Embedder
from rag.embedding.packed import (
    MAX_ROWS_PER_PRODUCT,
    DeterministicLinear,
    ProductSizes,
    cpu_supports_bf16,
)
from rag.errors import BadInput

pytestmark = pytest.mark.real

TEXTS = [
    "Dogs travel on deck.",
    "a",
    "",
    "The fare is 14.50 euros for an adult. " * 4,
    "Is there parking?",
] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vector_does_not_depend_on_other_texts(minilm_folder: Path, dtype: str) -> None:
    embedder = Embedder(minilm_folder, dtype)
    together = embedder.encode(TEXTS)
    assert together.shape == (len(TEXTS), 384)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], embedder.encode(TEXTS[::-1]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_are_bit_identical_in_any_batch(minilm_folder: Path, dtype: str) -> None:
    """Lengths from 3 tokens to the window: alone, with one other text of that length, and with forty."""
    embedder = Embedder(minilm_folder, dtype)
    for length in (1, 14, 31, 62, 130, 254):
        words = [f"{'fare ' * (length - 1)}{word}" for word in ("dog", "boat", "sea", "harbour") * 10]
        alone = np.concatenate([embedder.encode([text]) for text in words[:4]])
        pair = embedder.encode(words[:2])
        many = embedder.encode(words)
        assert np.array_equal(alone[:2], pair), length
        assert all(np.array_equal(alone, many[at : at + 4]) for at in (0, 16, 36)), length


def test_deterministic_linear_gives_equal_bits_for_any_row_count() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Linear(1536, 384, dtype=dtype)
        sizes = ProductSizes(layer)
        assert sizes.smallest(MAX_ROWS_PER_PRODUCT) == MAX_ROWS_PER_PRODUCT
        deterministic = DeterministicLinear(layer, sizes)
        rows = torch.randn(2 * MAX_ROWS_PER_PRODUCT + 7, 1536).to(dtype)
        with torch.inference_mode():
            full = deterministic(rows)
            assert torch.allclose(full, layer(rows), atol=0.05)
            for count in (1, 2, 15, 16, 33, 100, 300, 513, MAX_ROWS_PER_PRODUCT):
                assert torch.equal(deterministic(rows[:count]), full[:count]), count
                assert torch.equal(deterministic(rows[None, -count:])[0], full[-count:]), count


def test_similar_texts_are_near_and_bf16_is_close_to_float32(minilm_folder: Path, minilm: Embedder) -> None:
    dog, pets, diesel = minilm.encode(
        ["Can I bring my dog?", "Pets are welcome aboard.", "Diesel costs 2 euros a litre."]
    )
    assert dog @ pets > dog @ diesel + 0.2
    exact = Embedder(minilm_folder, "float32").encode(TEXTS)
    assert (exact * minilm.encode(TEXTS)).sum(axis=1).min() > 0.999


def test_long_text_is_averaged_over_windows(minilm: Embedder) -> None:
    start = "ferry timetable and harbour fares " * 80
    one, other = minilm.encode([start + "dogs " * 300, start + "lighthouse " * 300])
    assert one @ other < 0.95
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)


def test_fingerprint_changes_with_settings_and_bad_folders_fail(
    minilm_folder: Path, minilm: Embedder, tmp_path: Path
) -> None:
    assert minilm.fingerprint == Embedder(minilm_folder, "float32", "other name").fingerprint
    assert "384d 256 tokens mean unit" in minilm.fingerprint
    assert (minilm.dimension, minilm.max_tokens) == (384, 254)
    copy = tmp_path / "copy"
    shutil.copytree(minilm_folder, copy)
    (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert Embedder(copy).fingerprint != minilm.fingerprint
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "custom.Model"}}))
    with pytest.raises(BadInput, match="names code"):
        Embedder(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"no model\.safetensors"):
        Embedder(copy)
    with pytest.raises(BadInput, match="'float8'"):
        Embedder(minilm_folder, "float8")


def test_bf16_support_is_read_from_cpu_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t: fpu avx512f avx512_bf16\n")
    assert cpu_supports_bf16(info)
    info.write_text("flags\t: fpu avx2\n")
    assert not cpu_supports_bf16(info)
    assert not cpu_supports_bf16(tmp_path / "none")

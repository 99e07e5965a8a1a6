"""The CUDA paths of training, 4 bits, decoding and embedding, on tiny models; they need a GPU and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import models
from benchmarks.gpu.parts import Setting, training_task
from runners.data.formats import Message

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Tiny models on the device that torch chooses."""
    work = tmp_path_factory.mktemp("gpu")
    return Setting(
        work, "cpu", work / "results"
    )  # "cpu" makes the models tiny; they run where torch sees a GPU


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_training_on_the_gpu_learns(setting: Setting, family: str, method: str, tmp_path: Path) -> None:
    from runners.plan.train_config import TrainConfig
    from runners.train import fit

    task = training_task(setting, family)
    config = TrainConfig(method=method, epochs=6, learning_rate=3e-3 if method == "full" else 1e-2, seed=1)
    result = fit(task.train, config, task.base, tmp_path / "out")
    assert result.last_loss < result.first_loss
    again = fit(task.train, config, task.base, tmp_path / "again")
    assert again.last_loss == pytest.approx(result.last_loss, rel=0.02)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_decoding_on_the_gpu_equals_the_plain_path(setting: Setting, family: str) -> None:
    from runners.inference.local import LocalGenerator

    base = setting.model(family)
    drawn = random.Random(3)
    chats: list[list[Message]] = [
        [{"role": "user", "content": " ".join(drawn.choices(["ferry", "noon", "pier", "fare"], k=size))}]
        for size in (3, 40, 120)
    ]
    own = LocalGenerator(base, dtype="float32").generate(chats, 12)
    plain = LocalGenerator(base, dtype="float32", kernels="plain").generate(chats, 12)
    assert [completion.text for completion in own] == [completion.text for completion in plain]


def test_embedding_on_the_gpu_equals_the_library(setting: Setting) -> None:
    from sentence_transformers import SentenceTransformer

    from rag.embedding.embedder import Embedder

    folder = models.embedder_folder(setting.work / "embedder-tiny", tiny=True)
    texts = ["a ferry", "a pier " * 60, "noon"]
    library = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.abs(np.asarray(Embedder(folder).encode(texts)) - library).max() < 1e-4

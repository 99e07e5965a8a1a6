"""The answerability model where the index has another embedder: from this machine's copy, never downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rag.errors import CannotRun
from runners.models.answer_reader import answerability_weights, load_answer_reader
from runners.models.resolve import resolve_model


@pytest.fixture
def other_embedder(tmp_path: Path) -> Path:
    """The weights of a model that is not all-MiniLM."""
    folder = tmp_path / "other"
    folder.mkdir()
    save_file({"encoder.LayerNorm.weight": torch.ones(4)}, folder / "model.safetensors")
    return folder


def test_another_embedder_uses_the_copy_on_this_machine(other_embedder: Path) -> None:
    own = load_answer_reader(resolve_model("all-minilm-l6-v2")).required(answerability_weights())
    for embedder in (other_embedder, None):
        reader = load_answer_reader(embedder).required(answerability_weights())
        texts = ["Dogs travel for 3 euros.", "The ferry leaves at 7.10."]
        assert (
            reader.scores("What does a dog cost?", texts).tolist()
            == own.scores("What does a dog cost?", texts).tolist()
        )


def test_nothing_is_downloaded_for_it(
    other_embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    reader = load_answer_reader(other_embedder)
    assert reader.model is None
    assert "other is another model" in reader.why_not
    assert "tunewise models pull all-minilm-l6-v2" in reader.why_not
    assert not (tmp_path / "cache").exists()
    with pytest.raises(CannotRun, match="answerability model"):
        reader.required(answerability_weights())

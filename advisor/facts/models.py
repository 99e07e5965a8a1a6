"""Base models known by name: their shapes, from each model's published config."""

from __future__ import annotations

from dataclasses import dataclass

from runners.memory import Shape


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One base model; ``shape`` comes from the config.json of ``hub`` as of ``date``."""

    name: str
    hub: str
    shape: Shape
    context: int
    licence: str
    date: str = "2026-11"

    @property
    def params_b(self) -> float:
        """Billions of parameters."""
        return self.shape.params / 1e9


def _m(
    name: str, hub: str, params_b: float, numbers: tuple[int, ...], tied: bool, context: int, licence: str
) -> ModelFacts:
    """Build a row; ``numbers`` are layers, hidden, heads, kv heads, head dim, intermediate, vocabulary."""
    layers, hidden, heads, kv_heads, head_dim, intermediate, vocab = numbers
    shape = Shape(
        int(params_b * 1e9), layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, tied=tied
    )
    return ModelFacts(name, hub, shape, context, licence)


MODELS: tuple[ModelFacts, ...] = (
    _m("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", 0.1345,
       (30, 576, 9, 3, 64, 1536, 49152), True, 8192, "Apache-2.0"),
    _m("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 0.362,
       (32, 960, 15, 5, 64, 2560, 49152), True, 8192, "Apache-2.0"),
    _m("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1.711,
       (24, 2048, 32, 32, 64, 8192, 49152), True, 8192, "Apache-2.0"),
    _m("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", 0.494,
       (24, 896, 14, 2, 64, 4864, 151936), True, 32768, "Apache-2.0"),
    _m("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", 1.544,
       (28, 1536, 12, 2, 128, 8960, 151936), True, 32768, "Apache-2.0"),
    _m("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct", 7.615,
       (28, 3584, 28, 4, 128, 18944, 152064), False, 32768, "Apache-2.0"),
    _m("qwen2.5-14b-instruct", "Qwen/Qwen2.5-14B-Instruct", 14.77,
       (48, 5120, 40, 8, 128, 13824, 152064), False, 32768, "Apache-2.0"),
    _m("qwen2.5-32b-instruct", "Qwen/Qwen2.5-32B-Instruct", 32.763,
       (64, 5120, 40, 8, 128, 27648, 152064), False, 32768, "Apache-2.0"),
    _m("qwen3-4b", "Qwen/Qwen3-4B", 4.022, (36, 2560, 32, 8, 128, 9728, 151936), True, 40960, "Apache-2.0"),
    _m("qwen3-8b", "Qwen/Qwen3-8B", 8.191, (36, 4096, 32, 8, 128, 12288, 151936), False, 40960, "Apache-2.0"),
    _m("llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", 1.236,
       (16, 2048, 32, 8, 64, 8192, 128256), True, 131072, "Llama 3.2"),
    _m("llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", 3.213,
       (28, 3072, 24, 8, 128, 8192, 128256), True, 131072, "Llama 3.2"),
    _m("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", 8.03,
       (32, 4096, 32, 8, 128, 14336, 128256), False, 131072, "Llama 3.1"),
    _m("llama-3.1-70b-instruct", "meta-llama/Llama-3.1-70B-Instruct", 70.554,
       (80, 8192, 64, 8, 128, 28672, 128256), False, 131072, "Llama 3.1"),
    _m("mistral-7b-instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3", 7.248,
       (32, 4096, 32, 8, 128, 14336, 32768), False, 32768, "Apache-2.0"),
)  # fmt: skip

DEFAULT = "smollm2-135m-instruct"


def find(name: str) -> ModelFacts | None:
    """Return the model of this name or hub id, whatever the case; None when it is not in the table."""
    wanted = name.lower()
    return next((m for m in MODELS if wanted in (m.name, m.hub.lower())), None)

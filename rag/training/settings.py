"""How an embedder or a reranker is trained (:class:`TuningSettings`), on which rows, and what a training reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rag.errors import BadInput, CannotRun, install_hint

TuningMethod = Literal["auto", "full", "lora"]
LORA_FROM_PARAMETERS = 200_000_000
"""Parameters from which ``auto`` trains a LoRA. AdamW in fp32 holds 16 bytes for each trained parameter (weight, gradient,
two moments): 3.2 GB here, beside the activations. Embedders of the base size (109 M) are commonly trained whole, those made
from language models with LoRA (E5-mistral: Wang et al. 2024, arXiv:2401.00368, rank 16)."""
LORA_RANK = 16
"""Rank of the LoRA, as E5-mistral has it; alpha is twice the rank."""
LORA_LEARNING_RATE_FACTOR = 10.0
"""A LoRA is trained with a learning rate so many times that of all weights (Schulman et al. 2025, "LoRA Without Regret")."""
CACHED_FROM_PARAMETERS = 50_000_000
"""Parameters from which gradients are cached (GradCache: Gao et al. 2021, arXiv:2101.06983): a batch of 32 pairs with a
negative each takes 4 to 6 GB for 22 M parameters and would take 16 GB for 108 M. The loss is the same, a step takes a
forward pass more."""
CACHED_BATCH = 8
"""Texts that are in memory at once then."""
EXTRA = "retriever"
INSTALL = install_hint(EXTRA)


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """The settings of one training; the defaults were chosen in benchmarks/LOG.md (tuned retrieval)."""

    method: TuningMethod = "auto"
    """full trains all weights, lora adapters that are merged at the end, auto LoRA from 200 M parameters on."""
    epochs: float = 3.0
    """Passes over the pairs."""
    batch_size: int = 32
    """Pairs of a batch: each question is told apart from the passages of all others in it."""
    learning_rate: float = 2e-5
    """Highest learning rate of all weights, after a warm-up of a tenth of the steps; a LoRA takes ten times as much."""
    hard_negatives: int = 1
    """Passages mined for each pair that the search ranks high and that do not answer; 0 takes those of the batch alone."""
    original_share: float = 0.0
    """Share of the weights before in those saved, 0 to 1: their mean forgets less (LM-Cocktail: Xiao et al. 2023)."""
    seed: int = 0
    cached_from_parameters: int = CACHED_FROM_PARAMETERS
    """Parameters from which gradients are cached, so that a batch takes less memory and a step longer."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints: what a kill loses at most."""

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the setting."""
        bounds = {
            "epochs": (0.01, 100),
            "batch_size": (2, 4096),
            "learning_rate": (1e-8, 1),
            "hard_negatives": (0, 16),
            "original_share": (0, 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise BadInput(f"{name} is {value!r}, but must be {low:g} to {high:g}", "correct the setting")
        if self.method not in ("auto", "full", "lora"):
            raise BadInput(
                f"method is {self.method!r}, but must be auto, full or lora", "correct the setting"
            )

    def texts_at_once(self, parameters: int) -> int:
        """Return how many texts of a batch are in memory at once with all that their gradients need."""
        return (
            CACHED_BATCH
            if parameters >= self.cached_from_parameters
            else self.batch_size * (2 + self.hard_negatives)
        )

    def method_for(self, parameters: int) -> str:
        """Return full or lora for a model of so many parameters."""
        if self.method != "auto":
            return self.method
        return "lora" if parameters >= LORA_FROM_PARAMETERS else "full"


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row as a trainer reads it."""

    question: str
    passage: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """What one training did."""

    method: str
    """full or lora."""
    parameters: int
    trained_parameters: int
    pairs: int
    steps: int
    seconds: float
    """Of this process; a training that was continued took longer in all."""
    resumed_at: int
    """The step at which it was continued, 0 for a training from the start."""
    loss_first: float | None
    """Mean loss of the first tenth of the steps of this process."""
    loss_last: float | None
    """Mean loss of the last tenth of them."""
    cut: int
    """Texts longer than the model reads, trained on by their beginnings."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return asdict(self)


def require_training_library() -> None:
    """Raise CannotRun where ``datasets`` is missing, which sentence-transformers' trainer reads its rows with."""
    from importlib.util import find_spec

    if find_spec("datasets") is None:
        raise CannotRun("tuning a retriever needs the package datasets, which is not installed", INSTALL)

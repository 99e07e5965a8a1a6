"""The answerability model of a run: found without a download, or the reason why passages are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rag.embedding.language import detect_language
from rag.errors import BadInput, CannotRun
from rag.files import sha256_file
from runners.models.resolve import Model, downloads_needed, resolve_model
from runners.resources.device import torch_device

if TYPE_CHECKING:
    from rag.embedding.answerability import AnswerabilityModel

BASE = "all-minilm-l6-v2"
"""The model whose weights it changes."""
OTHER_WEIGHTS = "the refusals of the run were fitted with another answerability model than this tunewise has"
_ENGLISH = "English"


def answerability_weights() -> str:
    """Return the SHA-256 of the answerability model's trained weights, without torch."""
    return sha256_file(Path(str(files("rag.embedding"))) / "answerability.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReader:
    """The answerability model, or why there is none."""

    model: AnswerabilityModel | None = None
    why_not: str = ""

    def required(self, fitted_with: str) -> AnswerabilityModel:
        """Return the model for a threshold that was fitted with the weights of a SHA-256.

        Raises:
            CannotRun: if it cannot be used here.
            BadInput: if this version has other weights.
        """
        if fitted_with != answerability_weights():
            raise BadInput(OTHER_WEIGHTS, "fit them again: tunewise run RUN --resume")
        if self.model is None:
            raise CannotRun(
                f"this run's refusals need the answerability model: {self.why_not}",
                f"fetch what it is made of: tunewise models pull {BASE}",
            )
        return self.model


def load_answer_reader(embedder: Path | Model | None) -> AnswerReader:
    """Load the answerability model, or say why it cannot be.

    It is made of the index's embedder where that is the model it needs, else of the copy on this machine; nothing is
    downloaded for it.

    Args:
        embedder: the index's embedder, or its folder; None for an index of an embedder that is not known.
    """
    from rag.embedding.answerability import WEIGHTS_FILE, AnswerabilityModel
    from rag.embedding.low_rank import why_not_base

    folder = embedder.folder if isinstance(embedder, Model) else embedder
    reason = (
        "the embedder of the index is not known" if folder is None else why_not_base(folder, WEIGHTS_FILE)
    )
    if reason and not downloads_needed([BASE]):
        folder = resolve_model(BASE).folder
        reason = why_not_base(folder, WEIGHTS_FILE)
    if reason or folder is None:
        return AnswerReader(why_not=f"{reason} ({BASE}; tunewise models pull {BASE} fetches it)")
    return AnswerReader(model=AnswerabilityModel(folder, device=torch_device().type))


def why_not_english(texts: Sequence[str]) -> str:
    """Return why texts cannot be read by a model of English, "" where most of them seem to be English."""
    counts = Counter(detect_language(text) for text in texts[:200])
    known = Counter({name: count for name, count in counts.items() if name})
    if not known or known[_ENGLISH] * 2 >= known.total():
        return ""
    return f"most questions are in {known.most_common(1)[0][0]}, and the model reads English"

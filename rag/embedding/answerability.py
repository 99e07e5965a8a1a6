"""The answerability model: a small cross-encoder that says whether a text answers a question. Imports torch.

Its score asks for the answer, not for shared words: it was trained on questions in the words of documents and in those of
customers, on passages that answer them and on near ones that do not. It is all-MiniLM-L6-v2 with low-rank changes (LoRA,
Hu et al. 2021) of its linear layers and a new head, shipped with the package (``answerability.safetensors``);
``scripts/train_answerability.py`` makes that file. It reads English.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from rag.embedding.library import best_device
from rag.embedding.low_rank import add_changes, why_not_base
from rag.embedding.packed import Bert, resolve_dtype
from rag.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

WEIGHTS_FILE = Path(__file__).with_name("answerability.safetensors")
MAX_TOKENS = 256
"""Tokens of question and text together, special tokens included; the longer one is cut."""
KEPT = 500
"""Questions whose scores are kept."""


class AnswerabilityNetwork(nn.Module):
    """A BERT with two heads: one score of the pair, and one of each token for belonging to the evidence."""

    def __init__(self, bert: Bert, hidden_size: int) -> None:
        """Take the transformer, or PEFT's wrapper of it; the heads are new."""
        super().__init__()
        self.bert = bert
        self.pair = nn.Linear(3 * hidden_size, 1)
        self.evidence = nn.Linear(hidden_size, 1)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log odds that each text answers its question, [rows], and those of its tokens, [rows, tokens].

        Args:
            ids: token ids, [rows, tokens].
            mask: 1 for tokens, 0 for padding, [rows, tokens].
            types: 0 for the question, 1 for the text, [rows, tokens].
        """
        hidden = self.bert.encode_padded(ids, mask, types).float()
        of_text = (types * mask).float()
        of_question = mask.float() - of_text
        of_question[:, 0] = 0  # without [CLS], which has a part of its own
        first = hidden[:, 0]
        pooled = torch.cat([first, _mean(hidden, of_question), _mean(hidden, of_text)], dim=1)
        return self.pair(pooled).squeeze(-1), self.evidence(hidden).squeeze(-1)


class AnswerabilityModel:
    """Scores texts by whether they answer a question; a :class:`rag.embedding.reranker.Scorer`.

    The texts of one question are one batch, so that scores do not depend on what else is asked.
    """

    def __init__(
        self, folder: Path | str, dtype: str = "auto", device: str = "auto", weights: Path = WEIGHTS_FILE
    ) -> None:
        """Load the base and apply the trained changes.

        Args:
            folder: of all-MiniLM-L6-v2; :func:`~rag.embedding.low_rank.why_not_base` must have returned "".
            dtype: float32, bfloat16, or auto (bfloat16 where the CPU computes in it).
            device: cpu, cuda, mps or xpu; auto takes a GPU where there is one.
            weights: the file of the trained changes.

        Raises:
            BadInput: when the folder is another model, or the weights are damaged.
        """
        if reason := why_not_base(folder, weights):
            raise BadInput(f"the answerability model cannot be loaded: {reason}")
        self.truncated = 0
        self._known: OrderedDict[tuple[str, tuple[str, ...]], np.ndarray] = OrderedDict()
        self._tokenizer = pair_tokenizer(Path(folder))
        self._device = best_device() if device == "auto" else device
        self._dtype = resolve_dtype(dtype)
        bert = Bert.load(Path(folder), torch.float32)
        network = AnswerabilityNetwork(bert, bert.hidden_size)
        _apply(network, weights)
        network.bert.to(self._dtype)
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return float32 [len(texts)]: the log odds that each text answers the question.

        A pair that is too long is cut and counted in ``truncated``. The last scores are kept, as several arms ask the same.
        """
        if not texts:
            return np.empty(0, dtype=np.float32)
        key = question, tuple(texts)
        if (known := self._known.get(key)) is not None:
            return known.copy()
        encodings = self._tokenizer.encode_batch([(question, text) for text in texts])
        self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        scores, _ = self._network(*(part.to(self._device) for part in padded(encodings)))
        result = np.asarray(scores.float().cpu().numpy(), dtype=np.float32)
        self._known[key] = result
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return result.copy()


def pair_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, cutting pairs to :data:`MAX_TOKENS`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS, strategy="longest_first")
    return tokenizer


def padded(encodings: Sequence[Encoding]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, mask and types of tokenised pairs, int64 [pairs, tokens of the longest], padded with 0."""
    width = max(len(encoding.ids) for encoding in encodings)
    parts = np.zeros((3, len(encodings), width), dtype=np.int64)
    for row, encoding in enumerate(encodings):
        length = len(encoding.ids)
        parts[:, row, :length] = encoding.ids, encoding.attention_mask, encoding.type_ids
    ids, mask, types = torch.from_numpy(parts)
    return ids, mask, types


def _apply(network: AnswerabilityNetwork, weights: Path) -> None:
    """Add the low-rank changes to the linear layers and set the heads."""
    add_changes(network.bert, weights)
    with safe_open(str(weights), "pt") as tensors:
        for name in ("pair", "evidence"):
            head = getattr(network, name)
            head.load_state_dict(
                {part: tensors.get_tensor(f"{name}.{part}").float() for part in ("weight", "bias")}
            )


def _mean(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean over tokens, [rows, hidden size]; 0 where all weights are 0."""
    total = (hidden * weights[..., None]).sum(dim=1)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)
